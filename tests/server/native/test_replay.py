"""Calls that are made again on other memory do there what they did on the first."""

from __future__ import annotations

import pytest
import torch

from switchyard.server.native import library
from switchyard.server.native.library import POINTERS, Library
from switchyard.server.native.replay import Replay

KERNELS = library.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=library.status())


def kernels() -> Library:
    assert KERNELS is not None
    return KERNELS


def some_bytes(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def moves(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copies 20 bytes to the end, and a [3, 4] matrix of 2 bytes per element to the beginning, transposed."""
    kernels().copy(source[24:44], 20, target[24:44])
    kernels().transpose(source[:24], 3, 4, 2, target[:24])


def noted(source: torch.Tensor, target: torch.Tensor) -> Replay | None:
    with kernels().recording() as tape:
        moves(source, target)
        assert tape is not None
        return Replay.of(tape, POINTERS, (source, target))


def test_calls_made_again_read_and_write_the_other_memory_only() -> None:
    source, target = some_bytes(44, 1), torch.zeros(44, dtype=torch.uint8)
    replay = noted(source, target)
    assert replay is not None
    before = target.clone()
    for seed in (2, 3):
        other, room, expected = some_bytes(44, seed), torch.zeros(50, dtype=torch.uint8), torch.zeros(44).byte()
        replay.make((other, room))
        moves(other, expected)
        assert torch.equal(room[:44], expected)
        assert not room[44:].any()
    assert torch.equal(target, before)


def test_an_address_outside_of_the_pieces_cannot_be_made_again() -> None:
    source, target = some_bytes(44, 1), torch.zeros(44, dtype=torch.uint8)
    assert noted(source, target) is not None
    with kernels().recording() as tape:
        moves(source, target)
        assert tape is not None
        assert Replay.of(tape, POINTERS, (source, target[:24])) is None


def test_pointers_are_those_of_the_signatures() -> None:
    assert POINTERS[kernels().copy.number] == [0, 2]
    assert POINTERS[kernels().transpose.number] == [0, 4]
