"""Whether a kernel gives a row the same bits whatever is around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def rows(count: int, width: int) -> torch.Tensor:
    """[count, width] float32, drawn anew for each count."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs the body with that many threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differing_counts(
    product: Callable[[torch.Tensor], torch.Tensor], width: int, counts: range, first: int = 0
) -> list[tuple[int, int]]:
    """Pairs of rows and threads, of `counts` and {1, 2}, whose product is not that of the rows among more."""
    x = rows(first + max(counts), width)
    whole = product(x)
    found = []
    for count in counts:
        for workers in (1, 2):
            with threads(workers):
                part = product(x[first : first + count])
            if not torch.equal(part, whole[first : first + count]):
                found.append((count, workers))
    return found
