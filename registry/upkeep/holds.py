"""Holds: while one is unexpired, nothing is collected.

A backup copies blobs that its snapshot of the tables names. Whoever removes a
blob looks for holds in the transaction that removes it, so a hold that was
committed before the snapshot was taken covers every blob in it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.errors import CollectionHeld
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index

_hold = schema.hold


@contextmanager
def hold(index: Index, reason: str, ttl_s: float) -> Iterator[Callable[[], None]]:
    """Keeps everything from being collected inside the block, or for `ttl_s` if this process dies in it.

    Yields:
        A function that begins the `ttl_s` seconds anew; long work calls it now and then.

    Raises:
        CollectionHeld: from that function, when the hold ran out before; blobs may be gone.
    """
    hold_id = uuid.uuid4().hex
    with index.write() as connection:
        row = {"id": hold_id, "reason": reason, "expires_at_s": index.now() + ttl_s}
        connection.execute(sa.insert(_hold).values(**row))

    def renew() -> None:
        now_s = index.now()
        mine = sa.and_(_hold.c.id == hold_id, _hold.c.expires_at_s > now_s)
        with index.write() as connection:
            renewed = connection.execute(sa.update(_hold).where(mine).values(expires_at_s=now_s + ttl_s))
        if not renewed.rowcount:
            raise CollectionHeld(f"the hold for {reason} ran out after {ttl_s:.0f} s; begin again with a longer one")

    try:
        yield renew
    finally:
        with index.write() as connection:
            connection.execute(sa.delete(_hold).where(_hold.c.id == hold_id))


def held(connection: Connection, now_s: float) -> str:
    """Returns the reasons of all unexpired holds, joined; empty when there is none."""
    query = sa.select(_hold.c.reason).where(_hold.c.expires_at_s > now_s).order_by(_hold.c.reason)
    return ", ".join(connection.execute(query).scalars())


def require_none(connection: Connection, now_s: float) -> None:
    """Checks that nothing keeps the collector from working.

    Raises:
        CollectionHeld: something does; the message says what.
    """
    reasons = held(connection, now_s)
    if reasons:
        raise CollectionHeld(f"nothing is collected while there is a hold for: {reasons}; try again later")


def drop_expired(connection: Connection, now_s: float) -> None:
    """Removes holds that nobody renewed."""
    connection.execute(sa.delete(_hold).where(_hold.c.expires_at_s <= now_s))
