"""How do we talk to the database? One `Store` for SQLite and PostgreSQL.

`write` runs a function in one transaction, `read` in a read-only one. A function gets the
connection, does nothing but SQL, and may be run again when the database asks for it.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from stratus.model.problem import refuse
from stratus.store.hints import Hints

T = TypeVar("T")


class Store(Protocol):
    """What the floors above use of the database."""

    dialect: str  # sqlite | postgresql
    hints: Hints

    def read(self, function: Callable[[Connection], T]) -> T:
        """Run the function on a consistent snapshot; nothing it does is kept."""
        ...

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction: all of it durable on return, or none of it.

        An exception of the function undoes its work and reaches the caller. On SQLite one
        writer runs the functions of many callers in one commit, each in its own savepoint.
        """
        ...

    def close(self) -> None:
        """Finish what is under way and let go of the database."""
        ...


def store_url(url: str) -> URL:
    """Understand the address of a store, or refuse it with what may be written there."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _url_refused() from error
    if parsed.drivername not in ("sqlite", "postgresql"):
        raise _url_refused()
    return parsed


def _url_refused() -> Exception:
    # The address may hold a password, so it is not repeated.
    return refuse(
        "configuration",
        "The address of the store is not understood.",
        remedy="Write sqlite:////absolute/path.db or postgresql://user@host/database.",
    )


def store_open(
    url: str, *, exclusive: bool = True, migrate: bool = True, checked: bool = True
) -> Store:
    """Open the store at this address, its schema up to date.

    `sqlite://` alone is a fresh store in memory: one connection, no threads, for the
    simulator. `exclusive=False` opens for reading only, beside a running control plane.
    Without `migrate` an older schema is refused; without `checked` any schema is taken.
    """
    parsed = store_url(url)
    # Each engine is imported only where it is used: the other would cost memory and start-up.
    if parsed.drivername == "postgresql":
        from stratus.store.postgresql import PostgresqlStore

        store: Store = PostgresqlStore(parsed, writable=exclusive)
    elif parsed.database in (None, "", ":memory:"):
        from stratus.store.sqlite import MemoryStore

        return MemoryStore()
    else:
        from stratus.store.sqlite import SqliteStore

        store = SqliteStore(parsed, writable=exclusive)
    if not checked:
        return store
    from stratus.store.migrate import schema_ensure

    try:
        schema_ensure(store, migrate=exclusive and migrate)
    except BaseException:
        store.close()
        raise
    return store
