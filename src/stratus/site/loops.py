"""How do the roles run? One thread each, which turns while there is something to do."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from stratus.model.problem import Refused
from stratus.store.engine import Store

POLL_SECONDS_MAX: Final = 1.0  # how long a lost hint can delay anything
TROUBLE_SECONDS: Final = 2.0  # before a turn that failed is tried again
STOP_SECONDS_MAX: Final = 20.0
# A turn costs much the same for one thing as for many: after a small one more may gather.
GATHER_SECONDS: Final = 0.01
TURN_LARGE: Final = 256  # things done in one turn, after which the next follows at once

_log = structlog.get_logger("loops")


class Turning(Protocol):
    """Something that turns: a reconciler or a worker."""

    def turn(self) -> int:
        """Do what can be done now; return how many things that was."""
        ...

    def next_ms(self) -> int:
        """Return when the next turn is due at the latest."""
        ...


class PoolExecutor:
    """A bounded pool of threads; tasks beyond it queue."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    def submit(self, task: Callable[[], None]) -> None:
        """Run the task soon; what it raises is logged, since nobody waits for it."""
        self._pool.submit(self._run, task)

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # outermost: a task must not die unheard
            _log.error("task_failed", exc_info=error)

    def close(self) -> None:
        """Begin nothing more; what runs is given up with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class RoleLoop:
    """One role in its thread."""

    def __init__(self, name: str, topic: str, store: Store, turning: Turning) -> None:
        self.name = name
        self._topic = topic
        self._store = store
        self._turning = turning
        self._stopping = threading.Event()
        self.turned = time.monotonic()  # when it last finished a turn, for /readyz
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin turning."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the present turn and end."""
        self._stopping.set()
        self._store.hints.send(self._topic)
        self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self._store.hints.seen(self._topic)
            try:
                if done := self._turning.turn():
                    self.turned = time.monotonic()
                    if done < TURN_LARGE:
                        self._stopping.wait(GATHER_SECONDS)
                    continue
                wait_seconds = self._turning.next_ms() / 1000 - time.time()
            except Refused as error:
                _log.warning("turn_refused", role=self.name, detail=error.problem.detail)
                self._stopping.wait(TROUBLE_SECONDS)
                continue
            except Exception as error:  # outermost loop of a role: log, and look again
                _log.error("turn_failed", role=self.name, exc_info=error)
                self._stopping.wait(TROUBLE_SECONDS)
                continue
            self.turned = time.monotonic()
            if wait_seconds > 0:
                self._store.hints.wait(self._topic, seen, min(wait_seconds, POLL_SECONDS_MAX))
