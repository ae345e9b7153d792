"""What choosing tokens remembers of one answer: which tokens it has seen, and how far its structure has got.

Everything here can be built again from the prompt and the answer so far, and is
after a preemption. It belongs to a sequence, never to a row of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import SequenceSlice
from switchyard.server.model.sampling.grammars import CompiledGrammar
from switchyard.server.model.sampling.matching import AnswerMatcher

_FIRST_TOKENS = 64
"""Different tokens that there is room for at first; the room doubles."""


class TokenCounts:
    """The different tokens of prompt and answer; each step adds to what is there and copies nothing."""

    def __init__(self) -> None:
        self._table = torch.zeros(2, _FIRST_TOKENS, dtype=torch.int64)
        self._places: dict[int, int] = {}

    @property
    def ids(self) -> torch.Tensor:
        """[k] int64, each token once, in order of appearance; a view."""
        return self._table[0, : len(self._places)]

    @property
    def in_answer(self) -> torch.Tensor:
        """[k] int64, how often the answer has each of `ids`; a view."""
        return self._table[1, : len(self._places)]

    def add(self, tokens: Sequence[int], *, of_answer: bool) -> None:
        """Counts more tokens; a prompt of thousands takes as many writes as one token."""
        known = len(self._places)
        new = [token for token in dict.fromkeys(tokens) if token not in self._places]
        self._places.update(zip(new, range(known, known + len(new)), strict=True))
        while len(self._places) > self._table.shape[1]:
            self._table = torch.cat([self._table, torch.zeros_like(self._table)], dim=1)
        if new:
            self._table[0, known : len(self._places)] = torch.tensor(new)
        if of_answer and tokens:
            places = torch.tensor([self._places[token] for token in tokens])
            self._table[1].index_add_(0, places, torch.ones_like(places))


@dataclass(slots=True)
class SequenceMemory:
    """The state of one answer; see the module.

    Attributes:
        counts: its tokens; None when no penalty asks for them.
        matcher: where its structure stands; None without one.
    """

    counts: TokenCounts | None
    matcher: AnswerMatcher | None
    _taken: int = 0

    @classmethod
    def of(cls, piece: SequenceSlice) -> SequenceMemory:
        """The state at the beginning of the answer of a slice."""
        counts = TokenCounts() if counts_tokens(piece.sampling) else None
        if counts is not None:
            counts.add(piece.prompt, of_answer=False)
        grammar = piece.sampling.grammar
        if grammar is None:
            return cls(counts, None)
        if not isinstance(grammar, CompiledGrammar):
            raise TypeError(f"a grammar of another sampler: {type(grammar).__name__}")
        return cls(counts, AnswerMatcher(grammar))

    def follow(self, output: Sequence[int]) -> None:
        """Takes in what the answer has beyond what was taken before."""
        new = output[self._taken :]
        if self.counts is not None:
            self.counts.add(new, of_answer=True)
        if self.matcher is not None and new:
            self.matcher.consume(new)
        self._taken = len(output)


def counts_tokens(params: SamplingParams) -> bool:
    """Whether the penalties of `params` need to know the tokens so far."""
    return (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1.0, 0.0, 0.0)
