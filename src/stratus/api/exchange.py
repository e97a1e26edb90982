"""What do we know of one request before anybody decodes it? Made by the gate, one per request."""

import hashlib
import re
from collections.abc import Callable
from typing import Final, cast

from litestar.types import Scope

REQUEST_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
WANTED: Final = frozenset(
    {
        b"accept",
        b"authorization",
        b"content-length",
        b"content-range",
        b"content-type",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"last-event-id",
        b"upload-offset",
        b"x-request-id",
    }
)
KEY: Final = "stratus"


class Exchange:
    """One request and what is learned about it on the way; mutable, one task at a time."""

    __slots__ = (
        "address",
        "caller",
        "headers",
        "request_id",
        "route",
        "sent_bytes",
        "started",
        "status",
        "user",
    )

    def __init__(self, scope: Scope, *, started: float, id_new: Callable[[], str]) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in WANTED:
                headers[name] = value
        self.headers = headers
        said = self.header(b"x-request-id")
        self.request_id = said if REQUEST_ID_PATTERN.fullmatch(said) else id_new()
        client = scope.get("client")
        self.address = client[0] if client else "local"
        self.started = started
        self.route = ""  # the template, once it is known
        self.user = ""
        self.status = 0
        self.sent_bytes = 0
        secret = headers.get(b"authorization")
        # Only a digest of the credentials is kept as a key.
        self.caller = hashlib.sha256(secret).digest() if secret else b""

    def header(self, name: bytes) -> str:
        """Return a header as text; "" where it is missing."""
        return self.headers.get(name, b"").decode("latin-1")


def exchange_of(scope: Scope) -> Exchange:
    """Return what the gate made of this request."""
    return cast("dict[str, Exchange]", scope)[KEY]
