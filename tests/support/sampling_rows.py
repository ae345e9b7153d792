"""Rows of logits and the slices that want a token from them."""

from __future__ import annotations

from dataclasses import replace

import torch

from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import KvRow, SequenceSlice

EOS = frozenset({2})


def logits(rows: int, vocab: int = 50, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def piece(
    params: SamplingParams | None = None,
    *,
    name: str = "r",
    prompt: tuple[int, ...] = (5, 6, 5),
    output: tuple[int, ...] = (),
    stopping: StoppingParams | None = None,
    choice: int = 0,
) -> SequenceSlice:
    return SequenceSlice(
        request_id=name,
        kv_row=KvRow(0),
        start=len(prompt) + len(output) - 1,
        tokens=(*prompt, *output)[-1:],
        adapter_slot=None,
        sample=True,
        sampling=params or SamplingParams(),
        sample_index=len(output),
        stopping=stopping,
        prompt=prompt,
        output=output,
        choice=choice,
    )


def named(pieces: list[SequenceSlice]) -> list[SequenceSlice]:
    """The same slices, each of a sequence of its own."""
    return [replace(one, request_id=f"r{index}") for index, one in enumerate(pieces)]
