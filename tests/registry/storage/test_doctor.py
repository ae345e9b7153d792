"""A place is believed when it has shown what it keeps, and refused with all that it lacks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from object_store import Fault, ObjectStore
from postgres import PostgresServer
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BackendRefused
from switchyard.registry.location import Location, read_settings
from switchyard.registry.refs import AdapterName
from switchyard.registry.storage import database_checks, directory_checks, doctor
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.directory_checks import file_system_of
from switchyard.registry.storage.doctor import DoctorReport, examine
from switchyard.registry.storage.examination import Check
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/share rw shared:5 - nfs4 server:/export rw
31 22 0:41 / /mnt/with\\040blank rw - cifs //server/share rw
32 22 0:42 / /mnt/user rw - fuse.sshfs me@host: rw
33 30 8:2 / /mnt/share/local rw - xfs /dev/sdb1 rw
34 22 0:43 / /memory rw - tmpfs tmpfs rw
"""


def named(report: DoctorReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def test_a_good_directory(tmp_path: Path) -> None:
    report = examine(Location(tmp_path / "registry"))
    assert report.ok
    assert report.failed == ()
    assert {check.name for check in report.checks if check.required} == {
        "local file system",
        "sync",
        "link",
        "rename",
        "locks",
        "SQLite",
    }
    assert all(asdict(check)[part] for check in report.checks for part in ("found", "expected", "next_step"))
    assert list((tmp_path / "registry").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/mnt/share/registry", "nfs4"),
        ("/mnt/share/local/registry", "xfs"),
        ("/mnt/sharedata", "ext4"),
        ("/mnt/with blank/x", "cifs"),
        ("/mnt/user", "fuse.sshfs"),
        ("/memory/x", "tmpfs"),
    ],
)
def test_the_innermost_mount_counts(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize(("kind", "ok"), [("nfs4", False), ("cifs", False), ("fuse.sshfs", False), ("ext4", True)])
def test_a_directory_of_other_machines_is_refused(
    kind: str, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - {kind} there rw\n")
    monkeypatch.setattr(directory_checks, "_MOUNTS", mounts)
    report = examine(Location(tmp_path / "registry"))
    assert report.ok is ok
    check = named(report)["local file system"]
    assert (check.ok, check.found) == (ok, kind)


def test_memory_is_only_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw - tmpfs there rw\n")
    monkeypatch.setattr(directory_checks, "_MOUNTS", mounts)
    report = examine(Location(tmp_path / "registry"))
    assert report.ok
    assert not named(report)["survives a restart"].ok


def fails_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "fsync", refuse)


def links_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda source, target: target.write_bytes(source.read_bytes()))


def locks_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=1, f_frsize=4096))


