"""Holding out: rows of the training file that are judged instead of learnt.

Owns the choice. It follows from what rows ask and from nothing else, so the order of the file decides nothing; and
rows that ask the same go together, so none is judged on a question that was learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.trainer.data import Split, split_of
from switchyard.trainer.errors import DataInvalid, Fault
from switchyard.trainer.row_formats import Message, Row


def held_out(train: Split, wanted: Mapping[str, float], seed: int) -> dict[str, Split]:
    """Divides rows.

    Args:
        train: All of them.
        wanted: Split name to rows, or to a share of all rows below 1; at least so many are taken.
        seed: Another one makes another choice.

    Returns:
        The new splits and what is left of `train`, each in the order of the file.

    Raises:
        DataInvalid: If nothing would be left to learn.
    """
    if not wanted:
        return {"train": train}
    questions: dict[str, list[int]] = {}
    for place, row in enumerate(train.rows):
        questions.setdefault(_question(row, seed), []).append(place)
    drawn = iter(sorted(questions))
    splits: dict[str, Split] = {}
    for name, amount in wanted.items():
        rows = round(amount * len(train.rows)) if amount < 1 else int(amount)
        places: list[int] = []
        while len(places) < max(1, rows) and (question := next(drawn, None)) is not None:
            places += questions.pop(question)
        splits[name] = split_of(name, _at(train, places))
    left = _at(train, [place for places in questions.values() for place in places])
    if not left or any(not split.rows for split in splits.values()):
        count = len(train.rows)
        faults = [
            Fault(f"data.hold_out.{name}", f"wants {amount:g} of {count} rows") for name, amount in wanted.items()
        ]
        headline = f"data.train has {count} rows, too few to hold these out and to learn from others:"
        raise DataInvalid(headline, faults)
    return {"train": split_of("train", left, train.skipped), **splits}


def _at(split: Split, places: Sequence[int]) -> tuple[Row, ...]:
    return tuple(split.rows[place] for place in sorted(places))


def _question(row: Row, seed: int) -> str:
    """Returns the digest of what a row asks: of a conversation its beginning, of plain text all of it."""
    prompt = row.prompt
    asked = _beginning(prompt) if isinstance(prompt, tuple) else prompt or row.document()["completion"]
    return sha256_digest(canonical_json({"seed": seed, "asked": asked}))


def _beginning(turns: tuple[Message, ...]) -> list[str]:
    """Returns the turns up to the first question: every answer of a conversation comes after them."""
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), len(turns) - 1)
    return [turn.content for turn in turns[: first + 1]]
