"""A full disk can be emptied again, and nothing new starts that would not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from handmade import ManualClock, write_adapter
from publishing import begin, publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import StorageFull
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName
from switchyard.registry.storage.reserve import Reserve
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
SIZE_BYTES = 2 << 20
DISK_BYTES = 8 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let its root mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_disk(disk: Path) -> Path:
    """Takes the last free block."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def test_the_space_is_really_taken_and_really_given_up(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, SIZE_BYTES)
    assert reserve.held_bytes == 0
    assert reserve.fill()
    assert reserve.fill()
    assert reserve.held_bytes >= SIZE_BYTES
    with reserve.released():
        assert reserve.held_bytes == 0
    assert reserve.held_bytes >= SIZE_BYTES


def test_nothing_is_put_aside_that_nobody_asked_for(tmp_path: Path) -> None:
    with Reserve(tmp_path, SIZE_BYTES).released():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_that_does_not_fit_takes_nothing(small_disk: Path) -> None:
    reserve = Reserve(small_disk, 2 * DISK_BYTES)
    assert not reserve.fill()
    assert reserve.held_bytes == 0
    (small_disk / "file").write_bytes(bytes(DISK_BYTES // 2))


def test_the_space_is_given_to_others_when_it_cannot_be_taken_back(small_disk: Path) -> None:
    reserve = Reserve(small_disk, SIZE_BYTES)
    assert reserve.fill()
    with reserve.released():
        ballast = fill_disk(small_disk)
    assert reserve.held_bytes == 0
    ballast.unlink()
    assert reserve.fill()


def test_what_does_not_fit_is_refused_before_it_starts(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = publish(registry, base, name, adapter(0))
    coming = sum(entry.size_bytes for entry in version.files if entry.path != "adapter_config.json")

    def with_free_bytes(free_bytes: int) -> None:
        monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=free_bytes, f_frsize=1))

    with_free_bytes(coming - 1)
    with pytest.raises(StorageFull, match="delete versions and collect"):
        begin(registry, base, name, adapter(1))
    with_free_bytes(coming)
    assert begin(registry, base, name, adapter(1), key="fits").committed is None
    monkeypatch.undo()
    reserve = registry._publisher._reserve = Reserve(root, SIZE_BYTES)
    assert reserve.fill()
    with_free_bytes(coming)
    assert begin(registry, base, name, adapter(1), key="beside it").committed is None
    with reserve.released():
        with_free_bytes(coming + SIZE_BYTES - 1)
        with pytest.raises(StorageFull, match=f"reserve wants {SIZE_BYTES}"):
            begin(registry, base, name, adapter(1), key="in its place")
    with_free_bytes(0)
    assert publish(registry, base, name, adapter(0)).version == 1


def test_bytes_that_go_to_another_disk_must_fit_there(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    apart = Reserve(tmp_path / "root", SIZE_BYTES, uploads=small_disk)
    apart.require_room(DISK_BYTES)
    with pytest.raises(StorageFull, match=f"free at {small_disk}"):
        apart.require_room(DISK_BYTES + 1)
    assert apart.fill()
    apart.require_room(DISK_BYTES)


def test_a_full_disk_is_emptied_by_a_collection(
    small_disk: Path, template: Path, base: BaseModelSpec, name: AdapterName, tmp_path: Path, clock: ManualClock
) -> None:
    """Without the reserve the collection itself would need the space that it is to free."""
    root = Path(shutil.copytree(template, small_disk / "registry"))
    source = write_adapter(tmp_path / "adapter")
    with Registry.open(root, clock=clock, validate=validate_files) as registry:
        reserve = Reserve(root, SIZE_BYTES)
        registry.collector._spare_space = reserve.released
        registry._publisher._reserve = reserve
        assert reserve.fill()
        publish(registry, base, name, source)
        registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="room")
        clock.now_s += 400 * 86_400
        fill_disk(small_disk)
        with pytest.raises(StorageFull):
            publish(registry, base, name, write_adapter(tmp_path / "other", seed=1))
        registry.collector._spare_space = None
        with pytest.raises(StorageFull):
            registry.collector.collect(dry_run=False, grace_s=0, actor="ops")
        registry.collector._spare_space = reserve.released
        report = registry.collector.collect(dry_run=False, grace_s=0, actor="ops")
        assert (report.purged_versions, report.removed_blobs) == (1, 6)
        (small_disk / "ballast").unlink()
        assert publish(registry, base, name, write_adapter(tmp_path / "other", seed=1)).version == 2
