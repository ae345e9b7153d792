"""The C allocator, told that training asks for the same large blocks again and again.

Owns two settings of glibc: one while a base is loaded, one while it is trained. By default glibc gives large freed
blocks back to the kernel, which clears their pages again when the next step asks for them. Measured over 50 steps of
the demo's address recipe (2 shared cores, AVX2, three runs each): 9.6 to 9.8 s of CPU time without the switch, 5.0 to
7.9 s with it, for about 120 MB more of resident memory.

Loading asks for other blocks than training does, so what it freed would be kept for nothing. On a base of 12 layers
of 1024 a run held 713 MiB when blocks were kept from its start (bench/results/trainer-memory.md), and 523 MiB when
they were kept from its first step, in one run of each.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Parameter numbers from glibc's malloc.h; see mallopt(3)."""

_GIVEN_BACK_BYTES: Final = 128 * 1024
"""Blocks above this are the kernel's again when they are freed; glibc's own beginning."""

KEPT_BYTES: Final = 256 * 1024 * 1024
"""Blocks below this come from the heap, and so much free memory stays at its end."""


def give_back_freed_memory() -> bool:
    """Lets the C allocator give large freed blocks back at once, until `keep_freed_memory`.

    Changes no result. Does nothing where the C library has no `mallopt`.

    Returns:
        Whether the allocator took the setting.
    """
    return _set(_GIVEN_BACK_BYTES)


def keep_freed_memory() -> bool:
    """Gives back what is free now, and lets the C allocator keep what is freed from here on for the next step.

    Lasts for the rest of the process. Changes no result. Does nothing where the C library has no `mallopt`.

    Returns:
        Whether the allocator took the setting.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return _set(KEPT_BYTES)


def _set(threshold_bytes: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    is_taken = [bool(mallopt(name, threshold_bytes)) for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    return all(is_taken)
