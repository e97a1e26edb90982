"""Who waits for something to happen? Requests with ?wait= and event streams, fed by one reader.

One thread reads the event log, for everybody in this process. It holds the newest events in
memory, already encoded; a stream that fell behind reads the store for itself. A waiter looks at
its own things again when an event names one of them, and now and then in case nothing does.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from stratus.api.pools import Lane, Pools
from stratus.api.settings import ApiSettings
from stratus.control.events import events_order
from stratus.model.event import Event
from stratus.model.problem import Refused, refuse
from stratus.store.hints import Hints
from stratus.wire.v1 import event_view

T = TypeVar("T")

LOG: Final = structlog.get_logger("stratus.api")
TOPIC: Final = "events"
RECENT_EVENTS_MAX: Final = 2000
READ_EVENTS_MAX: Final = 500  # in one look at the store
POLL_SECONDS: Final = 1.0  # hints are only hints
PAUSE_SECONDS: Final = 0.02  # between looks, so that a storm is read in batches
FAULT_SECONDS: Final = 2.0  # after the store did not answer
RECHECK_SECONDS: Final = 10.0  # a waiter looks again even if nothing named its things
RECHECK_PAUSE_SECONDS: Final = 0.05
RECHECK_REST_RATIO: Final = 4  # rest so many times as long as the last look took


class EventLog(Protocol):
    """How the log is read; everything of it, without asking for rights."""

    def newest(self) -> str:
        """Return the cursor of the newest event."""
        ...

    def after(self, cursor: str, rows_max: int) -> Sequence[Event]:
        """Return the events after this one, oldest first."""
        ...


class Told(msgspec.Struct, frozen=True):
    """An event with the bytes that streams send for it."""

    place: tuple[int, ...]  # later events come after
    event: Event
    frame: bytes


def frame_of(event: Event) -> bytes:
    """Write an event as text/event-stream does."""
    return (
        b"id: "
        + event.cursor.encode()
        + b"\nevent: "
        + event.kind.encode()
        + b"\ndata: "
        + msgspec.json.encode(event_view(event))
        + b"\n\n"
    )


class Watch:
    """The reader of this process, and everybody who waits for it."""

    def __init__(self, log: EventLog, hints: Hints, *, settings: ApiSettings, pools: Pools) -> None:
        self._log = log
        self._hints = hints
        self._settings = settings
        self._pools = pools
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.closed = asyncio.Event()
        self._recent: deque[Told] = deque(maxlen=RECENT_EVENTS_MAX)
        self._newest = ""
        # Everything after this place, up to the newest, is among the recent ones.
        self._floor: tuple[int, ...] | None = None
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._waiting = 0
        self._streams: set[asyncio.Event] = set()
        self._streams_of: dict[str, int] = {}

    # --- the reader ---

    async def open(self) -> None:
        """Start reading, from now on."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._read_loop, name="api-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every stream and every wait; call it in the event loop."""
        self._stopping.set()
        self.closed.set()
        self._wake_all()

    def _read_loop(self) -> None:
        assert self._loop is not None
        cursor: str | None = None
        seen = self._hints.seen(TOPIC)
        while not self._stopping.is_set():
            try:
                busy = bool(self._streams or self._waiters)
                if cursor is None or not busy:
                    newest = self._log.newest()
                    # What happened between is not told one by one: whoever came in the
                    # meantime looks for itself.
                    if newest != cursor:
                        self._tell(newest, ())
                    cursor = newest
                else:
                    events = self._log.after(cursor, READ_EVENTS_MAX)
                    if events:
                        cursor = events[-1].cursor
                        self._tell(cursor, events)
                    if len(events) == READ_EVENTS_MAX:
                        continue
            except Refused as refused:
                LOG.warning("the event log does not answer", problem=refused.problem.code)
                self._stopping.wait(FAULT_SECONDS)
                continue
            except Exception:  # the outermost loop of this thread
                LOG.exception("reading the event log failed")
                self._stopping.wait(FAULT_SECONDS)
                continue
            self._stopping.wait(PAUSE_SECONDS)
            seen = self._hints.wait(TOPIC, seen, POLL_SECONDS)

    def _tell(self, cursor: str, events: Sequence[Event]) -> None:
        framed = [(event, frame_of(event)) for event in events]
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self.told, cursor, framed)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._stopping.set()

    def told(self, cursor: str, framed: Sequence[tuple[Event, bytes]]) -> None:
        """Take in what was read up to this event, in the event loop; nothing: look for yourself."""
        self._newest = cursor
        if not framed:
            self._recent.clear()
            self._floor = events_order(cursor)
            self._wake_all()
            return
        for event, frame in framed:
            if len(self._recent) == RECENT_EVENTS_MAX:
                self._floor = self._recent[0].place
            self._recent.append(Told(events_order(event.cursor), event, frame))
            for waiter in self._waiters.get(event.subject, ()):
                waiter.set()
        for stream in self._streams:
            stream.set()

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.set()
        for stream in self._streams:
            stream.set()

    # --- waiting for things ---

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._waiting

    async def until(
        self, subjects: Sequence[str], look: Callable[[], T | None], *, seconds: float
    ) -> T | None:
        """Return what `look` returns as soon as it is something, or None when time is up."""
        if self._waiting >= self._settings.waiters_max:
            raise refuse(
                "overloaded",
                f"{self._settings.waiters_max} requests wait for something already.",
                remedy="Ask without ?wait= and look again, or follow /v1/events.",
            )
        deadline = time.monotonic() + seconds
        changed = asyncio.Event()
        self._waiting += 1
        for subject in subjects:
            self._waiters.setdefault(subject, set()).add(changed)
        try:
            while True:
                changed.clear()
                started = time.monotonic()
                found = await self._pools.run(Lane.READ, look)
                now = time.monotonic()
                if found is not None or now >= deadline or self.closed.is_set():
                    return found
                rest = max(RECHECK_PAUSE_SECONDS, RECHECK_REST_RATIO * (now - started))
                await asyncio.sleep(min(rest, deadline - now))
                left = min(RECHECK_SECONDS, max(0.0, deadline - time.monotonic()))
                try:
                    await asyncio.wait_for(changed.wait(), left)
                except TimeoutError:
                    continue
        finally:
            self._waiting -= 1
            for subject in subjects:
                waiters = self._waiters.get(subject)
                if waiters is not None:
                    waiters.discard(changed)
                    if not waiters:
                        del self._waiters[subject]

    # --- streams ---

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def stream_open(self, user_id: str) -> asyncio.Event:
        """Let one more stream in, or refuse it; the event is set when there is news."""
        mine = self._streams_of.get(user_id, 0)
        if len(self._streams) >= self._settings.streams_max:
            raise refuse(
                "overloaded",
                f"{self._settings.streams_max} event streams are open already.",
                remedy="Try again later, or read GET /v1/events page by page.",
            )
        if mine >= self._settings.streams_per_user_max:
            raise refuse(
                "rate_limited",
                f"You have {mine} event streams open already.",
                remedy="Close one of them, or share one among your programs.",
            )
        self._streams_of[user_id] = mine + 1
        news = asyncio.Event()
        self._streams.add(news)
        return news

    def stream_close(self, user_id: str, news: asyncio.Event) -> None:
        """Forget the stream."""
        self._streams.discard(news)
        left = self._streams_of.get(user_id, 1) - 1
        if left > 0:
            self._streams_of[user_id] = left
        else:
            self._streams_of.pop(user_id, None)

    def recent_after(self, cursor: str) -> Sequence[Told] | None:
        """Return what was told after this event, or None where that is not known here.

        A stream that read the store may be ahead of us: then there is nothing yet.
        """
        place = events_order(cursor)
        if self._floor is None or place < self._floor:
            return None
        later: list[Told] = []
        # From the newest backwards: a stream that keeps up finds its place at once.
        for told in reversed(self._recent):
            if told.place <= place:
                break
            later.append(told)
        later.reverse()
        return later

    def later(self, cursor: str) -> str:
        """Return this cursor, or the newest one that was told where that is later."""
        if self._floor is None or events_order(self._newest) <= events_order(cursor):
            return cursor
        return self._newest
