"""The tensors of a file are views of its bytes, the same that safetensors reads."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from switchyard.server.adapters.reading import tensors_of
from switchyard.server.errors import AdapterUnpackable

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).view(3, 4),
    "b": torch.arange(5).to(torch.bfloat16),
    "c": torch.arange(6).to(torch.float16).view(2, 3),
}


def in_memory(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def test_equals_safetensors() -> None:
    content = save(TENSORS, {"format": "pt"})
    expected = load(content)
    found = tensors_of(in_memory(content))
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_nothing_is_copied() -> None:
    content = in_memory(save(TENSORS))
    (before,) = (tensors_of(content)["a"].clone(),)
    view = tensors_of(content)["a"]
    view.zero_()
    assert torch.equal(tensors_of(content)["a"], torch.zeros_like(before))


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_numbers_off_their_boundaries_are_read_too(shift: int) -> None:
    content = save(TENSORS)
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * shift
    moved = len(header).to_bytes(8, "little") + header + content[8 + length :]
    for name, tensor in tensors_of(in_memory(moved)).items():
        assert torch.equal(tensor, TENSORS[name])


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 1},
        {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_what_is_no_such_file_is_refused(header: object) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(AdapterUnpackable, match="no safetensors file"):
        tensors_of(in_memory(len(text).to_bytes(8, "little") + text + bytes(8)))
    with pytest.raises(AdapterUnpackable):
        tensors_of(in_memory(b"not one at all"))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes, at: int) -> None:
    with pytest.raises(AdapterUnpackable):
        tensors_of(in_memory(garbage or b"\0"))
    content = bytearray(save(TENSORS))
    content[at : at + len(garbage)] = garbage
    # What still is a file gives views of these very bytes.
    with suppress(AdapterUnpackable):
        assert sum(tensor.nbytes for tensor in tensors_of(in_memory(content)).values()) < len(content)
