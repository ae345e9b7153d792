"""What is said of a version counts for the adapter through which it was said; a signature counts everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock
from publishing import publish
from signers import Signer

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.errors import ArgumentInvalid, PolicyUnmet, StatementRefused
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements import statements
from switchyard.registry.statements.kinds import StatementKind, StatementRecord
from switchyard.registry.statements.signing import Signed, sign_version
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
RIVALS = AdapterName("rivals", "copy")
EVALUATION = {
    "dataset_digest": "sha256:" + "d" * 64,
    "metrics": [{"name": "exact_match", "value": 0.98}],
    "serving_quantization": {"method": "nf4", "double_quantization": True, "compute_dtype": "float32"},
    "tool": "switchyard eval 0.1",
}
SAYINGS = [
    (StatementKind.EVALUATION, json.dumps(EVALUATION).encode()),
    (StatementKind.APPROVAL, b'{"approver": "eve"}'),
]


def missing(registry: Registry, name: AdapterName) -> set[str]:
    """What the alias still asks for."""
    with pytest.raises(PolicyUnmet) as caught:
        registry.aliases.move(name, "prod", 1, actor="bob", reason="")
    return {str(verdict.reason) for verdict in caught.value.verdicts}


@on_both
def test_what_is_said_elsewhere_opens_nothing(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    first: VersionRecord,
    people: Callable[[str], Signer],
) -> None:
    """Whoever rules a namespace may say in it what he likes of content that he has copied."""
    digest, ann = first.digest, people("ann")
    assert publish(registry, base, RIVALS, adapter(0)).digest == digest
    policy = AliasPolicy(required_statements=("evaluation", "signature"), min_approvals=1)
    registry.policies.set(name, "prod", policy, actor="root")
    registry.namespaces.set_policy("team", NamespacePolicy(trusted_keys=(ann.public,)), actor="root")
    for kind, payload in SAYINGS:
        registry.statements.attach(RIVALS, digest, kind, payload, actor="eve")
    assert registry.statements.of(name, digest)[0] == []
    assert missing(registry, name) == {"STATEMENT_MISSING", "SIGNATURE_MISSING", "APPROVALS_MISSING"}
    bundle = sign_version(Signed(digest, first.files), ann.private)
    signed = registry.statements.attach(RIVALS, digest, StatementKind.SIGNATURE, bundle, actor="eve")
    assert missing(registry, name) == {"STATEMENT_MISSING", "APPROVALS_MISSING"}
    said = [registry.statements.attach(name, digest, kind, payload, actor="eve") for kind, payload in SAYINGS]
    assert registry.statements.of(name, digest)[0] == [signed, *said]
    assert len(registry.statements.of(RIVALS, digest)[0]) == 3
    assert registry.aliases.move(name, "prod", 1, actor="bob", reason="").alias.version == 1


@on_both
def test_they_come_in_pages(registry: Registry, name: AdapterName, first: VersionRecord, clock: ManualClock) -> None:
    made = []
    for number in range(5):
        clock.now_s += number // 2
        said = registry.statements.attach(name, first.digest, "approval", b"{}", actor=f"a{number}")
        registry.statements.attach(RIVALS, first.digest, "approval", b"{}", actor=f"b{number}")
        made.append(said)
    made.sort(key=lambda record: (record.created_at_s, record.id))
    for size in range(1, 7):
        found, token = registry.statements.of(name, first.digest, size)
        assert len(found) == min(size, 5)
        while token:
            page, token = registry.statements.of(name, first.digest, size, token)
            assert page
            found += page
        assert found == made
    elsewhere = registry.statements.of(RIVALS, first.digest, 1)[1]
    for token in ("nonsense", elsewhere):
        with pytest.raises(ArgumentInvalid, match="begin again without it"):
            registry.statements.of(name, first.digest, 1, token)
    with pytest.raises(ArgumentInvalid, match="limit 0"):
        registry.statements.of(name, first.digest, 0)


@on_both
def test_nobody_says_too_much(
    registry: Registry, name: AdapterName, first: VersionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each move of an alias reads them all, and whoever may attach one could attach a million."""
    monkeypatch.setattr(statements, "MOST_BY_ONE", 2)

    def say(number: int, actor: str = "eve", place: AdapterName = name) -> StatementRecord:
        payload = json.dumps({"note": str(number)}).encode()
        return registry.statements.attach(place, first.digest, "approval", payload, actor=actor)

    said = [say(1), say(2)]
    revision = registry.feed.revision()
    with pytest.raises(StatementRefused, match=r"eve has attached 2 .* expected at most 2"):
        say(3)
    assert registry.feed.revision() == revision
    assert [say(1), say(2)] == said
    say(3, actor="bob")
    say(3, place=RIVALS)
    registry.statements.attach(name, first.digest, *SAYINGS[0], actor="eve")


def test_the_query_and_the_record_agree(registry: Registry, name: AdapterName, first: VersionRecord) -> None:
    for place in (name, RIVALS):
        for kind, payload in SAYINGS:
            registry.statements.attach(place, first.digest, kind, payload, actor="eve")
    every = [*registry.statements.of(name, first.digest)[0], *registry.statements.of(RIVALS, first.digest)[0]]
    for place in (name, RIVALS, AdapterName("team", "copy")):
        counted = [record for record in every if record.counts_for(place, first.digest)]
        assert counted == registry.statements.of(place, first.digest)[0]
    assert not any(record.counts_for(name, "sha256:" + "0" * 64) for record in every)
