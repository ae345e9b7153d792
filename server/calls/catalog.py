"""What this server can be asked for: the base and the adapters published for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from switchyard.registry.records import AdapterSummary, ResolvedAdapter, VersionRecord
from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.server.adapters.tiers import AdapterState
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.ports import AdapterMemory
from switchyard.server.engine.types import Digest
from switchyard.server.errors import FieldFault, InvalidField

DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page_limit(page_size: int, default: int = DEFAULT_PAGE) -> int:
    """The number of items for a page size on the wire, where 0 means unset.

    Raises:
        InvalidField: it is negative or above the maximum.
    """
    if not 0 <= page_size <= MAX_PAGE:
        message = f"{page_size} is not from 1 to {MAX_PAGE}; 0 takes the default, {default}"
        raise InvalidField((FieldFault("page_size", FieldReason.LIMIT, message),))
    return page_size or default


class RegistryResolver:
    """Resolves refs in the registry; on the event loop where that takes no transaction."""

    def __init__(self, registry: Registry, executor: Executor) -> None:
        self._registry = registry
        self._executor = executor

    async def resolve(self, ref: AdapterRef, session_key: str) -> ResolvedAdapter:
        """See `Resolver.resolve`."""
        if (remembered := self._registry.resolution.remembered(ref)) is not None:
            return remembered
        asked = partial(self._registry.resolve, ref, session_key=session_key)
        return await asyncio.get_running_loop().run_in_executor(self._executor, asked)


@dataclass(frozen=True, slots=True)
class Servable:
    """One version that can be asked for.

    Attributes:
        version: the version.
        resident: whether its weights are in an adapter slot now.
    """

    version: VersionRecord
    resident: bool


@dataclass(frozen=True, slots=True)
class ServablePage:
    """One page of what can be asked for.

    Attributes:
        base_name: name of the resident base model.
        base_digest: its identity.
        quantization: label of its quantisation.
        adapters: the versions.
        next_token: token of the next page; empty on the last.
    """

    base_name: str
    base_digest: str
    quantization: str
    adapters: tuple[Servable, ...]
    next_token: str


class ServableCatalog:
    """Lists what can be asked for: of every adapter the newest version and those that an alias names."""

    def __init__(
        self, registry: Registry, memory: AdapterMemory, executor: Executor, *, base_digest: str, quantization: str
    ) -> None:
        self._registry = registry
        self._memory = memory
        self._executor = executor
        self._base_digest = base_digest
        self._quantization = quantization

    async def page(self, page_size: int, page_token: str) -> ServablePage:
        """One page of `page_size` adapters.

        Raises:
            InvalidField: the page size is out of range.
            RefSyntax: the page token is not one that a page gave.
        """
        limit = page_limit(page_size)
        statuses = await self._memory.statuses()
        resident = {status.key for status in statuses if status.state is AdapterState.RESIDENT}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._read, limit, page_token, resident)

    def _read(self, limit: int, page_token: str, resident: set[Digest]) -> ServablePage:
        summaries, next_token = self._registry.list_adapters(None, limit, page_token)
        rows = [row for summary in summaries for row in self._rows(summary, resident)]
        base_name = self._registry.base_model(self._base_digest).name
        return ServablePage(base_name, self._base_digest, self._quantization, tuple(rows), next_token)

    def _rows(self, summary: AdapterSummary, resident: set[Digest]) -> Iterator[Servable]:
        numbers = {summary.latest_version, *(alias.version for alias in summary.aliases)}
        for number in sorted(numbers, reverse=True):
            version = self._registry.get_version(AdapterRef(summary.namespace, summary.adapter, version=number))
            if version.base.digest == self._base_digest:
                yield Servable(version, Digest(version.digest) in resident)
