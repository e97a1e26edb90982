"""How is one request answered? Who asks, what they say, the command in a thread, the bytes back."""

import asyncio
import base64
import binascii
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar, cast

import msgspec
import structlog
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope
from msgspec import structs

from stratus.api.answer import (
    CHALLENGE,
    CHALLENGE_BASIC,
    JSON,
    PRIVATE,
    TEXT,
    Answer,
    DoorRefused,
    Header,
    problem_answer,
)
from stratus.api.decode import body_decode, header_version, query_decode, reference_check
from stratus.api.endpoint import (
    Access,
    Call,
    Credentials,
    Endpoint,
    Follow,
    NoBody,
    NoQuery,
    Piece,
    RawBody,
    Reply,
    Services,
)
from stratus.api.exchange import Exchange, exchange_of
from stratus.api.gate import Rates, bug
from stratus.api.idempotency import (
    Keys,
    answer_store,
    given_answer,
    key_check,
    request_sha256,
    world_claiming,
)
from stratus.api.pools import Lane, Pools
from stratus.api.rates import Buckets
from stratus.api.streams import EventStream, until_gone
from stratus.api.watch import Watch
from stratus.control.login import actor_by_token
from stratus.control.world import Origin, World
from stratus.model.ids import UserId
from stratus.model.problem import Kind, Later, Problem, Refused, refuse
from stratus.model.tenancy import Actor
from stratus.model.units import MIB
from stratus.store.idempotency import Claim, ClaimTaken

T = TypeVar("T")

LOG: Final = structlog.get_logger("stratus.api")
NOBODY: Final = Actor(user_id=UserId(""), name="")
NO_QUERY: Final = NoQuery()
NO_BODY: Final = NoBody()
ENCODER: Final = msgspec.json.Encoder()
CREDENTIALS_CHARS_MAX: Final = 2048
CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,15})-[0-9]{1,15}|\*)/(\*|[0-9]{1,15})")
UPLOAD_PIECE_BYTES: Final = 1 * MIB  # what is written at once
TOO_MANY_LOGINS: Final = Problem(
    code="rate_limited",
    detail="There were too many failed logins.",
    remedy="Wait as long as the header Retry-After says; check name and password.",
)


class _Done(msgspec.Struct, frozen=True):
    """What a thread brings back: the reply, encoded, and who asked."""

    actor: Actor
    reply: Reply
    answer: Answer


