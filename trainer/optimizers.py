"""Optimizers: what each is called in transformers, and what it keeps of each trained tensor.

Owns the table. The bytes are those of torch 2.13 and bitsandbytes 0.50. torch keeps a state in the parameter's type.
bitsandbytes keeps it in float32, or in 8 bits with one float32 constant for 256 values where a tensor has 4,096
values or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from switchyard.trainer.recipe import Optimizer

_SMALL: Final = 4096
"""Values below which bitsandbytes keeps 32-bit states whatever it is asked for."""

_BLOCK: Final = 256
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class OptimizerKind:
    """One optimizer.

    Attributes:
        name: transformers' name.
        states: Running means per parameter.
        is_8bit: Whether large tensors' states are stored in 8 bits.
        is_paged: Whether states move to the machine's memory when the GPU's is short.
        is_torchs: Whether states have the parameter's type.
    """

    name: str
    states: int
    is_8bit: bool = False
    is_paged: bool = False
    is_torchs: bool = False


KINDS: Final[Mapping[Optimizer, OptimizerKind]] = {
    Optimizer.ADAMW: OptimizerKind("adamw_torch_fused", 2, is_torchs=True),
    Optimizer.ADAMW_8BIT: OptimizerKind("adamw_bnb_8bit", 2, is_8bit=True),
    Optimizer.PAGED_ADAMW: OptimizerKind("paged_adamw_32bit", 2, is_paged=True),
    Optimizer.PAGED_ADAMW_8BIT: OptimizerKind("paged_adamw_8bit", 2, is_8bit=True, is_paged=True),
    Optimizer.LION: OptimizerKind("lion_32bit", 1),
    Optimizer.LION_8BIT: OptimizerKind("lion_8bit", 1, is_8bit=True),
    Optimizer.ADAFACTOR: OptimizerKind("adafactor", 0),
    Optimizer.SGD: OptimizerKind("sgd", 0),
}
"""By the recipe's name."""


def optimizer_bytes(optimizer: Optimizer, shapes: Iterable[tuple[int, ...]], parameter_bytes: int) -> int:
    """Returns the bytes of the states of all trained tensors.

    Args:
        optimizer: Which one.
        shapes: Shape of each trained tensor.
        parameter_bytes: Bytes of one trained value.
    """
    kind = KINDS[optimizer]
    return sum(_state_bytes(optimizer, kind, shape, parameter_bytes) for shape in shapes)


def _state_bytes(optimizer: Optimizer, kind: OptimizerKind, shape: tuple[int, ...], parameter_bytes: int) -> int:
    values = math.prod(shape)
    if optimizer is Optimizer.ADAFACTOR:
        # One mean per row and per column of a matrix (Shazeer and Stern, "Adafactor", 2018).
        return _FLOAT_BYTES * (shape[0] + shape[1] if len(shape) == 2 else values)
    if kind.is_8bit and values >= _SMALL:
        return kind.states * (values + _FLOAT_BYTES * math.ceil(values / _BLOCK))
    return kind.states * values * (parameter_bytes if kind.is_torchs else _FLOAT_BYTES)


def optimizer_warnings(optimizer: Optimizer, *, has_gpu: bool, shapes: Iterable[tuple[int, ...]]) -> list[str]:
    """Returns what an optimizer does not do here, one sentence each."""
    kind, found = KINDS[optimizer], []
    if kind.is_paged and not has_gpu:
        found.append(f"train.optimizer: {optimizer} pages a GPU's memory; without a GPU it trains without paging")
    small = [math.prod(shape) < _SMALL for shape in shapes]
    if kind.is_8bit and any(small):
        found.append(
            f"train.optimizer: {optimizer} keeps 32-bit states for {sum(small)} of {len(small)} tensors, "
            f"those of fewer than {_SMALL:,} values"
        )
    return found
