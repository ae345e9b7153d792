"""The C allocator, told that training asks for the same blocks again and again.

Owns two settings of glibc: one while a base is loaded, one while it is trained. A freed block that goes back to the
kernel has its pages cleared again when the next step asks for it, which costs time; one that is kept leaves gaps that
nothing else fits in, which costs memory. Over 50 steps of the demo's address recipe, giving back blocks above 128 KiB
took 9.6 to 9.8 s of CPU time and keeping them 5.0 to 7.9 s (2 shared cores, AVX2, three runs each). So the blocks of
small runs are kept, and those of large ones go back: the memory of a run is then what `--explain` says, and
bench/results/trainer-memory.md has what that costs.

Loading asks for other blocks than training does, so what it freed would be kept for nothing; it gives back all.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Parameter numbers from glibc's malloc.h; see mallopt(3)."""

_GIVEN_BACK_BYTES: Final = 128 * 1024
"""Blocks above this are the kernel's again when they are freed; glibc's own beginning."""

KEPT_BYTES: Final = 4 * 1024 * 1024
"""Blocks below this come from the heap and are kept when they are freed; larger ones are the kernel's again."""

_HEAP_END_BYTES: Final = 32 * 1024 * 1024
"""So much free memory stays at the heap's end."""


def give_back_freed_memory() -> bool:
    """Lets the C allocator give large freed blocks back at once, until `keep_freed_memory`.

    Changes no result. Does nothing where the C library has no `mallopt`.

    Returns:
        Whether the allocator took the setting.
    """
    return _set(_GIVEN_BACK_BYTES, _GIVEN_BACK_BYTES)


def keep_freed_memory() -> bool:
    """Gives back what is free now, and lets the C allocator keep what is freed from here on for the next step.

    Lasts for the rest of the process. Changes no result. Does nothing where the C library has no `mallopt`.

    Returns:
        Whether the allocator took the setting.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return _set(KEPT_BYTES, _HEAP_END_BYTES)


def _set(block_bytes: int, end_bytes: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    is_taken = [bool(mallopt(_M_MMAP_THRESHOLD, block_bytes)), bool(mallopt(_M_TRIM_THRESHOLD, end_bytes))]
    return all(is_taken)
