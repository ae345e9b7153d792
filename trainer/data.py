"""The data: rows of prompt and completion, read strictly and identified by digest.

Owns the JSONL format (one object per line with the two keys `prompt` and `completion`) and the digest of a
split. Bad rows are reported all at once with their line numbers; none is skipped. Tokens, the end-of-sequence
token, masks and truncation belong to TRL; `truncation_report` says what that did to the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from switchyard.registry.digest import DigestWriter, canonical_json
from switchyard.registry.strict_json import JsonRefused, parse_json
from switchyard.trainer.errors import DataInvalid, DataUnreadable, Fault

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS: Final = ("prompt", "completion")


@dataclass(frozen=True, slots=True)
class Row:
    """One example: the model is given `prompt` and learns `completion`."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Split:
    """One file of rows.

    Attributes:
        name: `train`, `dev` or `test`.
        rows: The rows in file order.
        digest: Digest of the rows as canonical JSON lines, so that white space in the file does not count.
    """

    name: str
    rows: tuple[Row, ...]
    digest: str

    def dataset(self) -> Dataset:
        """Returns the rows as the two columns that TRL reads as prompt and completion."""
        from datasets import Dataset

        return Dataset.from_dict(
            {"prompt": [row.prompt for row in self.rows], "completion": [row.completion for row in self.rows]}
        )


def read_split(name: str, path: Path) -> Split:
    """Reads one JSONL file.

    Args:
        name: What the split is called in messages and manifests.
        path: File in UTF-8 with one JSON object per line; empty lines are allowed.

    Raises:
        DataUnreadable: If the file cannot be read.
        DataInvalid: If a line is not an object of exactly two strings, or if there is no row; lists every fault.
    """
    rows: list[Row] = []
    faults: list[Fault] = []
    for number, line in _lines(path):
        found = _row(line)
        if isinstance(found, Row):
            rows.append(found)
        else:
            faults.extend(Fault(f"{path.name}:{number}", message) for message in found)
    if not rows and not faults:
        faults.append(Fault(path.name, "holds no rows; expected one JSON object per line"))
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataInvalid(f"data.{name} ({path}) has {count}:", faults)
    return Split(name, tuple(rows), _digest(rows))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields line numbers from 1 with the lines that are not empty."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataUnreadable(f"cannot read the data file {path}: {error.strerror or error}") from error


def _row(line: bytes) -> Row | list[str]:
    """Returns the row of one line, or all that is wrong with it."""
    try:
        document = parse_json(line)
    except JsonRefused as error:
        return [f"not JSON in UTF-8: {error}"]
    if not isinstance(document, dict):
        return [f"found {type(document).__name__}, expected an object with the keys prompt and completion"]
    faults = [f"`{key}` is missing" for key in COLUMNS if key not in document]
    faults += [f"unknown key `{key}`; the keys are prompt and completion" for key in document if key not in COLUMNS]
    prompt, completion = document.get("prompt", ""), document.get("completion", "")
    faults += [
        f"`{key}` is {type(value).__name__}, expected text"
        for key, value in (("prompt", prompt), ("completion", completion))
        if not isinstance(value, str)
    ]
    if completion == "" and "completion" in document:
        faults.append("`completion` is empty, so there is nothing to learn")
    return faults or Row(str(prompt), str(completion))


def _digest(rows: list[Row]) -> str:
    writer = DigestWriter()
    for row in rows:
        writer.write(canonical_json({"prompt": row.prompt, "completion": row.completion}) + b"\n")
    return writer.digest


def shared_rows(train: Split, held_out: Split) -> int:
    """Counts the rows of `held_out` that occur word for word in `train`."""
    known = set(train.rows)
    return sum(count for row, count in Counter(held_out.rows).items() if row in known)


class TokenRows(Protocol):
    """The columns of a tokenised split that `truncation_report` reads."""

    def __len__(self) -> int:
        """Returns the number of rows."""

    def __getitem__(self, column: str) -> Iterator[list[int]]:
        """Returns a column, one list of integers per row."""


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """What `max_length` did to a split.

    Attributes:
        rows: Rows that are left.
        dropped: Rows that lost their whole completion, so TRL left them out.
        cut: Rows among those left that lost their end, and with it the end-of-sequence token.
        tokens: Tokens in the rows that are left.
        trained_tokens: Tokens among them that the loss counts.
    """

    rows: int
    dropped: int
    cut: int
    tokens: int
    trained_tokens: int


def truncation_report(given_rows: int, tokenized: TokenRows, eos_token_id: int) -> TruncationReport:
    """Compares a tokenised split with what was given.

    Args:
        given_rows: Rows before tokenising.
        tokenized: The split as TRL prepared it, with columns `input_ids` and `labels`.
        eos_token_id: Last token of a row that is whole.
    """
    tokens = cut = trained = 0
    for ids, labels in zip(tokenized["input_ids"], tokenized["labels"], strict=True):
        tokens += len(ids)
        trained += sum(label != -100 for label in labels)
        cut += ids[-1] != eos_token_id
    return TruncationReport(len(tokenized), given_rows - len(tokenized), cut, tokens, trained)
