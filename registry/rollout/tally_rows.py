"""The rows in which servers tell what they have seen. This is the only module that writes them.

Each server has one row for a step and writes it anew: its own sum since the
step began. The row with no server in it says that there is a rollout at all.
Rows of a generation that has passed mean nothing and go with the next move.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.alias_rows import alias_event
from switchyard.registry.index import schema
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.evidence import Rollout, rollout_of
from switchyard.registry.rollout.tally import Tallies, tallies_from, total

_tally, _alias, _event = schema.rollout_tally, schema.alias, schema.alias_event
_ANCHOR = ""


def begin(connection: Connection, adapter_id: int, alias: str, generation: int, at_s: float) -> None:
    """Makes room for what servers will tell of a new step; what was told of former ones goes."""
    forget(connection, adapter_id, alias)
    _write(connection, adapter_id, alias, generation, _ANCHOR, Tallies(), at_s)


def forget(connection: Connection, adapter_id: int, alias: str) -> None:
    """Removes all that was told for an alias."""
    connection.execute(sa.delete(_tally).where(_tally.c.adapter_id == adapter_id, _tally.c.name == alias))


def tell(
    connection: Connection, adapter_id: int, alias: str, generation: int, server: str, tallies: Tallies, at_s: float
) -> None:
    """Writes what one server has seen, instead of what it told before."""
    mine = sa.and_(
        _tally.c.adapter_id == adapter_id,
        _tally.c.name == alias,
        _tally.c.generation == generation,
        _tally.c.server == server,
    )
    connection.execute(sa.delete(_tally).where(mine))
    _write(connection, adapter_id, alias, generation, server, tallies, at_s)


def seen(connection: Connection, adapter_id: int, alias: str, generation: int) -> tuple[Tallies, int]:
    """Returns what all servers have seen of a step, and how many they are."""
    query = sa.select(_tally.c.tallies).where(
        _tally.c.adapter_id == adapter_id,
        _tally.c.name == alias,
        _tally.c.generation == generation,
        _tally.c.server != _ANCHOR,
    )
    told = [tallies_from(document) for document in connection.execute(query).scalars()]
    return total(told), len(told)


def running(connection: Connection) -> list[Rollout]:
    """Returns every rollout whose alias is where its step left it, by name."""
    here = sa.and_(
        _alias.c.adapter_id == _tally.c.adapter_id,
        _alias.c.name == _tally.c.name,
        _alias.c.generation == _tally.c.generation,
    )
    moved = sa.and_(
        _event.c.adapter_id == _tally.c.adapter_id,
        _event.c.name == _tally.c.name,
        _event.c.generation == _tally.c.generation,
    )
    names = (schema.namespace.c.name.label("namespace_name"), schema.adapter.c.name.label("adapter_name"))
    query = (
        sa.select(*names, _event)
        .select_from(_tally)
        .join(_alias, here)
        .join(_event, moved)
        .join(schema.adapter, schema.adapter.c.id == _tally.c.adapter_id)
        .join(schema.namespace)
        .where(_tally.c.server == _ANCHOR)
        .order_by(schema.namespace.c.name, schema.adapter.c.name, _tally.c.name)
    )
    rows = connection.execute(query).mappings().all()
    found = [
        rollout_of(AdapterName(row["namespace_name"], row["adapter_name"]), row["name"], alias_event(row))
        for row in rows
    ]
    return [rollout for rollout in found if rollout is not None]


def _write(
    connection: Connection, adapter_id: int, alias: str, generation: int, server: str, tallies: Tallies, at_s: float
) -> None:
    row = {"adapter_id": adapter_id, "name": alias, "generation": generation, "server": server}
    connection.execute(sa.insert(_tally).values(**row, tallies=tallies.document(), at_s=at_s))
