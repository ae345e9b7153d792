"""How the native LoRA kernel sees an adapter: the C structures of `lora.c`, field by field."""

from __future__ import annotations

import ctypes

import torch

_ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""`enum element` of the kernel."""


def element_code(dtype: torch.dtype) -> int:
    """The kernel's name for a dtype.

    Raises:
        KeyError: it has none.
    """
    return _ELEMENTS[dtype]


class PartRecord(ctypes.Structure):
    """`struct part`: see `FactorPart`."""

    _fields_ = (
        ("b_t", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("element", ctypes.c_int32),
        ("rank_start", ctypes.c_int32),
        ("rank_stop", ctypes.c_int32),
        ("out_start", ctypes.c_int32),
        ("out_stop", ctypes.c_int32),
    )


class GroupRecord(ctypes.Structure):
    """`struct group`: see `GroupAdapter`."""

    _fields_ = (
        ("a", ctypes.c_void_p),
        ("output_gain", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
        ("parts", ctypes.POINTER(PartRecord)),
        ("element", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("part_count", ctypes.c_int32),
        ("out_features", ctypes.c_int32),
    )
