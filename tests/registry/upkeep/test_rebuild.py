"""A lost database comes back from the ledger and the blobs: every table that matters, row by row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from decay import abandon, blob_rows, rows_of, spoil
from handmade import ManualClock, write_adapter
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from publishing import begin, publish

from switchyard.registry.access.policy import Scope
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.errors import BackupBroken, DestinationExists, RegistryError
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import Lineage, Metric
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.rebuild import rebuild_index
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
# Sessions are lost with the database, blobs are looked at anew, and the last change is the rebuilding itself.
CHANGED = ("hold", "upload_session", "session_blob", "blob", "clock.rev", "event", "audit", "token.last_used_at_s")
NAMES = [AdapterName("team", "addresses"), AdapterName("team", "other"), AdapterName("rivals", "addresses")]


@contextmanager
def lost_and_rebuilt(registry: Registry, root: Path, clock: ManualClock) -> Iterator[Registry]:
    before, rows_then, blobs = rows_of(registry), rows_of(registry, *CHANGED), blob_rows(registry)
    registry.close()
    for path in root.glob("registry.db*"):
        path.unlink()
    into = root.with_name(f"{root.name}-rebuilt")
    report = rebuild_index(root, into=into, actor="ops", clock=clock)
    assert report.lost == ()
    with Registry.open(into, clock=clock, validate=validate_files) as again:
        found = rows_of(again)
        for table, rows in rows_of(again, *CHANGED).items():
            assert rows == rows_then[table], table
        assert found["event"][:-1] == before["event"]
        assert found["audit"][:-1] == before["audit"]
        assert found["event"][-1]["kind"] == "registry.restored"
        assert blob_rows(again).items() <= blobs.items()
        assert (report.versions, report.aliases) == (len(found["version"]), len(found["alias"]))
        assert report.blobs == len(found["blob"])
        check = again.inspector.fsck(deep=True)
        assert check.findings == ()
        yield again


def test_a_lived_in_registry(lived_in: Registry, root: Path, clock: ManualClock, base: BaseModelSpec) -> None:
    with lost_and_rebuilt(lived_in, root, clock) as again:
        assert again.base_models() == [base]
        assert again.resolve(AdapterRef.parse("team/addresses@prod")).alias_generation > 4


def test_work_goes_on(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, clock: ManualClock
) -> None:
    publish(registry, base, name, adapter(0), set_alias="prod", idempotency_key="k")
    with lost_and_rebuilt(registry, root, clock) as again:
        assert publish(again, base, name, adapter(0), idempotency_key="k").version == 1
        assert publish(again, base, name, adapter(1)).version == 2
        assert again.set_alias(name, "prod", 2, expected_generation=1, actor="ann").alias.generation == 2
        with lost_and_rebuilt(again, root.with_name(f"{root.name}-rebuilt"), clock):
            pass


def test_twice_in_a_row(lived_in: Registry, root: Path, tmp_path: Path, clock: ManualClock) -> None:
    """What was rebuilt has a ledger of its own."""
    lived_in.close()
    rebuild_index(root, into=tmp_path / "one", clock=clock)
    with Registry.open(tmp_path / "one", clock=clock) as one:
        rows = rows_of(one, *CHANGED)
    rebuild_index(tmp_path / "one", into=tmp_path / "two", clock=clock)
    with Registry.open(tmp_path / "two", clock=clock) as two:
        assert rows_of(two, *CHANGED) == rows


ON_VERSIONS = ("publish", "publish", "abandon", "begin", "state", "undelete", "purge")
ON_ALIASES = ("move", "rollback", "split", "unalias")
ON_RULES = ("tag", "describe", "policy", "quota", "access", "approve", "ledger")
ACTIONS = st.lists(
    st.tuples(st.sampled_from([*ON_VERSIONS, *ON_ALIASES, *ON_RULES]), st.integers(0, 2), st.integers(0, 3)),
    min_size=3,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=25, phases=[Phase.generate])
@given(actions=ACTIONS)
def test_any_history(template: Path, base: BaseModelSpec, actions: list[tuple[str, int, int]]) -> None:
    clock = ManualClock()
    with TemporaryDirectory() as directory:
        root = Path(shutil.copytree(template, Path(directory) / "registry"))
        with Registry.open(root, clock=clock, validate=validate_files) as registry:
            for turn, (action, who, what) in enumerate(actions):
                # Much of what is drawn is refused, and what was refused leaves nothing to rebuild.
                with suppress(RegistryError):
                    if action in ON_VERSIONS:
                        act_on_versions(registry, base, clock, action, NAMES[who], Path(directory) / str(what), turn)
                    elif action in ON_ALIASES:
                        act_on_aliases(registry, action, NAMES[who], what, turn)
                    else:
                        act_on_rules(registry, action, NAMES[who], what)
            with lost_and_rebuilt(registry, root, clock):
                pass


def act_on_versions(
    registry: Registry,
    base: BaseModelSpec,
    clock: ManualClock,
    action: str,
    name: AdapterName,
    source: Path,
    turn: int,
) -> None:
    what = int(source.name)
    write_adapter(source, seed=what)
    match action:
        case "publish":
            metric = Metric("exact_match", what / 7, "sha256:" + f"{what}" * 64)
            lineage = Lineage(dataset_digest="sha256:" + "d" * 64, metrics=(metric,), parents=(base.digest,))
            publish(registry, base, name, source, lineage=lineage, set_alias="prod" if what else None, note="a\nb")
        case "begin":
            begin(registry, base, name, source, f"open {turn}")
        case "abandon":
            abandon(registry, base, name, source, f"given up {turn}")
        case "state":
            states = [VersionState.YANKED, VersionState.DELETED, VersionState.DEPRECATED, VersionState.QUARANTINED]
            registry.states.move(name, turn % 3 + 1, states[what], actor="ann", reason=f"turn {turn}")
        case "undelete":
            registry.states.undelete(name, what, actor="ann", reason="")
        case _:
            clock.now_s += 400_000
            registry.collector.collect(dry_run=False, actor="ops")


def act_on_aliases(registry: Registry, action: str, name: AdapterName, what: int, turn: int) -> None:
    alias, actor, reason = ("prod", "canary")[turn % 2], f"user-{what}", f"turn {turn}"
    match action:
        case "move":
            evidence = {"error rate": what / 3}
            registry.aliases.move(name, alias, what, actor=actor, reason=reason, evidence=evidence)
        case "rollback":
            registry.aliases.rollback(name, alias, actor=actor, reason=reason)
        case "split":
            registry.aliases.set_canary(name, alias, what, 10 * what, actor=actor, reason=reason)
        case _:
            registry.aliases.delete(name, alias, actor=actor, reason=reason)


def act_on_rules(registry: Registry, action: str, name: AdapterName, what: int) -> None:
    match action:
        case "tag":
            registry.labels.tag(name, what or None, {"task": f"t{what}"}, ["old"] if what else [], actor="ann")
        case "describe":
            registry.labels.describe(name, description=f"text {what}", owner="ann", actor="ann")
        case "policy":
            registry.policies.set(name, "canary", AliasPolicy(protected=what == 3), actor="ann")
        case "quota":
            registry.namespaces.set_quota(name.namespace, 10**9 + what, actor="ann")
        case "approve":
            version = registry.get_version(AdapterRef(name.namespace, name.adapter, version=what))
            approval = b'{"approver": "ann", "note": "%d"}' % what
            registry.statements.attach(name, version.digest, "approval", approval, actor="ann")
        case "access":
            act_on_access(registry, f"p{what}", list(Scope)[what])
        case _:
            # The process that had followed is gone, and the next one catches up.
            registry._index.followers.clear()
            registry.ledger.begin()


def act_on_access(registry: Registry, principal: str, scope: Scope) -> None:
    registry.access.create_principal(principal, actor="ann")
    registry.access.grant(principal, scope, "team/*", actor="ann")
    token = registry.access.create_token(principal, actor="ann")
    if principal == "p1":
        registry.access.revoke_token(token.token_id, actor="ann")
        registry.access.revoke_grant(principal, scope, "team/*", actor="ann")
    if principal == "p2":
        registry.access.delete_principal(principal, actor="ann")


def test_what_is_lost_is_told(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, tmp_path: Path
) -> None:
    """A version after the end of the ledger, a blob that is gone, a change that does not parse."""
    first = publish(registry, base, name, adapter(0))
    publish(registry, base, name, adapter(1))
    registry._index.followers.clear()
    late = publish(registry, base, name, adapter(2))
    registry.close()
    weights, lines = first.file("adapter_model.safetensors").digest, (root / "ledger.jsonl").read_bytes().splitlines()
    (root / "blobs" / "sha256" / weights.removeprefix("sha256:")).unlink()
    event = json.loads(lines[-1])
    assert event["event"]["kind"] == "version.created"
    event["event"]["payload"]["files"].pop(0)
    (root / "ledger.jsonl").write_bytes(b"\n".join([*lines[:-1], json.dumps(event).encode()]) + b"\n")
    report = rebuild_index(root, into=tmp_path / "rebuilt")
    assert report.versions == 1
    told = "\n".join(report.lost)
    assert "version.created of team/addresses, cannot be made again" in told
    assert f"manifest {late.digest} is of no known version" in told
    assert f"blob {weights} is CORRUPT" in told
    with Registry.open(tmp_path / "rebuilt", validate=validate_files) as again:
        assert publish(again, base, name, adapter(0)).version == 1
        assert again.read_blob(weights)


def test_a_manifest_that_changed_is_not_believed(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, tmp_path: Path
) -> None:
    version = publish(registry, base, name, adapter(0))
    registry.close()
    spoil(root, version.digest)
    report = rebuild_index(root, into=tmp_path / "rebuilt")
    assert [finding for finding in report.lost if version.digest in finding and "CORRUPT" in finding]


def test_places_and_ledgers_that_cannot_be_used(lived_in: Registry, root: Path, tmp_path: Path) -> None:
    with pytest.raises(DestinationExists, match="not empty"):
        rebuild_index(root, into=root)
    (root / "ledger.jsonl").write_bytes(b'{"ledger": 99}\n')
    with pytest.raises(BackupBroken, match="does not begin"):
        rebuild_index(root, into=tmp_path / "one")
    (root / "ledger.jsonl").unlink()
    with pytest.raises(BackupBroken, match="restore a backup"):
        rebuild_index(root, into=tmp_path / "two")
