"""What is the store to a simulated process? The real one in memory, reached past its fate."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from stratus.sim.broken import Crash
from stratus.sim.mishaps import Mishap, Point
from stratus.store.backup import epoch_statements
from stratus.store.hints import Hints
from stratus.store.sqlite import MemoryStore

T = TypeVar("T")


class SimStore(MemoryStore):
    """The one database of a cloud; it outlives every process, and can be set back."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction, and count it."""
        result = super().write(function)
        self.commits += 1
        return result

    def backup(self) -> bytes:
        """Return a copy of everything."""
        return self._link.driver.serialize()

    def load(self, copy: bytes) -> None:
        """Become this copy."""
        self._link.driver.deserialize(copy)
        self.commits += 1

    def restore(self, copy: bytes, *, now_ms: int) -> None:
        """Become this copy and begin a new epoch, as `stratus db restore` does."""
        self.load(copy)
        driver = self._link.driver
        driver.execute("BEGIN")
        for statement in epoch_statements("", now_ms):
            driver.execute(statement)
        driver.execute("COMMIT")

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Ask the database directly: a checker's many small questions."""
        return self._link.driver.execute(query, tuple(values)).fetchall()


class Life(Protocol):
    """The process that uses a store or a driver."""

    def meet(self, point: Point, what: str) -> Mishap | None:
        """Return what goes wrong at this point; stalls have happened by then."""
        ...

    def hint(self, topic: str) -> None:
        """Wake whoever looks after this topic."""
        ...


class ProcessHints(Hints):
    """Wakes roles in virtual time."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def send(self, topic: str) -> None:
        """Wake the roles of this topic, here and in other processes."""
        self._life.hint(topic)


class ProcessStore:
    """One process's way to the store; it may end before or after any commit."""

    dialect = "sqlite"

    def __init__(self, store: SimStore, life: Life) -> None:
        self._store = store
        self._life = life
        self.hints: Hints = ProcessHints(life)

    def read(self, function: Callable[[Connection], T]) -> T:
        """Run the function on a consistent snapshot."""
        self._life.meet(Point.READ, "read")
        return self._store.read(function)

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction, unless the process ends."""
        mishap = self._life.meet(Point.COMMIT, "commit")

        def cut(connection: Connection) -> T:
            function(connection)
            raise Crash

        if mishap is Mishap.CRASH_BEFORE:
            return self._store.write(cut)
        result = self._store.write(function)
        if mishap is Mishap.CRASH_AFTER:
            raise Crash
        return result

    def close(self) -> None:
        """Leave the store as it is."""