@pytest.mark.parametrize(
    ("lame", "failed"),
    [
        (fails_to_sync, {"sync", "rename"}),
        (links_over, {"link"}),
        (locks_nobody_out, {"locks"}),
        (has_no_room, set()),
    ],
)
def test_each_fault_of_a_directory_is_seen(
    lame: object, failed: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lame(monkeypatch)  # type: ignore[operator]
    report = examine(Location(tmp_path / "registry"))
    assert {check.name for check in report.failed} == failed
    assert report.ok is (not failed)


# -- buckets -------------------------------------------------------------


@pytest.fixture
def address(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://adapters/{tmp_path.name}"


def test_a_good_bucket(address: str, tmp_path: Path, s3: ObjectStore) -> None:
    report = examine(Location(tmp_path / "registry", blobs=address))
    assert report.ok
    checks = named(report)
    assert checks["presigned"].ok
    # moto takes bytes that do not match their checksum, so this one must be a warning with a reason.
    assert not checks["checksums"].ok
    assert "taken" in checks["checksums"].found
    assert list(s3.bucket(tmp_path.name).listing("doctor")) == []


def overwrites(bucket: pytest.MonkeyPatch) -> None:
    create = Bucket.create

    def created(self: Bucket, key: str, source: Path | bytes, *, in_pieces: bool = False) -> bool:
        self.remove(key)
        return create(self, key, source, in_pieces=in_pieces)

    bucket.setattr(Bucket, "create", created)


def refuses_and_overwrites(bucket: pytest.MonkeyPatch) -> None:
    create = Bucket.create

    def created(self: Bucket, key: str, source: Path | bytes, *, in_pieces: bool = False) -> bool:
        taken = self.size_bytes(key) is not None
        self.remove(key)
        return create(self, key, source, in_pieces=in_pieces) and not taken

    bucket.setattr(Bucket, "create", created)


def reads_late(bucket: pytest.MonkeyPatch) -> None:
    def missing(_self: Bucket, key: str) -> Iterator[bytes]:
        raise FileNotFoundError(key)

    bucket.setattr(Bucket, "chunks", missing)


def lists_late(bucket: pytest.MonkeyPatch) -> None:
    bucket.setattr(Bucket, "listing", lambda _self, _folder: iter(()))


def keeps_what_is_removed(bucket: pytest.MonkeyPatch) -> None:
    bucket.setattr(Bucket, "remove", lambda _self, _key: None)


def copies_nothing(bucket: pytest.MonkeyPatch) -> None:
    bucket.setattr(Bucket, "copy", lambda _self, _source, _target: False)


READS = {"read after write", "conditional write", "copy", "pieces"}


@pytest.mark.parametrize(
    ("lame", "failed"),
    [
        (overwrites, {"conditional write"}),
        (refuses_and_overwrites, {"conditional write"}),
        (reads_late, READS),
        (lists_late, {"list after write"}),
        (keeps_what_is_removed, {"remove"}),
        (copies_nothing, {"copy"}),
    ],
)
def test_a_bucket_that_lacks_something_is_refused_with_all_that_it_lacks(
    lame: object, failed: set[str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lame(monkeypatch)  # type: ignore[operator]
    with pytest.raises(BackendRefused) as caught:
        Registry.open(Location(tmp_path / "registry", blobs=address))
    lines = str(caught.value).splitlines()
    assert {line.strip().split(":")[0] for line in lines[1:]} == failed
    assert all("next: " in line for line in lines[1:])
    assert read_settings(tmp_path / "registry") is None
    monkeypatch.undo()


def test_a_bucket_is_examined_once(
    address: str,
    tmp_path: Path,
    s3: ObjectStore,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "registry"
    with Registry.open(Location(root, blobs=address), validate=validate_files) as registry:
        registry.register_base(base)
        publish(registry, base, name, adapter(0))  # type: ignore[operator]
    settings = read_settings(root)
    assert settings is not None
    assert settings.blobs == address
    assert settings.doctor["warnings"] == ["checksums"]
    s3.requests.clear()
    with Registry.open(root) as registry:
        version = registry.list_versions(name)[0][0]
        assert registry.read_blob(version.files[0].digest)
    assert not any("doctor" in request for request in s3.requests)
    # A later release that looks for more looks again.
    monkeypatch.setattr(doctor, "_PROOF", 2)
    Registry.open(root).close()
    assert any("doctor" in request for request in s3.requests)


def test_a_store_that_does_not_answer_is_not_proven(
    address: str, tmp_path: Path, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.fail(Fault.DENIED, "PUT", times=100)
    with pytest.raises(BackendRefused, match="refuses"):
        Registry.open(Location(tmp_path / "registry", blobs=address))


# -- databases -----------------------------------------------------------


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.url(postgres.create())


def test_a_server_without_durability_is_found(database: str, tmp_path: Path) -> None:
    """The server of the tests has fsync off, to be quick."""
    report = examine(Location(tmp_path / "registry", database=database))
    assert {check.name for check in report.failed} == {"durability"}
    assert "fsync=off" in named(report)["durability"].found
    assert "SQLite" not in named(report)
    found = report.checks[-7:]
    assert [check.name for check in found if not check.ok] == ["durability"]


def test_nothing_is_left_on_the_server(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.create()
    examine(Location(tmp_path / "registry", database=postgres.url(name)))
    with postgres.connect(name) as connection:
        left = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'switchyard%'").fetchall()
    assert left == []


def test_a_server_that_cannot_be_reached(tmp_path: Path) -> None:
    report = examine(Location(tmp_path / "registry", database=f"postgresql://nobody@/none?host={tmp_path}"))
    assert [check.name for check in report.failed] == ["server"]


def test_an_old_server_is_refused(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_checks, "_OLDEST", 99)
    report = examine(Location(tmp_path / "registry", database=database))
    assert "release" in {check.name for check in report.failed}
