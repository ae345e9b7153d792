"""Publishing step by step: sessions pin, resume, run out and end; nothing shows before the commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock
from publishing import begin, commit, entries, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import (
    ArgumentInvalid,
    BaseNotFound,
    BlobNotFound,
    DigestMismatch,
    GenerationMismatch,
    IdempotencyConflict,
    LeaseExpired,
    RefSyntax,
    SessionClosed,
    SessionNotFound,
    UploadIncomplete,
    UploadOffset,
)
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage
from switchyard.registry.location import Location
from switchyard.registry.records import PublishResult
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

pytestmark = on_both
Make = Callable[[int], Path]


def test_nothing_is_visible_before_the_commit(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    assert sorted(session.missing) == sorted(entry.digest for entry in entries(source))
    send_all(registry, session, source)
    assert registry.list_adapters() == ([], "")
    with pytest.raises(BlobNotFound):
        registry.read_blob(session.missing[0])
    done = commit(registry, session, set_alias="prod", expected_generation=0)
    assert done.version is not None
    assert [summary.latest_version for summary in registry.list_adapters()[0]] == [1]


def test_a_key_that_was_committed_gives_its_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    send_all(registry, session, source)
    version = commit(registry, session).version
    assert commit(registry, session).version == version
    assert begin(registry, base, name, source).committed == version
    assert (
        registry.publish(name, source, base_digest=base.digest, publisher="x", idempotency_key="k").version == version
    )
    assert registry.query_upload(session.session_id, session.missing[0]).complete


def test_a_key_means_one_thing(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> None:
    begin(registry, base, name, adapter(0))
    for other, source in ((name, adapter(1)), (AdapterName("team", "other"), adapter(0))):
        with pytest.raises(IdempotencyConflict, match="use a new key"):
            begin(registry, base, other, source)
    assert begin(registry, base, AdapterName("elsewhere", "addresses"), adapter(1)).committed is None


def test_an_alias_asked_for_after_the_commit(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    send_all(registry, session, source)
    commit(registry, session, set_alias="prod")
    commit(registry, session, set_alias="prod")
    assert len(registry.alias_history(name, "prod")) == 1
    with pytest.raises(IdempotencyConflict, match="move the alias"):
        commit(registry, session, set_alias="canary")


def test_commit_needs_every_byte(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> None:
    session = begin(registry, base, name, adapter(0))
    with pytest.raises(UploadIncomplete) as caught:
        commit(registry, session)
    assert caught.value.missing == session.missing


def test_the_session_goes_on_where_it_stood(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    weights = next(entry for entry in entries(source) if entry.path == "adapter_model.safetensors")
    data = (source / weights.path).read_bytes()
    assert registry.upload(session.session_id, weights.digest, 0, [data[:1000]]).committed_bytes == 1000
    resumed = begin(registry, base, name, source)
    assert resumed.session_id == session.session_id
    progress = registry.query_upload(session.session_id, weights.digest)
    assert (progress.committed_bytes, progress.complete) == (1000, False)
    with pytest.raises(UploadOffset):
        registry.upload(session.session_id, weights.digest, 0, [data])
    assert registry.upload(session.session_id, weights.digest, 1000, [data[1000:]]).complete
    assert weights.digest not in begin(registry, base, name, source).missing
    assert registry.upload(session.session_id, weights.digest, 0, [b"ignored"]).complete


def test_blobs_that_are_there_are_not_asked_for(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    publish(registry, base, name, adapter(0))
    source = adapter(1)
    (source / "adapter_config.json").write_bytes((adapter(0) / "adapter_config.json").read_bytes())
    missing = begin(registry, base, name, source).missing
    assert {entry.path for entry in entries(source) if entry.digest in missing} == {
        "README.md",
        "adapter_model.safetensors",
    }


def test_what_another_namespace_holds_is_not_given_away(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    """Who knows digests and sizes, and sends nothing, gets nothing; who sends the bytes does."""
    publish(registry, base, name, adapter(0))
    evil, source = AdapterName("evil", "copy"), adapter(0)
    session = begin(registry, base, evil, source)
    assert set(session.missing) == {entry.digest for entry in entries(source)}
    for digest in session.missing:
        assert not registry.query_upload(session.session_id, digest).complete
        assert not registry.sessions.confirm(session.session_id, digest).complete
        assert not registry.upload(session.session_id, digest, 0, []).complete
    with pytest.raises(UploadIncomplete) as caught:
        commit(registry, session)
    assert set(caught.value.missing) == set(session.missing)
    with pytest.raises(DigestMismatch):
        registry.upload(session.session_id, entries(source)[0].digest, 0, [bytes(entries(source)[0].size_bytes)])
    send_all(registry, session, source)
    done = commit(registry, session).version
    assert done is not None
    assert all(len(registry.read_blob(entry.digest)) == entry.size_bytes for entry in done.files)


def test_a_purged_version_gives_nothing_away(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    """Another namespace keeps the bytes alive; the one that has let them go sends them again."""
    source, other = adapter(0), AdapterName("elsewhere", "addresses")
    publish(registry, base, other, source)
    publish(registry, base, name, source)
    registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="old")
    assert begin(registry, base, name, source, "k1").missing == ()
    registry.abort_publish(begin(registry, base, name, source, "k1").session_id)
    clock.now_s += 10**8
    registry.collector.collect(dry_run=False, actor="ops")
    assert len(begin(registry, base, name, source, "k2").missing) == 3
    assert publish(registry, base, name, source).version == 1


def test_what_was_delivered_is_remembered(
    registry: Registry, location: Location, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    """By the session that has brought it, after a restart too, until it is given up."""
    source = adapter(0)
    publish(registry, base, AdapterName("elsewhere", "addresses"), source)
    session = begin(registry, base, name, source)
    first = entries(source)[0]
    assert registry.upload(session.session_id, first.digest, 0, [(source / first.path).read_bytes()]).complete
    with Registry.open(location, clock=clock, validate=validate_files) as restarted:
        assert restarted.query_upload(session.session_id, first.digest).complete
        resumed = begin(restarted, base, name, source)
        assert resumed.session_id == session.session_id
        assert set(resumed.missing) == set(session.missing) - {first.digest}
        assert first.digest in begin(restarted, base, name, source, "another key").missing
        restarted.abort_publish(resumed.session_id)
        assert first.digest in begin(restarted, base, name, source).missing
        send_all(restarted, begin(restarted, base, name, source), source)
        assert commit(restarted, session).version is not None


def test_a_commit_that_breaks_keeps_what_was_delivered(
    registry: Registry, location: Location, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    def breaks(step: Step) -> None:
        if step is Step.COMMIT_BEFORE_COMMIT:
            raise RuntimeError("killed")

    source = adapter(0)
    publish(registry, base, AdapterName("elsewhere", "addresses"), source)
    with Registry.open(location, clock=clock, validate=validate_files, on_step=breaks) as breaking:
        session = begin(breaking, base, name, source)
        send_all(breaking, session, source)
        with pytest.raises(RuntimeError, match="killed"):
            commit(breaking, session)
    again = begin(registry, base, name, source)
    assert (again.session_id, again.missing) == (session.session_id, ())
    assert commit(registry, again).version is not None


def test_who_goes_on_publishes_in_his_own_words(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    """A session that only asked, or was left by another, does not speak for the one that commits."""
    source = adapter(0)
    asked = begin(registry, base, name, source)
    send_all(registry, asked, source)
    assert commit(registry, asked, validate_only=True).version is None
    again = registry.begin_publish(
        name,
        entries(source),
        base_digest=base.digest,
        lineage=Lineage(),
        idempotency_key="k",
        publisher="bob",
        note="mine",
    )
    assert (again.session_id, again.missing) == (asked.session_id, ())
    done = commit(registry, again).version
    assert done is not None
    assert (done.publisher, done.note) == ("bob", "mine")


def test_wrong_bytes_can_be_sent_again(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    entry = entries(source)[0]
    with pytest.raises(DigestMismatch):
        registry.upload(session.session_id, entry.digest, 0, [bytes(entry.size_bytes)])
    send_all(registry, session, source)
    assert commit(registry, session).version is not None


def test_validate_only_changes_nothing(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    send_all(registry, session, source)
    assert commit(registry, session, validate_only=True, set_alias="prod") == PublishResult(None, ())
    assert registry.list_adapters() == ([], "")
    assert commit(registry, session).version is not None


def test_a_lease_runs_out_and_is_renewed(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    clock.now_s = session.expires_at_s + 1
    for call in (
        lambda: registry.upload(session.session_id, session.missing[0], 0, [b""]),
        lambda: commit(registry, session),
    ):
        with pytest.raises((LeaseExpired, UploadIncomplete), match="begin again with the same"):
            call()
    resumed = begin(registry, base, name, source)
    assert resumed.session_id == session.session_id
    assert resumed.expires_at_s > clock.now_s
    send_all(registry, session, source)
    clock.now_s += 3_000
    assert commit(registry, session).version is not None


def test_an_aborted_session(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    registry.upload(session.session_id, session.missing[0], 0, [b""])
    registry.abort_publish(session.session_id)
    registry.abort_publish(session.session_id)
    assert list((root / "uploads").iterdir()) == []
    with pytest.raises(BlobNotFound):
        registry.upload(session.session_id, session.missing[0], 0, [b""])
    with pytest.raises(SessionClosed, match="ABORTED"):
        commit(registry, session)
    again = begin(registry, base, name, source)
    send_all(registry, again, source)
    assert commit(registry, again).version is not None
    registry.abort_publish(again.session_id)
    assert registry.get_version(AdapterRef.parse("team/addresses:1")).version == 1


def test_a_commit_with_a_stale_generation_makes_no_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    publish(registry, base, name, adapter(0), set_alias="prod")
    with pytest.raises(GenerationMismatch):
        publish(registry, base, name, adapter(1), set_alias="prod", expected_generation=0, idempotency_key="k")
    assert registry.list_versions(name)[0][0].version == 1
    version = publish(registry, base, name, adapter(1), set_alias="prod", expected_generation=1, idempotency_key="k")
    assert (version.version, version.aliases) == (2, ("prod",))


def test_unknown_sessions_and_bases(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    for call in (
        lambda: registry.abort_publish("nothing"),
        lambda: registry.query_upload("../../etc", "sha256:x"),
        lambda: registry.commit_publish("nothing", actor="ann"),
    ):
        with pytest.raises(SessionNotFound):
            call()
    with pytest.raises(BaseNotFound, match="register"):
        registry.publish(name, adapter(0), base_digest="sha256:" + "0" * 64, publisher="ann")
    session = begin(registry, base, name, adapter(0))
    with pytest.raises(BlobNotFound):
        registry.upload(session.session_id, base.digest, 0, [b""])


@pytest.mark.parametrize(
    "arguments",
    [
        {"publisher": ""},
        {"publisher": "a\nb"},
        {"note": "x" * 10_001},
        {"note": "\x1b[31m"},
        {"idempotency_key": "x" * 257},
    ],
)
def test_arguments_out_of_range(
    arguments: dict[str, str], registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    with pytest.raises(ArgumentInvalid):
        registry.publish(name, adapter(0), **({"base_digest": base.digest, "publisher": "ann"} | arguments))  # type: ignore[arg-type]


def test_a_bad_alias_is_refused_before_anything_happens(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    for alias in ("Prod", "7", "../x"):
        with pytest.raises(RefSyntax):
            publish(registry, base, name, adapter(0), set_alias=alias)
    assert registry.list_adapters() == ([], "")


def test_two_files_with_the_same_bytes(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    for file in ("metrics.json", "training_manifest.json"):
        (source / file).write_text("{}")
    version = publish(registry, base, name, source)
    assert version.file("metrics.json").digest == version.file("training_manifest.json").digest
    assert len(version.files) == 5


def test_a_generation_needs_an_alias(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    with pytest.raises(ArgumentInvalid, match="without set_alias"):
        publish(registry, base, name, adapter(0), expected_generation=1)
