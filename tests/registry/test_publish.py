"""Publishing: the whole version or none, once per idempotency key, and one version per content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from handmade import ManualClock, lora_tensors, write_adapter, write_base, zeros

from switchyard.registry import schema
from switchyard.registry.adapter_files import collect_files
from switchyard.registry.base_model import BaseModelSpec, describe_base
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
    VersionRefused,
)
from switchyard.registry.manifest import FileEntry, Lineage, Manifest, Metric
from switchyard.registry.records import PublishResult, UploadSession, VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.verdicts import Findings, Reason

Make = Callable[[int], Path]


def publish(
    registry: Registry, base: BaseModelSpec, name: AdapterName, source: Path, **options: object
) -> VersionRecord:
    done = registry.publish(name, source, base_digest=base.digest, publisher="ann", **options)  # type: ignore[arg-type]
    assert done.version is not None
    return done.version


def entries(source: Path) -> list[FileEntry]:
    return list(collect_files(source, Findings()).files)


def begin(registry: Registry, base: BaseModelSpec, name: AdapterName, source: Path, key: str = "k") -> UploadSession:
    return registry.begin_publish(
        name, entries(source), base_digest=base.digest, lineage=Lineage(), idempotency_key=key, publisher="ann"
    )


def send_all(registry: Registry, session: UploadSession, source: Path) -> None:
    for entry in entries(source):
        if entry.digest in session.missing:
            assert registry.upload(session.session_id, entry.digest, 0, [(source / entry.path).read_bytes()]).complete


def commit(registry: Registry, session: UploadSession, **options: object) -> PublishResult:
    return registry.commit_publish(session.session_id, actor="ann", **options)  # type: ignore[arg-type]


def events(root: Path) -> list[str]:
    engine = sa.create_engine(f"sqlite:///{root}/registry.db")
    with engine.connect() as connection:
        kinds = connection.execute(sa.select(schema.event.c.kind).order_by(schema.event.c.rev)).scalars().all()
    engine.dispose()
    return list(kinds)


def test_a_published_version(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> None:
    source = adapter(1)
    lineage = Lineage(code_commit="abc", metrics=(Metric("exact_match", 0.99),), environment={"peft": "0.21.2"})
    version = publish(registry, base, name, source, lineage=lineage, note="first\nlight", set_alias="prod")
    assert (version.namespace, version.adapter, version.version) == ("team", "addresses", 1)
    assert version.digest == Manifest.of(entries(source), base.digest, lineage).digest
    assert version.base == base
    assert version.lineage == lineage
    assert list(version.files) == entries(source)
    assert (version.publisher, version.note) == ("ann", "first\nlight")
    assert version.aliases == ("prod",)
    assert version.warnings == ()
    for entry in version.files:
        assert registry.read_blob(entry.digest) == (source / entry.path).read_bytes()


def test_versions_count_from_one_per_adapter(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    numbers = [publish(registry, base, name, adapter(seed)).version for seed in range(3)]
    assert numbers == [1, 2, 3]
    assert publish(registry, base, AdapterName("other", "addresses"), adapter(0)).version == 1


def test_the_same_content_is_the_same_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    first = publish(registry, base, name, adapter(0))
    again = registry.publish(name, adapter(0), base_digest=base.digest, publisher="bob", set_alias="prod")
    assert again.version == replace(first, aliases=("prod",))
    assert any(warning.startswith("ALREADY_PUBLISHED") for warning in again.warnings)
    assert publish(registry, base, name, adapter(1)).version == 2
    blobs = list((root / "blobs" / "sha256").iterdir())
    assert len(blobs) == len({path.name for path in blobs}) == 10


def test_another_lineage_is_another_version_of_the_same_blobs(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    first = publish(registry, base, name, adapter(0))
    second = publish(registry, base, name, adapter(0), lineage=Lineage(code_commit="other"))
    assert (second.version, second.files) == (2, first.files)
    assert second.digest != first.digest


def test_events_are_written_with_what_they_tell(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    publish(registry, base, name, adapter(0), set_alias="prod")
    registry.set_alias(name, "canary", 1, actor="ann")
    assert events(root) == ["base.registered", "version.created", "alias.set", "alias.set"]


# -- the steps -----------------------------------------------------------


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


# -- refusals ------------------------------------------------------------


def test_hostile_files_never_become_a_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, tmp_path: Path, root: Path
) -> None:
    for kind, tensors in {
        "lm_head": lora_tensors() | {"lm_head.weight": zeros("F32", 96, 64)},
        "base layer": lora_tensors()
        | {"base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight": zeros("F32", 64, 64)},
        "NaN": {key: (dtype, shape, b"\xff" * len(data)) for key, (dtype, shape, data) in lora_tensors().items()},
    }.items():
        with pytest.raises(VersionRefused) as caught:
            publish(registry, base, name, write_adapter(tmp_path / kind, tensors=tensors))
        assert {verdict.reason for verdict in caught.value.verdicts} <= {Reason.TENSOR_NAME, Reason.NON_FINITE}
    assert registry.list_adapters() == ([], "")
    assert events(root) == ["base.registered"]


def test_a_pickle_is_refused_with_its_name(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    (source / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(VersionRefused, match=r"FILE_NOT_ALLOWED 'adapter_model\.bin'"):
        publish(registry, base, name, source)


def test_the_wrong_base_is_refused(registry: Registry, name: AdapterName, tmp_path: Path, adapter: Make) -> None:
    """A base whose layers have other widths."""
    import json

    from handmade import safetensors_file

    directory = write_base(tmp_path / "wide")
    weights = {
        f"model.layers.{n}.self_attn.{p}.weight": zeros("F32", 128, 128) for n in (0, 1) for p in ("q_proj", "v_proj")
    }
    (directory / "model.safetensors").write_bytes(safetensors_file(weights))
    wide = registry.register_base(describe_base(directory))
    with pytest.raises(VersionRefused) as caught:
        publish(registry, wide, name, adapter(0))
    assert {verdict.reason for verdict in caught.value.verdicts} == {Reason.BASE_MISMATCH}
    assert len(caught.value.verdicts) == 4
    assert json.loads((adapter(0) / "adapter_config.json").read_text())["r"] == 8


def test_faults_of_files_and_lineage_come_together(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    (source / "x.py").write_text("")
    with pytest.raises(VersionRefused) as caught:
        publish(registry, base, name, source, lineage=Lineage(dataset_digest="x"))
    assert {verdict.reason for verdict in caught.value.verdicts} == {Reason.FILE_NOT_ALLOWED, Reason.LINEAGE}


def test_a_file_that_changes_while_it_is_published(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    readme = entries(source)[0]
    (source / "README.md").write_text("adapter X\n")
    with pytest.raises(DigestMismatch):
        registry.upload(session.session_id, readme.digest, 0, [(source / "README.md").read_bytes()])


def test_files_left_out_are_told(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> None:
    source = adapter(0)
    (source / "tokenizer.json").write_text("{}")
    done = registry.publish(name, source, base_digest=base.digest, publisher="ann")
    assert done.warnings == ("FILE_IGNORED 'tokenizer.json': not part of a version, left out",)
    assert done.version is not None
    assert done.version.warnings == ()


def test_a_lost_pin_is_found_before_the_row(
    root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    """Between linking a blob and its row, the session may lose its pins; a row then must not appear."""
    from switchyard.registry.steps import Step
    from switchyard.registry.validation import validate_files

    other = Registry.open(root)
    other.register_base(base)
    seen: list[Step] = []

    def abort_meanwhile(step: Step) -> None:
        seen.append(step)
        if step is Step.BLOB_DIRECTORY_SYNCED and seen.count(step) == 1:
            other.abort_publish(begin(other, base, name, adapter(0)).session_id)

    with Registry.open(root, validate=validate_files, on_step=abort_meanwhile) as registry:
        with pytest.raises(SessionClosed, match="ABORTED"):
            publish(registry, base, name, adapter(0), idempotency_key="k")
        assert len(begin(other, base, name, adapter(0)).missing) == 3
        assert publish(registry, base, name, adapter(0), idempotency_key="k").version == 1
    other.close()
