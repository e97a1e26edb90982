"""The only place with SQL: one set of functions for SQLite and PostgreSQL."""
