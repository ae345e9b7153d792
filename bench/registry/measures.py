"""What is measured, and how: the same calls on registries of several sizes, in turns, in one process.

Every figure is the median of single calls over all rounds, with wall time and the process's CPU time.
Turns are short and the sizes change places, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filling import LONG
from material import write_adapter

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.query import VersionQuery
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry

PAGE = 20
MOVED = AdapterName("bench", "moved")


@dataclass
class Timings:
    """Seconds of single calls."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Times one call."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)

    @property
    def wall(self) -> float:
        """Median seconds of wall time."""
        return statistics.median(self.wall_s)

    @property
    def cpu(self) -> float:
        """Median seconds of processor time."""
        return statistics.median(self.cpu_s)

    def wall_percentile(self, percent: int) -> float:
        """Seconds of wall time that so many calls of a hundred stay within."""
        return sorted(self.wall_s)[min(len(self.wall_s) - 1, len(self.wall_s) * percent // 100)]


class Commits:
    """Listens to the registry's steps: when the last commit of an alias move began."""

    def __init__(self) -> None:
        self.began_s = 0.0

    def __call__(self, step: Step) -> None:
        """Hears of a step."""
        if step is Step.ALIAS_BEFORE_COMMIT:
            self.began_s = time.monotonic()


@dataclass
class Store:
    """A registry with many versions, and places in it to ask for."""

    count: int
    registry: Registry
    base: BaseModelSpec
    versions: list[VersionRecord]
    adapters: list[AdapterName]
    commits: Commits
    published: int = 0

    @classmethod
    def of(cls, count: int, registry: Registry, base: BaseModelSpec, commits: Commits) -> Store:
        """Draws versions and adapters from the whole registry."""
        dice = random.Random(count)  # noqa: S311 - places to ask for
        long = registry.list_versions(LONG, 1)[0][0].version
        numbers = [dice.randint(1, long) for _ in range(200)]
        adapters, token = [], ""
        for _ in range(60):
            page, token = registry.list_adapters(None, 1000, token)
            # What former runs have published here stays out.
            adapters += [AdapterName(one.namespace, one.adapter) for one in page if one.namespace.startswith("team-")]
            if not token:
                break
        refs = [AdapterRef(LONG.namespace, LONG.adapter, version=number) for number in numbers]
        refs += [AdapterRef(one.namespace, one.adapter, alias="prod") for one in dice.choices(adapters, k=200)]
        return cls(
            count, registry, base, [registry.get_version(ref) for ref in dice.sample(refs, 200)], adapters, commits
        )


def reading_calls(store: Store, dice: random.Random) -> dict[str, Callable[[], object]]:
    """The calls that read, each at a place drawn anew."""
    registry = store.registry
    version, adapter = dice.choice(store.versions), dice.choice(store.adapters)
    deep = str(dice.randint(PAGE, max(PAGE, store.count // 2)))
    find = registry.search.versions
    alias = AdapterRef(adapter.namespace, adapter.adapter, alias="prod")
    number = AdapterRef(version.namespace, version.adapter, version=version.version)
    digest = AdapterRef(version.namespace, version.adapter, digest=version.digest)
    common, named = VersionQuery.parse("tag:task=ner"), VersionQuery.parse("adapter-000007")
    scores = VersionQuery.parse("tag:task=ner metric:exact_match>=0.5 rank<=16")
    return {
        "resolve an alias": lambda: registry.resolve(alias),
        "resolve a number": lambda: registry.resolve(number),
        "resolve a digest": lambda: registry.resolve(digest),
        "list adapters, first page": lambda: registry.list_adapters(None, PAGE),
        "list adapters, any page": lambda: registry.list_adapters(None, PAGE, str(adapter)),
        "list versions, first page": lambda: registry.list_versions(LONG, PAGE),
        "list versions, any page": lambda: registry.list_versions(LONG, PAGE, deep),
        "search, a common tag": lambda: find(common, PAGE),
        "search, one name": lambda: find(named, PAGE),
        "search, tag, score and rank": lambda: find(scores, PAGE),
    }


def publish_once(store: Store, scratch: Path) -> tuple[Timings, Timings]:
    """Publishes one small adapter that is new, and moves an alias to it."""
    store.published += 1
    source = write_adapter(scratch / "small", store.base, store.count * 1_000_000 + store.published, 8)
    publish, move = Timings(), Timings()
    with publish.one():
        done = store.registry.publish(MOVED, source, base_digest=store.base.digest, publisher="bench")
    if done.version is None:
        raise RuntimeError("a publish without a version")
    with move.one():
        store.registry.set_alias(MOVED, "prod", done.version.version, actor="bench")
    return publish, move


def watch_latency(store: Store, root: Path, moves: int) -> list[float]:
    """Seconds from the beginning of the commit that moves an alias until another process has its event.

    The clock is the machine's monotonic one, which both processes read.
    """
    registry = store.registry
    after = registry.feed.revision()
    watcher = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("watcher.py")), str(root), str(after), str(moves)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if watcher.stdout is None or watcher.stdout.readline().strip() != "ready":
        raise RuntimeError("the watcher did not start")
    moved: dict[int, float] = {}
    pause = random.Random(1)  # noqa: S311 - so that moves do not fall into step with the watcher's naps
    for position in range(moves):
        time.sleep(pause.uniform(0.01, 0.04))
        registry.set_alias(MOVED, "watched", 1, actor="bench")
        moved[after + position + 1] = store.commits.began_s
    lines = watcher.stdout.read().split()
    watcher.wait()
    seen = {int(revision): float(at_s) for revision, at_s in (line.split(":") for line in lines)}
    return [seen[revision] - at_s for revision, at_s in moved.items()]
