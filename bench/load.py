"""How is HTTP asked quickly? A keep-alive client for measuring, far cheaper than the server."""

import asyncio
import re
from collections.abc import Mapping
from typing import Final

LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
END: Final = b"\r\n\r\n"


class Link(asyncio.Protocol):
    """One connection with one request under way at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = bytearray()
        self._body_at = 0
        self._whole = 0  # 0: the head is not complete yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        buffer = self._buffer
        buffer += data
        if not self._whole:
            end = buffer.find(END)
            if end < 0:
                return
            length = LENGTH.search(buffer, 0, end)
            self._body_at = end + len(END)
            self._whole = self._body_at + (int(length[1]) if length else 0)
        if len(buffer) >= self._whole:
            status, body = int(buffer[9:12]), bytes(buffer[self._body_at : self._whole])
            del buffer[: self._whole]
            self._whole = 0
            assert self._answer is not None
            self._answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server hung up"))

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; the answer is a status and a body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


async def link_open(port: int) -> Link:
    """Connect to a server on this machine."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(Link, "127.0.0.1", port)
    return link


def request_bytes(
    method: str,
    target: str,
    *,
    token: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Write a request once, to be sent often."""
    lines = [f"{method} {target} HTTP/1.1", "host: bench", f"authorization: Bearer {token}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + END + body
