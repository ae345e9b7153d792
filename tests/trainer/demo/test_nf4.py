"""NF4 in the loop: the same rounding as bitsandbytes, and exact weights after the step."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes import functional

from switchyard.trainer.demo import nf4


def _weight() -> torch.Tensor:
    return torch.randn(64, 128, generator=torch.Generator().manual_seed(2)) * 0.05


def test_rounding_is_the_one_of_bitsandbytes() -> None:
    weight = _weight()
    packed, state = functional.quantize_4bit(weight, blocksize=nf4.BLOCK, quant_type="nf4")
    assert torch.allclose(nf4.round_trip(weight), functional.dequantize_4bit(packed, state), atol=1e-7)


def test_double_quantisation_is_a_small_difference() -> None:
    weight = _weight()
    packed, state = functional.quantize_4bit(weight, blocksize=nf4.BLOCK, quant_type="nf4", compress_statistics=True)
    rounding = (nf4.round_trip(weight) - weight).abs().max()
    assert (nf4.round_trip(weight) - functional.dequantize_4bit(packed, state)).abs().max() < rounding / 5


def test_zero_block_stays_zero() -> None:
    assert not nf4.round_trip(torch.zeros(2, 64)).any()


def test_weights_are_exact_again_after_the_block_even_when_it_fails() -> None:
    matrix = torch.nn.Parameter(_weight())
    with nf4.rounded([matrix]):
        inside = matrix.data.clone()
    assert torch.equal(inside, nf4.round_trip(_weight()))
    assert torch.equal(matrix.data, _weight())
    with pytest.raises(RuntimeError, match="planned"), nf4.rounded([matrix]):
        raise RuntimeError("planned")
    assert torch.equal(matrix.data, _weight())
