from __future__ import annotations

import pytest
import torch

from switchyard.trainer.memory import MemoryEstimate, available_bytes, estimate_memory, quantized_bytes
from switchyard.trainer.recipe import AdapterDType, QuantizationSection
from switchyard.trainer.step_memory import LiveBytes, StepMemory

STEP = StepMemory(
    quantized_parameters=16384,
    other_bytes=1000,
    trainable_parameters=100,
    base_parameters=16634,
    peak_bytes=5000,
    gradient_bytes=400,
    trained_shapes=((20, 4), (20,)),
)


def test_constants_of_a_block_are_counted() -> None:
    # 16384 weights: 8192 bytes, and 256 constants of 4 bytes, or of 1 byte with one float32 for 256 of them.
    assert quantized_bytes(16384, double=False) == 8192 + 256 * 4
    assert quantized_bytes(16384, double=True) == 8192 + 256 + 4


@pytest.mark.parametrize(("dtype", "width"), [(AdapterDType.FLOAT32, 4), (AdapterDType.BFLOAT16, 2)])
def test_the_parts_are_those_of_a_hand_count(dtype: AdapterDType, width: int) -> None:
    found = estimate_memory(STEP, QuantizationSection(), dtype)
    assert found == MemoryEstimate(
        libraries_bytes=0,
        weights_bytes=8192 + 256 + 4 + 1000,
        adapter_bytes=100 * width,
        gradient_bytes=400,
        optimizer_bytes=200 * width,
        activation_bytes=4600,
    )
    assert found.total_bytes == 9452 + 300 * width + 5000


def test_the_machine_has_memory() -> None:
    assert 0 < available_bytes() < 1 << 50


def test_live_bytes_are_those_of_storages_and_not_of_views() -> None:
    given = torch.zeros(256)
    live = LiveBytes()
    live.exclude([given])
    with live:
        first = given + 1
        view = first[:10]
        second = torch.cat([first, first])
        assert live.now_bytes == 1024 + 2048
        del second
        assert live.now_bytes == 1024
        del first
        assert live.now_bytes == 1024
        del view
        third = given * 2
        assert live.now_bytes == 1024
        del third
    assert live.now_bytes == 0
    assert live.peak_bytes == 3072


def test_saved_activations_live_until_the_backward_pass() -> None:
    weight = torch.zeros(256, requires_grad=True)
    live = LiveBytes()
    live.exclude([weight])
    with live:
        product = weight.exp().sum()
        assert live.now_bytes == 1024 + 4
        product.backward()
    # The saved result, the gradient of it, and the sum with its own.
    assert live.peak_bytes >= 2 * 1024
    assert live.now_bytes - 4 <= 1024 + 4
