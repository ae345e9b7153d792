"""A backup beside three writers: whole in itself, with everything that was acknowledged before it began."""

from __future__ import annotations

import time
from itertools import pairwise
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from backup_actor import churn_until_told, write_until_told
from registry_actor import NAME, open_registry
from registry_oracle import faults_of

from switchyard.registry.refs import AdapterRef
from switchyard.registry.upkeep.restore import restore

BACKUPS = 4


def numbers(path: Path) -> set[int]:
    return {int(line) for line in path.read_text().splitlines()}


@pytest.mark.slow
def test_backups_beside_three_writers(processes: ForkServerContext, root: Path, tmp_path: Path) -> None:
    stop, notes = tmp_path / "stop", [tmp_path / "notes-0", tmp_path / "notes-1"]
    for note in notes:
        note.touch()
    jobs = [(write_until_told, (root, number * 100_000, stop, note)) for number, note in enumerate(notes)]
    jobs += [(churn_until_told, (root, stop, tmp_path / "churn"))]
    writers = [processes.Process(target=target, args=arguments) for target, arguments in jobs]
    for writer in writers:
        writer.start()
    promised: list[set[int]] = []
    try:
        with open_registry(root) as registry:
            for turn in range(BACKUPS):
                wait_for_more(notes, 5)
                promised.append(set().union(*map(numbers, notes)))
                registry.backups.write(tmp_path / f"backup-{turn % 2}")
                copy = tmp_path / f"restored-{turn}"
                restore(tmp_path / f"backup-{turn % 2}", copy, actor="ops")
    finally:
        stop.touch()
        for writer in writers:
            writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    for turn, versions in enumerate(promised):
        copy = tmp_path / f"restored-{turn}"
        assert faults_of(copy) == []
        with open_registry(copy) as restored:
            assert restored.inspector.fsck(deep=True).exit_code == 0
            for number in versions:
                restored.pull(AdapterRef(NAME.namespace, NAME.adapter, version=number), copy / "pulled" / str(number))
    assert all(earlier < later for earlier, later in pairwise(promised))
    held, collected = map(int, (tmp_path / "churn").read_text().split())
    assert held > 0
    assert collected > 0


def wait_for_more(notes: list[Path], count: int) -> None:
    """Until the writers have got that much further."""
    before = sum(len(numbers(note)) for note in notes)
    deadline = time.monotonic() + 120
    while sum(len(numbers(note)) for note in notes) < before + count:
        assert time.monotonic() < deadline, "the writers stand still"
        time.sleep(0.05)
