"""Steps that are captured once and replayed: the host issues one call for all launches of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Work = Callable[[], None]


class Capture(Protocol):
    """Turns work into its replay."""

    def __call__(self, work: Work) -> Work:
        """Captures.

        Args:
            work: reads and writes tensors that keep their addresses, and asks the device for nothing.

        Returns:
            What does the same again, with whatever those tensors hold then.
        """
        ...

    def spent_bytes(self) -> int:
        """Device memory that captures have taken so far."""
        ...


class NoCapture:
    """Does the work again each time; for machines without a device. See `Capture`."""

    def __call__(self, work: Work) -> Work:
        """The work itself, after it was done once."""
        work()
        return work

    def spent_bytes(self) -> int:
        """Nothing."""
        return 0


class CudaCapture:
    """CUDA graphs that share one pool of memory; see `Capture`."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._spent_bytes = 0

    def __call__(self, work: Work) -> Work:
        """Does the work once on a stream of its own, so that kernels are compiled, and then captures it."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        before = torch.cuda.memory_reserved()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        self._spent_bytes += torch.cuda.memory_reserved() - before
        replay: Work = graph.replay
        return replay

    def spent_bytes(self) -> int:
        """Bytes that torch reserved while it captured."""
        return self._spent_bytes
