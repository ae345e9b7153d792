"""A PostgreSQL that dies, and a line that breaks at a COMMIT: acknowledged is present, and one key is one version."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import crowd
import pytest
from cutting_proxy import CuttingProxy
from handmade import write_adapter
from postgres import PostgresServer
from registry_actor import NAME, REF, open_registry, publish

from switchyard.registry.errors import GenerationMismatch, StorageFailed
from switchyard.registry.location import Location
from switchyard.registry.store import Registry

WRITERS = 4


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresServer]:
    """A server that keeps what it acknowledges, as in production."""
    server = PostgresServer(durable=True)
    yield server
    server.close()


def make(location: Location, template: Path) -> Path:
    """A registry in that database which knows the base of the template."""
    with open_registry(template) as registry:
        (base,) = registry.base_models()
    with Registry.open(location) as made:
        made.register_base(base)
    return location.root


@pytest.fixture
def store(durable: PostgresServer, template: Path, tmp_path: Path) -> Path:
    return make(Location(tmp_path / "store", durable.url(durable.create())), template)


@pytest.mark.slow
def test_a_server_that_dies_under_writers(
    durable: PostgresServer,
    store: Path,
    sources: list[Path],
    processes: ForkServerContext,
    tmp_path: Path,
    full: bool,
    tally: Callable[[str], None],
) -> None:
    """Killed with everything it has forked, stopped at once, stopped in order; and started again each time."""
    count, deaths = (40, 12) if full else (6, 3)
    reports = [tmp_path / f"writer-{share}" for share in range(WRITERS)]
    watched = tmp_path / "watcher"
    workers = [
        processes.Process(target=crowd.publish_whatever_happens, args=(store, sources, share, count, report))
        for share, report in enumerate(reports)
    ]
    follower = processes.Process(target=crowd.follow, args=(store, 10**9, watched))
    for process in (*workers, follower):
        process.start()
    for death in range(deaths):
        # Spread over the whole run, in the middle of whatever the writers are doing.
        wait_for(lambda death=death: len(acknowledged(reports)) > death * WRITERS * count // (deaths + 1))
        (durable.kill_all, lambda: durable.stop(signal.SIGQUIT), durable.stop)[death % 3]()
        told = acknowledged(reports)
        durable.start()
        with open_registry(store) as registry:
            present = {version.version for version in registry.list_versions(NAME, 1000)[0]}
        assert present.issuperset(told.values())
    for process in workers:
        process.join(300)
    with open_registry(store) as registry:
        registry.set_alias(NAME, crowd.END, 1, actor="end")
        follower.join(300)
        assert [process.exitcode for process in (*workers, follower)] == [0] * (WRITERS + 1)
        told = acknowledged(reports)
        versions, _ = registry.list_versions(NAME, 1000)
        assert {version.lineage.code_commit: version.version for version in versions} == told
        assert sorted(told.values()) == list(range(1, WRITERS * count + 1))
        assert registry.inspector.fsck(deep=True).findings == ()
    events = json.loads(watched.read_text())
    assert [event[0] for event in events] == list(range(1, len(events) + 1))
    assert [number for _, kind, number in events if kind == "version.created"] == list(range(1, len(told) + 1))
    tally(f"PostgreSQL died {deaths} times: {len(told)} acknowledged, {len(versions)} present, none lost or doubled")


def wait_for(happened: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def acknowledged(reports: list[Path]) -> dict[str, int]:
    """Versions by key, of every whole line."""
    lines = [line for report in reports if report.exists() for line in report.read_text().splitlines(keepends=True)]
    return dict(json.loads(line) for line in lines if line.endswith("\n"))


# -- a line that breaks --------------------------------------------------------


@pytest.fixture
def proxied(postgres: PostgresServer, template: Path, tmp_path: Path) -> Iterator[tuple[Path, CuttingProxy]]:
    """A registry behind a line that can be cut."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres.database())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="line-", dir="/tmp")))
        real = url.partition("host=")[2]
        proxy = CuttingProxy(directory, Path(real))
        stack.callback(proxy.close)
        yield make(Location(tmp_path / "store", url.replace(real, str(directory))), template), proxy


def commits_of(proxy: CuttingProxy, act: Callable[[], Any]) -> int:
    proxy.cut(0, answered=False)
    act()
    return proxy.commits


@pytest.mark.slow
def test_a_publish_whose_line_breaks_at_any_commit(
    proxied: tuple[Path, CuttingProxy],
    sources: list[Path],
    tmp_path: Path,
    full: bool,
    tally: Callable[[str], None],
) -> None:
    root, proxy = proxied
    with open_registry(root) as registry:
        total = commits_of(proxy, lambda: publish(registry, sources[0], "first", set_alias="prod"))
        cuts = [(turn, answered) for turn in range(1, total + 1, 1 if full else 4) for answered in (False, True)]
        broken = [
            break_and_repeat(registry, proxy, write_adapter(tmp_path / str(seed), seed=1000 + seed), seed, cut)
            for seed, cut in enumerate(cuts, 2)
        ]
        versions, _ = registry.list_versions(NAME, 1000)
        assert [version.version for version in versions] == list(range(len(cuts) + 1, 0, -1))
        assert registry.inspector.fsck(deep=True).findings == ()
    # `index.json` is not written for each version: the last COMMITs of the first publish are not in every one.
    assert all(broken[: -len(broken) // 4])
    tally(f"lines broken at a COMMIT of a publish: {sum(broken)} of {2 * total}, each key one version")


def break_and_repeat(
    registry: Registry, proxy: CuttingProxy, source: Path, number: int, cut: tuple[int, bool]
) -> bool:
    """Publishes what must become version `number`, twice; tells whether the line broke the first time."""
    key, (turn, answered) = f"key-{number}", cut
    generation = registry.resolve(REF).alias_generation
    proxy.cut(turn, answered=answered)
    # Not told when it breaks while `index.json` is written: the version is there by then.
    with suppress(StorageFailed):
        assert publish(registry, source, key, set_alias="prod") == number
    broken = proxy.commits >= turn
    proxy.cut(0, answered=False)
    assert publish(registry, source, key, set_alias="prod") == number
    assert registry.resolve(REF).alias_generation == generation + 1
    return broken


@pytest.mark.parametrize("answered", [False, True])
def test_a_move_whose_line_breaks(answered: bool, proxied: tuple[Path, CuttingProxy], sources: list[Path]) -> None:
    """The generation tells afterwards whether it happened."""
    root, proxy = proxied
    with open_registry(root) as registry:
        publish(registry, sources[0], "first", set_alias="prod")
        publish(registry, sources[1], "second")
        proxy.cut(1, answered=answered)
        with pytest.raises(StorageFailed, match="generation"):
            registry.set_alias(NAME, "prod", 2, expected_generation=1, actor="ann")
        assert registry.resolve(REF).alias_generation == (2 if answered else 1)
        if answered:
            with pytest.raises(GenerationMismatch):
                registry.set_alias(NAME, "prod", 2, expected_generation=1, actor="ann")
        else:
            registry.set_alias(NAME, "prod", 2, expected_generation=1, actor="ann")
        assert [move.generation for move in registry.alias_history(NAME, "prod")] == [2, 1]
