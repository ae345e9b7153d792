"""Who may come in: limits, deadlines that cannot be met, ids in use.

The only part of the engine that callers' threads run themselves, so that a
refusal takes no step and no queue: what cannot be answered in time is refused
at once, before it costs anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from switchyard.server.engine.forecast import ServiceForecast
from switchyard.server.engine.limits import FairnessRules
from switchyard.server.engine.types import GenerateRequest
from switchyard.server.errors import (
    ContextLength,
    DeadlineUnreachable,
    Draining,
    EngineFailed,
    QueueFull,
    RequestIdInUse,
)

_MOST_WAITING: Final = 0.5
"""Part of its time that a request may wait. Were it all that its answer leaves, an overloaded server's
queue would be as long as only the shortest answers can bear, and nobody else would get in."""


def sequence_ids(request: GenerateRequest) -> tuple[str, ...]:
    """One id per answer that is made: the request's own, then with `/choice` behind it."""
    answers = max(request.n, request.best_of)
    return (request.request_id, *(f"{request.request_id}/{choice}" for choice in range(1, answers)))


@dataclass(slots=True)
class _Entry:
    tenant: str
    priority: int
    work_tokens: float
    waits: bool = True
    ended: bool = False


class Gate:
    """The live sequences as seen from outside; thread-safe."""

    def __init__(
        self, *, max_live: int, longest_tokens: int, rules: FairnessRules, forecast: ServiceForecast
    ) -> None:
        """Opens the gate.

        Args:
            max_live: sequences that may run and wait together.
            longest_tokens: tokens of prompt and answer that a KV row, and KV memory, can hold for one sequence.
            rules: what tenants may have.
            forecast: tells what can end in time.
        """
        self._max_live = max_live
        self._longest_tokens = longest_tokens
        self._rules = rules
        self._forecast = forecast
        self._lock = threading.Lock()
        self._live: dict[str, _Entry] = {}
        self._ended = 0
        self._draining = False
        self._failure: BaseException | None = None

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining

    @property
    def live(self) -> int:
        """Sequences that run or wait."""
        return len(self._live) - self._ended

    def enter(self, request: GenerateRequest, now: float, accept: Callable[[], None]) -> None:
        """Lets a request in, or says why not.

        Args:
            request: what is asked.
            now: the engine's time.
            accept: called before another caller may enter, and before `close` can return.

        Raises:
            EngineFailed: the step loop has died.
            Draining: the server is stopping.
            RequestIdInUse: another live request has this id.
            ContextLength: no KV row could ever hold it.
            QueueFull: as many sequences are alive, or wait for this tenant, as may.
            DeadlineUnreachable: it would not be answered in time.
        """
        with self._lock:
            self._refuse_closed()
            ids = sequence_ids(request)
            used = [sequence_id for sequence_id in ids if sequence_id in self._live]
            if used:
                raise RequestIdInUse(f"request id {used[0]!r} is in use; choose another or leave it empty")
            self._refuse_impossible(request)
            self._refuse_too_many(request, len(ids))
            self._refuse_too_late(request, now)
            share = self._forecast.work_tokens(request) / len(ids)
            for sequence_id in ids:
                self._live[sequence_id] = _Entry(request.tenant, request.priority, share)
            accept()

    def started(self, sequence_id: str) -> None:
        """A sequence waits no longer."""
        with self._lock:
            self._live[sequence_id].waits = False

    def finished(self, sequence_id: str) -> None:
        """A sequence runs no longer; its id stays taken while others of its request run."""
        with self._lock:
            self._live[sequence_id].ended = True
            self._ended += 1

    def ended(self, request: GenerateRequest) -> None:
        """A request has its terminal event."""
        with self._lock:
            for sequence_id in sequence_ids(request):
                self._ended -= self._live.pop(sequence_id).ended

    def close(self) -> None:
        """Refuses new requests from now on."""
        with self._lock:
            self._draining = True

    def fail(self, failure: BaseException) -> None:
        """Refuses new requests for good: the step loop has died."""
        with self._lock:
            self._failure = failure

    def check_integrity(self, ids: set[str], unfinished: int) -> None:
        """Verifies that the gate counts the sequences that there are.

        Args:
            ids: of every sequence of a request that is alive.
            unfinished: how many of them run or wait.

        Raises:
            RuntimeError: it does not.
        """
        if set(self._live) != ids or self.live != unfinished:
            raise RuntimeError(
                f"the gate counts {self.live} of {sorted(self._live)}, alive are {unfinished} of {sorted(ids)}"
            )

    def _refuse_closed(self) -> None:
        if self._failure is not None:
            raise EngineFailed("the step loop has died; the server is about to restart")
        if self._draining:
            raise Draining("the server is stopping; send the request to another one")

    def _refuse_impossible(self, request: GenerateRequest) -> None:
        prompt, answer = len(request.prompt_tokens), request.stopping.max_tokens
        if prompt + answer > self._longest_tokens:
            raise ContextLength(
                f"the prompt has {prompt} tokens and max_tokens is {answer}; together "
                f"they may be {self._longest_tokens} tokens on this server; shorten the prompt or ask for fewer"
            )

    def _refuse_too_many(self, request: GenerateRequest, answers: int) -> None:
        if self.live + answers > self._max_live:
            raise QueueFull(
                f"{self.live} answers are being made or wait, the limit is {self._max_live} and the request "
                f"needs {answers}; try again later",
                retry_after_s=self._retry_after_s(request),
            )
        most = self._rules.policy(request.tenant).max_waiting
        waiting = sum(entry.waits for entry in self._live.values() if entry.tenant == request.tenant)
        if most is not None and waiting + answers > most:
            raise QueueFull(
                f"{waiting} answers wait for tenant {request.tenant!r}, its limit is {most} and the request needs "
                f"{answers}; try again later",
                retry_after_s=self._retry_after_s(request),
            )

    def _refuse_too_late(self, request: GenerateRequest, now: float) -> None:
        if request.deadline_s is None or not self._forecast.is_busy:
            # Where there is room a forecast cannot save anything for others.
            return
        ahead = self._work_ahead(request)
        if not ahead:
            return
        wait_s, service_s = self._forecast.wait_s(ahead), self._forecast.service_s(request)
        left_s = request.deadline_s - now
        if wait_s + service_s > left_s or wait_s > _MOST_WAITING * left_s:
            raise unreachable(left_s, wait_s, service_s)

    def _retry_after_s(self, request: GenerateRequest) -> float:
        return max(1.0, self._forecast.wait_s(self._work_ahead(request)))

    def _work_ahead(self, request: GenerateRequest) -> float:
        """Tokens of the requests that go first: all that wait, or, if that is less, this tenant's at its share."""
        waiting = [
            entry
            for entry in self._live.values()
            if entry.waits and (entry.tenant != request.tenant or entry.priority >= request.priority)
        ]
        weights = {tenant: self._rules.policy(tenant).weight for tenant in {e.tenant for e in waiting}}
        own_weight = self._rules.policy(request.tenant).weight
        weights[request.tenant] = own_weight
        everyones = sum(entry.work_tokens for entry in waiting)
        own = sum(entry.work_tokens for entry in waiting if entry.tenant == request.tenant)
        return min(everyones, own * sum(weights.values()) / own_weight)


def unreachable(left_s: float, wait_s: float, service_s: float) -> DeadlineUnreachable:
    """The error of a request that cannot end in time.

    Args:
        left_s: seconds until its deadline.
        wait_s: seconds that it would wait.
        service_s: seconds from then to the end of its answer.
    """
    return DeadlineUnreachable(
        f"the deadline is in {left_s:.1f} s; the answer needs about {service_s:.1f} s after about {wait_s:.1f} s "
        "of waiting; try again later, with a later deadline or a smaller max_tokens",
        retry_after_s=max(1.0, wait_s + service_s - left_s, wait_s - _MOST_WAITING * left_s),
    )
