"""Every server watches the rollouts of its registry: it tells what it saw and moves the alias when it is time.

Nobody is elected. Each server looks at what all of them saw together; the
first to see enough moves the alias, and the registry's compare-and-swap makes
sure that nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, Protocol, TypeVar

from switchyard.registry.errors import RegistryError
from switchyard.registry.rollout.evidence import Rollout, RolloutState
from switchyard.registry.rollout.tally import Tallies, Tally
from switchyard.registry.store import Registry
from switchyard.server.rollout.outcomes import AliasGeneration, Outcomes

LOOK_EVERY_S: Final = 2.0
"""Seconds between two looks; what a bad candidate may answer beyond what had to be seen."""

_NAME_CHARACTERS: Final = 64
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class RolloutObserver(Protocol):
    """Hears of rollouts; used for metrics."""

    def rollouts(self, running: int) -> None:
        """So many go on."""
        ...

    def rollout_answers(self, side: str, outcome: str, count: int) -> None:
        """So many more answers of a side were told; `outcome` is answered, failed or not_finite."""
        ...

    def rollout_ended(self, state: str) -> None:
        """This server has ended one."""
        ...


class RolloutGuard:
    """Watches rollouts; belongs to one event loop."""

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        outcomes: Outcomes,
        observer: RolloutObserver,
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Wires the parts.

        Args:
            registry: whose rollouts.
            executor: a bounded pool for asking it.
            outcomes: what this server saw.
            observer: hears of them.
            look_every_s: seconds between two looks.
        """
        self._registry = registry
        self._executor = executor
        self._outcomes = outcomes
        self._observer = observer
        self._look_every_s = look_every_s
        # A restarted server begins to count anew, so it must not write over what it told before.
        mark = secrets.token_hex(8)
        self._name = f"{socket.gethostname()[: _NAME_CHARACTERS - len(mark) - 1]}:{mark}"
        self._told: dict[AliasGeneration, Tallies] = {}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks again and again while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> None:
        """Tells what was seen of every rollout that goes on, and follows what that says.

        Raises:
            RegistryError: the registry failed.
        """
        running = await self._run(self._registry.rollouts.running)
        self._observer.rollouts(len(running))
        places = {_place(rollout): rollout for rollout in running}
        self._told = {place: told for place, told in self._told.items() if place in places}
        for place, rollout in places.items():
            try:
                await self._tell(place, rollout)
                await self._settle(rollout)
            except RegistryError as error:
                # The others must not wait for what this one meets.
                _log.warning("a rollout cannot be followed", extra={"alias": str(rollout), "reason": error.reason})

    async def _tell(self, place: AliasGeneration, rollout: Rollout) -> None:
        seen, told = self._outcomes.tallies(place), self._told.get(place, Tallies())
        if seen != told and await self._run(partial(self._registry.rollouts.tell, rollout, self._name, seen)):
            self._told[place] = seen
            for side, now, before in (("first", seen.first, told.first), ("second", seen.second, told.second)):
                for outcome, count in _more(now, before).items():
                    self._observer.rollout_answers(side, outcome, count)

    async def _settle(self, rollout: Rollout) -> None:
        state = await self._run(partial(self._registry.rollouts.settle, rollout))
        if state not in {RolloutState.WATCHING, RolloutState.SUPERSEDED}:
            self._observer.rollout_ended(state.value)
            _log.info("a rollout has ended", extra={"alias": str(rollout), "state": state.value})

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except RegistryError as error:
                _log.warning("rollouts cannot be watched", extra={"reason": error.reason})
            except Exception:
                _log.exception("watching rollouts failed")
            await asyncio.sleep(self._look_every_s)

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _more(now: Tally, before: Tally) -> dict[str, int]:
    failures = now.failures - before.failures
    not_finite = now.not_finite - before.not_finite
    answered = now.answers - before.answers - failures
    return {"answered": answered, "failed": failures - not_finite, "not_finite": not_finite}


def _place(rollout: Rollout) -> AliasGeneration:
    return AliasGeneration(rollout.name.namespace, rollout.name.adapter, rollout.alias, rollout.generation)
