"""How does the store live in one SQLite file? Many readers, one writer, one commit for many.

The connections of SQLAlchemy stay begun for ever; transactions are opened and ended beneath
them on the driver's own connection, which costs a microsecond instead of fifty.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from stratus.model.problem import Refused, refuse
from stratus.store.hints import Hints
from stratus.store.schema import METADATA

T = TypeVar("T")

GROUP_CALLS_MAX: Final = 128  # functions in one commit
GROUP_MILLISECONDS_MAX: Final = 25  # nobody joins a commit that has run longer than this
CALLS_WAITING_MAX: Final = 4096  # writers in the queue; more are told to come back
READERS_MAX: Final = 8  # connections that read at the same time
READER_WAIT_SECONDS_MAX: Final = 30.0
CLOSING_POLL_SECONDS: Final = 0.05
BUSY_MILLISECONDS_MAX: Final = 10_000
WAL_BYTES_KEPT: Final = 64 << 20  # the log file is cut back to this after a checkpoint
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
PID_BYTES_MAX: Final = 32


class _Call:
    """One function that waits for the writer, and what became of it."""

    __slots__ = ("done", "error", "function", "result")

    def __init__(self, function: Callable[[Connection], Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None
        # A lock is the cheapest event: taken here, released by the writer.
        self.done = threading.Lock()
        self.done.acquire()


class _Link:
    """One connection, with the driver's own underneath."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        def connection_take() -> sqlite3.Connection:
            return driver

        self.driver = driver
        self.engine: Engine = create_engine(
            "sqlite://", creator=connection_take, poolclass=NullPool, query_cache_size=2000
        )
        self.connection: Connection = self.engine.connect()
        self.connection.begin()

    def close(self) -> None:
        """Give up what is open and close the file."""
        with suppress(sqlite3.Error):
            self.driver.rollback()
        self.connection.close()
        self.driver.close()


def _settings(driver: sqlite3.Connection, *, writable: bool) -> None:
    driver.execute("PRAGMA foreign_keys = ON")
    driver.execute("PRAGMA synchronous = FULL")
    driver.execute("PRAGMA temp_store = MEMORY")
    if not writable:
        driver.execute("PRAGMA query_only = ON")


def sqlite_connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open an existing file with our settings, or refuse it."""
    try:
        driver = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_MILLISECONDS_MAX / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        _settings(driver, writable=writable)
        if writable:
            driver.execute("PRAGMA journal_mode = WAL")
            driver.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    except sqlite3.Error as error:
        raise sqlite_refused(error, path) from error
    return driver


def sqlite_refused(error: sqlite3.Error, path: Path | str) -> Refused:
    """Say what the database said, with what to do about it."""
    said = str(error)
    if "malformed" in said or "not a database" in said:
        return refuse(
            "store_damaged",
            f"The store {path} is damaged: {said}.",
            remedy="Run stratus db check; if it agrees, restore the newest backup.",
        )
    if "full" in said:
        remedy = f"Free space on the file system of {path}; the service goes on by itself."
    elif "unable to open" in said or "readonly" in said:
        remedy = f"Make sure that {path} and its directory exist and belong to this user."
    else:
        remedy = f"Look at the disk that holds {path} and at the kernel log, then try again."
    return refuse("store_unreachable", f"The store {path} does not work: {said}.", remedy=remedy)


def _translated(error: BaseException, path: Path | str) -> BaseException:
    """Turn trouble with the file into a refusal; leave everything else as it is."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError:
        # A statement that is wrong in itself is a bug of ours and stays one.
        if "no such" in str(cause) or "syntax error" in str(cause):
            return error
        refused = sqlite_refused(cause, path)
        refused.__cause__ = error
        return refused
    return error


