"""Who comes in at all? The outermost ASGI layer: request id, rates, sizes, log, metrics, faults.

Whatever happens inside, the client gets problem+json with a request id, and the log one line.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from stratus.api.accesslog import AccessLog
from stratus.api.answer import DoorRefused, problem_answer
from stratus.api.exchange import KEY, Exchange
from stratus.api.metrics import Metrics
from stratus.api.rates import Buckets
from stratus.api.settings import ApiSettings
from stratus.model.problem import Problem
from stratus.model.units import size_text

LOG: Final = structlog.get_logger("stratus.api")
# The rest of a refused body is not read: the connection ends with the answer.
CLOSE: Final = (b"connection", b"close")


class Rates:
    """Token buckets: one per token known to be good, one per address for everybody else."""

    def __init__(self, settings: ApiSettings) -> None:
        rows_max = settings.rate_rows_max
        self._rows_max = rows_max
        self._tokens = Buckets(
            rate=settings.token_rate, burst=settings.token_burst, rows_max=rows_max
        )
        self._addresses = Buckets(
            rate=settings.address_rate, burst=settings.address_burst, rows_max=rows_max
        )
        self._good: OrderedDict[bytes, str] = OrderedDict()

    def take(self, exchange: Exchange, *, now: float) -> float:
        """Count this request; return 0, or for how many seconds to stay away."""
        token = self._good.get(exchange.caller) if exchange.caller else None
        if token is not None:
            return self._tokens.take(token, now=now)
        return self._addresses.take(exchange.address, now=now)

    def good(self, caller: bytes, token: str) -> None:
        """Remember that these credentials were right: they get a bucket of their own."""
        self._good[caller] = token
        self._good.move_to_end(caller)
        if len(self._good) > self._rows_max:
            self._good.popitem(last=False)

    def bad(self, caller: bytes) -> None:
        """Forget credentials that are right no longer."""
        self._good.pop(caller, None)


class Gate:
    """The whole API as one ASGI application."""

    def __init__(
        self,
        inner: ASGIApp,
        *,
        settings: ApiSettings,
        rates: Rates,
        metrics: Metrics,
        access_log: AccessLog,
        id_new: Callable[[], str],
    ) -> None:
        self.inner = inner
        self._settings = settings
        self._rates = rates
        self._metrics = metrics
        self._access_log = access_log
        self._id_new = id_new

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or carry on the lifespan."""
        kind = cast("str", scope["type"])
        if kind != "http":
            if kind == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": "no websockets"})
                return
            await self.inner(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = Exchange(scope, started=started, id_new=self._id_new)
        cast("dict[str, Any]", scope)[KEY] = exchange
        request_id = exchange.request_id.encode()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            elif message["type"] == "http.response.body":
                exchange.sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            if (seconds := self._rates.take(exchange, now=started)) > 0:
                problem = Problem(
                    code="rate_limited",
                    detail="There were too many requests of this token or address.",
                    remedy="Wait as long as the header Retry-After says, then go on more slowly.",
                )
                await self._refuse(problem, exchange, scope, receive, sent, seconds=seconds)
            elif (problem_ := self._announced(exchange, scope)) is not None:
                await self._refuse(problem_, exchange, scope, receive, sent)
            else:
                await self._inside(exchange, scope, receive, sent)
        finally:
            self._note(exchange, scope)

    async def _inside(self, exchange: Exchange, scope: Scope, receive: Receive, sent: Send) -> None:
        limit = self._limit(scope)
        taken = 0

        async def counted() -> Any:  # noqa: ANN401  # an ASGI message
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message["body"])
                if taken > limit:
                    raise DoorRefused(self._too_large(limit), headers=(CLOSE,))
            return message

        try:
            await self.inner(scope, counted, sent)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception:  # the outermost loop of a request
            LOG.exception("request failed", request_id=exchange.request_id, path=scope["path"])
            if exchange.status:
                raise  # too late to say anything: the server cuts the connection
            await self._refuse(bug(), exchange, scope, receive, sent)

    def _limit(self, scope: Scope) -> int:
        uploads = scope["method"] == "PUT" and scope["path"].endswith("/content")  # type: ignore[typeddict-item]
        return self._settings.upload_bytes_max if uploads else self._settings.body_bytes_max

    def _announced(self, exchange: Exchange, scope: Scope) -> Problem | None:
        """Refuse a body by its announced length, before a byte of it is read."""
        said = exchange.headers.get(b"content-length")
        if said is None or len(said) < 6:
            return None
        limit = self._limit(scope)
        if not said.isdigit() or len(said) > 18 or int(said) > limit:
            return self._too_large(limit)
        return None

    def _too_large(self, limit: int) -> Problem:
        return Problem(
            code="body_too_large",
            detail=f"The request body is larger than {size_text(limit)}.",
            remedy=f"Send at most {size_text(limit)} in one request.",
            context={"bytes_max": limit},
        )

    async def _refuse(
        self,
        problem: Problem,
        exchange: Exchange,
        scope: Scope,
        receive: Receive,
        sent: Send,
        *,
        seconds: float | None = None,
    ) -> None:
        headers = (CLOSE,) if problem.code == "body_too_large" else ()
        answer = problem_answer(
            problem, request_id=exchange.request_id, retry_seconds=seconds, headers=headers
        )
        await answer(scope, receive, sent)

    def _note(self, exchange: Exchange, scope: Scope) -> None:
        seconds = time.perf_counter() - exchange.started
        method: str = scope["method"]  # type: ignore[typeddict-item]
        status = exchange.status or 499  # the client went away before an answer
        self._metrics.request(method, exchange.route or "unknown", status, seconds)
        self._access_log.note(exchange, method, scope["path"], status, seconds)


def bug() -> Problem:
    """Say that it is our fault, without internals."""
    return Problem(
        code="bug",
        detail="Something went wrong inside the service; the log has the details.",
        remedy="Try again; if it happens again, give the request id to your administrator.",
    )
