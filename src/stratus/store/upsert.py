"""How do we insert or update in one statement on both engines?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Insert, Table

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return the dialect's own INSERT for this table, which knows ON CONFLICT.

    Its result knows how many rows were inserted.
    """
    return upsert_in(connection.dialect.name, table)


def upsert_in(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return the same by the dialect's name, for statements that are built once and kept."""
    # Each dialect is imported only where it is used: the other would cost memory and start-up.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        # Of an insert the row count is forgotten with the cursor unless we ask for it.
        return postgresql.insert(table).execution_options(preserve_rowcount=True)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).execution_options(preserve_rowcount=True)


def rows_insert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert these rows, all with the same columns."""
    if rows:
        connection.execute(_insert(table), list(rows))


@cache
def _insert(table: Table) -> Insert:
    return table.insert()
