"""The embedding with adapters: each row looks its token up, in its own table where it has one."""

from __future__ import annotations

import torch
from torch.nn import functional

from switchyard.server.lora.by_segment import expand_segment, padded
from switchyard.server.lora.segments import Segments
from switchyard.server.lora.table import GroupTable


def embed(tokens: torch.Tensor, base: torch.Tensor, segments: Segments, table: GroupTable) -> torch.Tensor:
    """`W[token] + sum of scale * B A[:, token]` for every row; W is the base's table or the adapter's own.

    Args:
        tokens: [T] int64, token ids.
        base: [tokens, width], the base's table.
        segments: the step's rows by adapter slot.
        table: adapters by slot for the embedding's group; their A is [R, tokens].

    Returns:
        [T, width] float32.
    """
    x = functional.embedding(tokens, base).float()
    if not table:
        return x
    for segment in segments.entries:
        adapter = table.get(segment.slot)
        if adapter is None:
            continue
        own = segment.of(tokens)
        if adapter.weight is not None:
            x[segment.rows] = functional.embedding(own, adapter.weight).float()
        if adapter.factors is not None:
            shrunk = adapter.factors.a.index_select(1, padded(own)).t().float()
            expand_segment(x, shrunk, segment, adapter.factors)
    return x
