"""What an index needs to know of the database under it."""

from __future__ import annotations

from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.errors import StorageError

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for its turn."""


class ChangeSource(Protocol):
    """Something that sleeps until the database may have changed. Used by one thread."""

    def wait(self) -> bool:
        """Sleeps for a short while at most; tells whether there may be something new.

        Raises:
            Exception: the connection is lost; a new source is needed.
        """
        ...

    def close(self) -> None:
        """Gives the connection back."""
        ...


class Dialect(Protocol):
    """A database that can hold an index.

    Attributes:
        engine: hands out connections that begin a transaction with what the option `BEGINS` of
            the connection lists, and not by themselves.
        begin_read: statements that begin a transaction that sees one state and changes nothing.
        begin_write: statements that begin a transaction which has the database's writers to itself, and
            in which every later statement sees what all earlier writers have done.
        begin_migration: statements that do the same where there may be no tables yet.
    """

    engine: sa.Engine
    begin_read: tuple[str, ...]
    begin_write: tuple[str, ...]
    begin_migration: tuple[str, ...]

    def storage_error(self, cause: BaseException) -> StorageError | None:
        """Returns what the database's error means; None when the error is ours, not the database's."""
        ...

    def announce(self, connection: Connection, revision: int) -> None:
        """Wakes whoever waits in another process, once the transaction is committed."""
        ...

    def stamp(self) -> int | None:
        """A number that is another one after every commit of anybody, told without waiting for anything.

        None where the database has none, or cannot tell it now.
        """
        ...

    def close(self) -> None:
        """Closes every connection."""
        ...

    def changes(self) -> ChangeSource:
        """Opens a connection of its own that notices commits.

        Raises:
            Exception: the database cannot be reached.
        """
        ...


BEGINS = "switchyard_begins"
"""Name of the execution option with the statements that begin a transaction."""


def begin_as_told(engine: sa.Engine) -> None:
    """Lets the transactions of an engine begin with the statements of the `BEGINS` option.

    The driver's own handling is switched off where this is used: it would begin a transaction late, or
    run a SELECT outside the transaction that later writes.
    """

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        for statement in connection.get_execution_options()[BEGINS]:
            connection.exec_driver_sql(statement)
