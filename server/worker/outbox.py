"""What a worker's threads have to tell, gathered and sent from its event loop.

The engine thread only appends and wakes the loop once per step; pickling and
system calls happen while the kernels of the next step compute.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from switchyard.server.engine.forecast import Outlook
from switchyard.server.engine.gate import Passage
from switchyard.server.engine.types import EngineLoad, Event
from switchyard.server.observe.memory import resident_bytes
from switchyard.server.worker.messages import Happened, Note

_T = TypeVar("_T")


class Outbox:
    """Events and notes on their way to the server process; any thread may append."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[Happened], None]) -> None:
        """Starts empty.

        Args:
            loop: from which everything is sent.
            send: sends one message; called on the loop.
        """
        self._loop = loop
        self._send = send
        self._events: deque[tuple[int, Event]] = deque()
        self._notes: deque[Note] = deque()
        self._passages: deque[tuple[str, Passage]] = deque()
        self._load: EngineLoad | None = None

    def event(self, number: int, event: Event) -> None:
        """Takes an event of the request that was submitted under this number."""
        self._events.append((number, event))

    def note(self, name: str, *arguments: object) -> None:
        """Takes one call of an observer."""
        self._notes.append((name, arguments))

    def passage(self, sequence_id: str, passage: Passage) -> None:
        """Takes what has become of a sequence, before any event that ends its request."""
        self._passages.append((sequence_id, passage))

    def flush(self, load: EngineLoad, outlook: Outlook) -> None:
        """Has everything sent, if there is any news; called on the engine thread after each step.

        Args:
            load: the engine now.
            outlook: its forecasts now; goes with other news only.
        """
        if not (self._events or self._notes or self._passages) and load == self._load:
            return
        self._load = load
        self._loop.call_soon_threadsafe(self._send_all, load, outlook)

    def _send_all(self, load: EngineLoad, outlook: Outlook) -> None:
        # Passages last: those of the requests that end in these events are then among them.
        events, notes, passages = _taken(self._events), _taken(self._notes), _taken(self._passages)
        self._send(Happened(events, notes, load, resident_bytes(), passages, outlook))


def _taken(queue: deque[_T]) -> tuple[_T, ...]:
    """Everything that was in a queue to which other threads append."""
    return tuple(queue.popleft() for _ in range(len(queue)))


class Recorder:
    """Satisfies the observer ports of engine and residency; the server process replays what it heard."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note

    def queued(self, adapter_key: str | None) -> None:
        """See `EngineObserver`."""
        self._note("queued", adapter_key)

    def started(self, adapter_key: str | None, queue_s: float, adapter_wait_s: float) -> None:
        """See `EngineObserver`."""
        self._note("started", adapter_key, queue_s, adapter_wait_s)

    def first_token(self, adapter_key: str | None, ttft_s: float) -> None:
        """See `EngineObserver`."""
        self._note("first_token", adapter_key, ttft_s)

    def token(self, adapter_key: str | None, itl_s: float) -> None:
        """See `EngineObserver`."""
        self._note("token", adapter_key, itl_s)

    def finished(self, adapter_key: str | None, outcome: str, prompt_tokens: int, completion_tokens: int) -> None:
        """See `EngineObserver`."""
        self._note("finished", adapter_key, outcome, prompt_tokens, completion_tokens)

    def step(self, duration_s: float, sequences: int, tokens: int) -> None:
        """See `EngineObserver`."""
        self._note("step", duration_s, sequences, tokens)

    def prefix(self, cached_tokens: int) -> None:
        """See `EngineObserver`."""
        self._note("prefix", cached_tokens)

    def preempted(self) -> None:
        """See `EngineObserver`."""
        self._note("preempted")

    def shed(self) -> None:
        """See `EngineObserver`."""
        self._note("shed")

    def load_phase(self, phase: str, seconds: float) -> None:
        """See `ResidencyObserver`."""
        self._note("load_phase", phase, seconds)

    def evicted(self, tier: str) -> None:
        """See `ResidencyObserver`."""
        self._note("evicted", tier)

    def resident(self, count_by_state: dict[str, int], bytes_by_tier: dict[str, int]) -> None:
        """See `ResidencyObserver`."""
        self._note("resident", count_by_state, bytes_by_tier)
