"""Which sequence owns which row of the KV cache.

Rows are handed out lowest first, so that the rows in use stay close together
and the attention of a step can read one contiguous range.
"""

from __future__ import annotations

import heapq

from switchyard.server.engine.types import KvRow


class KvRows:
    """Hands out KV rows; each holds one sequence of up to the whole context."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = [KvRow(row) for row in range(count)]
        self._owner: dict[KvRow, str] = {}

    @property
    def used(self) -> int:
        """Rows in use."""
        return len(self._owner)

    def allocate(self, request_id: str) -> KvRow | None:
        """Gives the lowest free row to `request_id`; None when there is none."""
        if not self._free:
            return None
        row = heapq.heappop(self._free)
        self._owner[row] = request_id
        return row

    def release(self, row: KvRow) -> None:
        """Takes a row back.

        Raises:
            RuntimeError: nobody owns it, which is a bug of the engine.
        """
        if self._owner.pop(row, None) is None:
            raise RuntimeError(f"KV row {row} released twice")
        heapq.heappush(self._free, row)

    def check_integrity(self) -> None:
        """Verifies that each row is either free or owned.

        Raises:
            RuntimeError: a row is lost or counted twice.
        """
        rows = sorted([*self._free, *self._owner])
        if rows != list(range(self.count)):
            raise RuntimeError(f"KV rows do not add up: {rows}")
