"""From the registry's bytes to host tensors, on a loader thread.

The bytes are read once into private memory, verified against their digest and
parsed from that same memory: a file that changes afterwards changes nothing
here. Taking the digest is most of the work, so another thread does it while
the bytes are parsed and packed already; both are safe for any bytes, and the
result is thrown away when the digest turns out to be another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import accumulate
from threading import Event
from typing import Final, Protocol

import torch

from switchyard.registry.validation.adapter_config import AdapterConfig, parse_adapter_config
from switchyard.registry.validation.gate import WEIGHTS_LIMITS
from switchyard.registry.validation.safetensors_header import header_in
from switchyard.server.adapters.arena import Scratch, Spare, room_of
from switchyard.server.adapters.composition import METHOD_SUM
from switchyard.server.adapters.merging.merge import MERGED_CONFIG, merge, part_of
from switchyard.server.adapters.packing import BaseModules, HostAdapter, pack, pack_and_learn, repack
from switchyard.server.adapters.packing_plan import PackingPlan
from switchyard.server.adapters.reading import HostModule, host_modules, tensors_of
from switchyard.server.adapters.recent import Recent
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.types import AdapterPart, AdapterSelection
from switchyard.server.errors import AdapterUnpackable, Draining
from switchyard.server.lora.layout import GroupLayout

_KEPT_CONFIGS: Final = 256
_KEPT_PLANS: Final = 16
"""A plan takes about a kilobyte for each adapted module."""

PhaseTimer = Callable[[str, float], None]
"""Told the name of a phase and how long it took, in seconds."""


class BlobSource(Protocol):
    """Where the bytes of published files come from."""

    def read_blob(self, digest: str) -> bytes:
        """The verified bytes of one blob, in private memory."""
        ...

    def read_ahead(self, digest: str, buffer: memoryview) -> AbstractContextManager[None]:
        """Fills a buffer with a blob; the block works on bytes that are verified only when it is left.

        Wrong bytes replace whatever error the block has raised.
        """
        ...


class AdapterLoader:
    """Loads selections; safe to use from several threads."""

    def __init__(self, source: BlobSource, layout: GroupLayout, base: BaseModules, clock: Clock) -> None:
        self._source = source
        self._layout = layout
        self._base = base
        self._clock = clock
        self._stopped = Event()
        self._scratch = Scratch()
        self._spare = Spare()
        self._configs = Recent[str, AdapterConfig](_KEPT_CONFIGS)
        self._plans = Recent[tuple[bytes, str, float], PackingPlan](_KEPT_PLANS)

    def stop(self) -> None:
        """Ends merges that are under way before their next module."""
        self._stopped.set()

    def load(self, selection: AdapterSelection, timer: PhaseTimer) -> HostAdapter:
        """Fetches, verifies, parses and pairs the factors of every part.

        Args:
            selection: what to load.
            timer: told about the phases `fetch` (until all bytes are here), `host` (until they are packed) and
                `verify` (until their digests have been compared as well).

        Raises:
            RegistryError: a blob is missing or corrupt.
            AdapterUnpackable: a file does not fit the resident base, or cannot be served in a batch or in a sum.
            Draining: `stop` was called.
        """
        laps = _Laps(self._clock, timer)
        with ExitStack() as unverified:
            fetched = self._fetched(selection, unverified)
            laps.end("fetch")
            if selection.recipe.method != METHOD_SUM:
                # A merge takes longer than the digest, and is not made for any bytes.
                unverified.close()
                laps.end("verify")
                adapter = self._packed(self._merged(selection, fetched))
            elif len(fetched) == 1:
                adapter = self._alone(selection, fetched[0])
            else:
                adapter = self._packed(self._stacked(selection, fetched))
            laps.end("host")
        laps.end("verify")
        return adapter

    def restock(self) -> None:
        """Prepares for the next load; called when the last one has been handed over."""
        self._spare.restock()

    def _fetched(self, selection: AdapterSelection, unverified: ExitStack) -> list[_Fetched]:
        """Reads all files into this thread's memory; it belongs to the load until the thread's next one."""
        rooms = [room_of(part.weights_bytes) for part in selection.parts]
        scratch = self._scratch.take(sum(rooms))
        fetched = []
        for part, stop in zip(selection.parts, accumulate(rooms), strict=True):
            config = self._config(part.config_digest)
            content = scratch[stop - room_of(part.weights_bytes) :][: part.weights_bytes]
            unverified.enter_context(self._source.read_ahead(part.weights_digest, content.numpy().data))
            fetched.append(_Fetched(part, config, content))
        return fetched

    def _config(self, digest: str) -> AdapterConfig:
        config = self._configs.get(digest)
        if config is None:
            config = parse_adapter_config(self._source.read_blob(digest))
            self._configs.put(digest, config)
        return config

    def _packed(self, modules: Sequence[HostModule]) -> HostAdapter:
        return pack(modules, self._layout, self._base, self._spare)

    def _alone(self, selection: AdapterSelection, fetched: _Fetched) -> HostAdapter:
        """One part; of a form that was packed before, by the plan for that form."""
        form = (
            header_in(fetched.content.numpy().data, WEIGHTS_LIMITS),
            fetched.part.config_digest,
            fetched.part.weight,
        )
        plan = self._plans.get(form)
        if plan is not None and plan.content_bytes == len(fetched.content):
            return repack(plan, fetched.content, self._spare)
        modules = self._stacked(selection, [fetched])
        adapter, plan = pack_and_learn(modules, self._layout, self._base, self._spare, fetched.content)
        if plan is not None:
            self._plans.put(form, plan)
        return adapter

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
    """The bytes of one part."""

    part: AdapterPart
    config: AdapterConfig
    content: torch.Tensor


class _Laps:
    """Tells how long each phase took since the one before."""

    def __init__(self, clock: Clock, timer: PhaseTimer) -> None:
        self._clock, self._timer = clock, timer
        self._began_s = clock.now()

    def end(self, phase: str) -> None:
        now = self._clock.now()
        self._timer(phase, now - self._began_s)
        self._began_s = now


def _require_summable(modules: Sequence[HostModule]) -> None:
    found = sorted({feature for module in modules for feature in module.not_summable})
    if found:
        raise AdapterUnpackable(
            f"a composition takes versions that only add low-rank updates; these have {', '.join(found)} as well"
        )
