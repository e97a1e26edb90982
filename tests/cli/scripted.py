"""A server that does exactly what a test says, byte by byte: for faults no real API shows."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec

Act = Callable[[socket.socket, "Asked"], bool]  # True keeps the connection for the next request


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """Listens on a port of its own; answers request after request as the script says."""

    script: list[Act]
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    @property
    def endpoint(self) -> str:
        """The address for the command line."""
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while self.script:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                while self.script and self._one(peer):
                    pass

    def _one(self, peer: socket.socket) -> bool:
        asked = _read(peer)
        if asked is None:
            return False
        self.asked.append(asked)
        act = self.script.pop(0)
        return act(peer, asked)


def _read(peer: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = peer.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += peer.recv(65536)
    method, target, _ = first.split(" ")
    return Asked(method=method, target=target, headers=headers, body=body)


def answer(status: int, body: object = None, *, close: bool = False, **headers: str) -> Act:
    """Answer properly, with a JSON body."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if close:
        lines.append("Connection: close")
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + data, keep=not close)


def raw(data: bytes, *, keep: bool = False) -> Act:
    """Answer with these bytes."""

    def act(peer: socket.socket, asked: Asked) -> bool:  # noqa: ARG001
        peer.sendall(data)
        return keep

    return act


def cut(peer: socket.socket, asked: Asked) -> bool:  # noqa: ARG001  # the signature of an act
    """Hang up without a word."""
    return False


def slow(released: threading.Event) -> Act:
    """Say nothing until the test ends."""

    def act(peer: socket.socket, asked: Asked) -> bool:  # noqa: ARG001
        released.wait(30)
        return False

    return act


def problem(code: str, detail: str, remedy: str, status: int) -> dict[str, object]:
    """The body of a refusal."""
    return {
        "type": f"urn:stratus:problem:{code}",
        "title": "",
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
        "request_id": "req-test",
    }


def relay(endpoint: str, *, heard: bool) -> Act:
    """Hand the bytes of this request to a real server; `heard` False cuts its answer off."""
    host, port = endpoint.removeprefix("http://").split(":")

    def act(peer: socket.socket, asked: Asked) -> bool:
        with socket.create_connection((host, int(port))) as behind:
            head = "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
            first = f"{asked.method} {asked.target} HTTP/1.1\r\n"
            behind.sendall(f"{first}Connection: close\r\n{head}\r\n".encode() + asked.body)
            while data := behind.recv(65536):
                if heard:
                    peer.sendall(data)
        return False

    return act
