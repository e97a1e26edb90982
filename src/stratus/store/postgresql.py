"""How does the store live on a PostgreSQL server? Many replicas, row locks, bounded retries.

READ COMMITTED is the level of writes: versions and lease tokens carry correctness. The drivers'
connections are in autocommit mode, and transactions are opened and ended in plain words.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import pq
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stratus.model.problem import Refused, refuse
from stratus.store.hints import Hints

T = TypeVar("T")

CONNECTIONS_MAX: Final = 16  # of one process, besides the one that listens
CONNECTION_WAIT_SECONDS_MAX: Final = 15
CONNECT_SECONDS_MAX: Final = 5
STATEMENT_SECONDS_MAX: Final = 30
LOCK_SECONDS_MAX: Final = 10
IDLE_IN_TRANSACTION_SECONDS_MAX: Final = 60
SILENCE_SECONDS_MAX: Final = 30  # of a server that does not acknowledge what we sent
ATTEMPTS_MAX: Final = 5  # runs of one function
RETRY_SECONDS: Final = 0.05  # before the second attempt; doubled each time
STATEMENTS_REMEMBERED_MAX: Final = 2000  # compiled once

HINT_CHANNEL: Final = "stratus_hints"
HINT_BATCH_SECONDS: Final = 0.01  # hints are gathered for so long and sent as one
HINT_RECONNECT_SECONDS: Final = 1.0
HINT_POLL_SECONDS: Final = 30.0  # the listener looks whether its server is still there
HINT_BYTES_MAX: Final = 4096

BEGIN: Final = b"BEGIN"
BEGIN_SNAPSHOT: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
COMMIT: Final = b"COMMIT"
ROLLBACK: Final = b"ROLLBACK"

SERIALIZATION_FAILURE: Final = "40001"
DEADLOCK: Final = "40P01"
LOCK_TIMEOUT: Final = "55P03"
STATEMENT_TIMEOUT: Final = "57014"
DISK_FULL: Final = "53100"
TRANSIENT: Final = frozenset((SERIALIZATION_FAILURE, DEADLOCK))
# Shutdown, crash, starting up, too many connections.
GOING_AWAY: Final = frozenset(("57P01", "57P02", "57P03", "53300"))


def driver_parameters(url: URL) -> dict[str, Any]:
    """Return what libpq needs to connect to this store."""
    parameters: dict[str, Any] = {
        "dbname": url.database,
        "user": url.username,
        "password": url.password,
        "host": url.host,
        "port": url.port,
        **url.query,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def server_connect(url: URL, *, name: str) -> psycopg.Connection[Any]:
    """Connect once, outside any pool, or refuse with a remedy."""
    try:
        return psycopg.connect(**driver_parameters(url), **_SETTINGS, application_name=name)
    except psycopg.Error as error:
        raise postgresql_refused(error) from error


# How the control planes are told apart from people and tools on the same server.
CONTROL_PLANE: Final = "stratus"
TOOL: Final = "stratus-db"
_SETTINGS: Final[dict[str, Any]] = {
    "autocommit": True,
    "connect_timeout": CONNECT_SECONDS_MAX,
    "keepalives_idle": SILENCE_SECONDS_MAX,
    "tcp_user_timeout": SILENCE_SECONDS_MAX * 1000,
}
_LIMITS: Final = (
    f"-c statement_timeout={STATEMENT_SECONDS_MAX}s"
    f" -c lock_timeout={LOCK_SECONDS_MAX}s"
    f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS_MAX}s"
)


def postgresql_refused(error: psycopg.Error) -> Refused:
    """Say what the server said, with what to do about it."""
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if error.sqlstate in (STATEMENT_TIMEOUT, LOCK_TIMEOUT):
        return refuse(
            "overloaded",
            f"The store took too long: {said}.",
            remedy="Try again in a moment; if it stays so, look at what the database waits for.",
        )
    if error.sqlstate == DISK_FULL:
        remedy = "Free space on the file system of the database server."
    elif error.sqlstate is not None and error.sqlstate.startswith(("28", "3D", "42501")):
        remedy = "Correct the database's name, user or password in the configuration."
    else:
        remedy = "Start the PostgreSQL server; the service goes on by itself when it answers."
    return refuse("store_unreachable", f"The store does not work: {said}.", remedy=remedy)


def _is_lost(error: psycopg.Error) -> bool:
    """Tell whether the connection, not the statement, is at fault."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in GOING_AWAY or error.sqlstate.startswith("08")


def control_planes(url: URL) -> int:
    """Count the connections that control planes have to this store now."""
    with server_connect(url, name=TOOL) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s",
            (CONTROL_PLANE,),
        ).fetchone()
    return int(row[0]) if row else 0


