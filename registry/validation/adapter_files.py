"""Which files make a version, and how a directory of them is read.

A version holds a few files with fixed names. What a training run leaves beside
them is either harmless and left out with a warning, or refused: pickles and
code are never taken, whatever they are called.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from switchyard.registry.digest import DigestWriter, is_digest
from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FILE_TYPES, SIGNATURE_FILE, FileEntry
from switchyard.registry.verdicts import Findings, Reason, Verdict, shown

WEIGHTS_LIMIT_BYTES = 2 << 30
_DOCUMENT_LIMIT_BYTES = 1 << 20
_FOLDED = frozenset(path.casefold() for path in FILE_TYPES)
_REQUIRED = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_NEVER = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".py", ".pyc", ".so"})
# What PEFT, TRL and this project's trainer write beside an adapter and no version needs.
_LEFT_OUT = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "loss.png",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "trainer_state.json",
        "vocab.json",
    }
)
_LEFT_OUT_DIRECTORY = re.compile(r"(?:checkpoint-[0-9]{1,12}|runs|logs)\Z")
_CHUNK_BYTES = 1 << 20


def limit_bytes(path: str) -> int:
    """Largest size of the file of that name, in bytes."""
    return WEIGHTS_LIMIT_BYTES if path == ADAPTER_WEIGHTS else _DOCUMENT_LIMIT_BYTES


def check_entries(files: Sequence[FileEntry], findings: Findings) -> None:
    """Records every fault in a list of files that somebody wants to publish."""
    seen: set[str] = set()
    for entry in files:
        subject = shown(entry.path)
        if entry.path not in FILE_TYPES:
            _refuse_name(entry.path, findings)
            continue
        if entry.path in seen:
            findings.fault(Reason.FILE_NAME, subject, "is listed twice")
        seen.add(entry.path)
        if not is_digest(entry.digest):
            findings.fault(Reason.DIGEST, subject, f"{shown(entry.digest)} is not a sha256 digest")
        if not 0 < entry.size_bytes <= limit_bytes(entry.path):
            findings.fault(Reason.SIZE, subject, f"{entry.size_bytes} bytes; expected 1 to {limit_bytes(entry.path)}")
    for path in _REQUIRED:
        if path not in seen:
            findings.fault(Reason.FILE_MISSING, path, "every version needs it")


def _refuse_name(path: str, findings: Findings) -> None:
    is_name = path != "" and PurePosixPath(path).name == path
    plain = is_name and path.isprintable() and path.casefold() not in _FOLDED
    if not plain:
        findings.fault(Reason.FILE_NAME, shown(path), f"expected one of {', '.join(FILE_TYPES)}")
    elif PurePosixPath(path).suffix.lower() in _NEVER:
        findings.fault(
            Reason.FILE_NOT_ALLOWED,
            shown(path),
            "can run code or hide its size; save the adapter as safetensors and leave this file out",
        )
    else:
        findings.fault(
            Reason.FILE_NOT_ALLOWED, shown(path), f"a version holds only {', '.join(FILE_TYPES)}; leave it out"
        )


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a directory that make a version.

    Attributes:
        directory: where they are.
        files: sorted by path, digests taken from their bytes.
        warnings: what was left out.
        signature: a signature over the files that lies beside them, or None.
    """

    directory: Path
    files: tuple[FileEntry, ...]
    warnings: tuple[Verdict, ...]
    signature: FileEntry | None = None


def collect_files(directory: Path, findings: Findings) -> SourceFiles:
    """Picks the files of a version out of a directory and takes their digests.

    Args:
        directory: what a training run has written.
        findings: receives every fault.
    """
    left_out = Findings()
    files: list[FileEntry] = []
    signature: FileEntry | None = None
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        findings.fault(Reason.FILE_MISSING, shown(str(directory)), f"cannot be listed: {error.strerror}")
        entries = []
    for entry in entries:
        if entry.name in FILE_TYPES:
            file = _describe(directory, entry.name, findings)
            files.extend([file] if file is not None else [])
        elif entry.name == SIGNATURE_FILE:
            signature = _describe(directory, entry.name, findings)
        elif _is_left_out(entry):
            left_out.warn(Reason.FILE_IGNORED, shown(entry.name), "not part of a version, left out")
        else:
            _refuse_name(entry.name, findings)
    present = {entry.name for entry in entries}
    for path in _REQUIRED:
        if path not in present:
            findings.fault(Reason.FILE_MISSING, path, "every version needs it")
    return SourceFiles(directory, tuple(sorted(files)), left_out.warnings, signature)


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return _LEFT_OUT_DIRECTORY.match(entry.name) is not None
    return entry.name in _LEFT_OUT


def _describe(directory: Path, name: str, findings: Findings) -> FileEntry | None:
    writer = DigestWriter()
    with open_regular(directory / name, name, findings) as fd:
        if fd is None:
            return None
        size_bytes = os.fstat(fd).st_size
        if not 0 < size_bytes <= limit_bytes(name):
            findings.fault(Reason.SIZE, name, f"{size_bytes} bytes; expected 1 to {limit_bytes(name)}")
            return None
        for chunk in _chunks(fd):
            writer.write(chunk)
    return FileEntry(name, writer.digest, writer.size_bytes)


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yields the bytes of a file that was described before.

    The file may have changed since: whoever stores the bytes compares their digest.

    Raises:
        OSError: it is no regular file any more, or cannot be read.
    """
    findings = Findings()
    with open_regular(path, path.name, findings) as fd:
        if fd is None:
            raise OSError(errno.EINVAL, findings.faults[0].message, str(path))
        yield from _chunks(fd)


def _chunks(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK_BYTES):
        yield chunk


@contextmanager
def open_regular(path: Path, subject: str, findings: Findings) -> Iterator[int | None]:
    """Opens a regular file for reading; anything else is a fault and gives None.

    A link is not followed, and opening a pipe or a device does not wait for its other end.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            findings.fault(Reason.NOT_REGULAR_FILE, subject, "is a link or a socket; expected a regular file")
        else:
            findings.fault(Reason.FILE_MISSING, subject, f"cannot be opened: {error.strerror}")
        yield None
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            yield fd
        else:
            findings.fault(
                Reason.NOT_REGULAR_FILE, subject, "is a directory, pipe or device; expected a regular file"
            )
            yield None
    finally:
        os.close(fd)
