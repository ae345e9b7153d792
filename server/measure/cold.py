"""What a cold adapter costs: its own first token, and the running streams' rhythm while it loads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Final

from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Listener, Rig
from switchyard.server.measure.workloads import Ask, batch

STREAMS: Final = 8
_PROMPT_TOKENS = 8
_POLL_S = 0.0005


def cold_loads(rig: Rig, *, cold: Sequence[int], file_bytes: int) -> Iterator[Row]:
    """First tokens of adapters that no tier holds, against the same adapters once they are warm.

    Args:
        rig: started; its adapters `cold` have never been asked for.
        cold: numbers of those adapters; each is loaded once.
        file_bytes: size of one adapter's file.
    """
    rig.submit(_ask(rig, None))
    loading = [_alone(rig, number) for number in cold]
    resident = [_alone(rig, number) for number in cold]
    added_ms = (statistics.median(loading) - statistics.median(resident)) * 1e3
    spread = f"cold {_quantiles(loading)}, warm {_quantiles(resident)} ms (p50 / max)"
    yield Row("cold adapter", f"first token, cold less warm, {file_bytes / 1e6:.1f} MB file", added_ms, "ms", spread)


def rhythm(rig: Rig, *, cold: Sequence[int], tokens: int) -> Iterator[Row]:
    """ITL p99 of running streams while other adapters load, over the same without loads.

    Args:
        rig: started; its adapters `cold` have never been asked for.
        cold: adapters loaded meanwhile, one after the other.
        tokens: tokens per stream; long enough for all loads.
    """
    # Whoever loads also decodes a token: in the quiet round the same requests ask for what is warm.
    quiet = _gaps_beside(rig, [0] * len(cold), tokens)
    loading = _gaps_beside(rig, list(cold), tokens)
    ratio = _p99(loading) / _p99(quiet)
    note = f"p99 {_p99(loading) * 1e3:.1f} over {_p99(quiet) * 1e3:.1f} ms, {STREAMS} streams"
    yield Row("cold adapter", f"ITL p99 of streams during {len(cold)} loads over none", ratio, "x", note)


def _gaps_beside(rig: Rig, others: list[int], tokens: int) -> list[float]:
    streams = [
        rig.submit(ask)
        for ask in batch([None] * STREAMS, prompt_tokens=_PROMPT_TOKENS, tokens=tokens, vocab=rig.vocab)
    ]
    for number in others:
        _finish(rig.submit(_ask(rig, number)))
    for stream in streams:
        _finish(stream)
    return [gap for stream in streams for gap in stream.gaps_s()]


def _alone(rig: Rig, number: int) -> float:
    listener = rig.submit(_ask(rig, number))
    _finish(listener)
    return listener.first_token_after_s


def _ask(rig: Rig, number: int | None) -> Ask:
    return batch([number], prompt_tokens=_PROMPT_TOKENS, tokens=1, vocab=rig.vocab)[0]


def _finish(listener: Listener) -> None:
    while not listener.ended:
        time.sleep(_POLL_S)


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


def _quantiles(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} / {max(seconds) * 1e3:.1f}"
