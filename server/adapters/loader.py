"""From the registry's bytes to host tensors, on a loader thread.

The bytes are read once into private memory, verified against their digest and
parsed from that same memory: a file that changes afterwards changes nothing
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from switchyard.registry.validation.adapter_config import AdapterConfig, parse_adapter_config
from switchyard.server.adapters.composition import METHOD_SUM
from switchyard.server.adapters.merging.merge import MERGED_CONFIG, merge, part_of
from switchyard.server.adapters.packing import BaseModules, HostAdapter, pack
from switchyard.server.adapters.reading import HostModule, host_modules, tensors_of
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.types import AdapterPart, AdapterSelection
from switchyard.server.errors import AdapterUnpackable, Draining
from switchyard.server.lora.layout import GroupLayout

PhaseTimer = Callable[[str, float], None]
"""Told the name of a phase and how long it took, in seconds."""


class BlobSource(Protocol):
    """Where the bytes of published files come from."""

    def read_blob(self, digest: str) -> bytes:
        """The verified bytes of one blob, in private memory."""
        ...

    def open_blob(self, digest: str) -> Iterator[bytes]:
        """The same in chunks; the last one comes only after all bytes were verified."""
        ...


class AdapterLoader:
    """Loads selections; safe to use from several threads."""

    def __init__(self, source: BlobSource, layout: GroupLayout, base: BaseModules, clock: Clock) -> None:
        self._source = source
        self._layout = layout
        self._base = base
        self._clock = clock
        self._stopped = Event()

    def stop(self) -> None:
        """Ends merges that are under way before their next module."""
        self._stopped.set()

    def load(self, selection: AdapterSelection, timer: PhaseTimer) -> HostAdapter:
        """Fetches, verifies, parses and pairs the factors of every part.

        Args:
            selection: what to load.
            timer: told about the phases `fetch` and `host`.

        Raises:
            RegistryError: a blob is missing or corrupt.
            AdapterUnpackable: a file does not fit the resident base, or cannot be served in a batch or in a sum.
            Draining: `stop` was called.
        """
        fetched = [self._fetch(part, timer) for part in selection.parts]
        began_s = self._clock.now()
        if selection.recipe.method == METHOD_SUM:
            modules = self._stacked(selection, fetched)
        else:
            modules = self._merged(selection, fetched)
        adapter = pack(modules, self._layout, self._base)
        timer("host", self._clock.now() - began_s)
        return adapter

    def _fetch(self, part: AdapterPart, timer: PhaseTimer) -> _Fetched:
        began_s = self._clock.now()
        config = parse_adapter_config(self._source.read_blob(part.config_digest))
        content = bytearray().join(self._source.open_blob(part.weights_digest))
        timer("fetch", self._clock.now() - began_s)
        return _Fetched(part, config, content)

    def _stacked(self, selection: AdapterSelection, fetched: Sequence[_Fetched]) -> list[HostModule]:
        """Every part with its factor, beside the others."""
        modules = [
            module
            for one in fetched
            for module in host_modules(tensors_of(one.content), self._layout, one.config, one.part.weight)
        ]
        if selection.recipe_digest:
            _require_summable(modules)
        return modules

    def _merged(self, selection: AdapterSelection, fetched: Sequence[_Fetched]) -> list[HostModule]:
        """One adapter made of the parts."""
        parts = [
            part_of(
                f"{one.part.namespace}/{one.part.adapter}:{one.part.version}",
                one.part.weight,
                tensors_of(one.content),
                one.config.scaling_of,
            )
            for one in fetched
        ]
        merged = merge(parts, selection.recipe, model_order(self._layout), self._go_on)
        return list(host_modules(merged, self._layout, MERGED_CONFIG, 1.0))

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Draining("the server is stopping; send the request to another one")


def model_order(layout: GroupLayout) -> tuple[str, ...]:
    """Paths of all modules in the order in which a model of transformers has them: the embedding comes first."""
    return tuple(sorted(layout.places, key=lambda path: not layout.places[path].embeds))


@dataclass(frozen=True, slots=True)
class _Fetched:
    """The verified bytes of one part."""

    part: AdapterPart
    config: AdapterConfig
    content: bytearray


def _require_summable(modules: Sequence[HostModule]) -> None:
    found = sorted({feature for module in modules for feature in module.not_summable})
    if found:
        raise AdapterUnpackable(
            f"a composition takes versions that only add low-rank updates; these have {', '.join(found)} as well"
        )
