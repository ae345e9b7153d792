"""Products of few rows are padded, so that a row's bits do not depend on how many there are."""

from __future__ import annotations

import pytest
import torch

from switchyard.server.lora.rows import padded_linear, row_floor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("columns", "rows"), [(64, 192), (128, 64), (1024, 256)])
def test_padded_linear_keeps_the_bits_of_each_row(dtype: torch.dtype, columns: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    bias = torch.randn(rows, generator=generator).to(dtype)
    x = torch.randn(96, columns, generator=generator).to(dtype)
    whole = padded_linear(x, weight, bias)
    torch.testing.assert_close(whole.float(), x.float() @ weight.float().T + bias.float(), rtol=2e-2, atol=0.3)
    for count in (1, 2, 3, 4, 5, 7, 16, 33, 64, 95):
        assert torch.equal(padded_linear(x[:count], weight, bias), whole[:count]), f"{count} rows"
        assert torch.equal(padded_linear(x[-count:], weight, bias), whole[-count:]), f"{count} last rows"


def test_row_floor_is_small() -> None:
    assert 1 <= row_floor(torch.float32) <= 16
