"""How much memory this process holds."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Resident set size in bytes; where there is no /proc, the largest one so far."""
    try:
        resident_pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return resident_pages * resource.getpagesize()


def return_freed() -> None:
    """Gives memory that is no longer used back to the machine, as far as the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