class FileLock:
    """The right to write to one SQLite file, held for the life of the process."""

    def __init__(self, path: Path) -> None:
        lock_path = path.with_name(path.name + ".lock")
        self._descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, PID_BYTES_MAX, 0).decode("ascii", "replace")
            os.close(self._descriptor)
            raise refuse(
                "store_busy",
                f"The store {path} is held by process {holder.strip() or 'unknown'}.",
                remedy="Stop that control plane first (stratus down), or use another store.",
                pid=holder.strip(),
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def close(self) -> None:
        """Let the next one have it. The file stays: removing it would let two hold it."""
        os.close(self._descriptor)


def place_ensure(path: Path) -> None:
    """Leave an empty file there for the owner only, unless one is there already."""
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        # Only where it does not exist: to open and close a database file behind SQLite's back
        # would drop the locks that SQLite holds on it in this process.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        path.chmod(FILE_MODE)
    except OSError as error:
        raise refuse(
            "store_unreachable",
            f"The store {path} cannot be made: {error.strerror}.",
            remedy="Choose a directory that this user may write to.",
        ) from error


class SqliteStore:
    """The store in one file, for one control plane."""

    dialect = "sqlite"

    def __init__(self, url: URL, *, writable: bool) -> None:
        assert url.database, "a store in memory is a MemoryStore"
        self.path = Path(url.database).absolute()
        self.hints = Hints()
        self._idle: deque[_Link] = deque()
        self._reader_slots = threading.Semaphore(READERS_MAX)
        self._gate = threading.Lock()
        self._closed = False
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock: FileLock | None = None
        self._writer: threading.Thread | None = None
        if not writable:
            self._idle.append(_Link(sqlite_connect(self.path, writable=False)))
            return
        place_ensure(self.path)
        self._lock = FileLock(self.path)
        try:
            link = _Link(sqlite_connect(self.path, writable=True))
        except BaseException:
            self._lock.close()
            raise
        self._writer = threading.Thread(
            target=self._write_loop, args=(link,), name="store-writer", daemon=True
        )
        self._writer.start()

    def read(self, function: Callable[[Connection], T]) -> T:
        """Run the function on a consistent snapshot; nothing it does is kept."""
        if not self._reader_slots.acquire(timeout=READER_WAIT_SECONDS_MAX):
            raise refuse(
                "overloaded",
                f"No reader of the store was free within {READER_WAIT_SECONDS_MAX:.0f} s.",
                remedy="Try again in a moment.",
            )
        try:
            if self._closed:
                raise _closed_refused(self.path)
            try:
                link = self._idle.pop()
            except IndexError:
                link = _Link(sqlite_connect(self.path, writable=False))
            try:
                link.driver.execute("BEGIN")
                return function(link.connection)
            except (DBAPIError, sqlite3.Error) as error:
                translated = _translated(error, self.path)
                # To write within a read is a fault of ours, not of the file.
                if translated is error or "readonly" in str(error):
                    raise
                raise translated from error
            finally:
                link.driver.rollback()
                self._idle.append(link)
                if self._closed:
                    self._readers_close()
        finally:
            self._reader_slots.release()

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction: all of it durable on return, or none of it."""
        assert self._writer is not None, "this store was opened for reading only"
        assert threading.current_thread() is not self._writer, "a write within a write"
        if self._closed:
            raise _closed_refused(self.path)
        if self._queue.qsize() >= CALLS_WAITING_MAX:
            raise refuse(
                "overloaded",
                f"{CALLS_WAITING_MAX} changes wait for the store already.",
                remedy="Try again in a moment.",
            )
        call = _Call(function)
        self._queue.put(call)
        # No lock is shared between callers: they would wake one another for nothing. What is
        # in the queue before the end mark will be run; only who came later may wait in vain.
        if self._closed:
            self._closing_wait(call)
        else:
            call.done.acquire()
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def close(self) -> None:
        """Finish what is under way and let go of the database."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self.hints.close()
        if self._writer is not None:
            self._writer.join()
        self._readers_close()
        if self._lock is not None:
            self._lock.close()

    def _closing_wait(self, call: _Call) -> None:
        assert self._writer is not None
        while not call.done.acquire(timeout=CLOSING_POLL_SECONDS):
            if self._writer.is_alive():
                continue
            if not call.done.acquire(blocking=False):
                raise _closed_refused(self.path)
            return

    def _readers_close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _write_loop(self, link: _Link) -> None:
        while (call := self._queue.get()) is not None:
            group = [call]
            error = self._group_run(link, group)
            for member in group:
                if error is not None:
                    member.error, member.result = error, None
                member.done.release()
        link.close()

    def _group_run(self, link: _Link, group: list[_Call]) -> BaseException | None:
        """Run the first call and whoever waits behind it, then commit once.

        Return what went wrong with all of them together.
        """
        driver, connection = link.driver, link.connection
        started = time.monotonic()
        try:
            driver.execute("BEGIN IMMEDIATE")
            call = group[0]
            while True:
                driver.execute("SAVEPOINT call")
                try:
                    call.result = call.function(connection)
                    assert not connection.in_nested_transaction(), "a savepoint was left open"
                except BaseException as error:  # it belongs to the caller, whatever it is
                    if not driver.in_transaction:
                        raise  # a full disk, for one, takes the whole transaction away
                    driver.execute("ROLLBACK TO call")
                    call.error = _translated(error, self.path)
                driver.execute("RELEASE call")
                if len(group) >= GROUP_CALLS_MAX:
                    break
                if (time.monotonic() - started) * 1000 > GROUP_MILLISECONDS_MAX:
                    break
                try:
                    following = self._queue.get_nowait()
                except Empty:
                    break
                if following is None:
                    self._queue.put(None)  # the loop ends after this commit
                    break
                call = following
                group.append(call)
            driver.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                driver.rollback()
            return _translated(error, self.path)
        return None


def _closed_refused(path: Path | str) -> Refused:
    return refuse(
        "store_unreachable",
        f"The store {path} is being closed.",
        remedy="Wait until the control plane has started again.",
    )


class MemoryStore:
    """A fresh store in memory for one thread: the simulator's. Nothing of it lasts."""

    dialect = "sqlite"

    def __init__(self) -> None:
        self.hints = Hints()
        driver = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        _settings(driver, writable=True)
        self._link = _Link(driver)
        driver.executescript(_schema_script(self._link.engine))
        self._busy = threading.RLock()
        self._inside = False

    def read(self, function: Callable[[Connection], T]) -> T:
        """Run the function on a consistent snapshot; nothing it does is kept."""
        return self._run(function, "ROLLBACK")

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction: all of it, or none of it."""
        return self._run(function, "COMMIT")

    def close(self) -> None:
        """Forget everything."""
        self.hints.close()
        self._link.close()

    def _run(self, function: Callable[[Connection], T], ending: str) -> T:
        with self._busy:
            assert not self._inside, "a transaction within a transaction"
            self._inside = True
            driver = self._link.driver
            try:
                driver.execute("BEGIN")
                result = function(self._link.connection)
                assert not self._link.connection.in_nested_transaction(), "a savepoint left open"
                driver.execute(ending)
            except BaseException:
                driver.rollback()
                raise
            finally:
                self._inside = False
            return result


_SCRIPTS: dict[str, str] = {}


def _schema_script(engine: Engine) -> str:
    if "sqlite" not in _SCRIPTS:
        made: list[str] = []
        for table in METADATA.sorted_tables:
            made.append(str(CreateTable(table).compile(engine)))
            made.extend(
                str(CreateIndex(index).compile(engine))
                for index in sorted(table.indexes, key=lambda index: str(index.name))
            )
        _SCRIPTS["sqlite"] = ";\n".join(made) + ";\n"
    return _SCRIPTS["sqlite"]
