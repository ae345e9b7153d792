"""How much a tenant, or everybody together of one adapter, may ask for in a minute and at once.

Shares of the engine are the engine's business; a quota holds also where the
server is idle. Rates are token buckets that hold one minute: a request enters
while the bucket is not empty, takes all that it may use, and gives back at its
end what it did not. So a burst is answered, and a bucket is overdrawn by one
request at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from switchyard.server.engine.ports import Clock
from switchyard.server.engine.types import GenerateRequest
from switchyard.server.errors import AdapterQuota, Overloaded, TenantQuota

_MINUTE_S: Final = 60.0
_PLACE_RETRY_S: Final = 1.0
"""When to ask again for a place: nobody knows when an answer ends."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What somebody may have; None for no limit.

    Attributes:
        requests_per_minute: calls for answers or vectors.
        tokens_per_minute: tokens of prompts and answers.
        max_live: calls under way at once.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_live: int | None = None

    @property
    def is_none(self) -> bool:
        """Whether it limits nothing."""
        return self == NO_QUOTA


NO_QUOTA: Final = Quota()


@dataclass(slots=True)
class Charge:
    """What one call has taken.

    Attributes:
        used_tokens: tokens that it has really used; to be told before its end.
    """

    used_tokens: int = 0


class _Bucket:
    """What is left of one minute's worth."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._most = per_minute
        self._left = per_minute
        self._at_s = now

    def wait_s(self, least: float, now: float) -> float:
        """Seconds until at least that much is left; 0 when it is now."""
        self._left = min(self._most, self._left + (now - self._at_s) * self._most / _MINUTE_S)
        self._at_s = now
        return max(0.0, (least - self._left) * _MINUTE_S / self._most)

    def take(self, amount: float) -> None:
        """Takes away, or gives back what is negative."""
        self._left = min(self._most, self._left - amount)


@dataclass(slots=True)
class _Account:
    """One tenant or adapter that has a quota."""

    name: str
    error: type[Overloaded]
    quota: Quota
    requests: _Bucket | None
    tokens: _Bucket | None
    live: int = field(default=0)

    def refusal(self, now: float) -> Overloaded | None:
        """Why a call may not enter now; None when it may."""
        most = self.quota.max_live
        if most is not None and self.live >= most:
            message = (
                f"{self.live} calls of {self.name} are under way, and {most} may be; try again when one has ended"
            )
            return self.error(message, retry_after_s=_PLACE_RETRY_S)
        # A request needs a whole place; of tokens any that are left let it in.
        waits = (
            (self.requests, 1.0, f"{self.quota.requests_per_minute:g} requests" if self.requests else ""),
            (self.tokens, 1.0, f"{self.quota.tokens_per_minute:g} tokens" if self.tokens else ""),
        )
        for bucket, least, words in waits:
            if bucket is not None and (wait_s := bucket.wait_s(least, now)) > 0:
                message = f"{self.name} may have {words} a minute, and has had them; try again in {wait_s:.1f} s"
                return self.error(message, retry_after_s=wait_s)
        return None

    def enter(self, tokens: int) -> None:
        """Takes what a call may use."""
        self.live += 1
        if self.requests is not None:
            self.requests.take(1)
        if self.tokens is not None:
            self.tokens.take(tokens)

    def leave(self, unused_tokens: int) -> None:
        """Gives back what a call did not use."""
        self.live -= 1
        if self.tokens is not None:
            self.tokens.take(-unused_tokens)


class Quotas:
    """Counts what tenants and adapters have had; belongs to one event loop."""

    def __init__(
        self,
        clock: Clock,
        tenant_quota: Callable[[str], Quota] = lambda _: NO_QUOTA,
        adapter_quota: Callable[[str], Quota] = lambda _: NO_QUOTA,
    ) -> None:
        """Starts with full buckets.

        Args:
            clock: the engine's clock.
            tenant_quota: of a tenant, by the name that access control proves; empty where nobody has to say.
            adapter_quota: of an adapter, as `ns/name`, whoever asks and whichever version.
        """
        self._clock = clock
        self._quota_of = {TenantQuota: tenant_quota, AdapterQuota: adapter_quota}
        self._accounts: dict[tuple[type[Overloaded], str], _Account] = {}

    @contextmanager
    def charged(self, requests: Sequence[GenerateRequest]) -> Iterator[Charge]:
        """Takes what the requests of one call may use, and gives back at the end of the block what they did not.

        Raises:
            TenantQuota: its tenant has had what it may, or has as many calls under way as it may.
            AdapterQuota: the same of an adapter.
        """
        accounts = self._accounts_of(requests[0])
        now = self._clock.now()
        for account in accounts:
            if (refusal := account.refusal(now)) is not None:
                raise refusal
        tokens = sum(_most_tokens(request) for request in requests)
        for account in accounts:
            account.enter(tokens)
        charge = Charge()
        try:
            yield charge
        finally:
            for account in accounts:
                account.leave(tokens - charge.used_tokens)

    def _accounts_of(self, request: GenerateRequest) -> list[_Account]:
        parts = request.adapter.parts if request.adapter is not None else ()
        names: Mapping[tuple[type[Overloaded], str], None] = {
            (TenantQuota, request.tenant): None,
            **{(AdapterQuota, f"{part.namespace}/{part.adapter}"): None for part in parts},
        }
        return [account for error, name in names if (account := self._account(error, name)) is not None]

    def _account(self, error: type[Overloaded], name: str) -> _Account | None:
        known = self._accounts.get((error, name))
        quota = known.quota if known is not None else self._quota_of[error](name)
        if known is None and not quota.is_none:
            now = self._clock.now()
            known = self._accounts[error, name] = _Account(
                f"tenant {name!r}" if error is TenantQuota else f"adapter {name}",
                error,
                quota,
                _Bucket(quota.requests_per_minute, now) if quota.requests_per_minute is not None else None,
                _Bucket(quota.tokens_per_minute, now) if quota.tokens_per_minute is not None else None,
            )
        return known


def _most_tokens(request: GenerateRequest) -> int:
    answers = max(request.n, request.best_of)
    return len(request.prompt_tokens) + answers * request.stopping.max_tokens
