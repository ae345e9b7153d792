"""Answers that hold until somebody commits: asking again costs no transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

_MOST: Final = 4096


class Memo(Generic[_K, _V]):
    """Keeps what was read for as long as the index is as it was; thread-safe.

    Nothing is ever told that a read of this moment would not tell: the stamp
    is taken before a read and compared before every answer. Where the index
    has no stamps, nothing is kept.
    """

    def __init__(self, stamp: Callable[[], int | None]) -> None:
        """Keeps nothing yet.

        Args:
            stamp: see `Dialect.stamp`.
        """
        self.stamp = stamp
        self._lock = threading.Lock()
        self._kept: dict[_K, _V] = {}
        self._kept_at: int | None = None

    def get(self, key: _K) -> _V | None:
        """What was kept under a key, if it still holds."""
        stamp = self.stamp()
        with self._lock:
            return self._kept.get(key) if stamp is not None and stamp == self._kept_at else None

    def keep(self, key: _K, value: _V, stamp: int | None) -> None:
        """Keeps an answer.

        Args:
            key: what it is asked for by.
            value: what was read.
            stamp: of the index, taken before it was read.
        """
        if stamp is None:
            return
        with self._lock:
            if stamp != self._kept_at or len(self._kept) >= _MOST:
                self._kept.clear()
                self._kept_at = stamp
            self._kept[key] = value
