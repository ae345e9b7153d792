"""From the registry's bytes to host tensors, on a loader thread.

The bytes are read once into private memory, verified against their digest and
parsed from that same memory: a file that changes afterwards changes nothing
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from safetensors.torch import load as load_safetensors

from switchyard.registry.validation.adapter_config import parse_adapter_config
from switchyard.server.adapters.packing import BaseModules, HostAdapter, pack
from switchyard.server.adapters.reading import HostModule, host_modules
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.types import AdapterPart, AdapterSelection
from switchyard.server.errors import AdapterUnpackable
from switchyard.server.lora.layout import GroupLayout

PhaseTimer = Callable[[str, float], None]
"""Told the name of a phase and how long it took, in seconds."""


class BlobSource(Protocol):
    """Where the bytes of published files come from."""

    def read_blob(self, digest: str) -> bytes:
        """The verified bytes of one blob, in private memory."""
        ...


class AdapterLoader:
    """Loads selections; safe to use from several threads."""

    def __init__(self, source: BlobSource, layout: GroupLayout, base: BaseModules, clock: Clock) -> None:
        self._source = source
        self._layout = layout
        self._base = base
        self._clock = clock

    def load(self, selection: AdapterSelection, timer: PhaseTimer) -> HostAdapter:
        """Fetches, verifies, parses and pairs the factors of every part.

        Args:
            selection: what to load.
            timer: told about the phases `fetch` and `host`.

        Raises:
            RegistryError: a blob is missing or corrupt.
            AdapterUnpackable: a file does not fit the resident base, or cannot be served in a batch or in a sum.
        """
        modules: list[HostModule] = []
        for part in selection.parts:
            modules += self._load_part(part, timer)
        if selection.recipe_digest:
            _require_summable(modules)
        return pack(modules, self._layout, self._base)

    def _load_part(self, part: AdapterPart, timer: PhaseTimer) -> list[HostModule]:
        began_s = self._clock.now()
        config = parse_adapter_config(self._source.read_blob(part.config_digest))
        content = self._source.read_blob(part.weights_digest)
        fetched_s = self._clock.now()
        tensors = load_safetensors(content)
        modules = list(host_modules(tensors, self._layout, config, part.weight))
        timer("fetch", fetched_s - began_s)
        timer("host", self._clock.now() - fetched_s)
        return modules


def _require_summable(modules: Sequence[HostModule]) -> None:
    found = sorted({feature for module in modules for feature in module.not_summable})
    if found:
        raise AdapterUnpackable(
            f"a composition takes versions that only add low-rank updates; these have {', '.join(found)} as well"
        )
