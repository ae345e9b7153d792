from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from switchyard.trainer.columns import Cleaning, Columns
from switchyard.trainer.data import Split, read_split
from switchyard.trainer.errors import DataInvalid
from switchyard.trainer.row_formats import DataFormat, Message, Row, rows_of

PAIRS = [{"prompt": f"ask {number}, please", "completion": f"say\n{number}"} for number in range(5)]
TURNS = [("system", "be brief"), ("user", "a"), ("assistant", "1"), ("user", "b"), ("assistant", "2")]
FIRST = (Message("system", "be brief"), Message("user", "a"))


def chat(turns: list[tuple[str, str]]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def write(path: Path, kind: str) -> Path:
    """Writes the same rows as another kind of file."""
    from datasets import Dataset

    path = path / f"rows{kind}"
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    elif kind == ".json":
        path.write_text(json.dumps(PAIRS))
    elif kind == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["completion", "prompt"])
            writer.writeheader()
            writer.writerows(PAIRS)
    elif kind == ".parquet":
        Dataset.from_list(PAIRS).to_parquet(path)
    else:
        Dataset.from_list(PAIRS).save_to_disk(path)
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet", "-directory"])
def test_every_kind_of_file_holds_the_same_split(tmp_path: Path, kind: str) -> None:
    plain = read_split("train", write(tmp_path, ".jsonl"))
    assert read_split("train", write(tmp_path, kind)) == plain


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ({"instruction": " add ", "input": "1 2", "output": "3"}, "Human: add\n1 2\n\nAssistant: "),
        ({"instruction": "add", "input": "", "output": "3"}, "Human: add\n\nAssistant: "),
        ({"instruction": "add", "input": None, "output": "3"}, "Human: add\n\nAssistant: "),
        ({"instruction": "add {question}", "output": "3"}, "Human: add {question}\n\nAssistant: "),
    ],
    ids=["with input", "empty input", "no input", "braces"],
)
def test_alpaca_rows_become_one_prompt(given: dict[str, object], prompt: str) -> None:
    assert rows_of(given, DataFormat.ALPACA) == ([Row(prompt, "3")], [])


def test_another_prompt_can_be_given() -> None:
    given = {"instruction": "add", "output": "3"}
    assert rows_of(given, DataFormat.ALPACA, "Q: {question}\nA: ")[0] == [Row("Q: add\nA: ", "3")]


def test_each_answer_of_a_conversation_is_learnt_once() -> None:
    expected = [
        Row(FIRST, (Message("assistant", "1"),)),
        Row((*FIRST, Message("assistant", "1"), Message("user", "b")), (Message("assistant", "2"),)),
    ]
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    shared = {"conversations": [{"from": names[role], "value": text} for role, text in TURNS]}
    assert rows_of(chat(TURNS), DataFormat.CHAT) == (expected, [])
    assert rows_of(shared, DataFormat.SHAREGPT) == (expected, [])


@pytest.mark.parametrize(
    ("value", "shape", "fault"),
    [
        ({"instruction": 3, "output": "x"}, "alpaca", "`instruction` is int"),
        ({"instruction": "", "output": "x"}, "alpaca", "both empty"),
        ({"instruction": "a", "output": ""}, "alpaca", "nothing to learn"),
        ({"instruction": "a", "output": "b", "act": "c"}, "alpaca", "unknown key `act`"),
        ({"prompt": "a", "completion": "b"}, "chat", "`messages` is missing"),
        ({"messages": "hello"}, "chat", "expected a list"),
        ({"messages": []}, "chat", "no turns"),
        (chat([("user", "a")]), "chat", "last turn"),
        (chat([("system", "a")]), "chat", "last turn"),
        (chat([("assistant", "a")]), "chat", "take turns"),
        (chat([("user", "a"), ("system", "b"), ("assistant", "c")]), "chat", "after the first"),
        (chat([("user", "a"), ("gpt", "b")]), "chat", "turn 2: `role` is 'gpt'"),
        (chat([("user", ""), ("assistant", "b")]), "chat", "turn 1: `content`"),
        ({"conversations": [{"role": "user", "content": "a"}]}, "sharegpt", "exactly `from` and `value`"),
        (["a"], "sharegpt", "found list"),
    ],
)
def test_what_is_wrong_is_said(value: object, shape: str, fault: str) -> None:
    rows, faults = rows_of(value, DataFormat(shape))
    assert rows == []
    assert fault in "; ".join(faults)


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\nbroken\n{"prompt": "a"}\n')
    split = read_split("train", path, skip_bad=True)
    assert (split.rows, split.skipped) == ((Row("a", "b"),), 2)
    with pytest.raises(DataInvalid) as caught:
        read_split("train", path)
    assert [fault.subject for fault in caught.value.faults] == ["rows.jsonl:2", "rows.jsonl:3"]


def test_a_file_of_bad_rows_alone_is_refused_even_then(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("broken\n")
    with pytest.raises(DataInvalid):
        read_split("train", tmp_path / "rows.jsonl", skip_bad=True)


def test_repeated_rows_are_counted() -> None:
    assert Split("train", (Row("a", "b"), Row("a", "b"), Row("a", "c")), "").repeated_rows == 1


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("act,prompt\npoet,Write  a poem. \nguide,Show me\u00a0round.\njudge,Judge.\n")
    columns = Columns({"text": "prompt"}, frozenset({"act"}), (Cleaning.SPACES,))
    split = read_split("train", path, shape=DataFormat.TEXT, columns=columns, limit=2)
    assert [row.completion for row in split.rows] == ["Write a poem.", "Show me round."]
    with pytest.raises(DataInvalid, match="unknown key `act`"):
        read_split("train", path, shape=DataFormat.TEXT, columns=Columns({"text": "prompt"}))
    with pytest.raises(DataInvalid, match="column `body` is missing"):
        read_split("train", path, shape=DataFormat.TEXT, columns=Columns({"text": "body"}))


@pytest.mark.parametrize(
    ("step", "given", "cleaned"),
    [
        ("spaces", " a \t b\n  c ", "a b\nc"),
        ("blank-lines", "\n\na\n\n \n\nb\nc\n", "a\n\nb\nc"),
        ("nfc", "cafe\u0301", "caf\u00e9"),
    ],
)
def test_text_is_cleaned(step: str, given: str, cleaned: str) -> None:
    record, faults = Columns(cleaning=(Cleaning(step),)).applied({"text": given, "n": 3})
    assert (record, faults) == ({"text": cleaned, "n": 3}, [])
