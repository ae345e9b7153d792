"""What the machine can do at best, and how far a decode step is from it.

step time >= max(bytes read / bandwidth, arithmetic / peak)
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from switchyard.server.measure.decode import decode_once
from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Rig
from switchyard.server.measure.sizes import Sizes
from switchyard.server.native.tape import at_once

_PROBE_BYTES = 256 << 20
_PROBE_SIDE = 1536
_PROBE_ROUNDS = 5

_LINEAR: Final = "/server/model/linears.py"
_PARTS: Final[Mapping[str, str]] = {
    "linear layers": _LINEAR,
    "attention": "/server/model/attention.py",
    "norms and gates": "/server/model/pointwise.py",
    "sampling": "/server/model/sampling/",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """One core's limits, found by trying.

    Attributes:
        bytes_per_s: of a sum over memory that no cache holds.
        flops_per_s: of a large float32 matrix product.
    """

    bytes_per_s: float
    flops_per_s: float


def probe() -> Machine:
    """Tries the limits of one core; takes about two seconds."""
    values = np.ones(_PROBE_BYTES // 4, dtype=np.float32)
    square = torch.randn(_PROBE_SIDE, _PROBE_SIDE)
    read_s = min(_timed(values.sum) for _ in range(_PROBE_ROUNDS))
    multiply_s = min(_timed(lambda: square @ square) for _ in range(_PROBE_ROUNDS))
    return Machine(_PROBE_BYTES / read_s, 2 * _PROBE_SIDE**3 / multiply_s)


def over_floor(rig: Rig, machine: Machine, *, tokens: int) -> Iterator[Row]:
    """Decode steps at one and at sixteen requests with as many adapters, over their floors."""
    gigabytes, gigaflops = machine.bytes_per_s / 1e9, machine.flops_per_s / 1e9
    yield Row("floor", "memory read by one core", gigabytes, "GB/s")
    yield Row("floor", "float32 products by one core", gigaflops, "GFLOP/s")
    for requests in (1, 16):
        spent_s = decode_once(rig, requests, requests, tokens).cpu_s / tokens
        floor_s = _floor_s(rig, machine, requests)
        note = f"{spent_s * 1e3:.1f} ms over {floor_s * 1e3:.1f} ms; {_breakdown(rig, requests, tokens)}"
        yield Row(
            "floor",
            f"decode step, {requests} requests, {requests} adapters, over its floor",
            spent_s / floor_s,
            "x",
            note,
        )


def _floor_s(rig: Rig, machine: Machine, requests: int) -> float:
    sizes = Sizes.of(rig.core.base.spec)
    adapter_bytes = max(status.device_bytes for status in rig.core.host.statuses())
    weights = sizes.read_bytes + requests * adapter_bytes
    # 16-bit factors: as many weights as half the bytes, each used once per request.
    arithmetic = 2 * requests * (sizes.linear + sizes.head + adapter_bytes / 2)
    return max(weights / machine.bytes_per_s, arithmetic / machine.flops_per_s)


def _breakdown(rig: Rig, requests: int, tokens: int) -> str:
    """Shares of a decode step by part of the server."""
    profile = cProfile.Profile()
    with at_once():
        profile.enable()
        decode_once(rig, requests, requests, tokens)
        profile.disable()
    stats = pstats.Stats(profile)
    total_s = sum(own for _, _, own, _, _ in stats.stats.values())  # type: ignore[attr-defined]
    spent_s = {name: _entered_s(stats, place) for name, place in _PARTS.items()}
    # An adapted projection calls the linear layer from within.
    spent_s["adapters"] = _entered_s(stats, "/server/lora/") - spent_s["linear layers"]
    spent_s["the rest"] = total_s - sum(spent_s.values())
    return ", ".join(f"{name} {seconds / total_s:.0%}" for name, seconds in spent_s.items())


def _entered_s(stats: pstats.Stats, place: str) -> float:
    """Seconds inside calls that come into a file or folder from the rest of the model."""
    total_s = 0.0
    for (file, _, _), (_, _, _, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if place in file:
            total_s += sum(spent[3] for (caller, _, _), spent in callers.items() if _is_outside(caller, place))
    return total_s


def _is_outside(caller: str, place: str) -> bool:
    """Whether a call comes from elsewhere; the linear layers use a product of the adapters' room too."""
    return place not in caller and caller != "~" and not (place == "/server/lora/" and caller.endswith(_LINEAR))


def _timed(call: Callable[[], object]) -> float:
    began_s = time.process_time()
    call()
    return time.process_time() - began_s
