"""Which tokens may not be chosen, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from switchyard.server.engine.types import SequenceSlice
from switchyard.server.model.sampling.matching import AnswerMatcher


def forbidden_tokens(
    slices: Sequence[SequenceSlice],
    matchers: Sequence[AnswerMatcher | None],
    eos_token_ids: frozenset[int],
    vocab: int,
) -> torch.Tensor:
    """Everything that a row may not choose.

    Args:
        slices: one per row.
        matchers: where each row's structure stands; None without one. One that has failed, or fails here, rules
            nothing out: its row is to be refused.
        eos_token_ids: tokens that end an answer on this base.
        vocab: columns of the logits, which may be more than the tokenizer knows.

    Returns:
        [n, vocab] bool.
    """
    forbidden = torch.zeros(len(slices), vocab, dtype=torch.bool)
    for row, piece in enumerate(slices):
        params, stopping = piece.sampling, piece.stopping
        if params.allowed_token_ids:
            forbidden[row] = True
            forbidden[row, list(params.allowed_token_ids)] = False
        if params.banned_token_ids:
            forbidden[row, list(params.banned_token_ids)] = True
        if stopping is not None and piece.sample_index < stopping.min_tokens:
            forbidden[row, sorted(stopping.ending(eos_token_ids))] = True
    bits = {row: matcher.allowed() for row, matcher in enumerate(matchers) if matcher is not None}
    allowed = {row: one for row, one in bits.items() if one is not None}
    if allowed:
        forbidden[list(allowed)] |= _outside(list(allowed.values()), vocab)
    return forbidden


def _outside(allowed_bits: Sequence[bytes], vocab: int) -> torch.Tensor:
    """[n, vocab] bool: what each structure rules out next."""
    packed = np.stack([np.frombuffer(bits, dtype=np.uint8) for bits in allowed_bits])
    allowed = np.unpackbits(packed, axis=1, count=vocab, bitorder="little")
    return torch.from_numpy(allowed == 0)