class PostgresqlStore:
    """The store on a server that several control planes share."""

    dialect = "postgresql"

    def __init__(self, url: URL, *, writable: bool) -> None:
        self.url = url
        self._writable = writable
        self._engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=CONNECTION_WAIT_SECONDS_MAX,
            query_cache_size=STATEMENTS_REMEMBERED_MAX,
            use_native_hstore=False,  # saves a question per connection
            connect_args={
                **_SETTINGS,
                "application_name": CONTROL_PLANE if writable else TOOL,
                "options": _LIMITS,
            },
        )
        self.hints: Hints = SharedHints(url) if writable else Hints()

    def read(self, function: Callable[[Connection], T]) -> T:
        """Run the function on a consistent snapshot; nothing it does is kept."""
        return self._run(function, BEGIN_SNAPSHOT, ROLLBACK)

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction: all of it durable on return, or none of it.

        When the server goes away during the commit itself, nobody can know what became of it:
        the refusal says so.
        """
        assert self._writable, "this store was opened for reading only"
        return self._run(function, BEGIN, COMMIT)

    def close(self) -> None:
        """Finish what is under way and let go of the database."""
        self.hints.close()
        self._engine.dispose()

    def _run(self, function: Callable[[Connection], T], beginning: bytes, ending: bytes) -> T:
        wait_seconds = RETRY_SECONDS
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return self._attempt(function, beginning, ending)
            except PoolTimeout as error:
                raise refuse(
                    "overloaded",
                    f"All {CONNECTIONS_MAX} connections to the store are in use.",
                    remedy="Try again in a moment.",
                ) from error
            except (DBAPIError, psycopg.Error) as error:
                cause = error.orig if isinstance(error, DBAPIError) else error
                if not isinstance(cause, psycopg.OperationalError):
                    raise
                lost = _is_lost(cause)
                if lost:
                    # The other connections lead to the same server; none of them is kept.
                    self._engine.dispose()
                if attempt == ATTEMPTS_MAX or not (lost or cause.sqlstate in TRANSIENT):
                    raise postgresql_refused(cause) from error
            time.sleep(wait_seconds)
            wait_seconds *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, function: Callable[[Connection], T], beginning: bytes, ending: bytes) -> T:
        with self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            pgconn = driver.pgconn
            try:
                _say(pgconn, beginning)
                result = function(connection)
                assert not connection.in_nested_transaction(), "a savepoint was left open"
            except BaseException:
                _undo(connection, pgconn)
                raise
            try:
                said = _say(pgconn, ending)
            except psycopg.Error as error:
                _undo(connection, pgconn)
                if ending == COMMIT and _is_lost(error):
                    raise _commit_unknown() from error
                raise
            # The server answers a commit after a failed statement with a rollback.
            assert said == ending, "the function went on after a statement that had failed"
            return result


def _say(pgconn: pq.abc.PGconn, words: bytes) -> bytes | None:
    """Run a statement without parameters or rows; return what the server calls it.

    Straight through libpq: the cursors above would cost more than the server does.
    """
    result = pgconn.exec_(words)
    if result.status != pq.ExecStatus.COMMAND_OK:
        error = psycopg.errors.error_from_result(result)
        # Without a code it is libpq that speaks: the connection is gone.
        raise error if error.sqlstate else psycopg.OperationalError(str(error))
    return result.command_status


def _undo(connection: Connection, pgconn: pq.abc.PGconn) -> None:
    """Leave no transaction open on this connection, or drop it."""
    try:
        _say(pgconn, ROLLBACK)
    except psycopg.Error as error:
        connection.invalidate(error)


def _commit_unknown() -> Refused:
    return refuse(
        "store_unreachable",
        "The store went away during the commit: the change was made or not, nobody can tell yet.",
        remedy="Look whether it was made before you ask again, or repeat with an idempotency key.",
    )


class SharedHints(Hints):
    """Wake-ups that also reach the other processes on the same database."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._url = url
        self._origin = os.urandom(8).hex()
        self._unsent: set[str] = set()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="store-hints", daemon=True)
        self._thread.start()

    def send(self, topic: str) -> None:
        """Wake whoever waits for this topic, here at once and elsewhere soon."""
        assert topic.isidentifier(), "a topic is one word"
        super().send(topic)
        with self._changed:
            first = not self._unsent
            self._unsent.add(topic)
        if first:
            self._nudge()

    def close(self) -> None:
        """Let go of everybody who waits, now and later."""
        super().close()
        if not self._ending.is_set():
            self._ending.set()
            self._nudge()
            self._thread.join()
            self._wake_in.close()
            self._wake_out.close()

    def _nudge(self) -> None:
        # A full pipe wakes the listener just as well.
        with suppress(BlockingIOError, OSError):
            self._wake_in.send(b"\0", socket.MSG_DONTWAIT)

    def _loop(self) -> None:
        while not self._ending.is_set():
            try:
                with server_connect(self._url, name=CONTROL_PLANE) as connection:
                    connection.execute(f"LISTEN {HINT_CHANNEL}")
                    # Whatever was said while nobody listened: look at everything again.
                    self._bump(list(self._counts))
                    self._listen(connection)
            except (Refused, psycopg.Error):
                # A server that is away is reported to whoever reads or writes.
                self._ending.wait(HINT_RECONNECT_SECONDS)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            self._notify(connection)
            while not self._ending.is_set():
                ready = selector.select(HINT_POLL_SECONDS)
                if any(key.fileobj is self._wake_out for key, _ in ready):
                    self._ending.wait(HINT_BATCH_SECONDS)
                    with suppress(BlockingIOError):
                        self._wake_out.recv(HINT_BYTES_MAX)
                    self._notify(connection)
                elif not ready:
                    connection.execute("SELECT 1")
                for note in connection.notifies(timeout=0):
                    origin, _, topics = note.payload.partition(":")
                    if origin != self._origin:
                        self._bump(topics.split(","))

    def _notify(self, connection: psycopg.Connection[Any]) -> None:
        with self._changed:
            topics = sorted(self._unsent)
            self._unsent.clear()
        if topics:
            payload = f"{self._origin}:{','.join(topics)}"
            connection.execute("SELECT pg_notify(%s, %s)", (HINT_CHANNEL, payload))

    def _bump(self, topics: list[str]) -> None:
        for topic in topics:
            super().send(topic)
