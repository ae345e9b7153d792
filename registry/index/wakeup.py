"""Lets watchers sleep until the database may have changed.

One thread and one connection serve all watchers of an index, and live only
while somebody watches. A wake-up is a hint: the watcher looks for itself, so
one too many costs a look, and one too few is made up by the next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from switchyard.registry.errors import StorageError
from switchyard.registry.index.dialect import ChangeSource

# How soon a watcher notices that it is to stop.
_NAP_S = 0.05
_RECONNECT_S = 0.2


class Wakeup:
    """Counts the moments at which there may have been something new.

    Args:
        connect: opens a connection that notices changes of other processes.
    """

    def __init__(self, connect: Callable[[], ChangeSource]) -> None:
        self._connect = connect
        self._moments = threading.Condition()
        self._count = 0
        self._watchers = 0
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether the index was closed; nobody is woken any more."""
        return self._closed.is_set()

    def count(self) -> int:
        """Moments so far. Read it before looking, and wait for another count after."""
        with self._moments:
            return self._count

    def poke(self) -> None:
        """Wakes every watcher of this process."""
        with self._moments:
            self._count += 1
            self._moments.notify_all()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps the thread alive."""
        with self._moments:
            self._watchers += 1
            if self._thread is None and not self.closed:
                self._thread = threading.Thread(target=self._run, name="registry-wakeup", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._moments:
                self._watchers -= 1

    def wait(self, seen: int, stop: threading.Event, timeout_s: float) -> None:
        """Sleeps until the count is no longer `seen`, the caller is to stop, or time is up."""
        until_s = time.monotonic() + timeout_s
        with self._moments:
            while self._count == seen and not stop.is_set() and not self.closed:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return
                self._moments.wait(min(left_s, _NAP_S))

    def close(self) -> None:
        """Ends the thread and wakes everybody; their watches end."""
        self._closed.set()
        self.poke()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while self._is_wanted():
            try:
                with closing(self._connect()) as source:
                    # What happened before the connection was there has woken nobody.
                    self.poke()
                    while self._is_wanted():
                        if source.wait():
                            self.poke()
            except StorageError:
                # Watchers look, and find out for themselves how bad it is.
                self.poke()
                self._closed.wait(_RECONNECT_S)

    def _is_wanted(self) -> bool:
        """Tells the thread whether to go on; once told no, it has handed over to the next one."""
        with self._moments:
            if self._thread is not threading.current_thread():
                return False
            if self._watchers and not self.closed:
                return True
            self._thread = None
            return False
