"""When a failed call is sent again.

Owns the policy, which is pure, and the two loops around it, one synchronous and
one asyncio. A call is sent again only while nothing of it was accepted, only for
errors that say so, within the caller's deadline and within a budget shared by
all calls of a client: a server that refuses everything is not answered with a
multiple of the traffic it refuses.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from switchyard.clients.errors import ClientError, Conflict, DeadlineExceeded, TryLater

T = TypeVar("T")

_BUDGET_FULL: Final = 10.0
_BUDGET_EARNED_BY_SUCCESS: Final = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon.

    Attributes:
        attempts: sends of one call, the first included; 1 never retries.
        first_delay_s: seconds before the second send when the server gave no time.
        growth: factor from one delay to the next.
        longest_delay_s: upper bound of a delay that the server did not ask for.
    """

    attempts: int = 4
    first_delay_s: float = 0.1
    growth: float = 2.0
    longest_delay_s: float = 5.0

    def delay_s(self, failures: int, asked_s: float | None, draw: float) -> float:
        """Seconds to wait after `failures` sends.

        Args:
            failures: sends that have failed so far, at least 1.
            asked_s: what the server asked for; it is a lower bound.
            draw: uniform in [0, 1); spreads callers that failed together over +/- 20 %.
        """
        own_s = min(self.first_delay_s * self.growth ** (failures - 1), self.longest_delay_s)
        return max(own_s, asked_s or 0.0) * (1.0 if asked_s else 0.8) + own_s * 0.4 * draw


class RetryBudget:
    """Tokens that retries spend and successes earn, shared by the calls of one client.

    Token bucket of gRPC's retry throttling (gRFC A6): a failure costs 1, a success
    earns 0.1, and retries stop while less than half of the bucket is left.
    """

    def __init__(self) -> None:
        self._tokens = _BUDGET_FULL
        self._lock = threading.Lock()

    def failed(self) -> bool:
        """Counts one failure and tells whether a retry is within the budget."""
        with self._lock:
            self._tokens = max(self._tokens - 1.0, 0.0)
            return self._tokens > _BUDGET_FULL / 2

    def succeeded(self) -> None:
        """Counts one success."""
        with self._lock:
            self._tokens = min(self._tokens + _BUDGET_EARNED_BY_SUCCESS, _BUDGET_FULL)


class Attempts:
    """The sends of one call: what is left of its deadline and of its tries."""

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        deadline_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._deadline_s = deadline_s
        self._clock = clock
        self._draw = draw
        self._end_s = clock() + deadline_s
        self._failures = 0

    def remaining_s(self) -> float:
        """Seconds that the next send may take.

        Raises:
            DeadlineExceeded: none are left.
        """
        left_s = self._end_s - self._clock()
        if left_s <= 0:
            raise DeadlineExceeded(
                f"not done within {self._deadline_s:g} s; give the call a longer deadline if that is usual."
            )
        return left_s

    def delay_after(self, error: ClientError) -> float | None:
        """Seconds to wait before the next send, or None when `error` is final."""
        if not isinstance(error, TryLater | Conflict) or not error.retryable or error.accepted:
            return None
        within_budget = self._budget.failed()
        self._failures += 1
        if not within_budget or self._failures >= self._policy.attempts:
            return None
        delay_s = self._policy.delay_s(self._failures, error.retry_after_s, self._draw())
        return delay_s if self._clock() + delay_s < self._end_s else None

    def succeeded(self) -> None:
        """The call came through."""
        self._budget.succeeded()


def call(send: Callable[[float], T], attempts: Attempts, sleep: Callable[[float], None] = time.sleep) -> T:
    """Runs `send(deadline_s)` until it succeeds or its error is final.

    Raises:
        ClientError: the last error of `send`.
    """
    while True:
        try:
            result = send(attempts.remaining_s())
        except ClientError as error:
            delay_s = attempts.delay_after(error)
            if delay_s is None:
                raise
            sleep(delay_s)
        else:
            attempts.succeeded()
            return result


async def call_async(send: Callable[[float], Awaitable[T]], attempts: Attempts) -> T:
    """Runs `await send(deadline_s)` until it succeeds or its error is final.

    Raises:
        ClientError: the last error of `send`.
    """
    while True:
        try:
            result = await send(attempts.remaining_s())
        except ClientError as error:
            delay_s = attempts.delay_after(error)
            if delay_s is None:
                raise
            await asyncio.sleep(delay_s)
        else:
            attempts.succeeded()
            return result