class Door:
    """Answers requests for the endpoints of one process."""

    def __init__(
        self,
        world: World,
        services: Services,
        *,
        pools: Pools,
        watch: Watch,
        rates: Rates,
    ) -> None:
        settings = services.settings
        self._world = world
        self._services = services
        self._settings = settings
        self._pools = pools
        self._watch = watch
        self._rates = rates
        self._keys = Keys()
        forgiven = 1 / settings.login_forgiven_seconds
        self._login_failures = Buckets(
            rate=forgiven, burst=settings.login_failures_max, rows_max=settings.rate_rows_max
        )
        self._address_failures = Buckets(
            rate=forgiven * 10,
            burst=settings.login_failures_per_address_max,
            rows_max=settings.rate_rows_max,
        )

    def handler(self, endpoint: Endpoint) -> HTTPRouteHandler:
        """Make the Litestar route of this endpoint."""

        async def answer(request: Request[Any, Any, Any]) -> ASGIApp:
            exchange = exchange_of(request.scope)
            exchange.route = endpoint.path
            return await self._guarded(exchange, lambda: self._answer(endpoint, request, exchange))

        path = endpoint.path.replace("}", ":str}")
        methods: list[Any] = [endpoint.method]
        if endpoint.method == "GET":
            methods.append("HEAD")
        return HTTPRouteHandler(path, http_method=methods, name=endpoint.name, status_code=200)(
            answer
        )

    async def _guarded(self, exchange: Exchange, work: Callable[[], Awaitable[ASGIApp]]) -> ASGIApp:
        """Turn whatever goes wrong into an answer with problem+json."""
        try:
            return await work()
        except Refused as refused:
            if refused.problem.kind is Kind.UNAUTHENTICATED:
                self._rates.bad(exchange.caller)
            said = refused if isinstance(refused, DoorRefused) else DoorRefused(refused.problem)
            return problem_answer(
                said.problem,
                request_id=exchange.request_id,
                retry_seconds=said.retry_seconds,
                headers=said.headers,
            )
        except Later as later:
            problem = Problem(
                code="overloaded",
                detail=f"This cannot be done at the moment ({later.reason}).",
                remedy="Try again after the time in the header Retry-After.",
            )
            return problem_answer(
                problem, request_id=exchange.request_id, retry_seconds=later.seconds
            )
        except Exception:  # the outermost loop of a request
            LOG.exception("request failed", request_id=exchange.request_id, route=exchange.route)
            return problem_answer(bug(), request_id=exchange.request_id)

    async def _answer(
        self, endpoint: Endpoint, request: Request[Any, Any, Any], exchange: Exchange
    ) -> ASGIApp:
        scope = request.scope
        params: dict[str, str] = scope["path_params"]
        for name, value in params.items():
            if not reference_check(value):
                raise unknown_path(name)
        query_string = scope["query_string"]
        query: msgspec.Struct = NO_QUERY
        if query_string or endpoint.query is not NoQuery:
            query = query_decode(endpoint.query, query_string)
        token, credentials = self._credentials(endpoint, exchange)
        call: Call[Any, Any] = Call(
            world=self._world,
            services=self._services,
            actor=NOBODY,
            origin=Origin(request_id=exchange.request_id),
            params=params,
            query=query,
            body=NO_BODY,
            version=self._version(endpoint, exchange),
            stream=b"text/event-stream" in exchange.headers.get(b"accept", b"")
            and scope["method"] == "GET",
            last_event_id=exchange.header(b"last-event-id"),
            credentials=credentials,
        )
        if endpoint.uploads:
            return await self._upload(endpoint, call, token, exchange, request.receive)
        if endpoint.body is None:
            done = await self._pools.run(endpoint.lane, lambda: self._run(endpoint, call, token))
        elif credentials is not None:
            raw = await self._body(request.receive)
            done = await self._logged_in(endpoint, call, raw, exchange)
        else:
            done = await self._changed(endpoint, call, token, exchange, request)
        return await self._finished(endpoint, done, token, exchange, query, request.receive)

    # --- who asks ---

    def _credentials(
        self, endpoint: Endpoint, exchange: Exchange
    ) -> tuple[str, Credentials | None]:
        if endpoint.access is Access.NONE:
            return "", None
        login = endpoint.access is Access.LOGIN
        header = exchange.header(b"authorization")
        scheme, _, rest = header.partition(" ")
        rest = rest.strip()
        match scheme.lower():
            case "bearer" if rest and len(rest) <= CREDENTIALS_CHARS_MAX:
                return rest, None
            case "basic" if login:
                return "", _basic(rest, exchange.address)
            case "":
                said = "The request brings no credentials."
            case "basic":
                said = "Name and password are only taken to make a token."
            case _:
                said = "The header Authorization is not understood."
        raise unauthenticated(said, login=login)

    def _actor(self, token: str) -> Actor:
        return actor_by_token(self._world, token)

    async def _logged_in(
        self, endpoint: Endpoint, call: Call[Any, Any], raw: bytes, exchange: Exchange
    ) -> _Done:
        """Log in by password, slowly for those who guess."""
        assert call.credentials is not None
        assert endpoint.body is not None
        now = time.monotonic()
        who = (call.credentials.name, exchange.address)
        # A drop is taken first and given back on success, so that guesses made at once count.
        wait = self._login_failures.take(who, now=now) or self._address_failures.take(
            exchange.address, now=now
        )
        if wait > 0:
            raise DoorRefused(TOO_MANY_LOGINS, retry_seconds=wait)
        body = body_decode(endpoint.body, raw, exchange.header(b"content-type"))
        ready = structs.replace(call, body=body)
        try:
            done = await self._pools.run(Lane.SLOW, lambda: self._run(endpoint, ready, ""))
        except Refused as error:
            if error.problem.kind is Kind.UNAUTHENTICATED:
                raise _challenged(error.problem, login=True) from error
            self._forgive(who, exchange)
            raise
        except BaseException:
            self._forgive(who, exchange)
            raise
        self._forgive(who, exchange)
        return done

    def _forgive(self, who: tuple[str, str], exchange: Exchange) -> None:
        now = time.monotonic()
        self._login_failures.give_back(who, now=now)
        self._address_failures.give_back(exchange.address, now=now)

    # --- what they say ---

    def _version(self, endpoint: Endpoint, exchange: Exchange) -> int | None:
        said = exchange.header(b"if-match") if endpoint.matched else ""
        return header_version(said) if said else None

    async def _body(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        async with asyncio.timeout(self._settings.body_seconds_max):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise refuse("bad_request", "The body broke off.", remedy="Send it again.")
                if piece := cast("bytes", message.get("body", b"")):
                    pieces.append(piece)
                if not message.get("more_body"):
                    return b"".join(pieces)

    async def _changed(
        self,
        endpoint: Endpoint,
        call: Call[Any, Any],
        token: str,
        exchange: Exchange,
        request: Request[Any, Any, Any],
    ) -> _Done:
        """Carry out a change: who asks is known before a byte of the body is read."""
        actor = NOBODY
        if endpoint.access is not Access.NONE:
            actor = await self._pools.run(Lane.READ, lambda: self._actor(token))
            exchange.user = actor.name
        try:
            raw = await self._body(request.receive)
        except TimeoutError as error:
            raise refuse(
                "bad_request",
                f"The body did not arrive within {self._settings.body_seconds_max:.0f} s.",
                remedy="Send it faster.",
            ) from error
        key = exchange.header(b"idempotency-key") if endpoint.keyed else ""
        if key:
            key_check(key)

        def carry_out() -> _Done:
            assert endpoint.body is not None
            body: msgspec.Struct
            if endpoint.body is RawBody:
                body = RawBody(data=raw)
            else:
                body = body_decode(endpoint.body, raw, exchange.header(b"content-type"))
            said = structs.replace(call, actor=actor, body=body)
            if not key:
                return self._done(endpoint, said)
            return self._once(endpoint, said, key, request.scope, raw)

        return await self._pools.run(endpoint.lane, carry_out)

    # --- the command, in a thread ---

    def _run(self, endpoint: Endpoint, call: Call[Any, Any], token: str) -> _Done:
        if token:
            call = structs.replace(call, actor=self._actor(token))
        return self._done(endpoint, call)

    def _done(self, endpoint: Endpoint, call: Call[Any, Any]) -> _Done:
        reply = endpoint.run(call)
        return _Done(call.actor, reply, encoded(endpoint, reply))

    def _once(
        self, endpoint: Endpoint, call: Call[Any, Any], key: str, scope: Scope, raw: bytes
    ) -> _Done:
        """Carry it out unless that was done before; keep the answer for the next time."""
        told = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
        claim = Claim(
            user_id=call.actor.user_id,
            key=key,
            request_sha256=request_sha256(endpoint.method, told, raw),
            now_ms=self._world.now_ms(),
        )
        with self._keys.held(claim):
            if (given := given_answer(self._world, claim)) is None:
                world, store = world_claiming(self._world, claim)
                try:
                    done = self._done(endpoint, structs.replace(call, world=world))
                except ClaimTaken:
                    given = given_answer(self._world, claim)
                    assert given is not None, "the claim was there a moment ago"
                else:
                    if store.claimed:
                        answer_store(self._world, claim, done.answer.status, kept(done.answer))
                    return done
            return _Done(call.actor, Reply(), replayed(given.status, given.body))

    # --- the answer ---

    async def _finished(
        self,
        endpoint: Endpoint,
        done: _Done,
        token: str,
        exchange: Exchange,
        query: msgspec.Struct,
        receive: Receive,
    ) -> ASGIApp:
        actor, reply = done.actor, done.reply
        exchange.user = actor.name
        if actor.token_id is not None:
            self._rates.good(exchange.caller, actor.token_id)
        if reply.stream is not None:
            return EventStream(
                reply.stream,
                user_id=actor.user_id,
                watch=self._watch,
                pools=self._pools,
                settings=self._settings,
                still=lambda: self._actor(token),
                request_id=exchange.request_id,
            )
        answer = done.answer
        seconds = float(getattr(query, "wait", 0.0))
        if reply.follow is not None and seconds > 0:
            waited = self._waited(endpoint, reply.follow, seconds)
            answer = await while_there(waited, receive) or answer
        if endpoint.method == "GET":
            return fresh(answer, exchange)
        return answer

    async def _waited(self, endpoint: Endpoint, follow: Follow, seconds: float) -> Answer | None:
        def look() -> Answer | None:
            reply = follow.again()
            return None if reply is None else encoded(endpoint, reply)

        found = await self._watch.until(follow.subjects, look, seconds=seconds)
        if found is None and (late := follow.late) is not None:
            return await self._pools.run(Lane.READ, lambda: encoded(endpoint, late()))
        return found

    async def _upload(
        self,
        endpoint: Endpoint,
        call: Call[Any, Any],
        token: str,
        exchange: Exchange,
        receive: Receive,
    ) -> ASGIApp:
        """Take the body piece by piece, never as a whole.

        The endpoint is asked first, with no piece, whether it may be done at all; then once for
        every piece, and its last reply is the answer.
        """
        offset, whole = _span(exchange)

        def put(piece: Piece) -> _Done:
            return self._run(endpoint, structs.replace(call, body=piece), token)

        first = Piece(offset=offset, data=b"", whole=whole)
        done = await self._pools.run(Lane.SLOW, lambda: put(first))
        collected = bytearray()
        more = True
        while more:
            message = await self._piece_of_body(receive)
            gone = message["type"] == "http.disconnect"  # what came is kept, to go on from there
            if not gone:
                collected += cast("bytes", message.get("body", b""))
            more = not gone and bool(message.get("more_body"))
            if not more or len(collected) >= UPLOAD_PIECE_BYTES:
                piece = Piece(
                    offset=offset, data=bytes(collected), whole=whole, last=not more and not gone
                )
                collected.clear()
                offset += len(piece.data)
                done = await self._pools.run(Lane.SLOW, partial(put, piece))
        return await self._finished(endpoint, done, token, exchange, call.query, receive)

    async def _piece_of_body(self, receive: Receive) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._settings.body_seconds_max):
                return cast("dict[str, Any]", await receive())
        except TimeoutError as error:
            raise refuse(
                "bad_request",
                f"The body did not go on within {self._settings.body_seconds_max:.0f} s.",
                remedy="Ask with HEAD how much has arrived, and go on from there.",
            ) from error


