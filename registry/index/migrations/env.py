"""Runs the migrations on the connection that `switchyard.registry.index.database` hands over.

The caller has begun the transaction and holds the write lock; nothing is committed here.
"""

from __future__ import annotations

from alembic import context

from switchyard.registry.index.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
