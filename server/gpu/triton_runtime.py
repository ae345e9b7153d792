"""Whether Triton is here, and where its kernels run. Imports nothing of it."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

INTERPRETER = "TRITON_INTERPRET"
"""Environment variable of Triton; `1` has kernels run on the CPU, one program after the other. For tests."""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter.

    It multiplies numbers of 16 bits as if they were integers, so kernels widen them there.
    """
    return os.environ.get(INTERPRETER) == "1"


def usable() -> bool:
    """Whether kernels can run at all: Triton is installed, on a CUDA device or in the interpreter."""
    return find_spec("triton") is not None and (interpreted() or torch.cuda.is_available())


def status() -> str:
    """One line on whether the kernels can be used, and if not, why."""
    if find_spec("triton") is None:
        return "GPU kernels: off, Triton is not installed; `pip install 'switchyard[gpu]'` brings it"
    if interpreted():
        return f"GPU kernels: in Triton's interpreter, {INTERPRETER}=1"
    if not torch.cuda.is_available():
        return "GPU kernels: off, torch finds no CUDA device"
    return f"GPU kernels: on {torch.cuda.get_device_name()}"
