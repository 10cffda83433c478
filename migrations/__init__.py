"""Alembic migrations of the tables in monitor/state/tables.py, for SQLite and PostgreSQL."""
