"""Safetensors files written one tensor after the other, so that one tensor at a time is in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that will be written.

    Attributes:
        dtype: its dtype in the file.
        shape: its lengths.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def dtype_named(name: str) -> torch.dtype:
    """Returns the dtype that safetensors calls so.

    Raises:
        ValueError: it is none that a base model's file is read with.
    """
    for dtype, known in _NAMES.items():
        if known == name:
            return dtype
    raise ValueError(f"dtype {name}; expected one of {', '.join(_NAMES.values())}")


def write_shard(path: Path, planned: Mapping[str, Planned], tensors: Iterable[torch.Tensor]) -> None:
    """Writes one file; its bytes are on the disk when this returns.

    Args:
        path: a file that is not there yet.
        planned: every tensor by name, in the order in which they come.
        tensors: as planned; taken one at a time.

    Raises:
        ValueError: a tensor is not as planned.
        OSError: the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, plan in planned.items():
        stop = start + plan.nbytes
        header[name] = {"dtype": _NAMES[plan.dtype], "shape": list(plan.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for (name, plan), tensor in zip(planned.items(), tensors, strict=True):
            if tensor.dtype != plan.dtype or tuple(tensor.shape) != plan.shape:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, planned was {plan}")
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
