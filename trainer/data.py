"""The data: rows of prompt and completion, read strictly and identified by digest.

Owns a split: its rows, whatever file and format they came in, and its digest. Bad rows are reported all at once with
their places; none is skipped unless the recipe says so, and then they are counted. Tokens, the end-of-sequence
token, masks and truncation belong to TRL; `truncation_report` says what that did to the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from switchyard.registry.digest import DigestWriter, canonical_json
from switchyard.trainer.columns import Columns
from switchyard.trainer.data_files import Record, read_records
from switchyard.trainer.errors import DataInvalid, Fault
from switchyard.trainer.row_formats import ALPACA_PROMPT, DataFormat, Found, Row, rows_of
from switchyard.trainer.text_files import read_documents

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class Split:
    """One file of rows.

    Attributes:
        name: `train`, `dev` or `test`.
        rows: The rows in file order.
        digest: Digest of the rows as canonical JSON lines, so that the kind of file and its white space do not count.
        skipped: Records that were left out because they were bad.
        left_out: Rows that were left out because they occur elsewhere, once or in another split.
    """

    name: str
    rows: tuple[Row, ...]
    digest: str
    skipped: int = 0
    left_out: int = 0

    def dataset(self) -> Dataset:
        """Returns the rows as the columns that TRL reads."""
        from datasets import Dataset

        documents = [row.document() for row in self.rows]
        return Dataset.from_dict({key: [row[key] for row in documents] for key in documents[0]})

    @property
    def is_chat(self) -> bool:
        """Whether rows are turns, which the base's chat template makes text of."""
        return any(not isinstance(row.prompt, str) for row in self.rows)

    @property
    def repeated_rows(self) -> int:
        """Rows that occurred before in the same split."""
        return len(self.rows) - len(set(self.rows))


def read_split(
    name: str,
    path: Path,
    more: Sequence[Path] = (),
    *,
    shape: DataFormat = DataFormat.PROMPT_COMPLETION,
    alpaca_prompt: str = ALPACA_PROMPT,
    skip_bad: bool = False,
    columns: Columns | None = None,
    limit: int | None = None,
) -> Split:
    """Reads one file or directory of rows.

    Args:
        name: What the split is called in messages and manifests.
        path: JSON lines, .json, .csv, .parquet, or a directory of `datasets`; text is UTF-8. Plain text is also .txt,
            .md, .html, or a directory of such files.
        more: Files of the same split that come after it.
        shape: What a record looks like.
        alpaca_prompt: Prompt of alpaca rows, with `{question}` where instruction and input go.
        skip_bad: Leave bad records out and count them.
        columns: What is done with the columns of a record first.
        limit: Rows after which reading ends.

    Raises:
        DataUnreadable: If the file cannot be read.
        DataInvalid: If a record is bad and `skip_bad` is off, or if there is no row; lists every fault.
    """
    rows: list[Row] = []
    faults: list[Fault] = []
    bad = 0
    read = read_documents if shape is DataFormat.TEXT else read_records
    for record in (record for one in (path, *more) for record in read(one)):
        found, wrong = _rows(record, columns or Columns(), shape, alpaca_prompt)
        rows.extend(found)
        faults.extend(Fault(record.place, message) for message in wrong)
        bad += bool(wrong)
        if limit is not None and len(rows) >= limit:
            del rows[limit:]
            break
    if not rows and not faults:
        faults.append(Fault(path.name, "holds no rows; expected one JSON object per line"))
    if faults and not (skip_bad and rows):
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataInvalid(f"data.{name} ({path}) has {count}:", faults)
    return split_of(name, tuple(rows), bad)


def split_of(name: str, rows: tuple[Row, ...], skipped: int = 0, left_out: int = 0) -> Split:
    """Returns rows as a split, with their digest."""
    return Split(name, rows, _digest(rows), skipped, left_out)


def without_repeats(split: Split) -> Split:
    """Returns a split in which every row occurs once, where it was first."""
    rows = tuple(dict.fromkeys(split.rows))
    return split if len(rows) == len(split.rows) else _with(split, rows)


def without_rows_of(split: Split, others: Iterable[Split]) -> Split:
    """Returns a split without the rows of other splits."""
    known = {row for other in others for row in other.rows}
    rows = tuple(row for row in split.rows if row not in known)
    return split if len(rows) == len(split.rows) else _with(split, rows)


def _with(split: Split, rows: tuple[Row, ...]) -> Split:
    return split_of(split.name, rows, split.skipped, split.left_out + len(split.rows) - len(rows))


def _rows(record: Record, columns: Columns, shape: DataFormat, alpaca_prompt: str) -> Found:
    if record.fault:
        return [], [record.fault]
    value, wrong = columns.applied(record.value)
    return ([], wrong) if wrong else rows_of(value, shape, alpaca_prompt)


def _digest(rows: Sequence[Row]) -> str:
    writer = DigestWriter()
    for row in rows:
        writer.write(canonical_json(row.document()) + b"\n")
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
        sequences: Sequences that the rows were packed into; 0 when each row is one.
        lost_tokens: Tokens of packed rows that are in no sequence.
    """

    rows: int
    dropped: int
    cut: int
    tokens: int
    trained_tokens: int
    sequences: int = 0
    lost_tokens: int = 0


def truncation_report(given_rows: int, tokenized: TokenRows, eos_token_id: int, max_length: int) -> TruncationReport:
    """Compares a tokenised split with what was given.

    Args:
        given_rows: Rows before tokenising.
        tokenized: The split as TRL prepared it, with columns `input_ids` and `labels`.
        eos_token_id: Last token of a row that is whole.
        max_length: Tokens that a row was cut to; a shorter one is whole whatever its chat template ends with.
    """
    tokens = cut = trained = 0
    for ids, labels in zip(tokenized["input_ids"], tokenized["labels"], strict=True):
        tokens += len(ids)
        trained += sum(label != -100 for label in labels)
        cut += len(ids) >= max_length and ids[-1] != eos_token_id
    return TruncationReport(len(tokenized), given_rows - len(tokenized), cut, tokens, trained)
