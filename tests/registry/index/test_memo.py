"""What is remembered holds until anybody commits, in this process or another, and not a moment longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock, write_adapter
from hypothesis import given
from hypothesis import strategies as st
from publishing import publish

from switchyard.registry.access.policy import Scope
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.index.database import Index
from switchyard.registry.index.memo import Memo
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry


@pytest.fixture
def published_twice(registry: Registry, base: BaseModelSpec, name: AdapterName, tmp_path: Path) -> AdapterName:
    for seed in (1, 2):
        publish(registry, base, name, write_adapter(tmp_path / f"a{seed}", seed=seed))
    return name


class World:
    """One number that anybody may change, and how often it was changed."""

    def __init__(self) -> None:
        self.value = 0
        self.memo = Memo[str, int](lambda: self.commits)
        self.commits = 0

    def commit(self) -> None:
        self.value += 1
        self.commits += 1


@given(st.lists(st.sampled_from(["ask", "commit", "read", "keep"]), max_size=40))
def test_nothing_is_told_that_a_read_would_not_tell(steps: list[str]) -> None:
    world, under_way = World(), list[tuple[int, int]]()
    for step in steps:
        match step:
            case "commit":
                world.commit()
            case "read":
                under_way.append((world.commits, world.value))
            case "keep" if under_way:
                stamp, value = under_way.pop()
                world.memo.keep("x", value, stamp)
            case _:
                assert world.memo.get("x") in (None, world.value)


def test_what_was_read_is_told_again_and_not_kept_without_a_stamp() -> None:
    world = World()
    world.memo.keep("x", 7, 0)
    assert (world.memo.get("x"), world.memo.get("y")) == (7, None)
    world.memo.keep("x", 8, None)
    assert world.memo.get("x") == 7
    blind = Memo[str, int](lambda: None)
    blind.keep("x", 7, 0)
    assert blind.get("x") is None


def test_it_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.registry.index.memo._MOST", 4)
    world = World()
    for number in range(100):
        world.memo.keep(str(number), number, 0)
    assert sum(world.memo.get(str(number)) is not None for number in range(100)) <= 4
    assert world.memo.get("99") == 99


def test_a_stamp_changes_with_every_commit_of_anybody(connect: Callable[[], Index]) -> None:
    index, other = connect(), connect()
    first = index.stamp()
    assert first is not None
    assert index.stamp() == first
    with index.read():
        pass
    assert index.stamp() == first
    with index.write() as connection:
        connection.exec_driver_sql("UPDATE clock SET rev = rev + 1")
        assert index.stamp() == first
    second = index.stamp()
    assert second != first
    with other.write() as connection:
        connection.exec_driver_sql("UPDATE clock SET rev = rev + 1")
    assert index.stamp() not in (first, second)


def test_stamps_are_told_to_several_threads_and_not_after_the_end(index: Index) -> None:
    told: list[int | None] = []
    threads = [threading.Thread(target=lambda: told.extend(index.stamp() for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(told)) == 1
    assert None not in told
    index.close()
    assert index.stamp() is None


@on_both
def test_a_token_is_remembered_until_anything_changes(registry: Registry, location: Location, database: str) -> None:
    access = registry.access
    access.create_principal("ada", actor="root")
    secret = access.create_token("ada", actor="root").secret
    assert access.remembered(secret) is None
    # The note of its first use is a commit too.
    access.authenticate(secret)
    access.close()
    proven = access.authenticate(secret)
    known = database == "sqlite"
    assert access.remembered(secret) == (proven if known else None)
    with Registry.open(location) as elsewhere:
        elsewhere.access.grant("ada", Scope.READ, "red/*", actor="root")
        assert access.remembered(secret) is None
        assert [grant.scope for grant in access.authenticate(secret).grants] == [Scope.READ]
        assert (access.remembered(secret) is not None) is known
        elsewhere.access.revoke_token(proven.credential, actor="root")
        assert access.remembered(secret) is None


def test_a_remembered_token_ends_when_it_ends(registry: Registry, clock: ManualClock) -> None:
    registry.access.create_principal("ada", actor="root")
    secret = registry.access.create_token("ada", ttl_s=90, actor="root").secret
    registry.access.authenticate(secret)
    registry.access.close()
    registry.access.authenticate(secret)
    clock.now_s += 45
    assert registry.access.remembered(secret) is not None
    clock.now_s += 45
    assert registry.access.remembered(secret) is None


def test_the_secret_itself_is_not_kept(registry: Registry) -> None:
    registry.access.create_principal("ada", actor="root")
    secret = registry.access.create_token("ada", actor="root").secret
    registry.access.authenticate(secret)
    registry.access.close()
    registry.access.authenticate(secret)
    assert registry.access.remembered(secret) is not None
    assert secret not in repr(vars(registry.access._proven))


@on_both
def test_what_a_ref_names_is_remembered_until_it_moves(
    registry: Registry, location: Location, database: str, published_twice: AdapterName
) -> None:
    ref = AdapterRef.parse(f"{published_twice}@live")
    registry.aliases.move(published_twice, "live", 1, actor="ops", reason="")
    assert registry.resolution.remembered(ref) is None
    resolved = registry.resolve(ref, session_key="anybody")
    known = database == "sqlite"
    assert registry.resolution.remembered(ref) == (resolved if known else None)
    with Registry.open(location) as elsewhere:
        elsewhere.aliases.move(published_twice, "live", 2, actor="ops", reason="")
    assert registry.resolution.remembered(ref) is None
    assert registry.resolve(ref).version.version == 2


def test_a_split_is_never_remembered(registry: Registry, published_twice: AdapterName) -> None:
    ref = AdapterRef.parse(f"{published_twice}@live")
    registry.aliases.move(published_twice, "live", 1, actor="ops", reason="")
    registry.aliases.set_canary(published_twice, "live", 2, 50, actor="ops", reason="")
    found = {registry.resolve(ref, session_key=str(session)).version.version for session in range(32)}
    assert found == {1, 2}
    assert registry.resolution.remembered(ref) is None
