"""Who has had how much service, and who is next.

Virtual token counters (Sheng et al., "Fairness in Serving Large Language
Models", OSDI 2024): every client has a counter that grows with the tokens
computed for it; whoever waits with the smallest counter is next. A client
that comes back after a rest starts no lower than those that waited meanwhile,
so nobody saves up.

There are two levels. Tenants share the server by their weights; within a
tenant its adapters share equally. A tenant therefore gains nothing by spreading
its requests over many adapters.
"""

from __future__ import annotations

from collections import Counter

from switchyard.server.engine.limits import FairnessRules


class VirtualCounters:
    """One counter per client.

    Nobody who waits or comes back is below the floor, which only rises. So a
    client that rests at or below it needs no entry. The floor is brought up to
    date when it is needed, not with every token.
    """

    def __init__(self) -> None:
        self.floor = 0.0
        self._served: dict[str, float] = {}
        self._waiting: Counter[str] = Counter()
        self._forget_at = 64

    def __len__(self) -> int:
        return len(self._served)

    def value(self, client: str) -> float:
        """Service that `client` has had, in weighted tokens."""
        return self._served.get(client, self.floor)

    def enter(self, client: str) -> None:
        """One more request of `client` waits."""
        if client not in self._waiting:
            self._raise_floor(self.floor)
            self._served[client] = max(self.value(client), self.floor)
            self._forget_the_rested()
        self._waiting[client] += 1

    def leave(self, client: str) -> None:
        """One request of `client` waits no longer."""
        self._waiting[client] -= 1
        if not self._waiting[client]:
            del self._waiting[client]
        if not self._waiting:
            # With nobody left, the last one's counter is what a newcomer is measured against.
            self._raise_floor(self.value(client))

    def charge(self, client: str, amount: float) -> None:
        """Counts `amount` weighted tokens of service for `client`."""
        self._served[client] = self.value(client) + amount

    def check_integrity(self) -> None:
        """Verifies that no client that waits is below the floor.

        Raises:
            RuntimeError: one is, or waits a negative number of times.
        """
        below = [client for client in self._waiting if self.value(client) < self.floor]
        if below or min(self._waiting.values(), default=1) < 1:
            raise RuntimeError(f"fairness counters do not add up: {below} below {self.floor}, {dict(self._waiting)}")

    def _raise_floor(self, if_nobody_waits: float) -> None:
        self.floor = max(self.floor, min((self.value(client) for client in self._waiting), default=if_nobody_waits))

    def _forget_the_rested(self) -> None:
        """Keeps the table as small as the number of clients that matter, at a constant cost per request."""
        if len(self._served) < self._forget_at:
            return
        self._served = {c: v for c, v in self._served.items() if v > self.floor}
        self._forget_at = max(64, 2 * len(self._served))


class FairShares:
    """The counters of tenants, and of the adapters of each tenant."""

    def __init__(self, rules: FairnessRules) -> None:
        self.rules = rules
        self._tenants = VirtualCounters()
        self._adapters: dict[str, VirtualCounters] = {}
        self._live: Counter[str] = Counter()

    def order(self, tenant: str, adapter_key: str | None) -> tuple[float, float]:
        """Sorts whoever had less service first."""
        return self._tenants.value(tenant), self._adapters[tenant].value(adapter_key or "")

    def enter(self, tenant: str, adapter_key: str | None) -> None:
        """One more sequence of the tenant waits for this adapter."""
        self._adapters.setdefault(tenant, VirtualCounters())
        self._live[tenant] += 1
        self.enter_again(tenant, adapter_key)

    def enter_again(self, tenant: str, adapter_key: str | None) -> None:
        """One of its sequences, which ran, waits again."""
        self._tenants.enter(tenant)
        self._adapters[tenant].enter(adapter_key or "")

    def leave(self, tenant: str, adapter_key: str | None) -> None:
        """One of them waits no longer; it may run now."""
        self._tenants.leave(tenant)
        self._adapters[tenant].leave(adapter_key or "")

    def end(self, tenant: str) -> None:
        """One sequence of the tenant, which has left before, neither waits nor runs."""
        self._live[tenant] -= 1
        if not self._live[tenant]:
            # A tenant that rests has no adapters that compete; its own counter stays.
            del self._live[tenant]
            del self._adapters[tenant]

    def charge_prompt(self, tenant: str, adapter_key: str | None, tokens: int) -> None:
        """Counts prompt tokens that are computed."""
        self._charge(tenant, adapter_key, self.rules.prompt_weight * tokens)

    def charge_output(self, tenant: str, adapter_key: str | None) -> None:
        """Counts one token that was produced."""
        self._charge(tenant, adapter_key, self.rules.output_weight)

    def charge_load(self, tenant: str, adapter_key: str | None, size_bytes: int) -> None:
        """Counts the load of a cold adapter for whom it is loaded."""
        self._charge(tenant, adapter_key, self.rules.prompt_weight * size_bytes / self.rules.load_bytes_per_token)

    def check_integrity(self, live: int) -> None:
        """Verifies that counters and live sequences agree.

        Args:
            live: sequences that wait or run.

        Raises:
            RuntimeError: they do not.
        """
        self._tenants.check_integrity()
        for counters in self._adapters.values():
            counters.check_integrity()
        if sum(self._live.values()) != live or set(self._live) != set(self._adapters):
            raise RuntimeError(f"fairness counts {dict(self._live)} sequences for {live}")

    def _charge(self, tenant: str, adapter_key: str | None, amount: float) -> None:
        self._tenants.charge(tenant, amount / self.rules.policy(tenant).weight)
        self._adapters[tenant].charge(adapter_key or "", amount)
