"""The memory of a run: what each part takes, and whether the machine has it.

Owns the arithmetic from counted parameters and a rehearsed step to bytes. What a step holds is counted by
`switchyard.trainer.step_memory`; what the libraries take is measured in the process that asks.

Bits per 4-bit weight (Dettmers et al., "QLoRA", 2023, section 3): one float32 constant for 64 weights, or, with
double quantisation, one 8-bit constant for 64 weights and one float32 for 256 of those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.trainer.optimizers import optimizer_bytes
from switchyard.trainer.recipe import AdapterDType, Optimizer, ParallelSection, QuantizationSection, Strategy

if TYPE_CHECKING:
    from switchyard.trainer.step_memory import StepMemory

_BLOCK: Final = 64
_IN_USE_BYTES: Final = 32 * 1024 * 1024
"""What the libraries allocate in their first steps: 31 to 33 MiB were missing in each shape of the benchmark."""
_OUTER_BLOCK: Final = 256
ADAPTER_BYTES: Final[Mapping[AdapterDType, int]] = {AdapterDType.FLOAT32: 4, AdapterDType.BFLOAT16: 2}
"""Bytes per parameter of the adapter."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What the process of a run, or each of several, holds at its peak, in bytes.

    Attributes:
        libraries_bytes: What the libraries take in the machine's memory before anything is loaded.
        weights_bytes: The base as it is stored while training.
        adapter_bytes: The adapter's parameters.
        gradient_bytes: Their gradients.
        optimizer_bytes: The optimizer's states.
        activation_bytes: The rest of a step's peak: activations, dequantised weights, the loss.
    """

    libraries_bytes: int
    weights_bytes: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """All parts."""
        state = self.adapter_bytes + self.gradient_bytes + self.optimizer_bytes
        return self.libraries_bytes + self.weights_bytes + state + self.activation_bytes


def quantized_bytes(weights: int, *, double: bool) -> int:
    """Returns the bytes of weights stored in 4 bits with their constants."""
    constants = 8 / _BLOCK + 32 / (_BLOCK * _OUTER_BLOCK) if double else 32 / _BLOCK
    return round(weights * (4 + constants) / 8)


def estimate_memory(
    step: StepMemory,
    quantization: QuantizationSection,
    adapter_dtype: AdapterDType,
    optimizer: Optimizer = Optimizer.ADAMW,
    libraries_bytes: int = 0,
    parallel: ParallelSection | None = None,
) -> MemoryEstimate:
    """Adds up the parts of a run.

    Args:
        step: What a step holds.
        quantization: How the base is stored.
        adapter_dtype: Type of the adapter and its gradients.
        optimizer: Whose states are kept.
        libraries_bytes: As `libraries_bytes()` has it, or 0 for what the model alone takes.
        parallel: The run's processes, of which one is counted: with `fsdp` its share of the base, without the block
            that is gathered while it computes; with `ddp` also the buffers in which gradients are sent.
    """
    parallel = parallel or ParallelSection()
    is_cut, is_sent = parallel.strategy is Strategy.FSDP, parallel.processes > 1
    weights = _stored_bytes(step.quantized_parameters, quantization) + step.other_bytes
    adapter = step.trainable_parameters * ADAPTER_BYTES[adapter_dtype]
    return MemoryEstimate(
        libraries_bytes=libraries_bytes,
        weights_bytes=math.ceil(weights / parallel.processes) if is_cut else weights,
        adapter_bytes=adapter,
        gradient_bytes=step.gradient_bytes * (2 if is_sent and not is_cut else 1),
        optimizer_bytes=optimizer_bytes(optimizer, step.trained_shapes, ADAPTER_BYTES[adapter_dtype]),
        activation_bytes=max(0, step.peak_bytes - step.gradient_bytes),
    )


def _stored_bytes(weights: int, quantization: QuantizationSection) -> int:
    """The weights of quantised layers; in 8 bits the constants of rows are too few to count."""
    return quantized_bytes(weights, double=quantization.double) if quantization.is_4bit else weights


def libraries_bytes() -> int:
    """Returns what this process holds after all that a run imports is imported, and what the libraries add in use.

    With a GPU it is 0: they are not in the memory that is counted then.
    """
    import bitsandbytes  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torch

    import switchyard.trainer.run
    import switchyard.trainer.sft  # noqa: F401

    return 0 if torch.cuda.is_available() else held_bytes() + _IN_USE_BYTES


def held_bytes() -> int:
    """Returns what this process holds now: on its GPU when there is one, else in the machine's memory."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.memory_reserved())
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def has_gpu() -> bool:
    """Tells whether a run computes on a GPU here."""
    import torch

    return torch.cuda.is_available()


def available_bytes() -> int:
    """Returns the memory that a run could take now: the GPU's when there is one, else the machine's.

    A limit of the container counts, less what is used of it.
    """
    import torch

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free)
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free
