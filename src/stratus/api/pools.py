"""Where do the synchronous commands run? In three bounded sets of threads.

Reads are short and many, writes wait for a shared commit, slow calls (passwords, consoles,
uploads) shall not hold up either. A full queue is refused at once, so that waiting is bounded.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TypeVar

from stratus.api.settings import ApiSettings
from stratus.model.problem import refuse

T = TypeVar("T")


class Lane(StrEnum):
    """Which kind of thread a call runs in."""

    READ = "read"
    WRITE = "write"
    SLOW = "slow"


class Pools:
    """The threads of one API process; used from its event loop."""

    def __init__(self, settings: ApiSettings) -> None:
        self._queue_max = settings.queue_calls_max
        self.threads = {
            Lane.READ: settings.read_threads,
            Lane.WRITE: settings.write_threads,
            Lane.SLOW: settings.slow_threads,
        }
        self._pools = {
            lane: ThreadPoolExecutor(count, thread_name_prefix=f"api-{lane}")
            for lane, count in self.threads.items()
        }
        self.under_way = dict.fromkeys(Lane, 0)

    async def run(self, lane: Lane, function: Callable[[], T]) -> T:
        """Run the function in a thread of this lane, or refuse where too many wait already."""
        if self.under_way[lane] >= self.threads[lane] + self._queue_max:
            raise refuse(
                "overloaded",
                f"{self._queue_max} requests wait for a {lane} thread already.",
                remedy="Try again in a moment; the header Retry-After says when.",
            )
        self.under_way[lane] += 1
        future = asyncio.get_running_loop().run_in_executor(self._pools[lane], function)
        # The thread runs to its end even when the caller goes away, and counts until then.
        future.add_done_callback(lambda _: self._left(lane))
        return await asyncio.shield(future)

    def _left(self, lane: Lane) -> None:
        self.under_way[lane] -= 1

    def close(self) -> None:
        """Take no more calls; those under way run to their end."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
