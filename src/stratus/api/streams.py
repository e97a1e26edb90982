"""How does a client follow the event log? As text/event-stream, from where it left off."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from litestar.types import Receive, Scope, Send

from stratus.api.answer import NOSNIFF, Header
from stratus.api.endpoint import Stream
from stratus.api.pools import Lane, Pools
from stratus.api.settings import ApiSettings
from stratus.api.watch import Watch, frame_of
from stratus.model.problem import Refused
from stratus.wire.problem import problem_encode

HEADERS: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    NOSNIFF,
)
RETRY_MS: Final = 1000
PAGE_EVENTS_MAX: Final = 200
ABORT: Final = "stratus.abort"  # our server's way to cut a connection whose buffer is full
HEARTBEAT: Final = b": alive\n\n"


class EventStream:
    """One client that follows; an ASGI application that ends when either side has enough."""

    def __init__(
        self,
        stream: Stream,
        *,
        user_id: str,
        watch: Watch,
        pools: Pools,
        settings: ApiSettings,
        still: Callable[[], object],
        request_id: str,
    ) -> None:
        self._stream = stream
        self._user_id = user_id
        self._watch = watch
        self._pools = pools
        self._settings = settings
        self._still = still  # raises Refused when the token is good no longer
        self._request_id = request_id
        self._abort: Callable[[], None] = _nothing
        self._news = watch.stream_open(user_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, is too slow, or the service stops."""
        extensions = cast("dict[str, Any]", scope).get("extensions") or {}
        self._abort = extensions.get(ABORT, _nothing)
        follow = asyncio.ensure_future(self._follow(send))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({follow, gone}, return_when=asyncio.FIRST_COMPLETED)
            if follow.done():
                follow.result()
        finally:
            self._watch.stream_close(self._user_id, self._news)
            for task in (follow, gone):
                task.cancel()
            await asyncio.gather(follow, gone, return_exceptions=True)

    async def _follow(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        try:
            await self._put(send, b"retry: %d\n\n" % RETRY_MS)
            await self._events(send)
        except Refused as refused:
            data = problem_encode(refused.problem, request_id=self._request_id)
            await self._put(send, b"event: problem\ndata: " + data + b"\n\n")
        except TimeoutError:
            self._abort()  # too slow: the client may come back and say where it was
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, send: Send) -> None:
        cursor = self._stream.after
        beat = self._settings.heartbeat_seconds
        spoke = checked = time.monotonic()
        while not self._watch.closed.is_set():
            self._news.clear()
            recent = self._watch.recent_after(cursor)
            if recent is None:
                frames, cursor, more = await self._replayed(cursor)
            else:
                frames = b"".join(t.frame for t in recent if self._stream.mine(t.event))
                cursor = recent[-1].event.cursor if recent else cursor
                more = False
            now = time.monotonic()
            if now - checked >= beat:
                await self._pools.run(Lane.READ, self._still)
                checked = now
            if frames or now - spoke >= beat:
                await self._put(send, frames or HEARTBEAT)
                spoke = now
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), max(0.01, spoke + beat - now))

    async def _replayed(self, cursor: str) -> tuple[bytes, str, bool]:
        """Read the store after this event: frames, how far that reaches, and whether to go on."""
        later = self._watch.later(cursor)
        page = await self._pools.run(Lane.READ, lambda: self._stream.page(cursor, PAGE_EVENTS_MAX))
        if page:
            return b"".join(frame_of(event) for event in page), page[-1].cursor, True
        # The store was read after that was told: nothing of ours lies before it.
        return b"", later, False

    async def _put(self, send: Send, data: bytes) -> None:
        await asyncio.wait_for(
            send({"type": "http.response.body", "body": data, "more_body": True}),
            self._settings.consumer_seconds_max,
        )


def _nothing() -> None:
    pass


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone away; what is left of a body is thrown away."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
