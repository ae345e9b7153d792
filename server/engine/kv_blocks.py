"""How KV memory is shared: one budget of blocks for running sequences and cached prefixes.

Rows of the KV cache reserve addresses; memory is taken block by block as a
row fills. So a server may have more rows than memory for full rows, and this
budget keeps what is written within the bytes that the operator gave.
"""

from __future__ import annotations


class KvBlocks:
    """Counts blocks; which bytes they are is the runner's business."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._held: dict[str, int] = {}
        self._running = 0
        self._cached = 0

    @property
    def free(self) -> int:
        """Blocks that nobody has."""
        return self.total - self._running - self._cached

    @property
    def running(self) -> int:
        """Blocks of sequences in the batch."""
        return self._running

    @property
    def cached(self) -> int:
        """Blocks of cached prefixes."""
        return self._cached

    def held(self, owner: str) -> int:
        """Blocks that `owner` has."""
        return self._held.get(owner, 0)

    def hold(self, owner: str, count: int) -> None:
        """Gives `owner` as many more blocks as make it `count`.

        Raises:
            RuntimeError: there are not enough, which is a bug of the engine.
        """
        more = count - self.held(owner)
        if more > self.free:
            raise RuntimeError(f"{owner} takes {more} KV blocks of {self.free} free ones")
        if more > 0:
            self._held[owner] = count
            self._running += more

    def release(self, owner: str) -> None:
        """Takes back all that `owner` has."""
        self._running -= self._held.pop(owner, 0)

    def keep(self) -> None:
        """Gives one block to the cached prefixes.

        Raises:
            RuntimeError: there is none, which is a bug of the engine.
        """
        if self.free < 1:
            raise RuntimeError("no KV block is free for a cached prefix")
        self._cached += 1

    def drop(self) -> None:
        """Takes one block back from the cached prefixes."""
        self._cached -= 1

    def check_integrity(self) -> None:
        """Verifies that blocks add up.

        Raises:
            RuntimeError: a block is lost or counted twice.
        """
        if self._running != sum(self._held.values()) or min(self._cached, self.free) < 0:
            raise RuntimeError(
                f"KV blocks do not add up: {self._running} running, held {self._held}, {self._cached} cached, "
                f"{self.total} in all"
            )
