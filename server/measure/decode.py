"""Tokens per second of a full batch, and what adapters take away from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Rig
from switchyard.server.measure.spent import Rounds, Spent
from switchyard.server.measure.workloads import batch

CASES: Final = ((1, 0), (1, 1), (4, 4), (16, 0), (16, 1), (16, 4), (16, 16))
"""Requests, and distinct adapters among them; 0 asks the base."""

PROMPT_TOKENS: Final = 32
PREFILL_TOKENS: Final = 512
PREFILL_ROWS: Final = 16


def rows_of(requests: int, adapters: int) -> list[int | None]:
    """Which adapter each request of a batch asks for."""
    return [row % adapters if adapters else None for row in range(requests)]


def decode_once(rig: Rig, requests: int, adapters: int, tokens: int) -> Spent:
    """Time of `tokens` decode steps of a full batch, prefill left out."""
    asks = batch(rows_of(requests, adapters), prompt_tokens=PROMPT_TOKENS, tokens=1 + tokens, vocab=rig.vocab)
    return rig.prefill_and_decode(asks)[1]


def prefill_once(rig: Rig, adapters: int) -> Spent:
    """Time from nothing to the first tokens of 512 prompt tokens in 16 requests."""
    length = PREFILL_TOKENS // PREFILL_ROWS
    asks = batch(rows_of(PREFILL_ROWS, adapters), prompt_tokens=length, tokens=1, vocab=rig.vocab)
    return rig.prefill_and_decode(asks)[0]


def decode_rates(rig: Rig, *, tokens: int, rounds: int) -> Iterator[Row]:
    """Decode speed of every case, and the share of the bare base's speed at the same batch."""
    runs = {str(case): partial(decode_once, rig, *case, tokens) for case in CASES}
    found = Rounds.of(runs, rounds)
    rates = {case: case[0] * tokens / found.best(str(case)).cpu_s for case in CASES}
    for (requests, adapters), rate in rates.items():
        wall = requests * tokens / found.best(str((requests, adapters))).wall_s
        yield Row("decode", _case(requests, adapters), rate, "tokens/CPU-s", f"{wall:.0f} tokens/s on the clock")
    for requests, adapters in CASES:
        if adapters and (requests, 0) in rates:
            speed = found.ratio(str((requests, 0)), str((requests, adapters)))
            yield Row("adapter tax", f"{_case(requests, adapters)}, over base", speed, "x")


def prefill_rates(rig: Rig, *, rounds: int) -> Iterator[Row]:
    """Prefill of 512 tokens by 16 adapters against the base's."""
    found = Rounds.of(
        {"base": partial(prefill_once, rig, 0), "adapters": partial(prefill_once, rig, PREFILL_ROWS)}, rounds
    )
    for who in found.spent:
        yield Row(
            "prefill",
            f"{PREFILL_TOKENS} tokens, 16 requests, {who}",
            PREFILL_TOKENS / found.best(who).cpu_s,
            "tokens/CPU-s",
        )
    yield Row("prefill", "time with 16 adapters over base", found.ratio("adapters", "base"), "x")


def _case(requests: int, adapters: int) -> str:
    who = f"{adapters} adapter{'s' * (adapters > 1)}" if adapters else "base"
    return f"{requests} request{'s' * (requests > 1)}, {who}"
