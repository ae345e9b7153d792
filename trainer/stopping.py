"""Stopping on request: a signal asks, and the run ends at its next step with its state saved.

Owns what SIGTERM and SIGINT mean while an adapter is trained. The first one asks; a second one of the same
kind does what it would do without this module, because whoever sends two wants the end now.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether somebody asked the run to stop, and how."""

    def __init__(self) -> None:
        self._asked_by: str | None = None

    @property
    def asked_by(self) -> str | None:
        """Name of what asked, e.g. `SIGTERM`, or None."""
        return self._asked_by

    def ask(self, by: str) -> None:
        """Asks the run to stop after its current step."""
        self._asked_by = by

    def settle(self) -> None:
        """Called where a run can end, before `asked_by` is looked at; a run of several processes agrees here."""


@contextlib.contextmanager
def stop_on_signals(notice: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turns the first SIGTERM or SIGINT inside the block into a request; only on the main thread.

    Args:
        notice: Called with the signal's name when it comes, between two instructions of the main thread.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])
        request.ask(name)
        notice(name)

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
