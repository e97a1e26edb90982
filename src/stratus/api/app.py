"""How is the HTTP door put together? The routes, the threads, the reader of events, the gate."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.types import Receive, Scope, Send

from stratus.api.accesslog import AccessLog
from stratus.api.answer import Answer, problem_answer
from stratus.api.door import Door
from stratus.api.endpoint import Console, Endpoint, Figures, Ready, Services, Uploads
from stratus.api.events import StoreLog
from stratus.api.exchange import exchange_of
from stratus.api.gate import LOG, Gate, Rates, bug
from stratus.api.metrics import Metrics
from stratus.api.names import NameBook
from stratus.api.openapi import document_bytes
from stratus.api.pools import Pools
from stratus.api.routes import ENDPOINTS
from stratus.api.settings import ApiSettings
from stratus.api.watch import Watch
from stratus.control.events import events_newest
from stratus.control.world import World
from stratus.model.ids import ALPHABET, CHANCE_BITS, id_make
from stratus.model.problem import Problem, Refused
from stratus.wire.v1 import ReadyPart

READ_THREADS: Final = {"sqlite": 2, "postgresql": 12}
READY_SECONDS: Final = 1.0  # for how long readiness is not asked again


class Api:
    """The whole HTTP door as one ASGI application; `closing` ends what would last."""

    def __init__(
        self,
        world: World,
        *,
        settings: ApiSettings,
        console: Console,
        uploads: Uploads,
        ready: Ready,
        figures: Figures | None,
    ) -> None:
        self.settings = settings
        self._world = world
        self.metrics = Metrics()
        self._figures = figures
        self._figures_until = 0.0
        self._ready = ready
        self._ready_now: tuple[float, Sequence[ReadyPart]] = (0.0, ())
        self._openapi = b""
        # SQLite answers from memory while the interpreter lock is held: more threads would only
        # fight for that. PostgreSQL makes them wait.
        threads = READ_THREADS[world.store.dialect]
        self.pools = Pools(settings, read_threads=threads)
        self.watch = Watch(StoreLog(world), world.store.hints, settings=settings, pools=self.pools)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._access_log = AccessLog(settings)
        rates = Rates(settings)
        self.services = services = Services(
            settings=settings,
            console=console,
            uploads=uploads,
            ready=self._ready_parts,
            metrics=self._metrics_text,
            openapi=self._openapi_bytes,
            names=NameBook(world),
        )
        door = Door(world, services, pools=self.pools, watch=self.watch, rates=rates)
        self.litestar = Litestar(
            [door.handler(endpoint) for endpoint in ENDPOINTS],
            openapi_config=None,
            logging_config=None,
            exception_handlers={HTTPException: _routing_refused, Exception: _bug},
            lifespan=[self._lifespan],
            debug=False,
        )
        self._gate = Gate(
            self.litestar,
            settings=settings,
            rates=rates,
            metrics=self.metrics,
            access_log=self._access_log,
            id_new=request_ids(world),
        )
        self._gauges()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        await self._gate(scope, receive, send)

    def closing(self) -> None:
        """End streams and waits, so that the server can stop; from any thread, repeatedly."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.watch.close)

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:  # noqa: ARG002  # Litestar's
        self._loop = asyncio.get_running_loop()
        self.pools.open()
        self._access_log.open()
        await self.watch.open()
        try:
            yield
        finally:
            self.watch.close()
            self.pools.close()
            self._access_log.close()

    def _gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("stratus_http_streams", "Event streams open", lambda: self.watch.streams)
        gauge("stratus_http_waiters", "Requests that wait", lambda: self.watch.waiting)
        for lane in self.pools.under_way:
            gauge(
                f"stratus_http_{lane}_calls",
                f"Calls in or before the {lane} threads",
                partial(self.pools.under_way.__getitem__, lane),
            )

    def _metrics_text(self) -> bytes:
        now = time.monotonic()
        if self._figures is not None and now >= self._figures_until:
            self._figures_until = now + self.settings.metrics_seconds
            self.metrics.figures_set(self._figures())
        return self.metrics.text()

    def _ready_parts(self) -> Sequence[ReadyPart]:
        asked, parts = self._ready_now
        now = time.monotonic()
        if now - asked > READY_SECONDS:
            parts = (self._store_part(), *self._ready())
            self._ready_now = (now, parts)
        return parts

    def _store_part(self) -> ReadyPart:
        try:
            events_newest(self._world)
        except Refused as refused:
            # The title only: whoever asks is not logged in.
            return ReadyPart(name="store", ready=False, detail=refused.problem.title)
        return ReadyPart(name="store", ready=True)

    def _openapi_bytes(self) -> bytes:
        if not self._openapi:
            self._openapi = document_bytes(ENDPOINTS, version=self.settings.version)
        return self._openapi


