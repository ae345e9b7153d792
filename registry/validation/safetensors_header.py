"""The header of a safetensors file, read strictly and without numpy.

Format: https://huggingface.co/docs/safetensors/index#format. The readers in
use accept things that the format forbids or that only serve to exhaust the
reader (duplicate names, a million empty tensors, ranks of 100 000); everything
that the format allows and an honest writer never makes is refused here too.

The file is not trusted to stay as it is: one descriptor is opened by the
caller and all reads go through it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from switchyard.registry.strict_json import DuplicateKey, Json, JsonRefused, parse_json
from switchyard.registry.verdicts import Findings, Reason, shown

_LENGTH_BYTES = 8
_TENSOR_KEYS = {"dtype", "shape", "data_offsets"}
METADATA_KEY = "__metadata__"


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """What a header may hold.

    Attributes:
        header_bytes: most bytes of JSON.
        tensors: most tensors.
        dimension: most elements along one axis.
        axes: allowed numbers of axes.
        dtypes: allowed dtype names and their size in bytes.
    """

    header_bytes: int
    tensors: int
    dimension: int
    axes: tuple[int, ...]
    dtypes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as the header describes it.

    Attributes:
        name: its key.
        dtype: safetensors' name of the element type, e.g. `F32`.
        shape: elements along each axis.
        start_bytes: first byte, counted from the end of the header.
        stop_bytes: one past the last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start_bytes: int
    stop_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header without faults.

    Attributes:
        tensors: in file order, covering the data exactly: no hole, no overlap, no tail.
        raw: the bytes before the data, length included, exactly as they were checked.
    """

    tensors: tuple[TensorEntry, ...]
    raw: bytes

    @property
    def data_start_bytes(self) -> int:
        """Where the data begins in the file."""
        return len(self.raw)


def read_header(fd: int, subject: str, limits: HeaderLimits, findings: Findings) -> Header | None:
    """Reads and checks the header of an open file.

    Args:
        fd: descriptor of a regular file, readable; its position is not used.
        subject: what to call the file in findings.
        limits: what the header may hold.
        findings: receives every fault.

    Returns:
        The header, or None when a fault was found.
    """
    length = os.pread(fd, _LENGTH_BYTES, 0)
    text = os.pread(fd, min(int.from_bytes(length, "little"), limits.header_bytes), _LENGTH_BYTES)
    return check_header(length + text, os.fstat(fd).st_size, subject, limits, findings)


def header_in(content: memoryview, limits: HeaderLimits) -> bytes:
    """The bytes of a file in memory that `check_header` wants; of a claim beyond the limits only so many."""
    claimed_bytes = int.from_bytes(content[:_LENGTH_BYTES], "little")
    return bytes(content[: _LENGTH_BYTES + min(claimed_bytes, limits.header_bytes)])


def check_header(
    raw: bytes, size_bytes: int, subject: str, limits: HeaderLimits, findings: Findings
) -> Header | None:
    """Checks the header of a file; safe for any bytes.

    Args:
        raw: the first bytes of the file, up to the end of the header.
        size_bytes: of the whole file.
        subject: what to call the file in findings.
        limits: what the header may hold.
        findings: receives every fault.

    Returns:
        The header, or None when a fault was found.
    """
    if size_bytes <= _LENGTH_BYTES:
        findings.fault(Reason.SIZE, subject, f"{size_bytes} bytes are too few for a safetensors file")
        return None
    header_bytes = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    data_start = _LENGTH_BYTES + header_bytes
    if header_bytes > limits.header_bytes or data_start > size_bytes:
        findings.fault(
            Reason.HEADER_LENGTH,
            subject,
            f"the header claims {header_bytes} bytes; the file has {size_bytes} and at most "
            f"{limits.header_bytes} are allowed. Is this a safetensors file?",
        )
        return None
    members = _members(raw[_LENGTH_BYTES:], subject, findings)
    if members is None:
        return None
    tensors = _tensors(members, subject, limits, findings)
    if tensors is None or not _covers(tensors, size_bytes - data_start, subject, findings):
        return None
    return Header(tensors, raw)


