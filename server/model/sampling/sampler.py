"""Choosing a token per row: bias, penalties, masks, then a distribution and a draw.

Each answer has its own stream of random numbers, a function of its seed and of
how many tokens it has: the same seed gives the same text whatever shares the
batch, and after a preemption. Rows that only want the most probable token cost
one pass over their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from switchyard.server.engine.types import SampledToken, SequenceSlice
from switchyard.server.errors import NoTokenAllowed, ServerError
from switchyard.server.model.sampling import penalties
from switchyard.server.model.sampling.draws import pick, uniform
from switchyard.server.model.sampling.filters import distributions
from switchyard.server.model.sampling.logprobs import scored_tokens, sound_rows
from switchyard.server.model.sampling.masks import forbidden_tokens
from switchyard.server.model.sampling.memory import SequenceMemory, counts_tokens


@dataclass(frozen=True, slots=True)
class Chosen:
    """What came of the rows of one step.

    Attributes:
        tokens: the chosen tokens, by id of the slice.
        faults: slices whose logits are no distribution; see `sound_rows`.
        refused: slices for which there was no token to choose, with the reason.
    """

    tokens: dict[str, SampledToken] = field(default_factory=dict)
    faults: frozenset[str] = frozenset()
    refused: dict[str, ServerError] = field(default_factory=dict)


class Sampler:
    """Chooses tokens and remembers what that needs, by id of the sequence; used on the engine thread only."""

    def __init__(self, eos_token_ids: frozenset[int]) -> None:
        """Starts without any memory.

        Args:
            eos_token_ids: tokens that end an answer on this base.
        """
        self._eos = eos_token_ids
        self._memories: dict[str, SequenceMemory] = {}

    @property
    def remembered(self) -> frozenset[str]:
        """Ids of the sequences that it remembers something of."""
        return frozenset(self._memories)

    def choose(self, logits: torch.Tensor, slices: Sequence[SequenceSlice]) -> Chosen:
        """One token per row that has one.

        Args:
            logits: [n, vocab] float32; left as they are.
            slices: whose row it is.
        """
        sound = sound_rows(logits)
        tokens = _largest(logits)
        refused: dict[str, ServerError] = {}
        changed = [row for row, piece in enumerate(slices) if sound[row] and _changes_logits(piece, self._eos)]
        drawn = [row for row, piece in enumerate(slices) if sound[row] and piece.sampling.temperature > 0]
        rows = sorted({*changed, *drawn})
        if rows:
            work = logits[rows] if len(rows) < len(slices) else logits.clone()
            pieces = [slices[row] for row in rows]
            refused = self._prepare(work, pieces)
            for row, token in zip(rows, _choose_from(work, pieces, refused), strict=True):
                tokens[row] = token
        good = [row for row, piece in enumerate(slices) if sound[row] and piece.request_id not in refused]
        return Chosen(
            tokens=_with_logprobs(logits, slices, tokens, good),
            faults=frozenset(piece.request_id for row, piece in enumerate(slices) if not sound[row]),
            refused=refused,
        )

    def forget(self, sequence_id: str) -> None:
        """Drops what it remembers of a sequence; unknown ids are ignored."""
        self._memories.pop(sequence_id, None)

    def _prepare(self, work: torch.Tensor, slices: Sequence[SequenceSlice]) -> dict[str, ServerError]:
        """Puts biases, penalties and masks on the rows; says which rows are left without a token."""
        params = [piece.sampling for piece in slices]
        memories = [self._memory(piece) for piece in slices]
        counts = [memory.counts if memory else None for memory in memories]
        matchers = [memory.matcher if memory else None for memory in memories]
        penalties.add_biases(work, params)
        penalties.penalise_repetition(work, params, counts)
        penalties.penalise_presence_and_frequency(work, params, counts)
        if any(_forbids(piece, self._eos) for piece in slices):
            work.masked_fill_(forbidden_tokens(slices, matchers, self._eos, work.shape[1]), float("-inf"))
        refused: dict[str, ServerError] = {}
        empty = (work.amax(dim=1) == float("-inf")).tolist()
        for piece, matcher, is_empty in zip(slices, matchers, empty, strict=True):
            if matcher is not None and matcher.failure is not None:
                refused[piece.request_id] = NoTokenAllowed(f"the structure cannot be followed: {matcher.failure}")
            elif is_empty:
                refused[piece.request_id] = NoTokenAllowed(
                    "allowed and banned tokens, min_tokens and structure together leave no token to choose"
                )
        return refused

    def _memory(self, piece: SequenceSlice) -> SequenceMemory | None:
        if piece.sampling.grammar is None and not counts_tokens(piece.sampling):
            return None
        memory = self._memories.get(piece.request_id)
        if memory is None:
            memory = self._memories[piece.request_id] = SequenceMemory.of(piece)
        memory.follow(piece.output)
        return memory


def _changes_logits(piece: SequenceSlice, eos_token_ids: frozenset[int]) -> bool:
    return counts_tokens(piece.sampling) or bool(piece.sampling.logit_bias) or _forbids(piece, eos_token_ids)


def _forbids(piece: SequenceSlice, eos_token_ids: frozenset[int]) -> bool:
    params, stopping = piece.sampling, piece.stopping
    is_early = stopping is not None and piece.sample_index < stopping.min_tokens
    return bool(
        params.allowed_token_ids
        or params.banned_token_ids
        or params.grammar is not None
        or (is_early and stopping and stopping.ending(eos_token_ids))
    )


def _largest(logits: torch.Tensor) -> list[int]:
    """The most probable token of each row, of equal ones the first; NumPy's search is ten times torch's on a CPU."""
    found: list[int] = logits.cpu().numpy().argmax(axis=1).tolist()
    return found


def _choose_from(work: torch.Tensor, slices: Sequence[SequenceSlice], refused: dict[str, ServerError]) -> list[int]:
    """The most probable token of greedy rows, a drawn one of the others; anything for refused rows."""
    tokens = _largest(work)
    drawn = [row for row, p in enumerate(slices) if p.sampling.temperature > 0 and p.request_id not in refused]
    if not drawn:
        return tokens
    pieces = [slices[row] for row in drawn]
    for part in distributions(work[drawn], [piece.sampling for piece in pieces]):
        own = [pieces[row] for row in part.rows]
        points = [uniform(p.sampling.seed, p.choice, p.sample_index) for p in own]
        places = pick(part.weights, points)
        found = places if part.tokens is None else part.tokens.gather(1, places[:, None]).squeeze(1)
        for row, token in zip(part.rows, found.tolist(), strict=True):
            tokens[drawn[row]] = token
    return tokens


def _with_logprobs(
    logits: torch.Tensor, slices: Sequence[SequenceSlice], tokens: Sequence[int], rows: Sequence[int]
) -> dict[str, SampledToken]:
    chosen = {slices[row].request_id: SampledToken(tokens[row]) for row in rows}
    wanted = [row for row in rows if slices[row].sampling.logprobs is not None]
    if wanted:
        counts = [slices[row].sampling.logprobs or 0 for row in wanted]
        scored = scored_tokens(logits[wanted], [tokens[row] for row in wanted], counts)
        chosen.update((slices[row].request_id, one) for row, one in zip(wanted, scored, strict=True))
    return chosen
