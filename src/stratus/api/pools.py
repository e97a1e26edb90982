"""Where do the synchronous commands run? In three bounded sets of threads.

Reads are short and many, writes wait for a shared commit, slow calls (passwords, consoles,
uploads) shall not hold up either. A full queue is refused at once, so that waiting is bounded.

The threads are our own rather than an executor's because the way there and back is a large part
of a small request: results of several calls come back to the event loop in one wake-up.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from queue import SimpleQueue
from typing import Any, TypeVar

from stratus.api.settings import ApiSettings
from stratus.model.problem import refuse

T = TypeVar("T")


class Lane(StrEnum):
    """Which kind of thread a call runs in."""

    HERE = "here"  # in the event loop: answers at once from memory
    READ = "read"
    WRITE = "write"
    SLOW = "slow"


class _Call:
    """One function, and what became of it."""

    __slots__ = ("error", "function", "future", "lane", "result")

    def __init__(
        self, lane: Lane, function: Callable[[], Any], future: "asyncio.Future[Any]"
    ) -> None:
        self.lane = lane
        self.function = function
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Pools:
    """The threads of one API process; used from its event loop, once opened there."""

    def __init__(self, settings: ApiSettings, *, read_threads: int) -> None:
        self._queue_max = settings.queue_calls_max
        self.threads = {
            Lane.READ: settings.read_threads or read_threads,
            Lane.WRITE: settings.write_threads,
            Lane.SLOW: settings.slow_threads,
        }
        self.under_way = dict.fromkeys(self.threads, 0)
        self._queues: dict[Lane, SimpleQueue[_Call | None]] = {
            lane: SimpleQueue() for lane in self.threads
        }
        self._started: dict[Lane, list[threading.Thread]] = {lane: [] for lane in self.threads}
        self._done: deque[_Call] = deque()
        self._told = False  # the event loop will look at what is done
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Belong to the running event loop; threads start when they are needed."""
        self._loop = asyncio.get_running_loop()

    async def run(self, lane: Lane, function: Callable[[], T]) -> T:
        """Run the function in a thread of this lane, or refuse where too many wait already."""
        if lane is Lane.HERE:
            return function()
        assert self._loop is not None, "the pools are not open"
        busy = self.under_way[lane]
        if busy >= self.threads[lane] + self._queue_max:
            raise refuse(
                "overloaded",
                f"{self._queue_max} requests wait for a {lane} thread already.",
                remedy="Try again in a moment; the header Retry-After says when.",
            )
        started = self._started[lane]
        if busy >= len(started) and len(started) < self.threads[lane]:
            thread = threading.Thread(
                target=self._work, args=(lane,), name=f"api-{lane}-{len(started)}", daemon=True
            )
            started.append(thread)
            thread.start()
        # It counts until it ends, also when its caller goes away.
        self.under_way[lane] = busy + 1
        call = _Call(lane, function, self._loop.create_future())
        self._queues[lane].put(call)
        result: T = await call.future
        return result

    def _work(self, lane: Lane) -> None:
        queue = self._queues[lane]
        assert self._loop is not None
        while (call := queue.get()) is not None:
            try:
                call.result = call.function()
            except BaseException as error:  # it belongs to the caller, whatever it is
                call.error = error
            self._done.append(call)
            if not self._told:
                self._told = True
                try:
                    self._loop.call_soon_threadsafe(self._tell)
                except RuntimeError:
                    return  # the loop is closed: nobody waits any more

    def _tell(self) -> None:
        # Before looking: what is done from now on tells again.
        self._told = False
        while self._done:
            call = self._done.popleft()
            self.under_way[call.lane] -= 1
            if call.future.done():
                continue  # its caller went away
            if call.error is None:
                call.future.set_result(call.result)
            else:
                call.future.set_exception(call.error)

    def close(self) -> None:
        """Take no more calls; those under way run to their end."""
        for lane, threads in self._started.items():
            for _ in threads:
                self._queues[lane].put(None)
