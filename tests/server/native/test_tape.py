"""Noted calls are made in order, all or none, and give the bits of calls that are made at once."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.native import library
from switchyard.server.native.library import Library
from switchyard.server.native.pointwise import add_and_norm, gated_silu
from switchyard.server.native.tape import Tape, at_once, settle

KERNELS = library.load()
native = pytest.mark.skipif(KERNELS is None, reason=library.status())
WIDTH = 16


def kernels() -> Library:
    assert KERNELS is not None
    return KERNELS


def chain(x: torch.Tensor, length: int) -> torch.Tensor:
    """Calls that read what the former ones wrote; what is between them is dropped at once."""
    weight = torch.linspace(0.5, 1.5, WIDTH)
    hidden = add_and_norm(kernels(), x, None, weight, 1e-5)
    for _ in range(length):
        both = torch.cat([weight.expand_as(hidden), weight.expand_as(hidden)], dim=1)
        hidden = add_and_norm(kernels(), x, hidden, weight, 1e-5)
        hidden = add_and_norm(kernels(), hidden, gated_silu(kernels(), both), weight, 1e-5)
    return hidden


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count))


@native
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 12))
def test_a_recorded_chain_has_the_bits_of_the_same_calls_made_at_once(count: int, length: int) -> None:
    once, twice = rows(count), rows(count)
    expected = chain(once, length)
    with kernels().recording():
        found = chain(twice, length)
    assert torch.equal(found, expected)
    assert torch.equal(once, twice)


@native
def test_nothing_is_done_before_the_end_of_the_block_or_settle() -> None:
    x, expected = rows(2), add_and_norm(kernels(), rows(2), None, torch.ones(WIDTH), 1e-5)
    with kernels().recording():
        y = add_and_norm(kernels(), x, None, torch.ones(WIDTH), 1e-5).fill_(7.0)
        assert (y == 7.0).all()
        settle()
        assert torch.equal(y, expected)
        later = add_and_norm(kernels(), x, None, torch.ones(WIDTH), 1e-5).fill_(7.0)
        assert (later == 7.0).all()
    assert torch.equal(later, expected)


@native
def test_a_block_that_fails_leaves_the_rest_undone_and_the_thread_free() -> None:
    x = rows(2)

    def left_early() -> torch.Tensor:
        with kernels().recording():
            y = add_and_norm(kernels(), x, None, torch.ones(WIDTH), 1e-5).fill_(7.0)
            holder.append(y)
            raise RuntimeError("left early")

    holder: list[torch.Tensor] = []
    with pytest.raises(RuntimeError, match="left early"):
        left_early()
    assert (holder[0] == 7.0).all()
    settle()
    assert (holder[0] == 7.0).all()
    assert not (add_and_norm(kernels(), x, None, torch.ones(WIDTH), 1e-5) == 7.0).all()


@native
def test_a_profile_may_have_every_call_made_at_once() -> None:
    x, ones = rows(2), torch.ones(WIDTH)
    with at_once(), kernels().recording():
        y = add_and_norm(kernels(), x, None, ones, 1e-5)
        assert torch.equal(y.clone(), add_and_norm(kernels(), x, None, ones, 1e-5))
        y.fill_(7.0)
    assert (y == 7.0).all()
    with kernels().recording():
        later = add_and_norm(kernels(), x, None, ones, 1e-5).fill_(7.0)
        assert (later == 7.0).all()
    assert not (later == 7.0).all()


@native
def test_another_thread_calls_at_once() -> None:
    x, found = rows(2), list[torch.Tensor]()
    with kernels().recording():
        thread = threading.Thread(
            target=lambda: found.append(add_and_norm(kernels(), x, None, torch.ones(WIDTH), 1e-5).clone())
        )
        thread.start()
        thread.join()
        torch.testing.assert_close(found[0], torch.nn.functional.rms_norm(x, (WIDTH,), eps=1e-5))


def test_arguments_are_words_and_tensors_live_until_the_run() -> None:
    runs: list[list[int]] = []

    def run(address: int, count: int) -> int:
        runs.append(list((ctypes.c_int64 * (16 * count)).from_address(address)))
        return 0

    tape, tensor = Tape(run), torch.ones(3)
    address, alive = tensor.data_ptr(), weakref.ref(tensor)
    tape.note("first", 4, (tensor, 5, 1.0, None))
    tape.note("second", 2, tuple(range(1, 16)))
    del tensor
    gc.collect()
    assert alive() is not None
    tape.run()
    assert alive() is None
    assert runs == [[4, address, 5, 0x3F800000, 0, *([0] * 11), 2, *range(1, 16)]]
    tape.run()
    assert len(runs) == 1


def test_a_kernel_without_memory_is_named_and_the_tape_is_empty_then() -> None:
    tape = Tape(lambda address, count: 2)
    for name in ("first", "second", "third"):
        tape.note(name, 0, ())
    with pytest.raises(MemoryError, match="for the kernel second"):
        tape.run()
    tape.run()