def _members(text: bytes, subject: str, findings: Findings) -> dict[str, Json] | None:
    if text[:1] != b"{":
        findings.fault(Reason.HEADER_SHAPE, subject, "the header does not begin with '{'")
        return None
    try:
        members = parse_json(text)
    except DuplicateKey as error:
        findings.fault(Reason.DUPLICATE_KEY, subject, f"in the header, {error}")
        return None
    except JsonRefused as error:
        findings.fault(Reason.HEADER_JSON, subject, f"the header is not valid JSON: {error}")
        return None
    if not isinstance(members, dict):
        findings.fault(Reason.HEADER_SHAPE, subject, "the header is not a JSON object")
        return None
    return members


def _tensors(
    members: dict[str, Json], subject: str, limits: HeaderLimits, findings: Findings
) -> tuple[TensorEntry, ...] | None:
    """Returns the tensors in file order, or None when one of them has a fault."""
    metadata = members.pop(METADATA_KEY, {})
    sound = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    if not sound:
        findings.fault(Reason.METADATA, subject, f"{METADATA_KEY} must map text to text")
    if not 0 < len(members) <= limits.tensors:
        findings.fault(Reason.TENSOR_COUNT, subject, f"{len(members)} tensors; expected 1 to {limits.tensors}")
        return None
    entries = []
    for name, fields in members.items():
        entry = _entry(name, fields, f"{subject}#{shown(name)}", limits, findings)
        if entry is not None:
            entries.append(entry)
    if not sound or len(entries) < len(members):
        return None
    return tuple(sorted(entries, key=lambda entry: (entry.start_bytes, entry.stop_bytes)))


def _entry(name: str, fields: Json, subject: str, limits: HeaderLimits, findings: Findings) -> TensorEntry | None:
    if not isinstance(fields, dict) or set(fields) != _TENSOR_KEYS:
        findings.fault(Reason.TENSOR_FIELDS, subject, "expected exactly dtype, shape and data_offsets")
        return None
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in limits.dtypes:
        findings.fault(Reason.DTYPE, subject, f"dtype {shown(dtype)}; expected one of {', '.join(limits.dtypes)}")
        return None
    lengths = _natural_numbers(shape)
    has_axes = lengths is not None and len(lengths) in limits.axes
    if lengths is None or not has_axes or not all(0 < length <= limits.dimension for length in lengths):
        wanted = f"{limits.axes[0]} to {limits.axes[-1]} axes"
        findings.fault(
            Reason.SHAPE,
            subject,
            f"shape {shown(shape)}; expected {wanted} of 1 to {limits.dimension} elements each",
        )
        return None
    span = _natural_numbers(offsets)
    size = math.prod(lengths) * limits.dtypes[dtype]
    if span is None or len(span) != 2 or span[1] - span[0] != size:
        findings.fault(
            Reason.OFFSETS,
            subject,
            f"data_offsets {shown(offsets)}; expected two that are {size} bytes apart",
        )
        return None
    return TensorEntry(name, dtype, lengths, span[0], span[1])


def _natural_numbers(value: Json) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = tuple(item for item in value if type(item) is int and item >= 0)
    return numbers if len(numbers) == len(value) else None


def _covers(tensors: tuple[TensorEntry, ...], data_bytes: int, subject: str, findings: Findings) -> bool:
    """Tells whether the tensors cover the data exactly; records where they do not."""
    sound, end = True, 0
    for entry in tensors:
        if entry.start_bytes != end:
            sound = False
            kind = "overlaps what comes before" if entry.start_bytes < end else "leaves a hole before it"
            findings.fault(
                Reason.OFFSETS,
                f"{subject}#{shown(entry.name)}",
                f"begins at byte {entry.start_bytes}, which {kind}; expected {end}",
            )
        end = max(end, entry.stop_bytes)
    if end > data_bytes:
        findings.fault(
            Reason.OFFSETS, subject, f"tensors end at byte {end} but only {data_bytes} bytes of data are there"
        )
    elif end < data_bytes:
        findings.fault(
            Reason.TRAILING_BYTES, subject, f"{data_bytes - end} bytes follow the last tensor; expected none"
        )
    return sound and end == data_bytes
