"""The history of the index's tables, run by Alembic."""