def _span(exchange: Exchange) -> tuple[int, int | None]:
    """Read where the bytes of an upload begin, and how many the image has, where that is said."""
    said = exchange.header(b"upload-offset")
    ranged = exchange.header(b"content-range").strip()
    if not said and not ranged:
        length = exchange.header(b"content-length")
        return 0, int(length) if length.isdigit() else None
    matched = CONTENT_RANGE.fullmatch(ranged) if ranged else None
    if (ranged and matched is None) or (said and not re.fullmatch(r"[0-9]{1,15}", said)):
        raise refuse(
            "bad_request",
            "The header that says where the bytes begin is not well formed.",
            remedy="Send Upload-Offset: 1048576, or Content-Range: bytes 1048576-2097151/*.",
            field="Upload-Offset",
        )
    whole = None
    if matched is not None:
        said = said or matched[1] or matched[2].replace("*", "")
        whole = None if matched[2] == "*" else int(matched[2])
    return int(said or 0), whole


async def while_there(work: Coroutine[Any, Any, T | None], receive: Receive) -> T | None:
    """Return what the work comes to, or None as soon as nobody is there to take it."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def encoded(endpoint: Endpoint, reply: Reply) -> Answer:
    """Write the reply as bytes with its headers."""
    status = reply.status or endpoint.status
    if reply.text is not None:
        typed = any(name == b"content-type" for name, _ in reply.headers)
        return Answer(status, reply.text, (*reply.headers, *(() if typed else (TEXT,)), PRIVATE))
    if reply.value is None:
        return Answer(status, b"", reply.headers)
    body = ENCODER.encode(reply.value)
    headers: list[Header] = [JSON, *reply.headers]
    if not any(name == b"cache-control" for name, _ in reply.headers):
        headers.append(PRIVATE)
    if reply.version is not None:
        headers.append((b"etag", etag(reply.version, body)))
    if reply.operation:
        headers.append((b"operation-id", reply.operation.encode()))
    return Answer(status, body, tuple(headers))


def etag(version: int, body: bytes) -> bytes:
    """Return the ETag: the version for If-Match, a checksum for what else is shown."""
    return b'"%d-%08x"' % (version, zlib.crc32(body))


def fresh(answer: Answer, exchange: Exchange) -> Answer:
    """Answer 304 where the client has this very answer already."""
    said = exchange.headers.get(b"if-none-match")
    if not said or answer.status != 200:
        return answer
    tags = [value for name, value in answer.headers if name == b"etag"]
    if not tags:
        return answer
    have = [tag.strip().removeprefix(b"W/") for tag in said.split(b",")]
    if tags[0] in have:
        return Answer(304, b"", ((b"etag", tags[0]), PRIVATE))
    return answer


class _Kept(msgspec.Struct, frozen=True):
    """An answer as it is kept for those who repeat the request."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


