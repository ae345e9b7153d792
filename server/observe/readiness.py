"""Whether this process may get traffic: one value, read by every health face."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a server is in its life; it only moves down this list."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


_ORDER = list(Phase)


class Readiness:
    """The phase of one process; reads and writes are atomic."""

    def __init__(self) -> None:
        self._phase = Phase.STARTING

    @property
    def phase(self) -> Phase:
        """The phase now."""
        return self._phase

    def advance(self, phase: Phase) -> None:
        """Moves on.

        Raises:
            RuntimeError: that would be going back.
        """
        if _ORDER.index(phase) < _ORDER.index(self._phase):
            raise RuntimeError(f"a server does not go back from {self._phase.value} to {phase.value}")
        self._phase = phase
