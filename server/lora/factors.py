"""What one adapter changes in one fused group of projections.

Projections that share their input (query, key and value; gate and up) are one
group: their A factors are stacked and multiplied once, their B factors each
write their own columns of the group's output.

    y = output_gain * (W (input_gain * x) + sum over parts of scale * B A x) + offset

Plain LoRA has factors only, DoRA also an output gain and an offset, (IA)3 only
gains, a trained bias only an offset; a module that was trained whole has a W of
its own. In an embedding x is one at the token and zero elsewhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from switchyard.server.lora.records import GroupRecord, PartRecord, element_code


@dataclass(frozen=True, slots=True)
class FactorPart:
    """The B factor of one projection in a group.

    Attributes:
        rank_start: first row of the group's A that belongs to this projection.
        rank_stop: row after the last.
        out_start: first output column of the projection in the group.
        out_stop: column after the last.
        b_t: [rank_stop - rank_start, out_stop - out_start], the transposed B, contiguous.
        scale: factor of B A; multiplies the shrunk vector in float32, so that B keeps the file's bits.
    """

    rank_start: int
    rank_stop: int
    out_start: int
    out_stop: int
    b_t: torch.Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """One adapter's factors for one group.

    Attributes:
        a: [R, in_features], A factors of the group's projections, stacked, contiguous.
        parts: one entry per projection that the adapter changes; a composition has several for one projection.
    """

    a: torch.Tensor
    parts: tuple[FactorPart, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all factors."""
        return self.a.nbytes + sum(part.b_t.nbytes for part in self.parts)


@dataclass(frozen=True)
class GroupAdapter:
    """All that one adapter does to one group; what is None changes nothing.

    Attributes:
        factors: the low-rank factors.
        input_gain: [in_features] float32, multiplies the input of the base projections.
        output_gain: [out_features] float32, multiplies base output and delta together.
        offset: [out_features] float32, added last.
        weight: [out_features, in_features] instead of the base's weight and bias; of an embedding transposed,
            [tokens, width].
    """

    factors: LoraFactors | None = None
    input_gain: torch.Tensor | None = None
    output_gain: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    weight: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that it holds."""
        if self.factors is not None:
            yield self.factors.a
            yield from (part.b_t for part in self.factors.parts)
        optional = (self.input_gain, self.output_gain, self.offset, self.weight)
        yield from (tensor for tensor in optional if tensor is not None)

    def copied(self) -> GroupAdapter:
        """The same in tensors of its own."""
        factors = None
        if self.factors is not None:
            parts = tuple(replace(part, b_t=part.b_t.clone()) for part in self.factors.parts)
            factors = LoraFactors(self.factors.a.clone(), parts)
        optional = (self.input_gain, self.output_gain, self.offset, self.weight)
        return GroupAdapter(factors, *(None if tensor is None else tensor.clone() for tensor in optional))

    # Made where the adapter is loaded, so that writing a slot is storing one address.
    @cached_property
    def record(self) -> GroupRecord:
        """The same tensors as the native kernel reads them."""
        record = GroupRecord(output_gain=_address(self.output_gain), offset=_address(self.offset))
        for gain in (self.output_gain, self.offset):
            record.out_features = len(gain) if gain is not None else record.out_features
        if self.factors is not None:
            a, parts = self.factors.a, self.factors.parts
            record.a, record.element, record.rank = a.data_ptr(), element_code(a.dtype), a.shape[0]
            record.part_count = len(parts)
            record.parts = (PartRecord * len(parts))(*map(_part_record, parts))
        return record


def _part_record(part: FactorPart) -> PartRecord:
    return PartRecord(
        b_t=part.b_t.data_ptr(),
        scale=part.scale,
        element=element_code(part.b_t.dtype),
        rank_start=part.rank_start,
        rank_stop=part.rank_stop,
        out_start=part.out_start,
        out_stop=part.out_stop,
    )


def _address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
