"""What is run: products, adapters and pages full of random numbers, each with its oracle."""

from __future__ import annotations

import torch
from bitsandbytes import functional as bnb
from sizes import Sizes

from switchyard.server.engine.types import BLOCK_TOKENS
from switchyard.server.gpu.dispatch import Shape
from switchyard.server.gpu.nf4 import Nf4Product
from switchyard.server.gpu.nf4_parts import Nesting, Nf4Part, Nf4Parts
from switchyard.server.gpu.paged_attention import Pages, Queries
from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.on_gpu import GpuLora, LoraBounds
from switchyard.server.lora.table import GroupTable


class Nf4Subject:
    """One projection in NF4 with double quantisation."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        weight = torch.randn(shape.outputs, shape.inputs, device=device, dtype=dtype)
        self.shape = shape
        self.packed, self.state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        nesting = Nesting(self.state.state2.absmax, self.state.state2.code, float(self.state.offset))
        part = Nf4Part(self.packed.reshape(-1), self.state.absmax, nesting, shape.outputs)
        self.product = Nf4Product(Nf4Parts([part], shape.inputs, int(self.state.blocksize), self.state.code), None)

    @property
    def nbytes(self) -> int:
        """Bytes that a step has to read."""
        return sum(tensor.nbytes for tensor in self.product.parts.parts[0].tensors)

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        """The product in float32, with weights as they are in the dtype of `x`."""
        weight = bnb.dequantize_4bit(self.packed, self.state).to(x.dtype).float()
        return x.float() @ weight.t()


class LoraSubject:
    """Random adapters for one projection, and a backend with room for them."""

    def __init__(self, sizes: Sizes, device: torch.device, *, fixed_grid: bool = False) -> None:
        self.adapters: dict[int, GroupAdapter] = {}
        for slot in range(sizes.adapters):
            a = torch.randn(sizes.rank, sizes.hidden, device=device).to(sizes.dtype) / sizes.hidden**0.5
            b_t = torch.randn(sizes.rank, sizes.hidden, device=device).to(sizes.dtype)
            part = FactorPart(0, sizes.rank, 0, sizes.hidden, b_t, 0.5)
            self.adapters[slot] = GroupAdapter(LoraFactors(a, (part,)))
        self.table = GroupTable(sizes.adapters)
        bounds = LoraBounds(rows=sizes.adapters, stacked_rank=sizes.rank, parts=1, widest_input=sizes.hidden)
        self.backend = GpuLora(bounds, device, fixed_grid=fixed_grid)
        for slot, adapter in self.adapters.items():
            self.table.put(slot, adapter)

    @property
    def nbytes(self) -> int:
        """Bytes of all adapters."""
        return sum(adapter.nbytes for adapter in self.adapters.values())


class AttentionSubject:
    """One query for each of some sequences of one length."""

    def __init__(self, sizes: Sizes, count: int, device: torch.device) -> None:
        heads, kv_heads, head_dim = sizes.heads
        blocks = -(-sizes.context // BLOCK_TOKENS)
        shape = (count * blocks, BLOCK_TOKENS, kv_heads, head_dim)
        keys, values = (torch.randn(shape, device=device).to(sizes.dtype) for _ in range(2))
        tables = torch.randperm(count * blocks, device=device).to(torch.int32).view(count, blocks)
        self.pages = Pages(keys, values, tables)
        rows = torch.arange(count, device=device, dtype=torch.int32)
        self.queries = Queries(rows, torch.full_like(rows, sizes.context))
        self.q = torch.randn(count, heads, head_dim, device=device).to(sizes.dtype)
        self.scale = head_dim**-0.5
        self.nbytes = 2 * count * sizes.context * kv_heads * head_dim * sizes.dtype.itemsize
