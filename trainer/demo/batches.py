"""The batches of pre-training: repeated random strings first, then drills.

Owns the curriculum's state and the conversion of text to token rows with labels, without padding.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from switchyard.trainer.demo import drills, tokenizer

IGNORED = -100
"""Label of a position whose token is random and must not be learnt."""

_REPEAT_SHARE = 0.12


@dataclass(slots=True)
class Curriculum:
    """How many tokens the random strings draw from, and whether copying has formed.

    A full vocabulary from the start delays copying by minutes; a small pool that grows with success
    does not.
    """

    total: int
    pool: int = 128
    loss: float = 9.0

    @property
    def is_done(self) -> bool:
        """Whether the whole vocabulary is in the pool and copied well."""
        return self.pool >= self.total and self.loss < 0.9

    def observe(self, loss: float, step: int) -> None:
        """Takes one step's loss and widens the pool when the current one is copied well."""
        self.loss = 0.9 * self.loss + 0.1 * loss
        if self.loss < 0.9 and step % 3 == 0:
            self.pool = min(self.total, self.pool + self.pool // 6)


def repeat_row(
    rng: random.Random, ids: list[int], length: int, *, is_tangled: bool = False
) -> tuple[list[int], list[int]]:
    """Returns (tokens, labels) of a random string repeated to `length`; its first round has no labels.

    A tangled string uses few distinct tokens several times each, so that one token before does not tell the
    next one and a longer match is needed.
    """
    if is_tangled:
        period = rng.choices(rng.sample(ids, rng.randint(4, 8)), k=rng.randint(8, 16))
    else:
        period = rng.sample(ids, rng.randint(5, 12))
    tokens = (period * (length // len(period) + 1))[:length]
    return tokens, [IGNORED] * len(period) + tokens[len(period) :]


def drill_row(rng: random.Random, length: int, places_share: float = 0.0) -> tuple[list[int], list[int]]:
    """Returns (tokens, labels) of drills packed to `length`; labels cover the answers."""
    tokens: list[int] = []
    labels: list[int] = []
    while len(tokens) < length:
        drill = drills.draw(rng, places_share)
        prompt, answer = tokenizer.encode(drill.prompt), tokenizer.encode(drill.answer)
        tokens += [tokenizer.BOS_ID, *prompt, *answer, tokenizer.EOS_ID]
        labels += [IGNORED] * (1 + len(prompt)) + [*answer, tokenizer.EOS_ID]
    return tokens[:length], labels[:length]


def repeat_batch(rng: random.Random, ids: list[int], rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (tokens, labels) of repeated strings, each int64 of shape (rows, length)."""
    return _stack([repeat_row(rng, ids, length) for _ in range(rows)])


def drill_batch(
    rng: random.Random, ids: list[int], rows: int, length: int, places_share: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (tokens, labels) of drills with some repeats, each int64 of shape (rows, length).

    Args:
        rng: Source of everything drawn.
        ids: Tokens that repeats draw from.
        rows: Rows of the batch.
        length: Tokens of a row.
        places_share: Share of the drills that ask where a place lies.
    """

    def row() -> tuple[list[int], list[int]]:
        if rng.random() < _REPEAT_SHARE:
            return repeat_row(rng, ids, length, is_tangled=True)
        return drill_row(rng, length, places_share)

    return _stack([row() for _ in range(rows)])


def _stack(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([tokens for tokens, _ in rows]), torch.tensor([labels for _, labels in rows])
