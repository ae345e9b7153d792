"""Bounds how many adapters get a metric series of their own.

Metric backends keep every label value they have ever seen, so a server with
100 000 adapters must not name them all. The busiest `capacity` adapters own a
series; the rest share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_CANDIDATES_PER_SERIES: Final = 16
_HALVE_EVERY: Final = 4096
"""Observations after which counts are halved, so that yesterday's traffic does not hold a series for ever."""


class BusiestKeys:
    """Chooses the keys that own a series, from how often each is seen.

    A newcomer takes the place of the least busy owner when it has been seen
    more than twice as often; the factor keeps two equals from swapping for ever.
    Not thread-safe: the caller holds its own lock.
    """

    def __init__(self, capacity: int, on_loss: Callable[[str], None]) -> None:
        """Starts with no owner.

        Args:
            capacity: most keys that own a series.
            on_loss: called with a key that has lost its series.
        """
        self._capacity = capacity
        self._on_loss = on_loss
        self._owners: dict[str, int] = {}
        self._candidates: dict[str, int] = {}
        self._seen = 0

    def owns(self, key: str) -> bool:
        """Counts one observation of `key` and tells whether it owns a series now."""
        self._age()
        if key in self._owners:
            self._owners[key] += 1
            return True
        count = self._candidates.pop(key, 0) + 1
        if len(self._owners) < self._capacity:
            self._owners[key] = count
            return True
        least = min(self._owners, key=self._owners.__getitem__)
        if count > 2 * self._owners[least]:
            self._remember(least, self._owners.pop(least))
            self._owners[key] = count
            self._on_loss(least)
            return True
        self._remember(key, count)
        return False

    def owners(self) -> frozenset[str]:
        """The keys that own a series now."""
        return frozenset(self._owners)

    def _remember(self, key: str, count: int) -> None:
        if len(self._candidates) >= self._capacity * _CANDIDATES_PER_SERIES:
            del self._candidates[next(iter(self._candidates))]
        self._candidates[key] = count

    def _age(self) -> None:
        self._seen += 1
        if self._seen % _HALVE_EVERY == 0:
            # An owner keeps at least 1: a single sighting of a stranger must not displace it.
            self._owners = {key: max(1, count // 2) for key, count in self._owners.items()}
            self._candidates = {key: count // 2 for key, count in self._candidates.items() if count > 1}
