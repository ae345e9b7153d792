"""The feed: every change of a registry, in order, from any revision on.

Events are rows that the changing transaction itself has written, and the
feed reads them by their revision: nothing is lost between looking and
sleeping, whoever wakes it. Delivery is at least once: a watcher that was cut
off goes on from the last revision it has handled. An event is a hint to look;
what is true now is in the registry.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.errors import ArgumentInvalid, RevisionCompacted, StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind, Event
from switchyard.registry.index.database import Index

BOOKMARK_S = 10.0
_LOOK_LIMIT = 1000
# How long a watcher bears a database that does not answer.
_PATIENCE_S = 60.0
_RETRY_S = 0.5
_clock, _event = schema.clock, schema.event


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to here was delivered, or was not asked for.

    Attributes:
        revision: where to go on.
    """

    revision: int


class Feed:
    """Reads what happened.

    Args:
        index: where it is written.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def revision(self) -> int:
        """The newest revision; 0 before the first change."""
        with self._index.read() as connection:
            return _clock_row(connection)[0]

    def events(self, after_revision: int, limit: int = _LOOK_LIMIT) -> list[Event]:
        """Returns the changes after a revision, oldest first.

        Args:
            after_revision: the last one that the caller knows; 0 for none.
            limit: the most to return.

        Raises:
            ArgumentInvalid: no revision, or no limit.
            RevisionCompacted: some of them are gone, or the registry has not come that far: it was
                restored from a backup. List again, and watch from there.
        """
        if after_revision < 0 or limit < 1:
            raise ArgumentInvalid(f"after_revision {after_revision} and limit {limit}; expected at least 0 and 1")
        query = sa.select(_event).where(_event.c.rev > after_revision).order_by(_event.c.rev).limit(limit)
        with self._index.read() as connection:
            newest, compacted = _clock_row(connection)
            if not compacted <= after_revision <= newest:
                raise RevisionCompacted(
                    f"events after revision {after_revision} were asked for, but there are those after "
                    f"{compacted} up to {newest}; list what you need again, then watch from revision {newest}",
                    compacted_revision=compacted,
                )
            rows = connection.execute(query).mappings().all()
        return [
            Event(row["rev"], row["kind"], row["namespace"], row["adapter"], row["payload"], row["at_s"])
            for row in rows
        ]

    def watch(
        self,
        after_revision: int,
        *,
        namespace: str = "",
        adapter: str = "",
        stop: threading.Event,
        bookmark_s: float = BOOKMARK_S,
    ) -> Iterator[Event | Bookmark]:
        """Yields every change after a revision, in order and without gaps, as it happens.

        A bookmark comes when all that had happened is delivered, and every `bookmark_s` seconds. A
        database that does not answer is asked again for a minute.

        Args:
            after_revision: the last revision that the caller has handled; 0 for none.
            namespace: leave out events of others; empty for all.
            adapter: the same within the namespace.
            stop: ends the watch within 50 ms.
            bookmark_s: seconds between bookmarks.

        Raises:
            ArgumentInvalid: an adapter without its namespace, or no revision.
            RevisionCompacted: events in between are gone; list again, and watch from there.
            StorageError: the database did not answer for a minute.
        """
        if adapter and not namespace:
            raise ArgumentInvalid(f"adapter {adapter!a} is given without its namespace; name both")
        seen, wakeup, due_s = after_revision, self._index.wakeup, time.monotonic()
        with wakeup.watching():
            while not stop.is_set() and not wakeup.closed:
                moment = wakeup.count()
                events = self._look(seen, stop)
                for event in events:
                    seen = event.revision
                    if _concerns(event, namespace, adapter):
                        yield event
                if len(events) == _LOOK_LIMIT:
                    continue
                if time.monotonic() >= due_s:
                    yield Bookmark(seen)
                    due_s = time.monotonic() + bookmark_s
                wakeup.wait(moment, stop, due_s - time.monotonic())

    def compact(self, before_revision: int, *, actor: str) -> int:
        """Drops the events before a revision; whoever has seen less must list again.

        Returns:
            How many were dropped.

        Raises:
            ArgumentInvalid: the registry has not come that far.
        """
        with self._index.write() as connection:
            newest, compacted = _clock_row(connection)
            if not 1 <= before_revision <= newest + 1:
                raise ArgumentInvalid(f"revision {before_revision} is out of range; expected 1 to {newest + 1}")
            if before_revision - 1 <= compacted:
                return 0
            dropped = connection.execute(sa.delete(_event).where(_event.c.rev < before_revision)).rowcount
            connection.execute(sa.update(_clock).values(compacted_rev=before_revision - 1))
            payload = {"compacted_revision": before_revision - 1, "events": dropped}
            self._index.announce(connection, Change(ChangeKind.COLLECTED, actor, payload=payload))
        return dropped

    def _look(self, after_revision: int, stop: threading.Event) -> list[Event]:
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.events(after_revision)
            except StorageError:
                if time.monotonic() > until_s:
                    raise
            if stop.wait(_RETRY_S):
                return []


def _concerns(event: Event, namespace: str, adapter: str) -> bool:
    return event.namespace == (namespace or event.namespace) and event.adapter == (adapter or event.adapter)


def _clock_row(connection: Connection) -> tuple[int, int]:
    row = connection.execute(sa.select(_clock.c.rev, _clock.c.compacted_rev)).one()
    return int(row.rev), int(row.compacted_rev)
