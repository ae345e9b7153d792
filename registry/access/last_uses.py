"""When tokens were last used, written down without keeping their bearers waiting.

Whoever proves itself only reads. The note of it needs the write lock, which
others may hold for long, so one thread takes it, and lives only while there is
something to note.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import sqlalchemy as sa

from switchyard.registry.errors import StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index

_token = schema.token


class LastUses:
    """Notes uses of tokens; safe for several threads.

    Args:
        index: where the tokens are.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._changed = threading.Condition()
        self._pending: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._running = False
        self._closed = False

    def note(self, token_id: str, at_s: float) -> None:
        """Has a use written down soon; one of a token whose last use still waits for that is dropped.

        Never waits for the database. Nobody is locked out because it cannot be written.
        """
        with self._changed:
            if self._closed or token_id in self._pending:
                return
            self._pending[token_id] = at_s
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, name="registry-last-uses", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Waits until nothing is left to note: as long as a writer waits for its turn, at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def close(self) -> None:
        """Takes no more uses, writes those that it has, and ends the thread."""
        with self._changed:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while batch := self._batch():
            # A use that cannot be written is lost; the next one is noted again.
            with suppress(StorageError, sa.exc.SQLAlchemyError):
                self._write(batch)
            self._forget(batch)

    def _batch(self) -> dict[str, float]:
        with self._changed:
            if not self._pending:
                self._running = False
                self._changed.notify_all()
            return dict(self._pending)

    def _forget(self, batch: dict[str, float]) -> None:
        with self._changed:
            for token_id in batch:
                del self._pending[token_id]

    def _write(self, batch: dict[str, float]) -> None:
        with self._index.write() as connection:
            for token_id, at_s in batch.items():
                connection.execute(sa.update(_token).where(_token.c.id == token_id).values(last_used_at_s=at_s))
