"""How other threads talk to the engine thread: one queue, one lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Command = Callable[[], None]
"""Runs on the engine thread, between two steps."""


class Mailbox:
    """Commands for the engine thread, in order of arrival."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._commands: deque[Command] = deque()
        self._woken = False

    def post(self, command: Command) -> None:
        """Leaves a command and wakes the engine; never blocks."""
        with self._arrived:
            self._commands.append(command)
            self._arrived.notify()

    def wake(self) -> None:
        """Wakes the engine without a command."""
        with self._arrived:
            self._woken = True
            self._arrived.notify()

    def take(self, timeout_s: float | None) -> list[Command]:
        """All commands so far.

        Args:
            timeout_s: how long to wait for the first one, in seconds; 0 does not
                wait, None waits until there is one or `wake` is called.
        """
        with self._arrived:
            if timeout_s is None or timeout_s > 0:
                self._arrived.wait_for(lambda: bool(self._commands) or self._woken, timeout_s)
            self._woken = False
            commands = list(self._commands)
            self._commands.clear()
            return commands