def app_make(
    world: World,
    *,
    console: Console,
    uploads: Uploads,
    ready: Ready,
    settings: ApiSettings | None = None,
    figures: Figures | None = None,
) -> Api:
    """Put the HTTP door together; nothing runs before its lifespan begins."""
    return Api(
        world,
        settings=settings or ApiSettings(),
        console=console,
        uploads=uploads,
        ready=ready,
        figures=figures,
    )


def request_ids(world: World) -> Callable[[], str]:
    """Return a maker of request ids: distinct, sorted by time, but not secret.

    They look like every other id. This maker spares the system call and most of the digits.
    """
    chance = random.Random(world.chance(64))  # noqa: S311  # need not be secret
    pairs = [high + low for high in ALPHABET for low in ALPHABET]
    at, begin = 0, ""

    def make() -> str:
        nonlocal at, begin
        now_ms = world.now_ms()
        if now_ms != at:
            at, begin = now_ms, id_make("request", now_ms=now_ms, chance=0)[:-8]
        bits = chance.getrandbits(CHANCE_BITS)
        return (
            begin
            + pairs[bits & 1023]
            + pairs[bits >> 10 & 1023]
            + pairs[bits >> 20 & 1023]
            + pairs[bits >> 30]
        )

    return make


class _Ready(Response[bytes]):
    """An answer of ours in the clothes that Litestar's exception handlers wear."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(b"")
        self._answer = answer

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401  # any ASGI application
        return self._answer


def _routing_refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the router refused: no such address, no such method, a broken header."""
    request_id = exchange_of(request.scope).request_id
    method, path = request.scope["method"], request.scope["path"]
    match error.status_code:
        case 404:
            problem = Problem(
                code="not_found",
                detail=f"There is no address {path[:200]}.",
                remedy="Check the spelling; GET /v1/openapi.json lists the addresses.",
            )
        case 405:
            methods = ", ".join(methods_of(path)) or "another method"
            problem = Problem(
                code="method_not_allowed",
                detail=f"This address does not know {method[:20]}.",
                remedy=f"Use {methods}.",
            )
            answer = problem_answer(
                problem, request_id=request_id, headers=((b"allow", methods.encode()),)
            )
            return _Ready(answer)
        case status if 400 <= status < 500:
            problem = Problem(
                code="bad_request",
                detail="The request is not well formed.",
                remedy="Check address and headers; GET /v1/openapi.json describes them.",
            )
        case _:
            return _bug(request, error)
    return _Ready(problem_answer(problem, request_id=request_id))


def _bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    request_id = exchange_of(request.scope).request_id
    LOG.error("request failed", request_id=request_id, exc_info=error)
    return _Ready(problem_answer(bug(), request_id=request_id))


def methods_of(path: str) -> list[str]:
    """Return the methods that this address knows."""
    found = {e.method for e in ENDPOINTS if _matches(e, path)}
    if "GET" in found:
        found.add("HEAD")
    return sorted(found | {"OPTIONS"}) if found else []


def _matches(endpoint: Endpoint, path: str) -> bool:
    pattern = re.sub(r"\{[a-z_]+\}", "[^/]+", endpoint.path)
    return re.fullmatch(pattern, path.rstrip("/") or "/") is not None
