"""What goes back over HTTP? Status, headers and bytes, written once and sent as they are."""

from typing import Final

from litestar.types import Receive, Scope, Send

from stratus.model.problem import Problem, Refused
from stratus.wire.problem import MEDIA_TYPE, problem_encode, status_of

Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")
TEXT: Final[Header] = (b"content-type", b"text/plain; charset=utf-8")
PROBLEM: Final[Header] = (b"content-type", MEDIA_TYPE.encode())
NO_STORE: Final[Header] = (b"cache-control", b"no-store")
PRIVATE: Final[Header] = (b"cache-control", b"private, no-cache")
NOSNIFF: Final[Header] = (b"x-content-type-options", b"nosniff")
CHALLENGE: Final[Header] = (b"www-authenticate", b'Bearer realm="stratus"')
CHALLENGE_BASIC: Final[Header] = (
    b"www-authenticate",
    b'Basic realm="stratus", charset="UTF-8"',
)


class DoorRefused(Refused):
    """A refusal of the door itself, with what HTTP says besides the problem."""

    def __init__(
        self,
        problem: Problem,
        *,
        headers: tuple[Header, ...] = (),
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(problem)
        self.headers = headers
        self.retry_seconds = retry_seconds


class Answer:
    """A whole answer in memory; an ASGI application that sends itself."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", headers: tuple[Header, ...] = ()) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI
        """Send it; to HEAD without the body."""
        headers = [NOSNIFF, *self.headers]
        # 204 and 304 have no body and no length.
        if self.status not in (204, 304):
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else self.body  # type: ignore[typeddict-item]  # http only
        await send({"type": "http.response.body", "body": body, "more_body": False})


def problem_answer(
    problem: Problem,
    *,
    request_id: str,
    retry_seconds: float | None = None,
    headers: tuple[Header, ...] = (),
) -> Answer:
    """Say no: problem+json with its status, and when to come back where that helps."""
    status = status_of(problem.code)
    made: list[Header] = [PROBLEM, NO_STORE, *headers]
    if status == 401 and not any(name == b"www-authenticate" for name, _ in headers):
        made.append(CHALLENGE)
    if retry_seconds is None and status in (429, 503):
        retry_seconds = 1
    if retry_seconds is not None:
        made.append((b"retry-after", str(max(1, round(retry_seconds + 0.5))).encode()))
    return Answer(status, problem_encode(problem, request_id=request_id), tuple(made))
