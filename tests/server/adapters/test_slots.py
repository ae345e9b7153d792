"""Slots hold what was written, at its size, and nothing of it once they are cleared."""

from __future__ import annotations

import pytest
import torch

from switchyard.server.adapters.packing import HostAdapter
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.native import copy, moving, transpose
from switchyard.server.lora.ops import backends
from switchyard.server.lora.segments import Segments


def adapter() -> HostAdapter:
    factors = LoraFactors(torch.ones(4, 64), (FactorPart(0, 4, 0, 32, torch.ones(4, 32), 1.0),))
    return HostAdapter({1: GroupAdapter(factors, output_gain=torch.ones(32))})


def test_a_slot_points_to_what_the_loader_made() -> None:
    slots, written = AdapterSlots(2, 3), adapter()
    assert slots.write(1, written) == written.nbytes == 4 * (4 * 64 + 4 * 32 + 32)
    assert slots.group(1)[1] is written.groups[1]
    assert [len(slots.group(index)) for index in range(3)] == [0, 1, 0]
    slots.check_integrity()


@pytest.mark.parametrize("slot", [-1, 2, 0])
def test_a_taken_or_unknown_slot_is_a_bug(slot: int) -> None:
    slots = AdapterSlots(2, 3)
    slots.write(0, adapter())
    with pytest.raises(RuntimeError, match=f"slot {slot} of 2"):
        slots.write(slot, adapter())


@pytest.mark.parametrize("backend", backends())
def test_what_reads_a_cleared_slot_shows_in_a_poisoned_table(backend: str) -> None:
    slots, written = AdapterSlots(2, 3, poison=True), adapter()
    slots.write(0, written)
    stale = slots.group(1)[0]
    assert stale is not written.groups[1]
    slots.clear(0)
    slots.check_integrity()
    y, x = torch.zeros(1, 32), torch.ones(1, 64)
    backends()[backend](y, x, Segments.of([0]), slots.group(1))
    assert torch.equal(y, torch.zeros(1, 32)), "the table has let it go"
    table = type(slots.group(1)).of({0: stale})
    backends()[backend](y, x, Segments.of([0]), table)
    assert torch.isnan(y).all()
    assert all(torch.isfinite(tensor).all() for tensor in written.groups[1].tensors())


def test_a_table_that_the_kernel_sees_otherwise_is_found() -> None:
    slots = AdapterSlots(2, 3)
    slots.write(0, adapter())
    slots.group(1)._pointers[1] = 8
    with pytest.raises(RuntimeError, match="not those of torch"):
        slots.check_integrity()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 16), (1000, 7), (33, 64)])
def test_moves_keep_every_number(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for source in (matrix, matrix.t()):
        turned, copied, widened = (torch.empty(shape) for shape in (source.shape[::-1], source.shape, source.shape))
        turned, copied = turned.to(dtype), copied.to(dtype)
        with moving():
            transpose(source, turned)
            copy(source, copied)
            copy(source, widened)
        assert torch.equal(turned, source.t())
        assert torch.equal(copied, source)
        assert torch.equal(widened, source.float())
