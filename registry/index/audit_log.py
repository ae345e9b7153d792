"""Reading the audit log, and proving that it is whole."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.errors import ArgumentInvalid, AuditBroken
from switchyard.registry.index import schema
from switchyard.registry.index.audit import AuditEntry, seal
from switchyard.registry.index.database import Index

DEFAULT_PAGE = 100
PAGE_LIMIT = 1000
_audit = schema.audit


class AuditLog:
    """Reads the log and proves that it is whole.

    Args:
        index: where it is written.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def page(
        self, after_seq: int = 0, limit: int = DEFAULT_PAGE, *, action: str = "", target: str = ""
    ) -> list[AuditEntry]:
        """Returns rows after a number, oldest first.

        Args:
            after_seq: the last row that the caller has; 0 for none.
            limit: the most to return, 1 to 1000.
            action: only these, as in `ChangeKind`; empty for all.
            target: only what was done to this; a namespace includes its adapters. Empty for all.

        Raises:
            ArgumentInvalid: the limit or the number.
        """
        if after_seq < 0 or not 1 <= limit <= PAGE_LIMIT:
            raise ArgumentInvalid(f"after_seq {after_seq}, limit {limit}; expected at least 0, and 1 to {PAGE_LIMIT}")
        query = _page(after_seq, limit)
        if action:
            query = query.where(_audit.c.action == action)
        if target:
            within = _audit.c.target.startswith(f"{target}/", autoescape=True)
            query = query.where(sa.or_(_audit.c.target == target, within))
        with self._index.read() as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def head(self) -> tuple[int, str]:
        """Returns number and hash of the newest row; (0, "") when there is none.

        Kept elsewhere, it shows later that nothing before it was changed, and nothing cut off.
        """
        with self._index.read() as connection:
            newest = _newest(connection)
        return newest if newest is not None else (0, "")

    def verify(self, known_head: tuple[int, str] = (0, "")) -> int:
        """Reads the whole chain and recomputes every hash.

        Args:
            known_head: what `head` gave earlier, if it was kept.

        Returns:
            How many rows were checked.

        Raises:
            AuditBroken: a row was altered, dropped, put in between or moved; names the first that does
                not fit.
        """
        seq, last_hash = 0, ""
        with self._index.read() as connection:
            while rows := connection.execute(_page(seq, PAGE_LIMIT)).mappings().all():
                for row in rows:
                    _check_row(row, seq, last_hash)
                    seq, last_hash = row["seq"], row["hash"]
                    if seq == known_head[0] and last_hash != known_head[1]:
                        message = f"audit row {seq} has hash {last_hash}, it had {known_head[1]} before"
                        raise AuditBroken(message, seq=seq)
        if seq < known_head[0]:
            raise AuditBroken(f"the audit log ends at row {seq}, it had {known_head[0]} rows before", seq=seq + 1)
        return seq


def _page(after_seq: int, limit: int) -> sa.Select[tuple[object, ...]]:
    return sa.select(_audit).where(_audit.c.seq > after_seq).order_by(_audit.c.seq).limit(limit)


def _newest(connection: Connection) -> tuple[int, str] | None:
    query = sa.select(_audit.c.seq, _audit.c.hash).order_by(_audit.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.seq, row.hash)


def _check_row(row: RowMapping, last_seq: int, last_hash: str) -> None:
    seq: int = row["seq"]
    if seq != last_seq + 1:
        raise AuditBroken(f"audit row {last_seq + 1} is missing; the next is {seq}", seq=last_seq + 1)
    if row["previous_hash"] != last_hash:
        raise AuditBroken(f"audit row {seq} does not follow the row before it", seq=seq)
    if row["hash"] != seal(dict(row)):
        raise AuditBroken(f"audit row {seq} was altered: its hash does not fit its content", seq=seq)


def _entry(row: RowMapping) -> AuditEntry:
    return AuditEntry(**row)
