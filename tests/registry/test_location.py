"""A directory remembers where its registry is, holds no secret, and is not mixed up with another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from databases import on_both
from postgres import PostgresServer

from switchyard.registry.errors import ArgumentInvalid, SchemaUnknown, StorageFailed
from switchyard.registry.location import Location, Settings, read_settings, write_settings
from switchyard.registry.store import Registry


def test_an_embedded_registry(root: Path) -> None:
    with Registry.open(root) as registry:
        store = registry._index.store_id()
    assert read_settings(root) == Settings(store)
    assert (root / "registry.json").stat().st_mode & 0o777 == 0o600
    assert root.stat().st_mode & 0o777 == 0o700
    written = (root / "registry.json").stat()
    Registry.open(Location(root)).close()
    assert (root / "registry.json").stat().st_mtime_ns == written.st_mtime_ns


def test_a_store_from_before_there_was_such_a_file(root: Path) -> None:
    Registry.open(root).close()
    before = read_settings(root)
    (root / "registry.json").unlink()
    Registry.open(root).close()
    assert read_settings(root) == before


@on_both
def test_the_directory_is_enough_later(location: Location, root: Path) -> None:
    with Registry.open(location) as registry:
        bases, store = registry.base_models(), registry._index.store_id()
    with Registry.open(root) as registry:
        assert (registry.base_models(), registry._index.store_id()) == (bases, store)
    assert read_settings(root) == Settings(store, location.database)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_another_database_is_not_taken_for_it(location: Location, root: Path, postgres: PostgresServer) -> None:
    Registry.open(location).close()
    with postgres.database() as elsewhere:
        with pytest.raises(ArgumentInvalid, match="leave it out"):
            Registry.open(Location(root, elsewhere))
        settings = json.loads((root / "registry.json").read_text())
        (root / "registry.json").write_text(json.dumps(settings | {"database": elsewhere}))
        with pytest.raises(ArgumentInvalid, match=f"belongs to store {settings['store']}"):
            Registry.open(root)


def test_an_embedded_registry_does_not_move_by_itself(root: Path) -> None:
    Registry.open(root).close()
    (root / "registry.json").unlink()
    with pytest.raises(ArgumentInvalid, match="leave the database out"):
        Registry.open(Location(root, "postgresql:///somewhere"))


def test_an_embedded_index_that_was_put_back_counts(root: Path) -> None:
    """After a rebuild the index has another name; it lies in this directory, so it is this registry's."""
    Registry.open(root).close()
    before = read_settings(root)
    for file in root.glob("registry.db*"):
        file.unlink()
    Registry.open(root).close()
    after = read_settings(root)
    assert before is not None
    assert after is not None
    assert after.store != before.store


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("postgresql://ann:geheim@host/name", "password file"),
        ("postgresql://host/name?password=geheim", "password file"),
        ("postgresql://host/name?sslpassword=geheim", "password file"),
        ("mysql://host/name", "mysql"),
        ("postgresql+asyncpg://host/name", "asyncpg"),
        ("somewhere", "no URL"),
        ("postgresql://host:port/name", "no URL"),
    ],
)
def test_database_urls_that_are_refused(database: str, message: str, root: Path) -> None:
    with pytest.raises(ArgumentInvalid, match=message) as caught:
        Registry.open(Location(root, database))
    assert "geheim" not in str(caught.value)
    assert not (root / "registry.json").exists()


def test_a_secret_in_the_url_of_the_blobs(root: Path) -> None:
    with pytest.raises(ArgumentInvalid, match="environment") as caught:
        Registry.open(Location(root, blobs="s3://key:geheim@bucket"))
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", StorageFailed),
        (b"[]", StorageFailed),
        (b'{"format": 2}', SchemaUnknown),
        (b'{"format": 1, "store": "x", "database": 7, "blobs": "", "doctor": {}}', StorageFailed),
        (b'{"format": 1, "format": 1}', StorageFailed),
    ],
)
def test_settings_that_cannot_be_read(content: bytes, error: type[Exception], root: Path) -> None:
    root.mkdir()
    (root / "registry.json").write_bytes(content)
    with pytest.raises(error, match=r"registry\.json"):
        Registry.open(root)
    assert (root / "registry.json").read_bytes() == content


def test_settings_are_whole_or_the_old_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    write_settings(root, Settings("a", doctor={"checked": True}))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed):
        write_settings(root, Settings("b"))
    assert read_settings(root) == Settings("a", doctor={"checked": True})
