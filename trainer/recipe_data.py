"""The recipe's data: which files, in which form, and what is done about bad rows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from switchyard.trainer.columns import Cleaning, Columns
from switchyard.trainer.data_places import DataPlace, pinned
from switchyard.trainer.recipe_section import LATER, Section, value_at
from switchyard.trainer.row_formats import ALPACA_PROMPT, FORMAT_KEYS, DataFormat


class Leaks(StrEnum):
    """What is done about rows that are learnt and judged."""

    WARN = "warn"
    ERROR = "error"
    DROP = "drop"


class Repeats(StrEnum):
    """What is done about rows that occur more than once in a split."""

    KEEP = "keep"
    DROP = "drop"


def _rows_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError(f"is {value}: give a whole number of rows, or a share below 1")
    return value


Amount = Annotated[float, Field(gt=0), AfterValidator(_rows_or_share)]


class HoldOutSection(Section):
    """Rows of `data.train` that are judged instead of learnt, chosen by what they ask.

    Rows that ask the same go together, and the order of the file decides nothing.
    """

    dev: Amount | None = None
    """Rows for dev: their number, or a share of all rows when below 1."""

    test: Amount | None = None
    """Rows for test, likewise; no row is in both."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Another one makes another choice."""

    @property
    def amounts(self) -> dict[str, float]:
        """What is wanted, by split name."""
        return {name: amount for name, amount in (("dev", self.dev), ("test", self.test)) if amount is not None}

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """A seed alone would choose nothing."""
        is_idle = given.get("seed") and given.get("dev") is None and given.get("test") is None
        return ["`seed` chooses rows: give `dev` or `test`"] if is_idle else []


def _with_question(template: str) -> str:
    if template.count("{question}") != 1:
        raise ValueError("names {question} not exactly once, so the rows would not say what is asked")
    return template


class DataSection(Section):
    """Files of rows, relative to the recipe file: JSON lines, .json, .csv, .parquet, or directories of `datasets`."""

    train: DataPlace
    """What the adapter learns: a file or directory; `hf://datasets/owner/name@revision/file` of the Hub, where
    without a file the data set's split is meant; or an object such as `s3://bucket/rows.jsonl`."""

    dev: DataPlace | None = None
    """Evaluated during training (`train.eval_steps`) and at its end."""

    test: DataPlace | None = None
    """Evaluated once, after training."""

    format: Annotated[DataFormat, Field(strict=False)] = DataFormat.PROMPT_COMPLETION
    """`prompt-completion`; `alpaca` (instruction, input, output); `chat` (messages of role and content) and
    `sharegpt` (conversations of from and value), where each answer is learnt once, with what was said before it;
    `text` (whole .txt, .md and .html files, directories of them, or rows with the key text), where all is learnt;
    `preference` (prompt, chosen, rejected), `feedback` (prompt, completion, label); their prompt is text or turns."""

    alpaca_prompt: Annotated[str, AfterValidator(_with_question)] = ALPACA_PROMPT
    """Prompt of `alpaca` rows; `{question}` is the instruction and, on a line of its own, the input."""

    columns: Annotated[dict[str, str], LATER] = {}  # noqa: RUF012 - pydantic copies it
    """Columns with other names than the format's keys, e.g. `{text: prompt}`."""

    ignore: Annotated[tuple[str, ...], Field(strict=False), LATER] = ()
    """Columns that do not count; any other that is no key of the format is a fault."""

    clean: Annotated[tuple[Annotated[Cleaning, Field(strict=False)], ...], Field(strict=False), LATER] = ()
    """Steps that the texts of all rows go through: `spaces` (several become one, none at the ends of lines),
    `blank-lines` (several become one), `nfc` (Unicode's composed form)."""

    limit: Annotated[int | None, Field(ge=1), LATER] = None
    """Training rows that are used, from the beginning; all by default."""

    skip_bad: bool = False
    """Leave bad rows out and count them, instead of refusing the file."""

    leaks: Annotated[Leaks, Field(strict=False)] = Leaks.WARN
    """What rows of `dev` or `test` that occur in `train` are: `warn` about them, refuse them as an `error`, or `drop`
    them from `train`."""

    repeats: Annotated[Repeats, Field(strict=False)] = Repeats.KEEP
    """What rows that occur more than once in a split are: `keep` them, or `drop` all but the first."""

    hold_out: HoldOutSection = HoldOutSection()
    """Rows of `train` that are judged instead of learnt, where there is no file of them."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Columns belong to a format's keys, and turns are not columns."""
        found = []
        shape, names = str(given.get("format", DataFormat.PROMPT_COMPLETION)), given.get("columns")
        if shape in set(DataFormat) and isinstance(names, Mapping):
            keys = FORMAT_KEYS[DataFormat(shape)]
            unknown = ", ".join(f"`{name}`" for name in names if name not in keys)
            if unknown:
                found.append(f"`columns` names {unknown}; the keys of `{shape}` are {', '.join(keys)}")
        if given.get("clean") and shape in {DataFormat.CHAT, DataFormat.SHAREGPT}:
            found.append(f"`clean` cleans columns of text, and the turns of `{shape}` are none; clean the file")
        for name in ("dev", "test"):
            if given.get(name) is not None and value_at(given, "hold_out", name) is not None:
                found.append(f"`{name}` and `hold_out.{name}` both say which rows are judged; give one")
        return found

    @property
    def places(self) -> dict[str, Path | str]:
        """Where the splits are, by name."""
        named = {"train": self.train, "dev": self.dev, "test": self.test}
        return {name: place for name, place in named.items() if place is not None}

    def pinned(self) -> DataSection:
        """Returns the section with the commits of data sets of the Hub in place of branches and tags.

        Raises:
            DataUnreadable: If the Hub does not give one.
        """
        return self.model_copy(update={name: pinned(place) for name, place in self.places.items()})

    def reading(self) -> Columns:
        """Returns what is done with the columns of a row before its format reads it."""
        return Columns(self.columns, frozenset(self.ignore), self.clean)
