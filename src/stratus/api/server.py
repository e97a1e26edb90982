"""How does the door get onto the network? uvicorn in a thread, started and stopped from outside.

The composition root owns the main thread and the signals. Addresses are bound before the thread
starts, so that a port in use is refused in words, and port 0 is known at once.
"""

import asyncio
import logging
import os
import socket
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stratus.api.app import Api
from stratus.api.settings import ApiSettings
from stratus.api.streams import ABORT
from stratus.model.problem import Problem, refuse
from stratus.wire.problem import MEDIA_TYPE, problem_encode

LOG: Final = structlog.get_logger("stratus.api")
BACKLOG: Final = 2048
START_SECONDS_MAX: Final = 10.0
STOP_SLACK_SECONDS: Final = 3.0  # beyond the time that requests under way are given
HEADER_EXTRA_BYTES: Final = 4  # colon, space, and the end of the line
SOCKET_MODE: Final = 0o660


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with bounds on what comes before a request is a request.

    The place for client certificates: a transport with TLS gives its peer's chain in
    `connection_made`, and `on_message_begin` can hand it to the application in the scope.
    """

    bounds: ApiSettings = ApiSettings()
    _head_bytes = 0  # of the present head, as parsed
    _read_bytes = 0  # since it began
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  # uvicorn's
        """Take the connection, unless there are too many, and give it time for a request."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections_max:
            self._refuse_raw(
                Problem(
                    code="overloaded",
                    detail="There are too many connections.",
                    remedy="Close connections you do not need, then try again.",
                ),
                503,
            )
            return
        self._head_timer = self.loop.call_later(self.bounds.head_seconds_max, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._head_timer_stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, as long as the head of a request is not too long."""
        if self._in_head:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(
                    self.bounds.head_seconds_max, self._head_late
                )
            # What the parser holds of a head that does not end.
            self._read_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._read_bytes > 2 * self.bounds.head_bytes_max:
            self._head_too_long()

    def on_url(self, url: bytes) -> None:
        """Take (a part of) the address."""
        self._head_count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._head_count(len(name) + len(value))
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: self.transport.abort}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        """The head is complete: the application's own limits hold from here."""
        self._in_head = False
        self._head_timer_stop()
        try:
            super().on_headers_complete()
        except ValueError:  # an address that is no ASCII
            self.send_400_response("")

    def on_message_complete(self) -> None:
        """Whatever comes next begins with a head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = self._read_bytes = 0

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's
        """Say in our words that this is no HTTP."""
        if self._head_bytes > self.bounds.head_bytes_max:
            self._head_too_long()
            return
        self._refuse_raw(
            Problem(
                code="bad_request",
                detail="This is not a well-formed HTTP/1.1 request.",
                remedy="Check address and headers; the API speaks HTTP/1.1 here.",
            ),
            400,
        )

    def _head_count(self, size: int) -> None:
        self._head_bytes += size + HEADER_EXTRA_BYTES
        if self._head_bytes > self.bounds.head_bytes_max:
            raise ValueError("the head is too long")  # the parser stops and calls us back

    def _head_too_long(self) -> None:
        self._refuse_raw(
            Problem(
                code="bad_request",
                detail="The request line and headers are too long.",
                remedy=f"Keep them under {self.bounds.head_bytes_max} bytes.",
            ),
            431,
        )

    def _head_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _head_timer_stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_raw(self, problem: Problem, status: int) -> None:
        if self.transport.is_closing():
            return
        body = problem_encode(problem)
        reason = {400: "Bad Request", 431: "Request Header Fields Too Large"}.get(status, "Busy")
        head = (
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class ApiServer:
    """One API on its addresses, in a thread of its own."""

    def __init__(self, api: Api, sockets: Sequence[socket.socket], paths: Sequence[Path]) -> None:
        self._api = api
        self._sockets = list(sockets)
        self._paths = list(paths)
        settings = api.settings
        protocol = type("BoundedProtocol", (Protocol,), {"bounds": settings})
        config = uvicorn.Config(
            api,
            loop="uvloop",
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=int(settings.stop_seconds_max) or 1,
        )
        self._server = uvicorn.Server(config)
        self._failed: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="api-http", daemon=True)

    @property
    def addresses(self) -> list[str]:
        """Where it can be reached: http://host:port, or unix:/path."""
        found = []
        for sock in self._sockets:
            name = sock.getsockname() if sock.fileno() >= 0 else None
            if isinstance(name, tuple):
                host = f"[{name[0]}]" if ":" in name[0] else name[0]
                found.append(f"http://{host}:{name[1]}")
        return [*found, *(f"unix:{path}" for path in self._paths)]

    def start(self) -> None:
        """Return when requests are taken; the exception where that fails."""
        self.addresses_at_start = self.addresses
        self._thread.start()
        self._started.wait(START_SECONDS_MAX)
        if self._failed is not None:
            raise self._failed
        assert self._server.started, "the HTTP server did not start"
        LOG.info("api listens", addresses=self.addresses_at_start)

    @property
    def running(self) -> bool:
        """Whether the thread is still at work."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take no more requests, let those under way finish in bounded time, and return."""
        self._api.closing()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(self._api.settings.stop_seconds_max + STOP_SLACK_SECONDS)
        if self._thread.is_alive():  # pragma: no cover  # a last resort
            self._server.force_exit = True
            self._thread.join(STOP_SLACK_SECONDS)
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            self._loop_run()
        except BaseException as error:  # handed to whoever waits in start
            self._failed = error
            LOG.exception("the HTTP server ended")
        finally:
            self._started.set()

    def _loop_run(self) -> None:
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
        finally:
            loop.close()

    async def _serve(self) -> None:
        serving = asyncio.ensure_future(self._server.serve(sockets=self._sockets))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        self._started.set()
        await serving


def server_make(
    api: Api,
    *,
    host: str = "",
    port: int = 0,
    unix: Path | None = None,
) -> ApiServer:
    """Bind the addresses and return the server, not yet started.

    `host` "" means no TCP; `port` 0 lets the system choose. A unix socket is for this user and
    group only. Refused (machine_unfit) with the reason where an address cannot be had.
    """
    assert host or unix, "an API needs an address"
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    sockets: list[socket.socket] = []
    paths: list[Path] = []
    try:
        if host:
            sockets.append(_tcp_bind(host, port))
        if unix is not None:
            sockets.append(_unix_bind(unix))
            paths.append(unix)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return ApiServer(api, sockets, paths)


def _tcp_bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _bind_refused(f"{host}:{port}", error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_refused(f"{host}:{port}", error) from error
    sock.setblocking(False)
    return sock


def _unix_bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A socket nobody listens at was left by a process that was killed.
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
                path.unlink()
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_refused(str(path), error) from error
    sock.setblocking(False)
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _bind_refused(where: str, error: OSError) -> Exception:
    return refuse(
        "machine_unfit",
        f"The API cannot listen at {where}: {error.strerror or error}.",
        remedy="Choose another address, or stop what uses this one.",
        address=where,
    )
