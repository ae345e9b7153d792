"""Many processes on one registry: no number twice or missing, one winner per generation, and watchers who see all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import crowd
import pytest
from postgres import PostgresServer
from registry_actor import NAME, REF, open_registry, publish
from registry_oracle import faults_of

from switchyard.registry.location import Location
from switchyard.registry.store import Registry

Job = tuple[Callable[..., None], tuple[Any, ...]]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[Path]:
    """A registry that knows one base; its directory is all that the processes are told."""
    if request.param == "sqlite":
        yield root
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with open_registry(root) as registry:
        (base,) = registry.base_models()
    with postgres.database() as url:
        directory = tmp_path / "on-postgres"
        with Registry.open(Location(directory, url)) as made:
            made.register_base(base)
        yield directory


class Crowd:
    """Processes that work on a registry at once, and two that watch them from the beginning to the end.

    Args:
        processes: how they are made.
        store: the registry.
        reports: a directory for what they report.
    """

    def __init__(self, processes: ForkServerContext, store: Path, reports: Path) -> None:
        self._processes = processes
        self._store = store
        self._reports = reports

    def work(self, jobs: list[Job]) -> tuple[list[Any], list[Any]]:
        """Runs the jobs; returns what they report, and what the watchers saw."""
        # One of them begins again every seven events, as after a lost line.
        followers = self._start([(crowd.follow, (self._store, patience)) for patience in (10**9, 7)])
        workers = self._start(jobs)
        done = self._finish(workers)
        with open_registry(self._store) as registry:
            registry.set_alias(NAME, crowd.END, 1, actor="end")
        return done, self._finish(followers)

    def _start(self, jobs: list[Job]) -> list[tuple[Any, Path]]:
        started = []
        for target, arguments in jobs:
            report = self._reports / f"{len(list(self._reports.iterdir()))}.json"
            report.touch()
            process = self._processes.Process(target=target, args=(*arguments, report))
            process.start()
            started.append((process, report))
        return started

    def _finish(self, started: list[tuple[Any, Path]]) -> list[Any]:
        for process, _ in started:
            process.join(300)
        assert [process.exitcode for process, _ in started] == [0] * len(started)
        return [json.loads(report.read_text()) for _, report in started]


@pytest.fixture
def many(processes: ForkServerContext, store: Path, tmp_path: Path) -> Crowd:
    reports = tmp_path / "reports"
    reports.mkdir()
    return Crowd(processes, store, reports)


@pytest.fixture
def size(full: bool) -> tuple[int, int, int]:
    """Processes, versions that each publishes, and moves that each tries."""
    return (8, 25, 50) if full else (4, 5, 12)


def require_sound(store: Path) -> None:
    """On SQLite also by an oracle that reads files and tables itself."""
    if (store / "registry.db").exists():
        assert faults_of(store) == []
    with open_registry(store) as registry:
        assert registry.inspector.fsck(deep=True).findings == ()
        versions, _ = registry.list_versions(NAME, 1000)
        assert [version.version for version in versions] == list(range(len(versions), 0, -1))
        assert registry.audit.verify() == registry.feed.revision()


def by_kind(events: list[list[Any]]) -> dict[str, list[Any]]:
    """Numbers or generations that a watcher saw; every revision once and in order."""
    assert [event[0] for event in events] == list(range(1, len(events) + 1))
    seen: dict[str, list[Any]] = {}
    for _, kind, number in events:
        seen.setdefault(kind, []).append(number)
    return seen


@pytest.mark.slow
def test_publishers_get_contiguous_versions(
    many: Crowd, store: Path, sources: list[Path], size: tuple[int, int, int], tally: Callable[[str], None]
) -> None:
    processes, count, _ = size
    jobs = [(crowd.publish_share, (store, sources[:4], share, count)) for share in range(processes)]
    shares, watchers = many.work(jobs)
    versions = list(range(1, processes * count + 1))
    assert sorted(number for share in shares for number in share) == versions
    for events in watchers:
        assert by_kind(events)["version.created"] == versions
    require_sound(store)
    tally(f"{store.name}: {processes} processes published {len(versions)} contiguous versions, watchers saw all")


def test_one_key_from_many_processes_is_one_version(many: Crowd, store: Path, sources: list[Path]) -> None:
    results, watchers = many.work([(crowd.publish_keys, (store, sources[:3], ["a", "b", "c"])) for _ in range(4)])
    assert all(result == results[0] for result in results)
    assert sorted(results[0]) == [1, 2, 3]
    assert by_kind(watchers[0])["version.created"] == [1, 2, 3]
    require_sound(store)


def test_an_alias_has_one_winner_per_generation(
    many: Crowd, store: Path, sources: list[Path], size: tuple[int, int, int], tally: Callable[[str], None]
) -> None:
    processes, _, attempts = size
    with open_registry(store) as registry:
        publish(registry, sources[0], "first", set_alias="prod")
        publish(registry, sources[1], "second")
    shares, watchers = many.work([(crowd.move_alias, (store, f"p{n}", attempts)) for n in range(processes)])
    won = sorted(generation for share in shares for generation in share)
    with open_registry(store) as registry:
        final = registry.resolve(REF).alias_generation
        moves = registry.alias_history(NAME, "prod")
    assert won == list(range(2, final + 1))
    assert [move.generation for move in moves] == list(range(final, 0, -1))
    for move in moves[:-1]:
        assert move.generation in shares[int(move.actor[1:])]
    for events in watchers:
        assert by_kind(events)["alias.set"] == list(range(1, final + 1))
    require_sound(store)
    tally(f"{store.name}: {processes} x {attempts} moves of an alias: {len(won)} wins, generation 1 to {final}")
