"""Bytes per second of a publish and a pull, beside the floor: reading the same file once and hashing it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from material import RANK, base_model, write_adapter
from measures import Timings

from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

LAYERS = 32
ROUNDS = 5
_NAME = AdapterName("bench", "large")
_READ_BYTES = 1 << 20


def throughput(registry: Registry, scratch: Path) -> tuple[int, dict[str, Timings]]:
    """Publishes and pulls large adapters in turns with the floor.

    Returns:
        Bytes of one adapter's weights, and the timings of each.
    """
    base = registry.register_base(base_model("large", LAYERS))
    timings = {name: Timings() for name in ("read and hash once", "publish", "pull")}
    size_bytes = 0
    for number in range(ROUNDS):
        source = write_adapter(scratch / "large", base, number, RANK)
        weights = source / "adapter_model.safetensors"
        size_bytes = weights.stat().st_size
        with timings["read and hash once"].one():
            _read_and_hash(weights)
        with timings["publish"].one():
            done = registry.publish(_NAME, source, base_digest=base.digest, publisher="bench")
        if done.version is None:
            raise RuntimeError("a publish without a version")
        copy = scratch / "pulled"
        shutil.rmtree(copy, ignore_errors=True)
        with timings["pull"].one():
            registry.pull(AdapterRef(_NAME.namespace, _NAME.adapter, version=done.version.version), copy)
    return size_bytes, timings


def _read_and_hash(path: Path) -> str:
    state, buffer = hashlib.sha256(), bytearray(_READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            state.update(memoryview(buffer)[:count])
    return state.hexdigest()
