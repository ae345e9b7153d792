"""Who asks for which adapter, how much, and when: the workloads of the papers, as pure functions.

Popularities are those of Punica (Chen et al., arXiv:2310.18547, §7): distinct,
uniform, skewed and identical. Arrivals with a power law over adapters are those
of S-LoRA (Sheng et al., arXiv:2311.03285, §7.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

_SKEW = 1.5
_TOKEN_FLOOR = 5
"""Token ids below are control tokens of the random bases."""


class Popularity(StrEnum):
    """How requests spread over adapters."""

    DISTINCT = "distinct"
    UNIFORM = "uniform"
    SKEWED = "skewed"
    IDENTICAL = "identical"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a workload.

    Attributes:
        adapter: number of the adapter; None asks for the base.
        prompt: token ids.
        tokens: tokens to answer with.
        at_s: when it arrives, in seconds from the start; 0 in closed loops.
    """

    adapter: int | None
    prompt: tuple[int, ...]
    tokens: int
    at_s: float = 0.0


def shares(requests: int, popularity: Popularity) -> list[int]:
    """Requests per adapter, most popular first; they sum up to `requests`."""
    if popularity is Popularity.IDENTICAL:
        return [requests]
    if popularity is Popularity.DISTINCT:
        return [1] * requests
    if popularity is Popularity.UNIFORM:
        adapters = math.ceil(math.sqrt(requests))
        return [requests // adapters + (index < requests % adapters) for index in range(adapters)]
    sizes: list[int] = []
    size = 1.0
    while sum(sizes) + int(size) < requests:
        sizes.append(int(size))
        size *= _SKEW
    return sorted([*sizes, requests - sum(sizes)], reverse=True)


def batch(rows: list[int | None], *, prompt_tokens: int, tokens: int, vocab: int, seed: int = 1) -> list[Ask]:
    """One request per row, all of one length."""
    random = np.random.default_rng(seed)
    return [Ask(adapter, _prompt(random, prompt_tokens, vocab), tokens) for adapter in rows]


def popular(
    requests: int, popularity: Popularity, *, adapters: int, vocab: int, longest: int = 128, seed: int = 7
) -> list[Ask]:
    """A closed loop of requests of mixed lengths, shuffled over adapters.

    A popularity that wants more than `adapters` of them goes round. Prompts are
    log-normal with a median of about 16 tokens, and prompt and answer together
    are uniform up to `longest`, as in Punica's generator.
    """
    random = np.random.default_rng(seed)
    wanted = [rank % adapters for rank, share in enumerate(shares(requests, popularity)) for _ in range(share)]
    random.shuffle(wanted)
    asks = []
    for adapter in wanted:
        length = int(np.clip(18.0 * np.exp(0.8 * random.standard_normal()) - 1, 1, longest - 2))
        total = max(length + 2, int(random.integers(0, longest)))
        asks.append(Ask(adapter, _prompt(random, length, vocab), total - length))
    return asks


def power_law(
    adapters: int,
    *,
    rate_per_s: float,
    duration_s: float,
    alpha: float,
    vocab: int,
    longest: int = 64,
    seed: int = 42,
) -> list[Ask]:
    """An open loop: arrivals by a Poisson process, adapters by a power law.

    Args:
        adapters: how many there are.
        rate_per_s: requests per second.
        duration_s: length of the trace, in seconds.
        alpha: exponent of the law; 1 is uniform, smaller is more skewed.
        vocab: token ids are below it.
        longest: prompts and answers have 8 tokens up to this many, exclusive.
        seed: of the whole trace.
    """
    random = np.random.default_rng(seed)
    count = max(1, int(rate_per_s * duration_s))
    who = (random.power(alpha, count) * adapters).astype(int)
    prompts, answers = random.integers(8, longest, count), random.integers(8, longest, count)
    arrivals = np.cumsum(random.exponential(1 / rate_per_s, count))
    return [
        Ask(int(who[index]), _prompt(random, int(prompts[index]), vocab), int(answers[index]), float(arrivals[index]))
        for index in range(count)
    ]


def _prompt(random: np.random.Generator, length: int, vocab: int) -> tuple[int, ...]:
    return tuple(int(token) for token in random.integers(_TOKEN_FLOOR, vocab, length))
