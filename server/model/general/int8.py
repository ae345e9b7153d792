"""Linear layers in LLM.int8 (arXiv:2208.07339), computed by bitsandbytes."""

from __future__ import annotations

import logging

import torch
from bitsandbytes.nn import Linear8bitLt

from switchyard.server.model.linears import BaseLinear

# It says in every call that float32 is rounded to float16 on the way to 8 bits, which is what LLM.int8 does.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


class Int8Linear(BaseLinear):
    """A linear map with 8-bit weights and 8-bit activations; outlying columns stay in 16 bits.

    Which columns are outliers is decided over all rows of a call, so a row's
    bits do depend on the others: only tokens of one sequence may share a call.
    """

    def __init__(self, module: Linear8bitLt) -> None:
        self.out_features = int(module.out_features)
        if module.weight.CB is not None:
            module.init_8bit_state()
        self._module = module.eval()
        self.bias: torch.Tensor | None = None if module.bias is None else module.bias.detach().float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]."""
        y: torch.Tensor = self._module(x)
        return y

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features] float32."""
        state = self._module.state
        weight: torch.Tensor = torch.ops.bitsandbytes.int8_vectorwise_dequant.default(state.CB, state.SCB)
        return weight.float()

    def tensors(self) -> list[torch.Tensor]:
        """Weights in 8 bits, the scale of each row, and the bias."""
        state = self._module.state
        return [state.CB, state.SCB, *([] if self.bias is None else [self.bias])]
