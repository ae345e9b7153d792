"""A backup is whole or it is none; what comes back is what was there, whatever database it goes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from decay import blob_files, rows_of, spoil
from handmade import ManualClock
from postgres import PostgresServer
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import (
    BackupBroken,
    BlobCorrupt,
    CollectionHeld,
    DestinationExists,
    SchemaUnknown,
    SessionClosed,
)
from switchyard.registry.index import schema
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.upkeep import snapshots
from switchyard.registry.upkeep.restore import restore
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
# What a restore changes on purpose: sessions end, blobs that nothing needs stay behind, and it says that it was here.
CHANGED = ("hold", "session_blob", "upload_session.state", "blob", "clock.rev", "event", "audit")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def reopened(root: Path | Location, clock: ManualClock) -> Registry:
    return Registry.open(root, clock=clock, validate=validate_files)


def test_what_was_there_comes_back(lived_in: Registry, dest: Path, tmp_path: Path, clock: ManualClock) -> None:
    before = rows_of(lived_in, *CHANGED)
    events, audit = rows_of(lived_in)["event"], rows_of(lived_in)["audit"]
    report = lived_in.backups.write(dest)
    assert (report.revision, report.versions, report.corrupt) == (lived_in.feed.revision(), 5, ())
    assert report.copied_blobs == report.blobs == len(list((dest / "blobs" / "sha256").iterdir()))
    done = restore(dest, tmp_path / "again", actor="ops", clock=clock)
    assert (done.revision, done.versions, done.blobs, done.bytes) == (report.revision, 5, report.blobs, report.bytes)
    with reopened(tmp_path / "again", clock) as again:
        assert rows_of(again, *CHANGED) == before
        found = rows_of(again)
        assert found["event"][:-1] == events
        assert found["audit"][:-1] == audit
        assert found["event"][-1]["kind"] == "registry.restored"
        assert again.inspector.fsck(deep=True).findings == ()
        assert again.audit.verify() == len(audit) + 1


def test_work_goes_on_after_a_restore(
    lived_in: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    dest: Path,
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    """Numbers, generations and keys go on where they stood; an upload that was under way begins again."""
    generation = lived_in.resolve(AdapterRef.parse("team/addresses@prod")).alias_generation
    lived_in.backups.write(dest)
    restore(dest, tmp_path / "again", actor="ops", clock=clock)
    with reopened(tmp_path / "again", clock) as again:
        assert again.base_models() == [base]
        assert publish(again, base, name, adapter(9)).version == 5
        moved = again.set_alias(name, "prod", 3, expected_generation=generation, actor="ann")
        assert moved.alias.generation == generation + 1
        other = publish(again, base, AdapterName("new", "one"), adapter(9))
        assert other.version == 1
        assert again.inspector.fsck(deep=True).findings == ()


def test_a_second_backup_copies_what_is_new(
    lived_in: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    dest: Path,
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    first = lived_in.backups.write(dest)
    assert lived_in.backups.write(dest).copied_blobs == 0
    version = publish(lived_in, base, name, adapter(9))
    (dest / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"of an older backup")
    rotten = next(iter(blob_files(dest) - {"sha256:" + "0" * 64}))
    spoil(dest, rotten)
    second = lived_in.backups.write(dest)
    shared = {entry.digest for entry in version.files} & blob_files(dest)
    assert second.copied_blobs == second.blobs - first.blobs + 1
    assert shared == {entry.digest for entry in version.files}
    assert len(blob_files(dest)) == second.blobs
    assert len([path for path in dest.iterdir() if path.name.startswith("tables-")]) == 1
    assert restore(dest, tmp_path / "again", actor="ops", clock=clock).versions == 6


def test_a_backup_that_was_killed_leaves_the_former_one(
    lived_in: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    dest: Path,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lived_in.backups.write(dest)
    publish(lived_in, base, name, adapter(9))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("switchyard.registry.upkeep.backup.write_durably", die)
        with pytest.raises(KeyboardInterrupt):
            lived_in.backups.write(dest)
    assert restore(dest, tmp_path / "again", actor="ops", clock=clock).versions == 5
    lived_in.backups.write(dest)
    assert restore(dest, tmp_path / "once more", actor="ops", clock=clock).versions == 6


def test_nothing_is_collected_while_a_backup_copies(
    lived_in: Registry, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, tried = lived_in._blobs.stream, []

    def collect_meanwhile(*arguments: object, **options: object) -> object:
        with pytest.raises(CollectionHeld, match="backup"):
            lived_in.collector.collect(dry_run=False, actor="ops")
        tried.append(1)
        return stream(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lived_in._blobs, "stream", collect_meanwhile)
    lived_in.backups.write(dest)
    assert tried
    assert lived_in.collector.collect(actor="ops").left_blobs == 0


def test_a_hold_that_ran_out_is_no_backup(lived_in: Registry, dest: Path, clock: ManualClock) -> None:
    stream = lived_in._blobs.stream

    def sleep(*arguments: object, **options: object) -> object:
        clock.now_s += 1_000
        return stream(*arguments, **options)  # type: ignore[arg-type]

    lived_in._blobs.stream = sleep  # type: ignore[assignment,method-assign]
    with pytest.raises(CollectionHeld, match="ran out"):
        lived_in.backups.write(dest, hold_s=100)
    assert not (dest / "backup.json").exists()


def test_bad_bytes_do_not_stop_a_backup(
    lived_in: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
    dest: Path,
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    version = lived_in.list_versions(name)[0][0]
    known, unknown = version.file("README.md").digest, version.file("adapter_model.safetensors").digest
    for digest in (known, unknown):
        spoil(root, digest)
    with pytest.raises(BlobCorrupt):
        lived_in.read_blob(known)
    report = lived_in.backups.write(dest)
    assert report.corrupt == (unknown,)
    restore(dest, tmp_path / "again", actor="ops", clock=clock)
    with reopened(tmp_path / "again", clock) as again:
        assert len(again.inspector.fsck().findings) == 2
        publish(again, base, name, adapter(3))
        assert again.inspector.fsck(deep=True).findings == ()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda dest: (dest / "backup.json").unlink(), "no backup.json"),
        (lambda dest: (dest / "backup.json").write_text("{"), "cannot be read"),
        (lambda dest: (dest / "backup.json").write_text("[]"), "cannot be read"),
        (lambda dest: next(dest.glob("tables-*/alias.jsonl")).unlink(), "table alias is missing"),
        (lambda dest: next(dest.glob("tables-*/audit.jsonl")).write_text(""), "table audit has changed"),
        (lambda dest: next((dest / "blobs" / "sha256").iterdir()).unlink(), "is missing"),
        (lambda dest: spoil(dest, next(iter(blob_files(dest)))), "has changed"),
    ],
)
def test_a_broken_backup(
    damage: Callable[[Path], None], told: str, lived_in: Registry, dest: Path, tmp_path: Path
) -> None:
    lived_in.backups.write(dest)
    damage(dest)
    with pytest.raises(BackupBroken, match=told):
        restore(dest, tmp_path / "again", actor="ops")
    assert not (tmp_path / "again").exists()


def test_all_faults_of_a_backup_at_once(lived_in: Registry, dest: Path, tmp_path: Path) -> None:
    lived_in.backups.write(dest)
    for path in list((dest / "blobs" / "sha256").iterdir())[:3]:
        path.unlink()
    with pytest.raises(BackupBroken, match="3 fault"):
        restore(dest, tmp_path / "again", actor="ops")


def test_a_backup_of_a_newer_release(lived_in: Registry, dest: Path, tmp_path: Path) -> None:
    lived_in.backups.write(dest)
    manifest = json.loads((dest / "backup.json").read_text())
    (dest / "backup.json").write_text(json.dumps(manifest | {"schema": "9999"}))
    with pytest.raises(SchemaUnknown, match="9999"):
        restore(dest, tmp_path / "again", actor="ops")


def test_a_backup_of_an_older_release(lived_in: Registry, dest: Path, tmp_path: Path, clock: ManualClock) -> None:
    """Columns that came later take their defaults."""
    lived_in.backups.write(dest)
    path = next(dest.glob("tables-*/adapter.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "owner"}) + "\n" for row in rows))
    manifest = json.loads((dest / "backup.json").read_text())
    for table in manifest["tables"]:
        if table["name"] == "adapter":
            table["digest"] = snapshots.file_digest(path)
    (dest / "backup.json").write_text(json.dumps(manifest | {"schema": "0002"}))
    restore(dest, tmp_path / "again", actor="ops", clock=clock)
    with reopened(tmp_path / "again", clock) as again:
        assert [row["owner"] for row in rows_of(again)["adapter"]] == ["", ""]


def test_places_that_are_taken(lived_in: Registry, dest: Path, tmp_path: Path, root: Path) -> None:
    lived_in.backups.write(dest)
    with pytest.raises(DestinationExists, match="not empty"):
        restore(dest, root, actor="ops")
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter.txt").write_text("dear")
    for taken in (tmp_path / "documents", root):
        with pytest.raises(DestinationExists, match="no backup"):
            lived_in.backups.write(taken)


def test_sessions_that_were_under_way(lived_in: Registry, dest: Path, tmp_path: Path, clock: ManualClock) -> None:
    (session,) = [row for row in rows_of(lived_in)["upload_session"] if row["state"] == "OPEN"]
    lived_in.backups.write(dest)
    restore(dest, tmp_path / "again", actor="ops", clock=clock)
    with reopened(tmp_path / "again", clock) as again, pytest.raises(SessionClosed, match="ABORTED"):
        again.commit_publish(str(session["id"]), actor="ann")


def test_rows_of_hundreds(lived_in: Registry, dest: Path, tmp_path: Path, clock: ManualClock) -> None:
    """More rows than one batch."""
    with lived_in._index.write() as connection:
        rows = [{"name": f"p{number:04}", "created_at_s": 0.0} for number in range(1_234)]
        connection.execute(sa.insert(schema.principal), rows)
    lived_in.backups.write(dest)
    restore(dest, tmp_path / "again", actor="ops", clock=clock)
    with reopened(tmp_path / "again", clock) as again:
        assert [row["name"] for row in rows_of(again)["principal"]] == ["bob", *(row["name"] for row in rows)]


def test_a_report_is_a_value(lived_in: Registry, dest: Path) -> None:
    report = lived_in.backups.write(dest)
    assert lived_in.backups.write(dest) == replace(report, copied_blobs=0, copied_bytes=0)


def test_from_sqlite_to_postgresql_and_back(
    lived_in: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    tmp_path: Path,
    clock: ManualClock,
    postgres: PostgresServer,
) -> None:
    before = rows_of(lived_in, *CHANGED)
    lived_in.backups.write(tmp_path / "of sqlite")
    place = Location(tmp_path / "moved", postgres.url(postgres.create()), (tmp_path / "bytes").as_uri())
    restore(tmp_path / "of sqlite", place, actor="ops", clock=clock)
    with pytest.raises(DestinationExists, match="the database has rows"):
        restore(tmp_path / "of sqlite", replace(place, root=tmp_path / "twice"), actor="ops", clock=clock)
    with reopened(place, clock) as moved:
        assert rows_of(moved, *CHANGED) == before
        assert moved.inspector.fsck(deep=True).findings == ()
        assert publish(moved, base, name, adapter(9)).version == 5
        assert publish(moved, base, AdapterName("new", "one"), adapter(9)).version == 1
        after = rows_of(moved, *CHANGED)
        moved.backups.write(tmp_path / "of postgresql")
    restore(tmp_path / "of postgresql", tmp_path / "back", actor="ops", clock=clock)
    with reopened(tmp_path / "back", clock) as back:
        assert rows_of(back, *CHANGED) == after
        assert back.inspector.fsck(deep=True).findings == ()
        assert back.list_versions(name)[0][0].version == 5


def test_a_version_that_is_published_while_blobs_are_copied(
    lived_in: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    dest: Path,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in the next backup. With the blobs first, its rows would be in this one, without its bytes."""
    stream, published = lived_in._blobs.stream, []

    def publish_meanwhile(*arguments: object, **options: object) -> object:
        if not published:
            published.append(publish(lived_in, base, name, adapter(9)))
        return stream(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lived_in._blobs, "stream", publish_meanwhile)
    lived_in.backups.write(dest)
    assert restore(dest, tmp_path / "again", actor="ops", clock=clock).versions == 5
    lived_in.backups.write(dest)
    assert restore(dest, tmp_path / "later", actor="ops", clock=clock).versions == 6
    with reopened(tmp_path / "later", clock) as later:
        assert later.inspector.fsck(deep=True).findings == ()
