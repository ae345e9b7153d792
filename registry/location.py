"""Where a registry is: its directory, and what the directory remembers.

A registry always has a directory. Its index is in a SQLite file there unless
`database` names a PostgreSQL database; its blobs are files there unless
`blobs` names an object store. `registry.json` in the directory remembers both,
so that later a directory is all one needs to name. It never holds a secret.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy as sa

from switchyard.registry.errors import ArgumentInvalid, SchemaUnknown, StorageFailed
from switchyard.registry.index.dialect import Dialect
from switchyard.registry.storage.durable import make_directory, mapped_os_errors, sync_directory, write_durably
from switchyard.registry.strict_json import Json, JsonRefused, parse_json

EMBEDDED_DATABASE = "registry.db"
_FILE = "registry.json"
_OPENING_LOCK = "opening.lock"
_FORMAT = 1
_DATABASES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_SECRETS = frozenset({"password", "sslpassword"})


@dataclass(frozen=True, slots=True)
class Location:
    """Names a registry.

    Attributes:
        root: its directory.
        database: URL of a PostgreSQL database without a password; empty for what the directory remembers,
            and for a SQLite file if it remembers nothing.
        blobs: URL of an object store without a secret (`s3://bucket/prefix`, `gs://`, `az://`, `file:///`);
            empty for what the directory remembers, and for files if it remembers nothing.
    """

    root: Path
    database: str = ""
    blobs: str = ""

    def dialect(self) -> Dialect:
        """Returns the database that the index is in.

        Raises:
            ArgumentInvalid: the URL, or its driver is not installed.
        """
        if not self.database:
            from switchyard.registry.index.sqlite import SqliteDialect

            return SqliteDialect(self.root / EMBEDDED_DATABASE)
        from switchyard.registry.index.postgres import PostgresDialect

        return PostgresDialect(_database_url(self.database))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a directory remembers.

    Attributes:
        store: id of the store that it belongs to.
        database: see `Location`.
        blobs: see `Location`.
        doctor: what the last examination of database and object store found; empty when none was made.
    """

    store: str
    database: str = ""
    blobs: str = ""
    doctor: Mapping[str, Json] = field(default_factory=dict)


def settle(location: Location) -> Location:
    """Completes a location with what its directory remembers.

    Raises:
        ArgumentInvalid: a URL that cannot be used, or another than the directory remembers.
        SchemaUnknown: a newer release has written what it remembers.
        StorageFailed: it cannot be read.
    """
    if location.database:
        _database_url(location.database)
    _check_no_secret("blobs", location.blobs)
    settings = read_settings(location.root)
    if settings is None:
        if location.database and (location.root / EMBEDDED_DATABASE).exists():
            raise ArgumentInvalid(
                f"{location.root} holds a registry in {EMBEDDED_DATABASE}, {location.database} was asked for; "
                "leave the database out, or name a new directory"
            )
        return location
    for name, found, asked in (
        ("database", settings.database, location.database),
        ("blobs", settings.blobs, location.blobs),
    ):
        if asked and asked != found:
            raise ArgumentInvalid(
                f"{location.root} has its {name} at {found or 'the directory itself'}, {asked} was asked for; "
                f"leave it out, or change {_FILE} if the same data has moved there"
            )
    return replace(location, database=settings.database, blobs=settings.blobs)


def remember(location: Location, store: str) -> None:
    """Writes down which store a directory belongs to, if it is not written yet.

    Raises:
        ArgumentInvalid: it belongs to another.
        StorageFull, StorageFailed: it cannot be written.
    """
    settings = read_settings(location.root)
    if settings is not None and settings.store == store:
        return
    if settings is not None and location.database:
        raise ArgumentInvalid(
            f"{location.root} belongs to store {settings.store}, {location.database} holds store {store}; name the "
            f"database it was made with, or remove {_FILE} if this one has taken its place"
        )
    # The embedded index lies in the same directory, so it is the one that counts: it was restored or rebuilt.
    write_settings(location.root, Settings(store, location.database, location.blobs))


def read_settings(root: Path) -> Settings | None:
    """Returns what a directory remembers; None for a new one.

    Raises:
        SchemaUnknown: a newer release has written it.
        StorageFailed: it cannot be read.
    """
    path = root / _FILE
    with mapped_os_errors(f"reading {path}"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        found = parse_json(data)
    except JsonRefused as fault:
        raise StorageFailed(f"{path} does not parse: {fault}; restore it from a backup") from fault
    if not isinstance(found, dict):
        raise StorageFailed(f"{path} is no JSON object; restore it from a backup")
    if found.get("format") != _FORMAT:
        raise SchemaUnknown(f"{path} has format {found.get('format')!a}, this release knows {_FORMAT}")
    store, database, blobs, doctor = (found.get(name) for name in ("store", "database", "blobs", "doctor"))
    if isinstance(store, str) and isinstance(database, str) and isinstance(blobs, str) and isinstance(doctor, dict):
        return Settings(store, database, blobs, doctor)
    raise StorageFailed(f"{path} lacks one of store, database, blobs and doctor; restore it from a backup")


def write_settings(root: Path, settings: Settings) -> None:
    """Replaces what a directory remembers, durably; readers see the old file or the new one.

    Raises:
        StorageFull, StorageFailed: the old file is still there.
    """
    document = {"format": _FORMAT, **asdict(settings)}
    path = root / _FILE
    with mapped_os_errors(f"writing {path}"):
        # Only the owner may read it: it tells where the data is.
        write_durably(path, json.dumps(document, indent=2).encode() + b"\n", mode=0o600)


@contextmanager
def opening(root: Path) -> Iterator[None]:
    """Makes the directory, and keeps other processes from setting up the same one meanwhile.

    Raises:
        StorageFull, StorageFailed: the directory or its lock cannot be made.
    """
    with mapped_os_errors(f"opening {root}"):
        make_directory(root, mode=0o700)
        fd = os.open(root / _OPENING_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
            sync_directory(root)
        finally:
            os.close(fd)


def _database_url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ArgumentInvalid("the database is no URL; expected postgresql://user@host/name") from error
    if url.drivername not in _DATABASES:
        raise ArgumentInvalid(f"the database is a {url.drivername} URL; expected postgresql://user@host/name")
    if url.password is not None or _SECRETS & set(url.query):
        raise ArgumentInvalid(
            "the database URL has a password in it, and it would be remembered in a file; put it into a password "
            "file (PGPASSFILE) or a service file and leave it out of the URL"
        )
    return url


def _check_no_secret(name: str, text: str) -> None:
    if text and "@" in urlsplit(text).netloc:
        raise ArgumentInvalid(
            f"the URL of {name} has a user or a secret in it, and it would be remembered in a file; put it into the "
            "environment and leave it out of the URL"
        )
