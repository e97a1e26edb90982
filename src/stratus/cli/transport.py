"""How do one HTTP request and its answer cross the network? One kept connection, no ceremony.

httptools reads the answers. Measured on the reference machine, importing httpx costs 220 ms and
http.client 40 ms of a budget of 200 ms for the whole command; this costs 15 ms.
"""

import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec
from httptools import HttpParserError, HttpResponseParser

CONNECT_SECONDS: Final = 5.0
READ_BYTES: Final = 256 * 1024
HEAD_BYTES_MAX: Final = 256 * 1024
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024


class Unreachable(Exception):
    """No connection came about: nothing was sent."""


class Cut(Exception):
    """The connection broke before the answer was complete; the request may have been heard."""


class Slow(Cut):
    """The answer did not come in time; the request may have been heard."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One complete answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Reader:
    """Collects what httptools finds in the bytes of one answer."""

    def __init__(self, *, head_only: bool) -> None:
        self.parser = HttpResponseParser(self)
        self.head_only = head_only
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.head_done = False
        self.done = False
        self.keep = False
        self.head_bytes = 0
        self.body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.head_bytes += len(key) + len(text)
        if self.head_bytes > HEAD_BYTES_MAX:
            raise Cut("the answer's head is too large")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status < 200:
            return
        self.head_done = True
        self.keep = self.parser.should_keep_alive()
        if self.head_only:
            self.done = True

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        if self.status < 200:  # 100 Continue and the like: the answer proper follows
            self.headers.clear()
            return
        self.done = True

    @property
    def ends_with_connection(self) -> bool:
        """The answer's length is not said: it lasts until the server hangs up."""
        return (
            self.head_done
            and "content-length" not in self.headers
            and "chunked" not in self.headers.get("transfer-encoding", "").lower()
        )


class Connection:
    """A connection to one cloud, opened when needed and kept between requests."""

    def __init__(self, endpoint: str, *, ca_file: str = "") -> None:
        parts = urlsplit(endpoint)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.prefix = parts.path.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.host_header = f"{host}:{parts.port}" if parts.port else host
        self.ca_file = ca_file
        self.answered = False  # this cloud has answered at least once
        self._socket: socket.socket | None = None

    def ask(
        self,
        method: str,
        target: str,
        *,
        headers: dict[str, str],
        body: bytes | memoryview,
        timeout_seconds: float,
    ) -> Answer:
        """Send one request and return its complete answer."""
        reader = self._send(method, target, headers, body, timeout_seconds)
        while not reader.done:
            self._feed(reader, timeout_seconds)
            if reader.body_bytes > ANSWER_BYTES_MAX:
                self.close()
                raise Cut("the answer is too large")
        if not reader.keep or reader.ends_with_connection:
            self.close()
        return Answer(status=reader.status, headers=reader.headers, body=b"".join(reader.chunks))

    def stream(
        self, method: str, target: str, *, headers: dict[str, str], timeout_seconds: float
    ) -> Iterator[Answer | bytes]:
        """Send one request; yield the answer's head first, then its body as it comes."""
        reader = self._send(method, target, headers, b"", timeout_seconds)
        try:
            while not reader.head_done:
                self._feed(reader, timeout_seconds)
            yield Answer(status=reader.status, headers=reader.headers, body=b"")
            while True:
                if reader.chunks:
                    data, reader.chunks = b"".join(reader.chunks), []
                    yield data
                if reader.done:
                    return
                self._feed(reader, timeout_seconds)
        finally:
            self.close()

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | memoryview,
        timeout_seconds: float,
    ) -> _Reader:
        if self._socket is None:
            self._socket = self._connect()
        self._socket.settimeout(timeout_seconds)
        lines = [f"{method} {self.prefix}{target} HTTP/1.1", f"Host: {self.host_header}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines)
        assert head.count("\n") == len(lines) - 1, "a header must not contain a line break"
        wire = head.encode("latin-1") + b"\r\n\r\n"
        try:
            if len(body) <= READ_BYTES:
                self._socket.sendall(wire + bytes(body))
            else:
                self._socket.sendall(wire)
                self._socket.sendall(body)
        except TimeoutError as error:
            self.close()
            raise Slow("the cloud did not take the request in time") from error
        except OSError as error:
            # It may have refused the body and said why before it hung up: read that first.
            if (
                not isinstance(error, (BrokenPipeError, ConnectionResetError))
                or len(body) <= READ_BYTES
            ):
                self.close()
                raise Cut(str(error)) from error
        return _Reader(head_only=method == "HEAD")

    def _connect(self) -> socket.socket:
        try:
            made = _connected(self.host, self.port)
        except TimeoutError as error:
            raise Unreachable("no connection within 5 s") from error
        except socket.gaierror as error:
            raise Unreachable(f"the name {self.host} is not known") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(getattr(error, "strerror", None) or str(error)) from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._secured(made) if self.secure else made

    def _secured(self, plain: socket.socket) -> socket.socket:
        import ssl  # only for https: 10 ms

        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            plain.close()
            raise Unreachable(f"the CA file {self.ca_file} cannot be used: {error}") from error
        try:
            return context.wrap_socket(plain, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise Unreachable(f"its certificate is not trusted: {error.verify_message}") from error
        except OSError as error:
            plain.close()
            raise Unreachable(f"no TLS connection: {error}") from error

    def _feed(self, reader: _Reader, timeout_seconds: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(timeout_seconds)
        try:
            data = self._socket.recv(READ_BYTES)
        except TimeoutError as error:
            self.close()
            raise Slow(f"no answer within {timeout_seconds:.0f} s") from error
        except OSError as error:
            self.close()
            raise Cut(str(error)) from error
        if not data:
            self.close()
            if reader.ends_with_connection:
                reader.done = True
                return
            raise Cut("the connection was closed in the middle of the answer")
        try:
            reader.parser.feed_data(data)
        except HttpParserError as error:
            self.close()
            raise Cut(f"the answer is not HTTP: {error}") from error
        self.answered = True


def _connected(host: str, port: int) -> socket.socket:
    """Connect to the first address of the name that takes us."""
    # As bytes, because text would load the tables of international names: 3 ms.
    name = host.encode() if host.isascii() else host
    refused: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        made.settimeout(CONNECT_SECONDS)
        try:
            made.connect(address)
        except OSError as error:
            made.close()
            refused = error
        else:
            return made
    raise refused or OSError(f"{host} has no address")
