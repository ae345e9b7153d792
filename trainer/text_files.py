"""The files that plain text comes in: .txt, .md, .html, JSON lines, and directories of them.

Owns what a document is: a whole file, or one row with the key `text`. A directory is read in the order of its paths,
so that the same files are the same data on every machine. Of a page only what a reader sees is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from switchyard.trainer.data_files import ROW_BYTES, Record, read_records
from switchyard.trainer.errors import DataUnreadable

_WHOLE: Final = frozenset({".txt", ".md", ".html", ".htm"})
_PAGES: Final = frozenset({".html", ".htm"})
_ROWS: Final = frozenset({".jsonl", ".json", ".csv", ".parquet"})
_ENDINGS: Final = ", ".join(sorted(_WHOLE | _ROWS))
_SAVED: Final = "dataset_info.json"
"""In every directory of `datasets`."""


def read_documents(path: Path) -> Iterator[Record]:
    """Reads a file or a directory of text; each record holds an object with the key `text`.

    Raises:
        DataUnreadable: If the file or directory cannot be read.
    """
    if path.is_dir() and not (path / _SAVED).exists():
        yield from _directory(path)
    elif path.suffix.lower() in _WHOLE:
        yield _whole(path, path.name)
    else:
        yield from read_records(path)


def _directory(directory: Path) -> Iterator[Record]:
    for path in sorted(directory.rglob("*")):
        place = path.relative_to(directory).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in Path(place).parts):
            continue
        if path.suffix.lower() in _WHOLE:
            yield _whole(path, place)
        elif path.suffix.lower() in _ROWS:
            yield from read_records(path)
        else:
            yield Record(place, None, f"is not text as its name says; read are {_ENDINGS}")


def _whole(path: Path, place: str) -> Record:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataUnreadable(f"cannot read the data file {path}: {error.strerror or error}") from error
    if len(content) > ROW_BYTES:
        return Record(place, None, f"has {len(content):,} bytes; a document has at most {ROW_BYTES:,}, so split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Record(place, None, f"not UTF-8 in line {line}: {error.reason}; save it as UTF-8")
    text = text.replace("\r\n", "\n")
    return Record(place, {"text": seen_text(text) if path.suffix.lower() in _PAGES else text})


def seen_text(page: str) -> str:
    """Returns the text of an HTML page: one line per block, without scripts, styles and what the head says."""
    reader = _Page()
    reader.feed(page)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _Page(HTMLParser):
    """Collects what is between tags; a block begins a line of its own."""

    _UNSEEN: Final = frozenset({"script", "style", "head", "template", "noscript"})
    _INLINE: Final = frozenset(
        {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "i", "kbd", "mark", "q", "s", "samp"}
        | {"small", "span", "strong", "sub", "sup", "time", "u", "var", "wbr"}
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in self._UNSEEN
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in self._UNSEEN and self._unseen > 0
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(" ".join(data.splitlines()))

    def _break(self, tag: str) -> None:
        if tag not in self._INLINE:
            self.parts.append("\n")
