"""The ledger has every change once and in order, whatever dies, fills up or is put in its place."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from decay import rows_of
from handmade import ManualClock
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.ledger import Ledger
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]


def revisions(root: Path) -> list[int]:
    return [line["event"]["rev"] for line in lines(root) if "event" in line]


def change(registry: Registry, times: int) -> None:
    for number in range(times):
        registry.namespaces.set_quota("elsewhere", number, actor="ann")


def test_every_commit_is_followed(registry: Registry, root: Path) -> None:
    for _ in range(5):
        change(registry, 1)
        assert revisions(root) == list(range(1, registry.feed.revision() + 1))
    audit = rows_of(registry)["audit"]
    assert [line["audit"]["hash"] for line in lines(root) if "event" in line] == [row["hash"] for row in audit]


def test_a_refused_change_leaves_no_line(registry: Registry, root: Path) -> None:
    size = (root / "ledger.jsonl").stat().st_size
    with pytest.raises(RuntimeError), registry._index.write():
        raise RuntimeError("not today")
    assert (root / "ledger.jsonl").stat().st_size == size


def test_only_the_owner_may_read_it(registry: Registry, root: Path) -> None:
    """Digests of secrets are in it."""
    assert (root / "ledger.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("torn", [b'{"event": {"rev"', b'{"event"}\n', bytes(5_000), b"\n"])
def test_a_torn_end_is_mended(torn: bytes, registry: Registry, root: Path) -> None:
    change(registry, 3)
    whole = (root / "ledger.jsonl").read_bytes()
    (root / "ledger.jsonl").write_bytes(whole + torn)
    change(registry, 1)
    assert (root / "ledger.jsonl").read_bytes().startswith(whole)
    assert revisions(root)[-4:] == list(range(registry.feed.revision() - 3, registry.feed.revision() + 1))


@pytest.mark.parametrize("kept", [0, 1, 100, 5_000])
def test_an_end_that_was_cut_off_comes_again(kept: int, registry: Registry, root: Path) -> None:
    """Whatever prefix a power cut leaves, the next commit completes it."""
    change(registry, 30)
    first = revisions(root)[0]
    data = (root / "ledger.jsonl").read_bytes()
    begins = data.index(b'{"audit"', 1000)
    (root / "ledger.jsonl").write_bytes(data[: begins + kept] if kept else b"")
    change(registry, 1)
    if kept:
        assert revisions(root) == list(range(first, registry.feed.revision() + 1))
    else:
        assert lines(root)[0]["revision"] == registry.feed.revision()


def test_a_lost_ledger_begins_anew_with_all_tables(lived_in: Registry, root: Path) -> None:
    (root / "ledger.jsonl").unlink()
    change(lived_in, 1)
    found = lines(root)
    assert found[0]["revision"] == lived_in.feed.revision()
    tables = {line["table"] for line in found[1:]}
    assert {"version", "alias_event", "event", "audit", "blob"} <= tables
    assert not {"upload_session", "session_blob", "hold"} & tables


def test_what_another_process_left_out_is_caught_up(
    registry: Registry, root: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.registry.upkeep.ledger._PAGE", 10)
    registry._index.followers.clear()
    change(registry, 25)
    before = revisions(root)
    with Registry.open(root, clock=clock):
        found = revisions(root)
    assert len(found) == len(before) + 25
    assert found == list(range(found[0], registry.feed.revision() + 1))


def test_a_database_that_was_put_back_is_noticed(
    registry: Registry, root: Path, tmp_path: Path, clock: ManualClock
) -> None:
    """An older copy of the database goes on with other changes under the same numbers."""
    change(registry, 2)
    registry.close()
    copy = shutil.copy(root / "registry.db", tmp_path / "older.db")
    with Registry.open(root, clock=clock) as opened:
        change(opened, 3)
    shutil.copy(copy, root / "registry.db")
    with Registry.open(root, clock=clock) as opened:
        change(opened, 4)
        assert lines(root)[0]["revision"] + len(revisions(root)) == opened.feed.revision()
        hashes = [row["hash"] for row in rows_of(opened)["audit"]]
    kept = [line["row"]["hash"] for line in lines(root) if line.get("table") == "audit"]
    kept += [line["audit"]["hash"] for line in lines(root) if "event" in line]
    assert kept == hashes


def test_events_that_were_dropped_before_they_were_written(registry: Registry, root: Path) -> None:
    registry._index.followers.clear()
    change(registry, 5)
    registry.feed.compact(registry.feed.revision() - 1, actor="ops")
    registry.ledger.catch_up()
    assert lines(root)[0]["revision"] == registry.feed.revision()


def test_a_full_disk_does_not_undo_a_commit(registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = revisions(root)

    def refuse(_fd: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("switchyard.registry.upkeep.ledger.os.fsync", refuse)
        change(registry, 1)
    change(registry, 1)
    assert len(revisions(root)) == len(before) + 2
    assert revisions(root) == list(range(revisions(root)[0], registry.feed.revision() + 1))


def test_two_followers_write_no_change_twice(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, clock: ManualClock
) -> None:
    def work(number: int) -> None:
        with Registry.open(root, clock=clock, validate=validate_files) as own:
            publish(own, base, name, adapter(number))
            change(own, 10)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = revisions(root)
    assert found == list(range(found[0], registry.feed.revision() + 1))
    assert len(found) == 45


def test_a_registry_without_a_directory_of_its_own_keeps_none(registry: Registry) -> None:
    ledger = Ledger(registry._index, None)
    ledger.begin()
    ledger.catch_up()
    assert ledger.follow not in registry._index.followers
