"""Where an adapter can be, and what the residency policy may order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from switchyard.server.engine.types import AdapterSlot, Digest


class AdapterState(Enum):
    """Tier of one adapter."""

    FETCHING = "fetching"
    HOST = "host"
    RESIDENT = "resident"
    FAILED = "failed"


TRANSITIONS: dict[AdapterState, frozenset[AdapterState]] = {
    AdapterState.FETCHING: frozenset({AdapterState.HOST, AdapterState.FAILED}),
    AdapterState.HOST: frozenset({AdapterState.RESIDENT}),
    AdapterState.RESIDENT: frozenset({AdapterState.HOST}),
    AdapterState.FAILED: frozenset({AdapterState.FETCHING}),
}


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the weights of `key` to host memory."""

    key: Digest


@dataclass(frozen=True, slots=True)
class CopyToSlot:
    """Copy the weights of `key` from host memory into `slot`."""

    key: Digest
    slot: AdapterSlot


@dataclass(frozen=True, slots=True)
class ClearSlot:
    """Free what `key` holds in `slot`."""

    key: Digest
    slot: AdapterSlot


@dataclass(frozen=True, slots=True)
class DropFromHost:
    """Free what `key` holds in host memory."""

    key: Digest


Command = Fetch | CopyToSlot | ClearSlot | DropFromHost


@dataclass(frozen=True, slots=True)
class ResidencyLimits:
    """Bounds of the tiers.

    Attributes:
        slots: adapters that can be resident at once.
        host_bytes: bytes that adapters may take in host memory, those on their way included; a single one may
            exceed it.
        device_bytes: bytes that resident adapters may take together; None for as many as the slots hold.
        first_retry_s: seconds before a failed load is tried again; doubles with each failure.
        last_retry_s: longest such wait, in seconds.
    """

    slots: int
    host_bytes: int
    device_bytes: int | None = None
    first_retry_s: float = 1.0
    last_retry_s: float = 60.0


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """What operators see of one adapter.

    Attributes:
        key: digest of the version or recipe.
        state: its tier.
        host_bytes: bytes in host memory.
        device_bytes: bytes in its slot; on a CPU they are those in host memory, not others.
        pins: sequences that use it.
        error_reason: reason of the last failure, or empty.
        retry_after_s: seconds until it may be tried again.
    """

    key: Digest
    state: AdapterState
    host_bytes: int
    device_bytes: int
    pins: int
    error_reason: str
    retry_after_s: float
