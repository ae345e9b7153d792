"""Rows: splits that cannot leak, files whose bytes depend on the seed alone."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import pytest

from switchyard.trainer.demo import addresses, edits
from switchyard.trainer.demo.rows import Row, Split, Task, accuracy, split_of, write_task

TASKS = (addresses.TASK, edits.TASK)


def test_split_is_a_function_of_the_content() -> None:
    stems = [a + b for a in addresses.ROAD_CHARACTERS[:60] for b in addresses.ROAD_CHARACTERS[:60]]
    shares = collections.Counter(map(split_of, stems))
    assert {split_of(stem) for stem in ("中山",) * 3} == {split_of("中山")}
    assert 0.65 < shares[Split.TRAIN] / len(stems) < 0.75
    assert 0.17 < shares[Split.TEST] / len(stems) < 0.24


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_rows_are_distinct_and_in_one_split_only(task: Task) -> None:
    drawn = {split: task.draw(split, 5, 400) for split in Split}
    for rows in drawn.values():
        assert len(set(rows)) == 400
    prompts = [{row.prompt for row in rows} for rows in drawn.values()]
    assert sum(map(len, prompts)) == len(set().union(*prompts))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_seed_decides_the_rows(task: Task) -> None:
    assert task.draw(Split.DEV, 1, 50) == task.draw(Split.DEV, 1, 50)
    assert task.draw(Split.DEV, 1, 50) != task.draw(Split.DEV, 2, 50)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_completion_scores_itself_and_not_another(task: Task) -> None:
    rows = task.draw(Split.TEST, 3, 40)
    assert accuracy(task, [row.completion for row in rows], rows) == 1.0
    assert accuracy(task, ["" for _ in rows], rows) == 0.0
    assert not task.is_exact(rows[0].completion + "x", rows[0].completion)


def test_accuracy_refuses_no_rows_and_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="no rows"):
        accuracy(addresses.TASK, [], [])
    with pytest.raises(ValueError, match="longer"):
        accuracy(addresses.TASK, [], [Row("a", "b")])


def test_write_task_is_deterministic_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    first = write_task(addresses.TASK, tmp_path / "a", seed=4, n_train=30, n_dev=10, n_test=20)
    second = write_task(addresses.TASK, tmp_path / "b", seed=4, n_train=30, n_dev=10, n_test=20)
    other = write_task(addresses.TASK, tmp_path / "c", seed=5, n_train=30, n_dev=10, n_test=20)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "dev.jsonl",
        "test.jsonl",
        "train.jsonl",
    ]
    for split, count in ((Split.TRAIN, 30), (Split.DEV, 10), (Split.TEST, 20)):
        assert first[split].read_bytes() == second[split].read_bytes()
        assert first[split].read_bytes() != other[split].read_bytes()
        rows = [json.loads(line) for line in first[split].read_text(encoding="utf-8").splitlines()]
        assert len(rows) == count
        assert all(set(row) == {"prompt", "completion"} for row in rows)


def test_write_task_names_every_bad_count(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n_train=0, n_test=-1"):
        write_task(edits.TASK, tmp_path / "x", seed=1, n_train=0, n_dev=1, n_test=-1)
    assert not (tmp_path / "x").exists()
