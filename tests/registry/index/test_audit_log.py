"""The audit log tells who did what, and shows every way of changing it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from databases import on_both

from switchyard.registry.errors import ArgumentInvalid, AuditBroken
from switchyard.registry.index import schema
from switchyard.registry.index.audit import seal
from switchyard.registry.index.audit_log import AuditLog
from switchyard.registry.index.changes import ORIGIN, Change, ChangeKind, Origin
from switchyard.registry.index.database import Index

pytestmark = on_both
Spoil = Callable[[sa.Connection], object]
_audit = schema.audit
X = Change(ChangeKind.ALIAS_SET, "ann", "n", "a", {"alias": "prod", "share": 0.1, "text": "é\n\x01"})


def announce(index: Index, *changes: Change) -> None:
    for change in changes:
        with index.write() as connection:
            index.announce(connection, change)


@pytest.fixture
def log(index: Index) -> AuditLog:
    """One with five rows."""
    announce(index, *(replace(X, payload={**X.payload, "generation": number}) for number in range(1, 6)))
    return AuditLog(index)


def test_a_row_tells_who_and_how(index: Index) -> None:
    token = ORIGIN.set(Origin("token-1", "10.0.0.7", "request-9"))
    announce(index, X)
    ORIGIN.reset(token)
    (entry,) = AuditLog(index).page()
    assert (entry.seq, entry.actor, entry.action, entry.target) == (1, "ann", "alias.set", "n/a")
    assert (entry.credential, entry.peer, entry.request_id) == ("token-1", "10.0.0.7", "request-9")
    assert (entry.details, entry.previous_hash) == (X.payload, "")
    assert AuditLog(index).head() == (1, entry.hash)


def test_an_empty_log_is_whole(index: Index) -> None:
    log = AuditLog(index)
    assert (log.page(), log.head(), log.verify()) == ([], (0, ""), 0)


def test_pages(log: AuditLog) -> None:
    assert [entry.seq for entry in log.page(limit=2)] == [1, 2]
    assert [entry.seq for entry in log.page(2, limit=2)] == [3, 4]
    assert log.page(5) == []
    for after, limit in ((-1, 1), (0, 0), (0, 1001)):
        with pytest.raises(ArgumentInvalid):
            log.page(after, limit)


def test_filters(index: Index, log: AuditLog) -> None:
    announce(
        index,
        replace(X, adapter="a-b"),
        replace(X, kind=ChangeKind.VERSION_TAGS),
        replace(X, namespace="n%", adapter=""),
        replace(X, namespace="nn"),
    )
    assert [entry.seq for entry in log.page(action="version.tags")] == [7]
    assert [entry.seq for entry in log.page(target="n/a", after_seq=4)] == [5, 7]
    assert [entry.seq for entry in log.page(target="n", after_seq=4)] == [5, 6, 7]
    assert [entry.seq for entry in log.page(target="n%")] == [8]
    assert log.page(target="n/a", action="version.state") == []


def test_a_whole_chain(index: Index, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    head = log.head()
    announce(index, *[X] * 3)
    monkeypatch.setattr("switchyard.registry.index.audit_log.PAGE_LIMIT", 3)
    assert log.verify() == 8
    assert log.verify(head) == 8


def _alter(column: str, value: object) -> Spoil:
    return lambda connection: connection.execute(sa.update(_audit).where(_audit.c.seq == 3).values(**{column: value}))


def _drop(connection: sa.Connection) -> None:
    connection.execute(sa.delete(_audit).where(_audit.c.seq == 3))


def _close_the_gap(connection: sa.Connection) -> None:
    _drop(connection)
    for seq in (4, 5):
        connection.execute(sa.update(_audit).where(_audit.c.seq == seq).values(seq=seq - 1))


def _insert(connection: sa.Connection) -> None:
    """With a hash that fits its own content, and room made for it."""
    for seq in (5, 4, 3):
        connection.execute(sa.update(_audit).where(_audit.c.seq == seq).values(seq=seq + 1))
    row = dict(connection.execute(sa.select(_audit).where(_audit.c.seq == 2)).mappings().one())
    row |= {"seq": 3, "actor": "eve", "previous_hash": row["hash"]}
    connection.execute(sa.insert(_audit).values(**row | {"hash": seal(row)}))


def _swap(connection: sa.Connection) -> None:
    for seq, other in ((3, 33), (4, 3), (33, 4)):
        connection.execute(sa.update(_audit).where(_audit.c.seq == seq).values(seq=other))


def _reseal(connection: sa.Connection) -> None:
    """Alters a row and makes its hash fit; the next row still names the old one."""
    row = dict(connection.execute(sa.select(_audit).where(_audit.c.seq == 3)).mappings().one()) | {"actor": "eve"}
    connection.execute(sa.update(_audit).where(_audit.c.seq == 3).values(actor="eve", hash=seal(row)))


@pytest.mark.parametrize(
    ("spoil", "seq"),
    [
        *(
            pytest.param(_alter(column, value), 3, id=f"altered {column}")
            for column, value in {
                "at_s": 1.0,
                "actor": "eve",
                "credential": "x",
                "peer": "x",
                "request_id": "x",
                "action": "x",
                "target": "x",
                "details": {"alias": "prod"},
                "previous_hash": "x",
                "hash": "x",
            }.items()
        ),
        pytest.param(_drop, 3, id="dropped"),
        pytest.param(_close_the_gap, 3, id="dropped and renumbered"),
        pytest.param(_insert, 4, id="inserted"),
        pytest.param(_swap, 3, id="reordered"),
        pytest.param(_reseal, 4, id="altered and sealed again"),
    ],
)
def test_every_change_is_found_with_its_row(spoil: Spoil, seq: int, index: Index, log: AuditLog) -> None:
    with index.write() as connection:
        spoil(connection)
    with pytest.raises(AuditBroken) as caught:
        log.verify()
    assert caught.value.seq == seq


def test_a_head_that_was_kept_shows_what_was_cut_off(index: Index, log: AuditLog) -> None:
    head = log.head()
    with index.write() as connection:
        connection.execute(sa.delete(_audit).where(_audit.c.seq == 5))
    assert log.verify() == 4
    with pytest.raises(AuditBroken, match="ends at row 4") as caught:
        log.verify(head)
    assert caught.value.seq == 5


def test_a_head_that_was_kept_shows_a_chain_written_anew(index: Index, log: AuditLog) -> None:
    head = log.head()
    with index.write() as connection:
        connection.execute(sa.delete(_audit))
    announce(index, *[X] * 6)
    assert log.verify() == 6
    with pytest.raises(AuditBroken, match="had") as caught:
        log.verify(head)
    assert caught.value.seq == 5


def test_a_change_and_its_row_are_one(index: Index, log: AuditLog) -> None:
    """A change that is rolled back leaves no row, and no gap."""

    def fail() -> None:
        with index.write() as connection:
            index.announce(connection, X)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    announce(index, X)
    assert (log.verify(), log.head()[0]) == (6, 6)
