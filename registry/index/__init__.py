"""What exists: tables, migrations, transactions, events and the audit log, on SQLite and PostgreSQL."""
