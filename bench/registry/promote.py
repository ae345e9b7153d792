"""How soon a promotion is served: from the acknowledged SetAlias to the first answer by the new version.

A real `switchyard serve` on this machine, everything over gRPC. After each
promotion the client asks until an answer names the new version; answers by the
old one in between are counted. `warm` promotes between two versions that are
in memory. `new` promotes, each time, a version that this server has never
loaded; what helps then is that the server follows the registry and loads ahead.

    python bench/registry/promote.py
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from switchyard.clients import InferenceClient, RegistryClient
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.server.measure.material import make_adapters, make_base
from switchyard.server.measure.report import machine
from switchyard.server.measure.shapes import Shape

SHAPE = Shape("bench-256x4", hidden=256, layers=4, inner=704, kv_heads=4, vocab=2048, rank=8)
WARM = 100
NEW = 50
RESOLVES = 2000
RESULT = Path(__file__).parents[1] / "results" / "promote.md"


@dataclass(frozen=True, slots=True)
class Case:
    """One row: seconds per promotion, and answers by the old version after the acknowledgement."""

    name: str
    seconds: tuple[float, ...]
    stale: int


def main() -> None:
    """Measures and writes the table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        base = make_base(root / "base", SHAPE)
        first, second, third = make_adapters(root / "adapters", describe_base(base).modules, ranks=[SHAPE.rank] * 3)
        with _server(base, root) as address, InferenceClient(address) as asking, RegistryClient(address) as registry:
            for adapter in (first, second):
                registry.push(adapter, "promoted", alias="prod")
                asking.generate("5 6", adapter="promoted@prod", max_tokens=1)
            cases = [_promote("warm", asking, registry, [1 + turn % 2 for turn in range(WARM)])]
            numbers = [_published(registry, third, turn) for turn in range(NEW)]
            cases.append(_promote("new", asking, registry, numbers))
        resolves = _resolves(root / "registry")
    lines = [
        *_table(cases),
        f"\nOne resolve, in the process, of {RESOLVES}: {_quantiles(resolves, 1e6)} µs (p50 / p99).",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    Console().print("\n".join(lines))


def _promote(name: str, asking: InferenceClient, registry: RegistryClient, numbers: Sequence[int]) -> Case:
    seconds, stale = [], 0
    for number in numbers:
        registry.promote("promoted", "prod", number, reason="measured")
        began_s = time.perf_counter()
        while _served(asking) != number:
            stale += 1
        seconds.append(time.perf_counter() - began_s)
    return Case(name, tuple(seconds), stale)


def _served(asking: InferenceClient) -> int:
    return asking.generate("5 6", adapter="promoted@prod", max_tokens=1).served_by.adapters[0].version


def _published(registry: RegistryClient, adapter: Path, turn: int) -> int:
    """The number of a version whose weights differ from all others in four bytes."""
    copy = adapter.with_name(f"new{turn}")
    shutil.copytree(adapter, copy)
    weights = copy / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = turn.to_bytes(4, "little")
    weights.write_bytes(data)
    return registry.push(copy, "promoted").version


def _resolves(directory: Path) -> list[float]:
    ref, seconds = AdapterRef.parse(f"{AdapterName.parse('promoted')}@prod"), []
    with Registry.open(directory) as registry:
        for _ in range(RESOLVES):
            began_s = time.perf_counter()
            registry.resolve(ref)
            seconds.append(time.perf_counter() - began_s)
    return seconds


def _table(cases: Sequence[Case]) -> Iterator[str]:
    yield f"# Promotion to first answer, {SHAPE.name}, r={SHAPE.rank}, embedded registry, over gRPC\n"
    yield f"{datetime.now(UTC):%Y-%m-%d} · {machine()} · `bench/registry/promote.py`\n"
    yield "| promoted version | promotions | p50 / p99 / max, ms | answers by the old version |"
    yield "|---|---|---|---|"
    for case in cases:
        spread = f"{_quantiles(case.seconds, 1e3)} / {max(case.seconds) * 1e3:.1f}"
        yield f"| {case.name} | {len(case.seconds)} | {spread} | {case.stale} |"


def _quantiles(seconds: Sequence[float], scale: float) -> str:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"{cuts[49] * scale:.1f} / {cuts[98] * scale:.1f}"


@contextmanager
def _server(base: Path, root: Path) -> Iterator[str]:
    ready = root / "ready.json"
    command = [
        str(Path(sys.executable).parent / "switchyard"),
        *("serve", "--base", str(base), "--registry", str(root / "registry"), "--threads", "1"),
        *("--port", "0", "--health-port", "0", "--http-port", "0", "--ready-file", str(ready)),
    ]
    with (root / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(lambda: ready.exists() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError((root / "serve.log").read_text())
        yield _address(ready)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _address(ready: Path) -> str:
    address: str = json.loads(ready.read_text())["grpc"]
    return address


def _wait(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.05)


if __name__ == "__main__":
    main()
