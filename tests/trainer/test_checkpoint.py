"""The store of checkpoints, without a trainer: what is there is whole, and what is not whole is not used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from switchyard.trainer.checkpoint import CheckpointStore, read_checkpoint
from switchyard.trainer.errors import CheckpointDamaged, CheckpointFailed

IDENTITY = {"recipe": {"lora": {"r": 8}}, "base": "sha256:0"}


def write(store: CheckpointStore, step: int) -> Path:
    def fill(directory: Path) -> None:
        (directory / "weights").write_bytes(b"w" * 1000 + str(step).encode())
        (directory / "sums").write_text("{}")

    return store.write(step, IDENTITY, fill).directory


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def add(path: Path) -> None:
    path.with_name("stranger").write_bytes(b"")


def edit_step(path: Path) -> None:
    manifest = path.with_name("checkpoint.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"step": 9}))


@pytest.mark.parametrize("change", [truncate, flip, empty, add, Path.unlink, edit_step])
@pytest.mark.parametrize("name", ["weights", "checkpoint.json"])
def test_whatever_was_changed_is_refused_by_name_and_the_one_before_is_found(
    store: CheckpointStore, name: str, change: Callable[[Path], None]
) -> None:
    write(store, 1)
    change(write(store, 2) / name)

    newest = store.newest()
    assert newest.checkpoint is not None
    assert (newest.checkpoint.step, newest.checkpoint.identity) == (1, IDENTITY)
    assert "step-00000002 is damaged" in newest.refused[0]
    # Set aside, it neither counts as a checkpoint nor stands in the way of the next one.
    assert store.steps() == [1]
    assert (store.directory / "refused-step-00000002").is_dir()
    write(store, 2)
    assert store.steps() == [1, 2]


def test_an_unreadable_file_is_damage(store: CheckpointStore) -> None:
    path = write(store, 1) / "weights"
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointDamaged, match="weights has no readable content"):
        read_checkpoint(path.parent)


def test_old_ones_go_only_when_a_newer_one_is_durable(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 1)
    write(store, 2)
    there_at_fsync: list[set[str]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        there_at_fsync.append({path.name for path in store.directory.iterdir() if path.name.startswith("step")})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write(store, 3)
    assert all({"step-00000001", "step-00000002"} <= names for names in there_at_fsync)
    assert "step-00000003" in there_at_fsync[-1]
    assert store.steps() == [2, 3]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed\nand more")])
def test_a_disk_that_refuses_leaves_what_was_there(store: CheckpointStore, error: Exception) -> None:
    write(store, 1)
    write(store, 2)

    def fill(directory: Path) -> None:
        (directory / "weights").write_bytes(b"half")
        raise error

    with pytest.raises(CheckpointFailed, match=r"step-00000003: (No space left|write failed)\b.*step 2 is whole"):
        store.write(3, IDENTITY, fill)
    assert sorted(path.name for path in store.directory.iterdir()) == ["step-00000001", "step-00000002"]


def test_half_written_ones_are_swept(store: CheckpointStore) -> None:
    write(store, 1)
    (store.directory / ".step-00000002-abc").mkdir()
    assert store.steps() == [1]
    store.sweep()
    assert [path.name for path in store.directory.iterdir()] == ["step-00000001"]
