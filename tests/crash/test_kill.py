"""SIGKILL at every named step: the whole version or none, and one version after the retry."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from handmade import write_adapter, write_base
from registry_actor import (
    NAME,
    REF,
    Run,
    faults_of,
    open_registry,
    promote_until_killed,
    publish,
    publish_until_killed,
    upload_in_pieces,
    upload_until_killed,
)

from switchyard.registry.base_model import describe_base
from switchyard.registry.errors import AdapterNotFound, GenerationMismatch
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry

KILLED = -signal.SIGKILL
ALIAS_STEPS = [Step.ALIAS_MOVED, Step.ALIAS_BEFORE_COMMIT, Step.ALIAS_AFTER_COMMIT]
COLLECT_STEPS = [step for step in Step if step.startswith("collect.")]
BLOBS = 6
PUBLISH_STEPS = {
    Step.BEGIN_BEFORE_COMMIT: 1,
    Step.BEGIN_AFTER_COMMIT: 1,
    Step.PART_CREATED: BLOBS,
    Step.PART_WRITTEN: BLOBS,
    Step.PART_SYNCED: BLOBS,
    Step.BLOB_LINKED: BLOBS,
    Step.BLOB_DIRECTORY_SYNCED: BLOBS,
    Step.PART_REMOVED: BLOBS,
    Step.BLOB_ROW_BEFORE_COMMIT: BLOBS,
    Step.BLOB_ROW_AFTER_COMMIT: BLOBS,
    Step.VALIDATED: 1,
    Step.VERSION_ROW_WRITTEN: 1,
    Step.ALIAS_MOVED: 1,
    Step.COMMIT_BEFORE_COMMIT: 1,
    Step.COMMIT_AFTER_COMMIT: 1,
}
# First, one in the middle and last: files, then the documents that the registry writes.
POINTS = [
    (step, occurrence) for step, count in PUBLISH_STEPS.items() for occurrence in sorted({1, count // 2 + 1, count})
]


def versions(registry: Registry) -> list[int]:
    try:
        return [version.version for version in registry.list_versions(NAME)[0]]
    except AdapterNotFound:
        return []


def test_the_points_are_those_that_a_publish_passes(tmp_path: Path) -> None:
    seen: Counter[Step] = Counter()
    with open_registry(tmp_path / "r", lambda step: seen.update([step])) as registry:
        registry.register_base(describe_base(write_base(tmp_path / "base")))
        publish(registry, write_adapter(tmp_path / "a"), "k", set_alias="prod")
    assert dict(seen) == PUBLISH_STEPS
    assert set(PUBLISH_STEPS) | set(ALIAS_STEPS) | set(COLLECT_STEPS) == set(Step)


@pytest.mark.parametrize(("step", "occurrence"), POINTS, ids=str)
def test_publish(step: Step, occurrence: int, root: Path, sources: list[Path], run: Run) -> None:
    assert run(publish_until_killed, root, sources[0], step, occurrence) == KILLED
    assert faults_of(root) == []
    with open_registry(root) as registry:
        found = versions(registry)
        assert found == ([1] if step is Step.COMMIT_AFTER_COMMIT else [])
        if found:
            assert registry.resolve(REF).version.version == 1
        assert publish(registry, sources[0], "the-key", set_alias="prod") == 1
        assert versions(registry) == [1]
        assert registry.resolve(REF).alias_generation == 1
        for entry in registry.get_version(REF).files:
            assert registry.read_blob(entry.digest) == (sources[0] / entry.path).read_bytes()
    assert faults_of(root) == []
    assert len(list((root / "blobs" / "sha256").iterdir())) == BLOBS
    assert list((root / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("step", "occurrence"),
    [
        (Step.PART_WRITTEN, 1),
        (Step.PART_WRITTEN, 3),
        (Step.PART_WRITTEN, 6),
        (Step.PART_SYNCED, 3),
        (Step.BLOB_LINKED, 3),
        (Step.PART_REMOVED, 3),
        (Step.BLOB_ROW_BEFORE_COMMIT, 3),
        (Step.COMMIT_BEFORE_COMMIT, 1),
        (Step.COMMIT_AFTER_COMMIT, 1),
    ],
    ids=str,
)
def test_resumed_upload(step: Step, occurrence: int, root: Path, sources: list[Path], run: Run) -> None:
    """A client that sends blobs in pieces goes on from where the registry stands."""
    assert run(upload_until_killed, root, sources[0], step, occurrence) == KILLED
    assert faults_of(root) == []
    with open_registry(root) as registry:
        assert upload_in_pieces(registry, sources[0]) == 1
        assert versions(registry) == [1]
        assert registry.resolve(REF).alias_generation == 1
    assert faults_of(root) == []


@pytest.mark.parametrize("step", ALIAS_STEPS)
def test_promote(step: Step, root: Path, sources: list[Path], run: Run) -> None:
    with open_registry(root) as registry:
        publish(registry, sources[0], "first", set_alias="prod")
        publish(registry, sources[1], "second")
    assert run(promote_until_killed, root, step) == KILLED
    assert faults_of(root) == []
    with open_registry(root) as registry:
        committed = step is Step.ALIAS_AFTER_COMMIT
        found = registry.resolve(REF)
        assert (found.version.version, found.alias_generation) == ((2, 2) if committed else (1, 1))
        if committed:
            with pytest.raises(GenerationMismatch):
                registry.set_alias(NAME, "prod", 2, expected_generation=1, actor="retry")
        else:
            registry.set_alias(NAME, "prod", 2, expected_generation=1, actor="retry")
        assert [move.to_version for move in registry.alias_history(NAME, "prod")] == [2, 1]
    assert faults_of(root) == []