def kept(answer: Answer) -> bytes:
    """Write an answer so that `replayed` can give it again."""
    return msgspec.msgpack.encode(_Kept(list(answer.headers), answer.body))


def replayed(status: int, data: bytes) -> Answer:
    """Give an answer again."""
    found = msgspec.msgpack.decode(data, type=_Kept)
    return Answer(status, found.body, (*found.headers, (b"idempotency-replayed", b"true")))


def unknown_path(name: str) -> Refused:
    """Say that this part of the address names nothing, whatever it is."""
    return refuse(
        "not_found",
        f"There is no such {name}, or you may not see it.",
        remedy=f"Check the spelling against the list of {name}s you can see.",
    )


def unauthenticated(said: str, *, login: bool = False) -> Refused:
    """Ask for credentials."""
    remedy = "Log in: stratus login, or send Authorization: Bearer with a token."
    return _challenged(Problem(code="unauthenticated", detail=said, remedy=remedy), login=login)


def _challenged(problem: Problem, *, login: bool) -> Refused:
    return DoorRefused(problem, headers=(CHALLENGE, CHALLENGE_BASIC) if login else (CHALLENGE,))


def _basic(text: str, address: str) -> Credentials:
    try:
        if len(text) > CREDENTIALS_CHARS_MAX:
            raise ValueError("too long")
        name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
        if not colon or "\0" in name or "\0" in password:
            raise ValueError("no colon, or NUL")
    except (binascii.Error, ValueError) as error:
        raise unauthenticated("The Basic credentials are not well formed.", login=True) from error
    return Credentials(name=name, password=password, address=address)
