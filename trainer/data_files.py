"""The files that rows come in: JSON lines, JSON, CSV, Parquet, and directories of `datasets`.

Owns the reading of a file into records, each with its place for messages. No record is judged here but for being
readable at all. Nothing is executed and nothing is fetched.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.registry.strict_json import JsonRefused, parse_json
from switchyard.trainer.errors import DataUnreadable

if TYPE_CHECKING:
    from pyarrow import Table

ROW_BYTES: Final = 4 * 1024 * 1024
"""Largest row. More is a file without line breaks, or a document that no context takes."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        place: Where, such as `train.jsonl:12`; row numbers begin at 1.
        value: What it holds, or None when it cannot be read.
        fault: Why it cannot be read, or None.
    """

    place: str
    value: object
    fault: str | None = None


def read_records(path: Path) -> Iterator[Record]:
    """Reads a file by the kind that its name says; a name without a known ending is JSON lines.

    Raises:
        DataUnreadable: If the file cannot be opened.
    """
    try:
        if path.is_dir():
            yield from _directory(path)
            return
        readers = {".json": _json, ".csv": _csv, ".parquet": _parquet}
        yield from readers.get(path.suffix.lower(), _json_lines)(path)
    except OSError as error:
        raise DataUnreadable(f"cannot read the data file {path}: {error.strerror or error}") from error


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path.name}:{number}"
            if len(line) > ROW_BYTES:
                yield Record(place, None, f"has {len(line):,} bytes; a row has at most {ROW_BYTES:,}")
                continue
            try:
                yield Record(place, parse_json(line))
            except JsonRefused as error:
                yield Record(place, None, f"not JSON in UTF-8: {error}")


def _json(path: Path) -> Iterator[Record]:
    try:
        document = parse_json(path.read_bytes())
    except JsonRefused as error:
        yield Record(path.name, None, f"not JSON in UTF-8: {error}")
        return
    if not isinstance(document, list):
        found = type(document).__name__
        yield Record(path.name, None, f"holds {found}, expected a list of rows; one row per line is .jsonl")
        return
    for number, value in enumerate(document, start=1):
        yield Record(f"{path.name}[{number}]", value)


def _csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                place = f"{path.name}:{reader.line_num}"
                if None in values:
                    yield Record(
                        place, None, f"has more fields than the {len(reader.fieldnames or ())} of the header"
                    )
                else:
                    yield Record(place, {key: text for key, text in values.items() if text is not None})
        except UnicodeDecodeError as error:
            yield Record(path.name, None, f"not UTF-8 after line {reader.line_num}: {error.reason}; save it as UTF-8")
        except csv.Error as error:
            yield Record(f"{path.name}:{reader.line_num + 1}", None, f"not CSV: {error}")


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        yield Record(path.name, None, f"not Parquet: {str(error).splitlines()[0]}")
        return
    yield from _table(path, table)


def _directory(path: Path) -> Iterator[Record]:
    from datasets import Dataset, load_from_disk

    try:
        found = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        yield Record(path.name, None, f"not a directory of datasets.save_to_disk: {error}")
        return
    if not isinstance(found, Dataset):
        yield Record(
            path.name, None, f"holds the splits {', '.join(sorted(found))}; give the directory of one of them"
        )
        return
    yield from _table(path, found.with_format("arrow")[:])


def _table(path: Path, table: Table) -> Iterator[Record]:
    number = 0
    for batch in table.to_batches():
        for value in batch.to_pylist():
            number += 1
            yield Record(f"{path.name}[{number}]", value)
