"""Between any two steps of a collection or a publish somebody else may act.

Each race is shown on a variant that lacks the guard, so that a test which cannot see the race is found out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from decay import FAR_S, abandon, blob_files, blob_rows
from handmade import ManualClock
from publishing import begin, entries, publish
from registry_oracle import faults_of

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BlobCorrupt, LeaseExpired, SessionClosed
from switchyard.registry.index import schema
from switchyard.registry.index.schema import BlobState
from switchyard.registry.publishing.session_rows import Stored, write_blob
from switchyard.registry.publishing.sessions import Sessions
from switchyard.registry.refs import AdapterName
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry
from switchyard.registry.upkeep import garbage
from switchyard.registry.upkeep.collector import CollectionReport, Collector
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
Open = Callable[[Callable[[Step], None]], Registry]


@pytest.fixture
def late() -> ManualClock:
    clock = ManualClock()
    clock.now_s = FAR_S
    return clock


@pytest.fixture
def open_store(root: Path, template: Path, late: ManualClock) -> Iterator[Open]:
    """Opens the one store again and again, as another process would."""
    shutil.copytree(template, root)
    opened: list[Registry] = []

    def open_one(on_step: Callable[[Step], None] = lambda _step: None) -> Registry:
        opened.append(Registry.open(root, clock=late, validate=validate_files, on_step=on_step))
        return opened[-1]

    yield open_one
    for registry in opened:
        registry.close()


def once(wanted: Step, act: Callable[[], object]) -> Callable[[Step], None]:
    """Acts when a step is passed for the first time."""
    passed: list[Step] = []

    def listen(step: Step) -> None:
        if step is wanted and not passed:
            passed.append(step)
            act()

    return listen


class Hasty(Collector):
    """Removes what it chose earlier without looking again: the protocol before the race was known."""

    def _remove_doomed(self, report: CollectionReport, doomed: dict[str, str]) -> CollectionReport:
        for digest, key in doomed.items():
            self._on_step(Step.COLLECT_CHOSEN)
            self._blobs.remove(digest, key)
            with self._index.write() as connection:
                gone = sa.and_(schema.blob.c.digest == digest, schema.blob.c.state == BlobState.DELETING)
                connection.execute(sa.delete(schema.blob).where(gone))
        return report


@pytest.mark.parametrize("kind", [Hasty, Collector])
def test_two_collectors_and_a_publisher(
    kind: type[Collector],
    open_store: Open,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
    late: ManualClock,
    tmp_path: Path,
) -> None:
    """The first has chosen a blob and sleeps; the second removes it; a publisher brings it back; the first wakes."""
    other = open_store(lambda _step: None)
    abandon(other, base, name, adapter(0), "given up")
    late.now_s += 100_000
    # Another machine: it does not see the lock file of the first.
    second = Collector(other._index, other._blobs, tmp_path)

    def meanwhile() -> None:
        assert second.collect(dry_run=False, actor="second").removed_blobs == 3
        publish(other, base, name, adapter(0))

    slow = open_store(lambda _step: None)
    first = kind(slow._index, slow._blobs, root, once(Step.COLLECT_CHOSEN, meanwhile))
    first.collect(dry_run=False, actor="first")
    version = other.list_versions(name)[0][0]
    if kind is Hasty:
        assert faults_of(root) != []
        with pytest.raises(BlobCorrupt, match="missing"):
            other.read_blob(min(entry.digest for entry in version.files))
    else:
        assert faults_of(root) == []
        assert all(other.read_blob(entry.digest) for entry in version.files)


class Trusting(Sessions):
    """Writes the row of a blob without looking whether the session still pins it."""

    def _record(self, session_id: str, stored: Stored) -> None:
        with self._index.write() as connection:
            write_blob(connection, stored, self._index.now())


@pytest.mark.parametrize("kind", [Trusting, Sessions])
def test_a_lease_that_ends_between_the_link_and_the_row(
    kind: type[Sessions],
    open_store: Open,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
    late: ManualClock,
) -> None:
    """The file is swept away as an orphan; a row that is then written would promise bytes that are gone."""
    other = open_store(lambda _step: None)

    def meanwhile() -> None:
        late.now_s += 10_000
        report = other.collector.collect(dry_run=False, grace_s=0, actor="ops")
        assert (report.expired_sessions, report.orphan_files) == (1, 1)

    slow = open_store(once(Step.BLOB_DIRECTORY_SYNCED, meanwhile))
    sessions = kind(slow._index, slow._blobs)
    session, entry = begin(slow, base, name, adapter(0)), entries(adapter(0))[0]
    data = (adapter(0) / entry.path).read_bytes()
    if kind is Trusting:
        sessions.store(session.session_id, entry.digest, entry.size_bytes, [data])
        assert any("its bytes are not there" in fault for fault in faults_of(root))
    else:
        with pytest.raises(SessionClosed):
            sessions.store(session.session_id, entry.digest, entry.size_bytes, [data])
        assert faults_of(root) == []
        assert publish(other, base, name, adapter(0)).version == 1
        assert faults_of(root) == []


def test_pins_that_were_lost_and_came_back(
    open_store: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, late: ManualClock
) -> None:
    """The session pins the blob again when its row is written, but the file went in between."""
    other = open_store(lambda _step: None)

    def meanwhile() -> None:
        late.now_s += 10_000
        assert other.collector.collect(dry_run=False, grace_s=0, actor="ops").orphan_files == 1
        begin(other, base, name, adapter(0))

    slow = open_store(once(Step.BLOB_DIRECTORY_SYNCED, meanwhile))
    session, entry = begin(slow, base, name, adapter(0)), entries(adapter(0))[0]
    with pytest.raises(LeaseExpired, match="send it again"):
        slow.upload(session.session_id, entry.digest, 0, [(adapter(0) / entry.path).read_bytes()])
    assert faults_of(root) == []
    assert publish(other, base, name, adapter(0), idempotency_key="k").version == 1
    assert faults_of(root) == []


def test_a_publish_meets_blobs_that_are_being_removed(
    open_store: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, late: ManualClock
) -> None:
    """DELETING counts as missing; bytes that arrive again make it PRESENT, and the collector lets go of it."""
    other = open_store(lambda _step: None)
    abandon(other, base, name, adapter(0), "given up")
    late.now_s += 100_000

    def meanwhile() -> None:
        assert set(blob_rows(other).values()) == {BlobState.DELETING}
        assert len(begin(other, base, name, adapter(0), "again").missing) == 3
        publish(other, base, name, adapter(0), idempotency_key="again")

    slow = open_store(once(Step.COLLECT_MARK_AFTER_COMMIT, meanwhile))
    report = slow.collector.collect(dry_run=False, actor="ops")
    assert report.removed_blobs == 0
    assert set(blob_rows(other).values()) == {BlobState.PRESENT}
    assert faults_of(root) == []


def test_a_pin_alone_saves_a_blob_from_removal(
    open_store: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, late: ManualClock
) -> None:
    other = open_store(lambda _step: None)
    abandon(other, base, name, adapter(0), "given up")
    late.now_s += 100_000
    slow = open_store(once(Step.COLLECT_MARK_AFTER_COMMIT, lambda: begin(other, base, name, adapter(0), "again")))
    assert slow.collector.collect(dry_run=False, actor="ops").removed_blobs == 0
    assert len(blob_files(root)) == 3
    assert publish(other, base, name, adapter(0), idempotency_key="again").version == 1
    assert faults_of(root) == []


def test_a_hold_in_the_middle_stops_the_removal(
    open_store: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, late: ManualClock
) -> None:
    other = open_store(lambda _step: None)
    abandon(other, base, name, adapter(0), "given up")
    late.now_s += 100_000
    holds = other.collector.hold("backup", 3_600)
    slow = open_store(once(Step.COLLECT_ROW_AFTER_COMMIT, holds.__enter__))
    report = slow.collector.collect(dry_run=False, actor="ops")
    assert (report.removed_blobs, report.left_blobs) == (1, 2)
    holds.__exit__(None, None, None)
    assert slow.collector.collect(dry_run=False, actor="ops").removed_blobs == 2
    assert faults_of(root) == []


def test_what_is_needed_is_never_doomed(
    open_store: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, late: ManualClock
) -> None:
    """Marks that are wrong (a restored snapshot may carry them) do no harm: the second look has the last word."""
    registry = open_store(lambda _step: None)
    publish(registry, base, name, adapter(0))
    with registry._index.write() as connection:
        connection.execute(sa.update(schema.blob).values(state=BlobState.DELETING))
        assert garbage.doomed(connection) == {}
    assert registry.collector.collect(dry_run=False, grace_s=0, actor="ops").removed_blobs == 0
