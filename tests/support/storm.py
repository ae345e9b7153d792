"""A storm: processes that change one registry, pause at the worst moments and are killed at random.

Every publish has a key and content of its own, but weights from a small pool: so versions share blobs,
and a blob that one process removes is just what another one brings back.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from registry_actor import NAME, open_registry, publish
from registry_oracle import count_versions, faults_of, lost
from reports import Report, lines_of
from scenarios import ALIAS, DAY_S

from switchyard.registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    GenerationMismatch,
    LeaseExpired,
    NothingToRollBack,
    SessionClosed,
    StateRefused,
    StoreBusy,
    UploadIncomplete,
    VersionDeleted,
    VersionInUse,
    VersionNotFound,
    VersionYanked,
)
from switchyard.registry.index.schema import VersionState
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry

LEASE_S = 0.6
"""Shorter than a publish that pauses: leases do run out."""
_KILL_CHANCE, _PAUSE_CHANCE, _PAUSE_S = 0.002, 0.05, 0.03
_KILL_EVERY_S = (0.2, 0.8)
_LIVE_VERSIONS = 6
_TAKE_DOWN_CHANCE = 0.3
_TRIES = 50
# What another process may cause at any time; the client asks again, or leaves it.
_AGAIN = (LeaseExpired, SessionClosed, UploadIncomplete, StoreBusy)
_NOT_NOW = (
    AdapterNotFound,
    AliasNotFound,
    GenerationMismatch,
    NothingToRollBack,
    StateRefused,
    StoreBusy,
    VersionDeleted,
    VersionInUse,
    VersionNotFound,
    VersionYanked,
)


class Worker:
    """One process of the storm.

    Args:
        root: the registry.
        pool: adapters whose weights are published.
        place: for the report and the adapters of this process.
        name: of the process; the processes that follow it after a kill have the same.
        seed: of everything random.
    """

    def __init__(self, root: Path, pool: Path, place: Path, name: str, seed: int) -> None:
        self._root, self._pool, self._place, self._name = root, pool, place, name
        self._random = random.Random(f"{name}-{seed}")  # noqa: S311
        self._report = Report(place / f"{name}.report")

    def work(self, deadline_s: float) -> None:
        """Works until `time.monotonic()` is at the deadline, or until it is killed."""
        calls = (
            self._move,
            self._roll_back,
            self._split,
            self._take_down,
            self._withdraw,
            self._bring_back,
            self._collect,
        )
        with closing(self._report), open_registry(self._root, self._on_step, lease_s=LEASE_S) as registry:
            # So that deleted versions are purged within the storm.
            registry.states._undelete_s = LEASE_S
            for key in unanswered(lines_of(self._place / f"{self._name}.report")):
                self._publish(registry, key)
            while time.monotonic() < deadline_s:
                if self._random.random() < 0.6:
                    self._publish(registry, self._new_key())
                    continue
                try:
                    self._random.choice(calls)(registry)
                except _NOT_NOW as error:
                    self._report.add(refused=error.reason)

    def _on_step(self, _: Step) -> None:
        if self._random.random() < _KILL_CHANCE:
            signal.raise_signal(signal.SIGKILL)
        if self._random.random() < _PAUSE_CHANCE:
            time.sleep(self._random.uniform(0, _PAUSE_S))

    def _new_key(self) -> str:
        key = f"{self._name}-{time.monotonic_ns()}"
        self._report.add(intent=key)
        return key

    def _publish(self, registry: Registry, key: str) -> None:
        source = adapter_for(key, self._pool, self._place)
        promise = publish_patiently(registry, source, key)
        self._report.add(promise=promise)
        shutil.rmtree(source)

    def _numbers(self, registry: Registry) -> list[int]:
        gone = {VersionState.DELETED, VersionState.PURGED}
        return [found.version for found in registry.list_versions(NAME, 50)[0] if found.state not in gone]

    def _move(self, registry: Registry) -> None:
        numbers = self._numbers(registry)
        # An alias that was taken down goes on counting, and 0 means that it is not there.
        generation = max((alias.generation for alias in registry.aliases.all(NAME) if alias.name == ALIAS), default=0)
        number = self._random.choice(numbers or [0])
        moved = registry.set_alias(NAME, ALIAS, number, expected_generation=generation, actor=self._name).alias
        self._moved(moved.generation, moved.version)

    def _roll_back(self, registry: Registry) -> None:
        moved = registry.aliases.rollback(NAME, ALIAS, actor=self._name, reason="storm").alias
        self._moved(moved.generation, moved.version)

    def _split(self, registry: Registry) -> None:
        current = [alias.version for alias in registry.aliases.all(NAME) if alias.name == ALIAS]
        number = self._random.choice([number for number in self._numbers(registry) if number not in current] or [0])
        moved = registry.aliases.set_canary(NAME, ALIAS, number, 10, actor=self._name, reason="storm")
        self._moved(moved.generation, moved.version)

    def _take_down(self, registry: Registry) -> None:
        if self._random.random() < _TAKE_DOWN_CHANCE:
            self._moved(registry.aliases.delete(NAME, ALIAS, actor=self._name, reason="storm").generation, 0)

    def _moved(self, generation: int, version: int) -> None:
        promise = {"kind": "move", "alias": ALIAS, "generation": generation, "version": version}
        self._report.add(promise=promise)

    def _withdraw(self, registry: Registry) -> None:
        """Deletes or yanks the oldest versions, so that few are left and blobs become garbage all the time."""
        for number in self._numbers(registry)[_LIVE_VERSIONS:] or self._numbers(registry)[-1:]:
            to = self._random.choice((VersionState.DELETED, VersionState.DELETED, VersionState.YANKED))
            try:
                registry.states.move(NAME, number, to, actor=self._name, reason="storm")
            except VersionInUse:
                continue
            self._report.add(promise={"kind": "state", "version": number, "state": str(to)})

    def _bring_back(self, registry: Registry) -> None:
        deleted = VersionState.DELETED
        numbers = [found.version for found in registry.list_versions(NAME, 50)[0] if found.state is deleted]
        for number in numbers[:1]:
            found = registry.states.undelete(NAME, number, actor=self._name, reason="storm")
            self._report.add(promise={"kind": "state", "version": number, "state": str(found.state)})

    def _collect(self, registry: Registry) -> None:
        registry.collector.collect(dry_run=False, grace_s=0.0, actor=self._name)
        self._report.add(promise={"kind": "collect"})


def work(root: Path, pool: Path, place: Path, name: str, seed: int, deadline_s: float) -> None:
    """Runs one process of the storm."""
    try:
        Worker(root, pool, place, name, seed).work(deadline_s)
    except Exception:
        with closing(Report(place / f"{name}.report")) as report:
            report.add(crash=traceback.format_exc())
        raise SystemExit(1) from None


def adapter_for(key: str, pool: Path, place: Path) -> Path:
    """The adapter that a key stands for: weights from the pool, and a README of its own."""
    sources = sorted(pool.iterdir())
    target = place / "adapters" / key
    shutil.copytree(sources[sum(key.encode()) % len(sources)], target, dirs_exist_ok=True)
    (target / "README.md").write_text(f"{key}\n")
    return target


def publish_patiently(registry: Registry, source: Path, key: str) -> dict[str, Any]:
    """Publishes as a client does whose session may be taken away at any time."""
    for _ in range(_TRIES):
        try:
            return {"kind": "publish", "key": key, "version": publish(registry, source, key)}
        except _AGAIN:
            continue
    raise TimeoutError(f"{key} was not published in {_TRIES} tries")


def unanswered(lines: list[dict[str, Any]]) -> list[str]:
    """The keys of publishes that were begun and never acknowledged."""
    answered = {line["promise"].get("key") for line in lines if "promise" in line}
    return [line["intent"] for line in lines if "intent" in line and line["intent"] not in answered]


@dataclass(slots=True)
class Outcome:
    """What a storm did.

    Attributes:
        kills: processes killed.
        looks: how often the oracle looked at the registry.
        keys: publishes begun.
        versions: versions that are there in the end, deleted ones included.
        calls: acknowledged calls by kind.
        faults: everything that was wrong at any time.
    """

    kills: int = 0
    looks: int = 0
    keys: int = 0
    versions: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Storm:
    """Lets processes loose on a registry and looks at it after every kill.

    Args:
        processes: makes processes.
        root: the registry, with its base model.
        pool: adapters whose weights are published.
        place: for reports.
        seed: of everything random but the scheduler.
    """

    def __init__(self, processes: ForkServerContext, root: Path, pool: Path, place: Path, seed: int) -> None:
        self._processes, self._root, self._pool, self._place = processes, root, pool, place
        self._random = random.Random(seed)  # noqa: S311
        self._seed = seed
        self._outcome = Outcome()

    def rage(self, workers: int, seconds: float) -> Outcome:
        """Runs it; everything is retried, collected and counted in the end."""
        deadline_s = time.monotonic() + seconds
        running = {f"worker-{number}": self._start(f"worker-{number}", deadline_s) for number in range(workers)}
        while running:
            patience_s = self._random.uniform(*_KILL_EVERY_S)
            ended = wait([process.sentinel for process in running.values()], timeout=patience_s)
            if not ended and time.monotonic() < deadline_s:
                self._random.choice(list(running.values())).kill()
            for name, process in list(running.items()):
                if process.sentinel in ended:
                    process.join()
                    del running[name]
                    if process.exitcode == -signal.SIGKILL:
                        self._look()
                        running[name] = self._start(name, deadline_s)
        self._settle()
        return self._outcome

    def _start(self, name: str, deadline_s: float) -> Any:
        self._seed += 1
        arguments = (self._root, self._pool, self._place, name, self._seed, deadline_s)
        process = self._processes.Process(target=work, args=arguments)
        process.start()
        return process

    def _look(self) -> None:
        self._outcome.kills += 1
        self._outcome.looks += 1
        self._outcome.faults += faults_of(self._root)

    def _settle(self) -> None:
        outcome = self._outcome
        lines = [line for report in sorted(self._place.glob("*.report")) for line in lines_of(report)]
        promises = [line["promise"] for line in lines if "promise" in line]
        outcome.faults += [line["crash"] for line in lines if "crash" in line]
        with open_registry(self._root, later_s=40 * DAY_S) as registry:
            for key in unanswered(lines):
                promises.append(publish_patiently(registry, adapter_for(key, self._pool, self._place), key))
            registry.collector.collect(dry_run=False, grace_s=0.0, actor="last")
        outcome.calls = Counter(promise["kind"] for promise in promises)
        outcome.keys = len({line["intent"] for line in lines if "intent" in line})
        outcome.versions = count_versions(self._root)
        outcome.faults += faults_of(self._root, strict=True) + lost(self._root, promises)
        outcome.faults += _doubles(promises)


def _doubles(promises: list[dict[str, Any]]) -> list[str]:
    """One key is one version, and one version has one key."""
    made = {(promise["key"], promise["version"]) for promise in promises if promise["kind"] == "publish"}
    keys, numbers = Counter(key for key, _ in made), Counter(number for _, number in made)
    faults = [f"key {key} has {count} versions" for key, count in keys.items() if count > 1]
    return faults + [f"version {number} has {count} keys" for number, count in numbers.items() if count > 1]


def describe(outcome: Outcome) -> str:
    """One line for the summary."""
    calls = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.calls.items()))
    return (
        f"{outcome.kills} kills, {outcome.keys} keys begun, {outcome.versions} versions there; "
        f"acknowledged: {calls}; {len(outcome.faults)} faults"
    )
