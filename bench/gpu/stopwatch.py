"""Times of launches: replayed from a CUDA graph between two events; on a CPU by the clock, for the dry run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Work = Callable[[], object]


def median_s(works: Sequence[Work], repeats: int, device: torch.device) -> float:
    """Seconds of one work: all of them in turn are one round, so that weights come from memory, not from a cache."""
    rounds = _captured(works) if device.type == "cuda" else _in_turn(works)
    rounds()
    times = []
    for _ in range(repeats):
        times.append(_event_s(rounds) if device.type == "cuda" else _clock_s(rounds))
    return statistics.median(times) / len(works)


def _in_turn(works: Sequence[Work]) -> Work:
    def rounds() -> None:
        for work in works:
            work()

    return rounds


def _captured(works: Sequence[Work]) -> Work:
    rounds = _in_turn(works)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        rounds()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rounds()
    return graph.replay


def _event_s(rounds: Work) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    rounds()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def _clock_s(rounds: Work) -> float:
    start = time.perf_counter()
    rounds()
    return time.perf_counter() - start
