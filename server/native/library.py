"""The compiled kernels: found next to this file, checked, and called through ctypes.

ctypes lets go of the interpreter during a call, so other threads run on. There
is no library where no compiler was when the package was installed, or where the
processor lacks AVX2; then the torch path computes the same numbers up to rounding.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from switchyard.server.native.tape import Kernel, Tape, recording

SWITCH = "SWITCHYARD_NATIVE"
"""Environment variable; `0` leaves the kernels unused."""

INTERFACE = 6
"""Number of the signatures below; the library says which it was built with."""

_POINTER, _SIZE, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float

_SIGNATURES: Mapping[str, Sequence[type]] = {
    "add_and_norm": [_POINTER] * 3 + [_FLOAT, _POINTER] + [_SIZE] * 2,
    "add_lora": [_POINTER, _SIZE, _POINTER, _SIZE, _SIZE, _POINTER, _SIZE, _SIZE, _POINTER, _SIZE, _INT],
    "attend": [_POINTER, _SIZE] + [_POINTER] * 5 + [_SIZE] * 5 + [_FLOAT, _INT],
    "copy": [_POINTER, _SIZE, _POINTER],
    "dense_linear": [_POINTER] * 4 + [_SIZE] * 3 + [_INT] * 2,
    "gated_silu": [_POINTER] * 2 + [_SIZE] * 2 + [_INT],
    "nf4_linear": [_POINTER] * 5 + [_SIZE] * 3 + [_INT],
    "place_heads": [_POINTER] * 3 + [_FLOAT] + [_POINTER] * 6 + [_SIZE] * 5,
    "transpose": [_POINTER, _SIZE, _SIZE, _SIZE, _POINTER],
}
"""Argument types of the kernels, in the order of their numbers; each returns 0, or -1 when there is no memory."""

POINTERS: Mapping[int, Sequence[int]] = {
    number: [place for place, kind in enumerate(kinds) if kind is _POINTER]
    for number, kinds in enumerate(_SIGNATURES.values())
}
"""Which arguments of a kernel are addresses, by its number."""


class Library:
    """The loaded kernels, one attribute each; arguments as in the C sources, tensors for pointers."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        run = handle["switchyard_run"]
        run.argtypes, run.restype = [_POINTER, _SIZE], _INT
        self._run: Callable[[int, int], int] = run
        kernels = [self._kernel(handle, number, name) for number, name in enumerate(_SIGNATURES)]
        (
            self.add_and_norm,
            self.add_lora,
            self.attend,
            self.copy,
            self.dense_linear,
            self.gated_silu,
            self.nf4_linear,
            self.place_heads,
            self.transpose,
        ) = kernels

    def recording(self) -> AbstractContextManager[Tape | None]:
        """Notes this thread's calls and makes them at the end of the block; see `Tape`."""
        return recording(self._run)

    def _kernel(self, handle: ctypes.CDLL, number: int, name: str) -> Kernel:
        # Without the types a pointer would be cut to 32 bits.
        function = handle[f"switchyard_{name}"]
        function.argtypes, function.restype = list(_SIGNATURES[name]), _INT
        return Kernel(name, number, function)


def load() -> Library | None:
    """The kernels, or None where `status` says why not."""
    return None if os.environ.get(SWITCH) == "0" else _found()[0]


def status() -> str:
    """One line on whether the kernels are used, and if not, why."""
    return f"native kernels: off, {SWITCH}=0" if os.environ.get(SWITCH) == "0" else _found()[1]


@cache
def _found() -> tuple[Library | None, str]:
    """The library and its line for `status`; looked for once per process."""
    file = _file()
    if not file.exists():
        return None, "native kernels: not built; `make native` builds them where a C compiler is"
    try:
        handle = ctypes.CDLL(str(file))
        interface, supported = handle["switchyard_interface"](), handle["switchyard_supported"]()
    except (OSError, AttributeError) as error:
        return None, f"native kernels: {file.name} cannot be loaded: {error}"
    if interface != INTERFACE:
        return None, f"native kernels: {file.name} has interface {interface}, not {INTERFACE}; run `make native`"
    if not supported:
        return None, "native kernels: this processor lacks AVX2, FMA or F16C"
    try:
        return Library(handle), f"native kernels: {file.name}"
    except AttributeError as error:
        return None, f"native kernels: {file.name} lacks a kernel; run `make native`: {error}"


def _file() -> Path:
    """Where the build puts the library."""
    return Path(__file__).with_name(f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}")
