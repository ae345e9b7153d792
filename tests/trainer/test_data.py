from __future__ import annotations

import json
from pathlib import Path

import pytest

from switchyard.trainer.data import Split, read_split, shared_rows, truncation_report
from switchyard.trainer.errors import SHOWN_FAULTS, DataInvalid, DataUnreadable
from switchyard.trainer.row_formats import Row


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def row(prompt: str, completion: str) -> str:
    return json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False)


def test_rows_keep_their_order_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    split = read_split("train", write(tmp_path / "t.jsonl", row("地址", "甲"), "", row("b", "2")))
    assert split.rows == (Row("地址", "甲"), Row("b", "2"))


def test_every_bad_row_is_reported_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl",
        row("good", "row"),
        "{not json",
        "[1, 2]",
        '{"prompt": "a"}',
        "",
        '{"prompt": 3, "completion": null}',
        '{"prompt": "a", "completion": "b", "act": "c"}',
        row("a", ""),
        '{"prompt": "a", "prompt": "b", "completion": "c"}',
        '{"prompt": "\\ud800", "completion": "c"}',
    )
    with pytest.raises(DataInvalid) as caught:
        read_split("train", path)
    subjects = [fault.subject for fault in caught.value.faults]
    assert subjects == [f"t.jsonl:{line}" for line in (2, 3, 4, 6, 6, 7, 8, 9, 10)]
    assert "t.jsonl:10" in str(caught.value)


def test_a_long_list_of_faults_is_counted_in_the_message(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *["x"] * (SHOWN_FAULTS + 5))
    with pytest.raises(DataInvalid, match=r"and 5 more") as caught:
        read_split("train", path)
    assert len(caught.value.faults) == SHOWN_FAULTS + 5


def test_an_empty_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="no rows"):
        read_split("dev", write(tmp_path / "d.jsonl"))


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="No such file"):
        read_split("train", tmp_path / "none.jsonl")


def test_lines_in_another_encoding_are_faults_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "big5.jsonl").write_bytes(row("a", "1").encode() + b"\n" + row("地址", "甲").encode("big5"))
    with pytest.raises(DataInvalid, match=r"big5\.jsonl:2.*UTF-8"):
        read_split("train", tmp_path / "big5.jsonl")


def test_the_digest_is_of_the_rows_and_not_of_the_white_space(tmp_path: Path) -> None:
    plain = read_split("train", write(tmp_path / "a.jsonl", row("a", "1"), row("b", "2")))
    spaced = read_split("train", write(tmp_path / "b.jsonl", '{"completion":"1",  "prompt":"a"}', "", row("b", "2")))
    swapped = read_split("train", write(tmp_path / "c.jsonl", row("b", "2"), row("a", "1")))
    assert plain.digest == spaced.digest
    assert plain.digest != swapped.digest


def test_rows_shared_between_splits_are_counted() -> None:
    train = Split("train", (Row("a", "1"), Row("b", "2")), "")
    dev = Split("dev", (Row("a", "1"), Row("a", "1"), Row("b", "other")), "")
    assert shared_rows(train, dev) == 2


def test_truncation_is_counted_by_lost_ends_and_lost_rows() -> None:
    tokenized = {"input_ids": [[5, 6, 2], [5, 6, 7, 8]], "labels": [[-100, 6, 2], [-100, -100, 7, 8]]}

    class Columns(dict):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 2

    report = truncation_report(3, Columns(tokenized), eos_token_id=2, max_length=4)
    assert (report.rows, report.dropped, report.cut) == (2, 1, 1)
    assert (report.tokens, report.trained_tokens) == (7, 4)
