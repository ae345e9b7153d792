"""Who may come in: limits, deadlines that cannot be met, ids in use.

The only part of the engine that callers' threads run themselves, so that a
refusal takes no step and no queue: what cannot be answered in time is refused
at once, before it costs anything. Where the engine has a process of its own,
this part stays with the callers, and hears from the engine who has passed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
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


@dataclass(frozen=True, slots=True)
class GateBounds:
    """What the gate has to know of its engine.

    Attributes:
        max_live: sequences that may run and wait together.
        longest_tokens: tokens of prompt and answer that a KV row, and KV memory, can hold for one sequence.
        chunk_tokens: longest piece of a prompt in one step.
    """

    max_live: int
    longest_tokens: int
    chunk_tokens: int


class Passage(Enum):
    """What becomes of a live sequence."""

    STARTED = "started"
    """It waits no longer."""

    FINISHED = "finished"
    """It runs no longer; its id stays taken while others of its request run."""


@dataclass(slots=True)
class _Entry:
    request_id: str
    tenant: str
    priority: int
    work_tokens: float
    waits: bool = True
    ended: bool = False
    leaves: bool = False


class Gate:
    """The live sequences as seen from outside; thread-safe."""

    def __init__(
        self,
        bounds: GateBounds,
        rules: FairnessRules,
        forecast: ServiceForecast,
        on_passage: Callable[[str, Passage], None] | None = None,
    ) -> None:
        """Opens the gate.

        Args:
            bounds: what the engine can hold.
            rules: what tenants may have.
            forecast: tells what can end in time.
            on_passage: hears what becomes of each sequence, before anybody hears that it ended.
        """
        self._bounds = bounds
        self._rules = rules
        self._on_passage = on_passage
        self._forecast = forecast
        self._lock = threading.Lock()
        self._live: dict[str, _Entry] = {}
        self._ended = 0
        self._leaving = 0
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

    def enter(
        self,
        request: GenerateRequest,
        now: float,
        accept: Callable[[], None],
        displace: Callable[[str, QueueFull], None],
    ) -> None:
        """Lets a request in, or says why not.

        A full queue belongs to the tenants by their weights: who holds less than others for its weight takes
        the place of the youngest that waits of whoever holds most.

        Args:
            request: what is asked.
            now: the engine's time.
            accept: called before another caller may enter, and before `close` can return.
            displace: called before that, for each waiting request that has to go, with what it is told.

        Raises:
            EngineFailed: the step loop has died.
            Draining: the server is stopping.
            RequestIdInUse: another live request has this id.
            ContextLength: no KV row could ever hold it.
            QueueFull: as many sequences are alive, or wait for this tenant, as may, and no other tenant holds more.
            DeadlineUnreachable: it would not be answered in time.
        """
        with self._lock:
            self._refuse_closed()
            ids = sequence_ids(request)
            used = [sequence_id for sequence_id in ids if sequence_id in self._live]
            if used:
                raise RequestIdInUse(f"request id {used[0]!r} is in use; choose another or leave it empty")
            self._refuse_impossible(request)
            self._refuse_own_limit(request, len(ids))
            displaced = self._refuse_too_many(request, len(ids))
            self._refuse_too_late(request, now)
            for request_id, error in displaced:
                self._leave(request_id)
                displace(request_id, error)
            self._count(request, ids)
            accept()

    def let_in(self, request: GenerateRequest, accept: Callable[[], None]) -> None:
        """Takes in a request that another gate, which hears of this one's passages, has let in.

        Raises:
            EngineFailed: the step loop has died.
            Draining: the server is stopping.
        """
        with self._lock:
            self._refuse_closed()
            self._count(request, sequence_ids(request))
            accept()

    def passed(self, sequence_id: str, passage: Passage) -> None:
        """Notes what has become of a sequence."""
        with self._lock:
            entry = self._live[sequence_id]
            if passage is Passage.STARTED:
                entry.waits = False
            else:
                self._leaving -= entry.leaves
                entry.ended, entry.leaves = True, False
                self._ended += 1
        if self._on_passage is not None:
            self._on_passage(sequence_id, passage)

    def ended(self, request: GenerateRequest) -> None:
        """A request has its terminal event."""
        with self._lock:
            for sequence_id in sequence_ids(request):
                entry = self._live.pop(sequence_id)
                self._ended -= entry.ended
                self._leaving -= entry.leaves

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

    def _count(self, request: GenerateRequest, ids: tuple[str, ...]) -> None:
        share = self._forecast.work_tokens(request) / len(ids)
        for sequence_id in ids:
            self._live[sequence_id] = _Entry(request.request_id, request.tenant, request.priority, share)

    def _refuse_closed(self) -> None:
        if self._failure is not None:
            raise EngineFailed("the step loop has died; the server is about to restart")
        if self._draining:
            raise Draining("the server is stopping; send the request to another one")

    def _refuse_impossible(self, request: GenerateRequest) -> None:
        prompt, answer, most = len(request.prompt_tokens), request.stopping.max_tokens, self._bounds.longest_tokens
        if prompt + answer > most:
            raise ContextLength(
                f"the prompt has {prompt} tokens and max_tokens is {answer}; together "
                f"they may be {most} tokens on this server; shorten the prompt or ask for fewer"
            )

    def _refuse_own_limit(self, request: GenerateRequest, answers: int) -> None:
        most = self._rules.policy(request.tenant).max_waiting
        waiting = sum(entry.waits for entry in self._live.values() if entry.tenant == request.tenant)
        if most is not None and waiting + answers > most:
            raise QueueFull(
                f"{waiting} answers wait for tenant {request.tenant!r}, its limit is {most} and the request needs "
                f"{answers}; try again later",
                retry_after_s=self._retry_after_s(request),
            )

    def _refuse_too_many(self, request: GenerateRequest, answers: int) -> list[tuple[str, QueueFull]]:
        """Who has to go so that there is room, and what they are told."""
        staying = self.live - self._leaving
        most = self._bounds.max_live
        missing = staying + answers - most
        if missing <= 0:
            return []
        displaced = self._crowding(request, answers, missing)
        if not displaced:
            raise QueueFull(
                f"{staying} answers are being made or wait, the limit is {most} and the request "
                f"needs {answers}; try again later",
                retry_after_s=self._retry_after_s(request),
            )
        told = f"{staying} answers are being made or wait, the limit is {most}; your tenant held most of it"
        return [
            (request_id, QueueFull(f"{told}; try again later", retry_after_s=self._retry_after_s(request)))
            for request_id in displaced
        ]

    def _crowding(self, request: GenerateRequest, answers: int, missing: int) -> list[str]:
        """The youngest waiting requests of tenants that hold more for their weight; empty when those are too few."""
        held = Counter(e.tenant for e in self._live.values() if not e.ended and not e.leaves)
        weight = {tenant: self._rules.policy(tenant).weight for tenant in {*held, request.tenant}}
        own = (held[request.tenant] + answers) / weight[request.tenant]
        if all((held[tenant] - 1) / weight[tenant] < own for tenant in held):
            return []
        waiting = self._waiting_by_request()
        found: list[str] = []
        while missing > 0:
            tenants = {tenant for tenant, _ in waiting.values()} - {request.tenant}
            crowded = max(tenants, key=lambda tenant: (held[tenant] / weight[tenant], tenant), default=None)
            # After the exchange the newcomer may hold no more for its weight than who gave way.
            if crowded is None or (held[crowded] - 1) / weight[crowded] < own:
                return []
            youngest = next(name for name, (tenant, _) in reversed(waiting.items()) if tenant == crowded)
            _, size = waiting.pop(youngest)
            held[crowded] -= size
            missing -= size
            found.append(youngest)
        return found

    def _waiting_by_request(self) -> dict[str, tuple[str, int]]:
        """Tenant and size of the requests of which nothing runs yet, the oldest first."""
        waiting: dict[str, tuple[str, int]] = {}
        begun: set[str] = set()
        for entry in self._live.values():
            if entry.leaves or not entry.waits:
                begun.add(entry.request_id)
            else:
                _, size = waiting.get(entry.request_id, ("", 0))
                waiting[entry.request_id] = (entry.tenant, size + 1)
        return {name: found for name, found in waiting.items() if name not in begun}

    def _leave(self, request_id: str) -> None:
        """A request is about to end: its place is free already."""
        for entry in self._live.values():
            if entry.request_id == request_id:
                entry.leaves = True
                self._leaving += 1

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
