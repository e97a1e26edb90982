"""What happens next? Virtual time: events in order, each at its millisecond, none in real time."""

import heapq
from collections.abc import Callable
from typing import Final, Protocol

BEGIN_MS: Final = 1_800_000_000_000


class Owner(Protocol):
    """Whom an event belongs to: it is dropped when they are dead, and kept while they stall."""

    dead: bool
    stalls: int  # how many stalls hold it now
    backlog: list[Callable[[], None]]


class Timeline:
    """The one clock of a simulated cloud, and everything that is due."""

    def __init__(self, begin_ms: int = BEGIN_MS) -> None:
        self.now_ms = begin_ms
        self._heap: list[tuple[int, int, Owner | None, Callable[[], None]]] = []
        self._count = 0

    def now(self) -> int:
        """Return the virtual time."""
        return self.now_ms

    def after(self, delay_ms: int, do: Callable[[], None], owner: Owner | None = None) -> None:
        """Have this done so much later; events of one moment come in the order they were asked."""
        self._count += 1
        at_ms = self.now_ms + max(0, delay_ms)
        heapq.heappush(self._heap, (at_ms, self._count, owner, do))

    def next(self, until_ms: int) -> tuple[Owner | None, Callable[[], None]] | None:
        """Step to the next event that is due by then, or to that time and return None."""
        while self._heap and self._heap[0][0] <= until_ms:
            at_ms, _, owner, do = heapq.heappop(self._heap)
            # After a stall time has gone on beneath it: what was due then is due now.
            self.now_ms = max(self.now_ms, at_ms)
            if owner is not None and owner.dead:
                continue
            if owner is not None and owner.stalls:
                owner.backlog.append(do)
                continue
            return owner, do
        self.now_ms = max(self.now_ms, until_ms)
        return None
