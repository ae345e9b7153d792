from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from switchyard.trainer.data import read_split
from switchyard.trainer.data_files import ROW_BYTES
from switchyard.trainer.errors import DataInvalid, DataUnreadable
from switchyard.trainer.row_formats import DataFormat, Row
from switchyard.trainer.text_files import seen_text

PAGE = """<!doctype html><html><head><title>not seen</title><style>p { color: red }</style></head>
<body><h1>Depots &amp; yards</h1><p>The <b>north</b>ern yard
has   9 tracks.</p><script>let x = "<p>no</p>"</script><ul><li>one<li>two</ul></body></html>"""


def texts(path: Path) -> list[str]:
    return [str(row.completion) for row in read_split("train", path, shape=DataFormat.TEXT).rows]


def test_a_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\n")
    split = read_split("train", tmp_path / "a.txt", shape=DataFormat.TEXT)
    assert split.rows == (Row("", "one\n\ntwo\n"),)


def test_rows_of_text_are_documents_too(tmp_path: Path) -> None:
    rows = [{"text": "first"}, {"text": "second"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for name in ("a.jsonl", "a.parquet", "saved"):
        assert texts(tmp_path / name) == ["first", "second"]


def test_a_directory_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "z.md").write_text("# last")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "part" / "b.jsonl").write_text('{"text": "second"}\n{"text": "third"}\n')
    (tmp_path / "part" / "c.html").write_text("<p>fourth</p>")
    (tmp_path / ".git" / "config").write_text("hidden")
    assert texts(tmp_path) == ["first", "second", "third", "fourth", "# last"]


def test_of_a_page_what_is_seen_is_kept() -> None:
    assert seen_text(PAGE) == "Depots & yards\nThe northern yard has 9 tracks.\none\ntwo"


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"a" * (ROW_BYTES + 1))
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    (tmp_path / "rows.jsonl").write_text('{"text": 3}\n{"body": "x"}\n')
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    with pytest.raises(DataInvalid) as caught:
        texts(tmp_path)
    found = [str(fault) for fault in caught.value.faults]
    expected = [
        "big.txt: has 4,194,305 bytes",
        "empty.txt: `text` is empty",
        "latin.txt: not UTF-8 in line 2",
        "rows.jsonl:1: `text` is int",
        "rows.jsonl:2: `text` is missing",
        "rows.jsonl:2: unknown key `body`",
        "table.xlsx: is not text",
    ]
    assert [one for one, begins in zip(found, expected, strict=True) if not one.startswith(begins)] == []


def test_a_directory_without_files_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="holds no rows"):
        texts(tmp_path)
    with pytest.raises(DataUnreadable, match="No such file"):
        texts(tmp_path / "none.txt")
