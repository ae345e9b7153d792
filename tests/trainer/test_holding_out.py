"""Rows of the training file that are judged instead: chosen by what they ask."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from switchyard.trainer.data import Split, split_of, without_repeats, without_rows_of
from switchyard.trainer.errors import DataInvalid, RecipeInvalid
from switchyard.trainer.holding_out import held_out
from switchyard.trainer.preflight import data_warnings, read_data
from switchyard.trainer.row_formats import Message, Row
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe, rows, write_rows


def asking(*prompts: str) -> Split:
    return split_of("train", tuple(Row(prompt, f"{prompt} {place}") for place, prompt in enumerate(prompts)))


MANY = asking(*(f"question {number}" for number in range(100)))


def prompts(split: Split) -> set[object]:
    return {row.prompt for row in split.rows}


def test_every_row_is_in_one_split_in_the_order_of_the_file() -> None:
    splits = held_out(MANY, {"dev": 0.1, "test": 20}, 0)
    assert {name: len(split.rows) for name, split in splits.items()} == {"train": 70, "dev": 10, "test": 20}
    assert sorted(row.completion for split in splits.values() for row in split.rows) == sorted(
        row.completion for row in MANY.rows
    )
    for split in splits.values():
        assert list(split.rows) == [row for row in MANY.rows if row in split.rows]
    assert splits["dev"].digest == split_of("dev", splits["dev"].rows).digest


def test_the_order_of_the_file_decides_nothing() -> None:
    wanted = {"test": 20.0}
    chosen = prompts(held_out(MANY, wanted, 0)["test"])
    shuffled = list(MANY.rows)
    random.Random(7).shuffle(shuffled)  # noqa: S311
    assert prompts(held_out(split_of("train", tuple(shuffled)), wanted, 0)["test"]) == chosen
    # More is the same and others: what was judged stays judged.
    assert chosen < prompts(held_out(MANY, {"test": 40}, 0)["test"])
    assert prompts(held_out(MANY, wanted, 1)["test"]) != chosen


def test_rows_that_ask_the_same_go_together() -> None:
    twice = asking(*(f"question {number % 50}" for number in range(100)))
    splits = held_out(twice, {"dev": 10, "test": 11}, 0)
    assert len(splits["dev"].rows) == 10
    assert len(splits["test"].rows) == 12
    assert not prompts(splits["train"]) & (prompts(splits["dev"]) | prompts(splits["test"]))


def test_answers_of_one_conversation_go_together() -> None:
    def conversation(number: int) -> list[Row]:
        start = (Message("system", "be kind"), Message("user", f"hello {number}"))
        middle = (*start, Message("assistant", "hi"), Message("user", "and now?"))
        return [Row(start, (Message("assistant", "hi"),)), Row(middle, (Message("assistant", "bye"),))]

    talk = split_of("train", tuple(row for number in range(20) for row in conversation(number)))
    splits = held_out(talk, {"test": 8}, 0)
    starts = {name: {row.prompt[1] for row in split.rows} for name, split in splits.items()}
    assert len(splits["test"].rows) == 8
    assert not starts["train"] & starts["test"]


def test_documents_are_chosen_by_their_text() -> None:
    pages = split_of("train", tuple(Row("", f"page {number}") for number in range(20)))
    assert len(held_out(pages, {"test": 0.25}, 0)["test"].rows) == 5


@pytest.mark.parametrize("wanted", [{"test": 100}, {"dev": 60, "test": 60}])
def test_something_is_left_to_learn(wanted: dict[str, float]) -> None:
    with pytest.raises(DataInvalid, match=r"data.train has 100 rows, too few(.|\n)*data.hold_out.test: wants"):
        held_out(MANY, wanted, 0)


def test_repeated_rows_are_left_out_and_counted() -> None:
    repeated = split_of("train", (*MANY.rows[:3], *MANY.rows[:2]))
    kept = without_repeats(repeated)
    assert (kept.rows, kept.left_out, kept.repeated_rows) == (MANY.rows[:3], 2, 0)
    assert kept.digest == split_of("train", MANY.rows[:3]).digest
    assert without_repeats(kept) is kept


def test_judged_rows_are_not_learnt() -> None:
    judged = split_of("test", MANY.rows[90:])
    kept = without_rows_of(MANY, [judged])
    assert (kept.rows, kept.left_out) == (MANY.rows[:90], 10)
    assert without_rows_of(kept, [judged]) is kept


def test_a_recipe_cleans_and_divides_one_file(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    content = rows(0, 40)
    write_rows(tmp_path / "train.jsonl", [*content, *content[:8]])
    write_rows(tmp_path / "test.jsonl", rows(36, 12))
    wanted: dict[str, Any] = {"repeats": "drop", "leaks": "drop", "hold_out": {"dev": 0.25}, "dev": None}
    recipe = make_recipe(data=wanted, train={"max_steps": 2, "eval_steps": 1})
    splits = read_data(recipe)
    assert {name: len(split.rows) for name, split in splits.items()}["dev"] == 10
    assert not set(splits["train"].rows) & (set(splits["dev"].rows) | set(splits["test"].rows))
    done = train(recipe, out_dir=tmp_path / "out", threads=1)
    assert [one.rows for one in done.figures.evaluations if one.split == "dev"] == [10, 10]
    (said,) = [one for one in done.warnings if "left out" in one]
    assert said.startswith(f"{splits['train'].left_out} rows of data.train are left out")
    assert data_warnings(recipe, splits, done.figures.rows)[0] == said


def test_nothing_left_after_dropping_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", rows(0, 64))
    with pytest.raises(DataInvalid, match=r"all 64 rows occur in data\.dev or data\.test"):
        read_data(make_recipe(data={"leaks": "drop"}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"hold_out": {"dev": 0.1}}, "`dev` and `hold_out.dev` both say"),
        ({"hold_out": {"test": 2.5}}, "is 2.5: give a whole number of rows"),
        ({"hold_out": {"seed": 3}}, "`seed` chooses rows: give `dev` or `test`"),
    ],
)
def test_what_chooses_nothing_or_twice_is_a_fault(
    make_recipe: MakeRecipe, data: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeInvalid) as caught:
        make_recipe(data=data)
    assert message in str(caught.value)
