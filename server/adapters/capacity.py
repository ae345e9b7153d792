"""What fits: where each of several adapters would be if all of them were wanted at once.

Policy only, and the same budgets as those of `Residency`: an adapter in a slot
is in host memory too, and a single adapter may exceed the host budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from switchyard.server.adapters.tiers import AdapterStatus, ResidencyLimits
from switchyard.server.engine.types import Digest


class Place(Enum):
    """Where an adapter would be."""

    SLOT = "slot"
    """In an adapter slot: any step can use it."""

    HOST = "host"
    """In host memory, and in a slot as soon as another leaves one."""

    REGISTRY = "registry"
    """Nowhere for long: it is read again whenever it is used, and others then leave."""

    NOWHERE = "nowhere"
    """It can never be served here as the server is set."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What became of a set of adapters.

    Attributes:
        places: of each adapter.
        sizes: bytes of each, in memory if it is there, else of its files.
        needed_bytes: host memory that all that can be served would take.
        leaving: adapters in memory now that are not of the set and would have to go, the first to go first.
    """

    places: Mapping[Digest, Place]
    sizes: Mapping[Digest, int]
    needed_bytes: int
    leaving: tuple[Digest, ...]

    @property
    def needed_slots(self) -> int:
        """Slots that all that can be served would take."""
        return sum(place is not Place.NOWHERE for place in self.places.values())


def capacity(wanted: Mapping[Digest, int], present: Sequence[AdapterStatus], limits: ResidencyLimits) -> Capacity:
    """Places adapters in the order in which they are named.

    Args:
        wanted: bytes of each adapter's files; of one in memory its real size counts.
        present: the adapters in memory, least recently used first.
        limits: of the server.
    """
    known = {status.key: status.host_bytes for status in present if status.host_bytes}
    sizes = {key: known.get(key, size) for key, size in wanted.items()}
    budget = limits.device_bytes
    places = {key: Place.NOWHERE for key, size in sizes.items() if budget is not None and size > budget}
    host, device, slots = 0, 0, 0
    for key, size in sizes.items():
        if key in places:
            continue
        if host and host + size > limits.host_bytes:
            places[key] = Place.REGISTRY
            continue
        host += size
        has_slot = slots < limits.slots and (budget is None or device + size <= budget)
        places[key] = Place.SLOT if has_slot else Place.HOST
        if has_slot:
            slots, device = slots + 1, device + size
    needed = sum(sizes[key] for key, place in places.items() if place is not Place.NOWHERE)
    ordered = {key: places[key] for key in sizes}
    return Capacity(ordered, sizes, needed, _leaving(host, [s for s in present if s.key not in sizes], limits))


def _leaving(host_bytes: int, others: Sequence[AdapterStatus], limits: ResidencyLimits) -> tuple[Digest, ...]:
    """Who of the others goes, so that those who stay fit beside `host_bytes`."""
    staying = host_bytes + sum(status.host_bytes for status in others)
    leaving: list[Digest] = []
    for status in others:
        if staying <= limits.host_bytes:
            break
        if status.host_bytes:
            leaving.append(status.key)
            staying -= status.host_bytes
    return tuple(leaving)
