"""`python bench/registry/run.py [DIRECTORY]`: measures an embedded registry and writes bench/results/registry.md.

Registries that are filled stay in DIRECTORY and are used again; without it they are made in a temporary
place. They must be on a local disk: every commit waits for it.
"""

from __future__ import annotations

import os
import platform
import random
import sqlite3
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from filling import fill
from material import base_model
from measures import PAGE, Commits, Store, Timings, publish_once, reading_calls, watch_latency
from throughput import throughput

from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

SIZES = (10, 1_000, 100_000)
ROUNDS = 150
PUBLISHES = 30
MOVES = 100
RESULT = Path(__file__).parents[1] / "results" / "registry.md"


def main() -> None:
    """Measures, prints and writes the result."""
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as temporary:
        directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        stores = [_store(directory / f"registry-{size}", size) for size in SIZES]
        scratch = Path(temporary)
        tables = [
            _machine(directory),
            _reading(stores),
            _writing(stores, directory, scratch),
            _bytes(stores[0], scratch),
        ]
        for store in stores:
            store.registry.close()
    text = "\n\n".join(["# The registry's speed", *tables]) + "\n"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


def _store(root: Path, size: int) -> Store:
    """Opens a filled registry; checks in this process, because starting a worker would hide everything else."""
    filled = root / "filled"
    commits = Commits()
    registry = Registry.open(root, validate=validate_files, on_step=commits)
    base = registry.register_base(base_model("small", 2))
    if not filled.exists():
        print(f"filling {size} versions", file=sys.stderr)
        fill(registry._index, base, size)
        registry.ledger.catch_up()
        registry.layout.refresh()
        filled.touch()
    # Into the page cache: what is measured is the registry, not the first look of a cold disk.
    with (root / "registry.db").open("rb") as database:
        while database.read(1 << 22):
            pass
    return Store.of(size, registry, base, commits)


def _machine(directory: Path) -> str:
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    libraries = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "numpy"))
    mount = max(
        (line.split() for line in Path("/proc/mounts").read_text().splitlines()),
        key=lambda fields: len(fields[1]) if str(directory.resolve()).startswith(fields[1]) else -1,
    )
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{cpu}, {os.cpu_count()} cores, {mount[2]}, Linux {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {libraries}. Load average when it began: {load}.\n\n"
        "Embedded registry: SQLite with synchronous=FULL, blobs as files, every write synced; the database is in the page cache. Medians of single "
        "calls, the sizes in turns in one process; CPU is that of the process. The versions of the filled "
        "registries have all their rows and no bytes on the disk (`filling.py`); what is published and pulled "
        "here is real."
    )


def _reading(stores: Sequence[Store]) -> str:
    timings: dict[tuple[str, int], Timings] = defaultdict(Timings)
    dice = random.Random(0)  # noqa: S311 - the order of turns
    for _ in range(ROUNDS):
        for store in dice.sample(stores, len(stores)):
            for name, call in reading_calls(store, dice).items():
                with timings[name, store.count].one():
                    call()
    names = list(dict.fromkeys(name for name, _ in timings))
    large, middle = SIZES[-1], SIZES[-2]
    rows = [f"| page of {PAGE} | {' | '.join(f'{size:,} versions' for size in SIZES)} | ratio wall | ratio CPU |"]
    rows.append("|---|" + "---:|" * (len(SIZES) + 2))
    for name in names:
        cells = [f"{1e3 * timings[name, size].wall:.2f} ({1e3 * timings[name, size].cpu:.2f})" for size in SIZES]
        wall = timings[name, large].wall / timings[name, middle].wall
        cpu = timings[name, large].cpu / timings[name, middle].cpu
        rows.append(f"| {name} | {' | '.join(cells)} | {wall:.2f} | {cpu:.2f} |")
    note = f"Reading: milliseconds a call, CPU in brackets; ratio {large:,} to {middle:,}."
    per_second = ", ".join(f"{1 / timings['resolve an alias', size].wall:,.0f} with {size:,}" for size in SIZES)
    return "\n".join([note, "", *rows, "", f"Resolves of an alias per second, one after the other: {per_second}."])


def _writing(stores: Sequence[Store], directory: Path, scratch: Path) -> str:
    publishes: dict[int, Timings] = defaultdict(Timings)
    moves: dict[int, Timings] = defaultdict(Timings)
    dice = random.Random(0)  # noqa: S311 - the order of turns
    for _ in range(PUBLISHES):
        for store in dice.sample(stores, len(stores)):
            for total, one in zip((publishes, moves), publish_once(store, scratch), strict=True):
                total[store.count].wall_s += one.wall_s
                total[store.count].cpu_s += one.cpu_s
    latencies = {
        store.count: sorted(watch_latency(store, directory / f"registry-{store.count}", MOVES)) for store in stores
    }
    rows = [
        "| versions | publishes/s | publish ms, p50 (CPU) | p99 | alias move ms, p50 (CPU) | p99 | watch ms, p50 | p99 |",
        "|---|" + "---:|" * 7,
    ]
    for size in SIZES:
        cells = [f"{1 / publishes[size].wall:.0f}"]
        for one in (publishes[size], moves[size]):
            cells += [f"{1e3 * one.wall:.1f} ({1e3 * one.cpu:.1f})", f"{1e3 * one.wall_percentile(99):.1f}"]
        late = latencies[size]
        cells += [f"{1e3 * late[len(late) // 2]:.1f}", f"{1e3 * late[len(late) * 99 // 100]:.1f}"]
        rows.append(f"| {size:,} | {' | '.join(cells)} |")
    note = (
        "Writing: publishes of a small adapter one after the other, checked in this process; moves of an alias; "
        "and the time from the beginning of such a move's commit until a watcher in another process has its event."
    )
    return "\n".join([note, "", *rows])


def _bytes(store: Store, scratch: Path) -> str:
    size_bytes, timings = throughput(store.registry, scratch)
    floor = timings["read and hash once"].wall
    rows = ["| | MB/s | times the floor | CPU s per GB |", "|---|---:|---:|---:|"]
    for name, one in timings.items():
        rate = size_bytes / one.wall / 1e6
        rows.append(f"| {name} | {rate:.0f} | {one.wall / floor:.2f} | {one.cpu / size_bytes * 1e9:.2f} |")
    return "\n".join([f"Bytes: an adapter of {size_bytes / 1e6:.0f} MB, in the page cache.", "", *rows])


if __name__ == "__main__":
    main()
