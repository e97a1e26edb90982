"""What does the cloud say? Requests to /v1 with retries that are safe, and refusals as Trouble.

A cloud that has not answered yet is given up at once where nothing listens; one that was lost in
the middle is tried again for a while. Changes carry an Idempotency-Key, so a repeated one is done
once.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from stratus.cli.settings import Place, place_find
from stratus.cli.transport import Answer, Connection, Cut, Slow, Unreachable
from stratus.cli.trouble import Exit, Trouble, exit_of
from stratus.model.limits import PAGE_ROWS_MAX
from stratus.wire.problem import problem_decode

T = TypeVar("T")

ANSWER_SECONDS: Final = 30.0
TRIES_MAX: Final = 6
PAUSE_SECONDS_FIRST: Final = 0.2
PAUSE_SECONDS_MAX: Final = 5.0
BUSY_SECONDS_MAX: Final = 30.0  # longest Retry-After that we sit out
LIST_ROWS_MAX: Final = 10_000
JSON: Final = "application/json"
# Refusals that pass by themselves; the others of their kind need somebody to act.
PASSING: Final = frozenset({"rate_limited", "overloaded", "store_busy", "store_unreachable"})

Query = Mapping[str, str | int | bool | None]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """A list as the cloud sent it, part by part, not yet interpreted."""

    items: list[msgspec.Raw]
    next: str | None = None


class Client:
    """One conversation with one cloud as one user."""

    def __init__(
        self,
        place: Place,
        *,
        sleep: Callable[[float], None] = time.sleep,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.place = place
        self._sleep = sleep
        self._note = note
        self._connection = Connection(place.endpoint, ca_file=place.ca_file)
        self._authorization = f"Bearer {place.token}" if place.token else ""

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: msgspec.Struct | bytes | memoryview | None = None,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        once: bool = False,
        wait_seconds: float = 0,
    ) -> Answer:
        """Return a good answer; raise Trouble for a refusal or when none can be had.

        Repeats are safe because a change carries an Idempotency-Key; `once` forbids them where
        it would not be heeded.
        """
        sent = self._headers(headers, authorization)
        data: bytes | memoryview = b""
        if isinstance(body, msgspec.Struct):
            data = msgspec.json.encode(body)
            sent["Content-Type"] = JSON
        elif body is not None:
            data = body
        if method in ("POST", "PATCH", "DELETE") and not once:
            sent["Idempotency-Key"] = os.urandom(16).hex()
        target = target_of(path, query)
        tries = 1 if once else TRIES_MAX
        answer = self._answer(method, target, sent, data, tries, ANSWER_SECONDS + wait_seconds)
        if answer.status >= 300:
            raise self._refusal(answer)
        return answer

    def get(self, path: str, type_: type[T], *, query: Query | None = None) -> T:
        """Return one thing."""
        return decode(self.call("GET", path, query=query).body, type_)

    def rows(
        self, path: str, *, query: Query | None = None, rows_max: int = 0, paged: bool = True
    ) -> Rows:
        """Return a list, asking for part after part; `next` is set where `rows_max` cut it."""
        if not paged:
            whole = decode(self.call("GET", path, query=query).body, Rows)
            return Rows(items=whole.items[: rows_max or None], next=whole.next)
        asked = dict(query or {})
        limit = rows_max or LIST_ROWS_MAX
        items: list[msgspec.Raw] = []
        cursor: str | None = None
        while True:
            asked["limit"] = min(limit - len(items), PAGE_ROWS_MAX)
            asked["cursor"] = cursor
            page = decode(self.call("GET", path, query=asked).body, Rows)
            items += page.items
            if page.next is None or len(items) >= limit or page.next == cursor:
                return Rows(items=items, next=page.next)
            cursor = page.next

    def pages(self, path: str, *, query: Query | None = None) -> Iterator[Rows]:
        """Yield a list part by part, to its end."""
        asked = dict(query or {})
        asked["limit"] = PAGE_ROWS_MAX
        cursor: str | None = None
        while True:
            page = decode(self.call("GET", path, query={**asked, "cursor": cursor}).body, Rows)
            yield page
            if page.next is None or page.next == cursor:
                return
            cursor = page.next

    def items(self, path: str, type_: type[T], *, query: Query | None = None) -> list[T]:
        """Return the things of a list."""
        return [decode(raw, type_) for raw in self.rows(path, query=query).items]

    def stream(
        self, path: str, *, query: Query | None, headers: Mapping[str, str], idle_seconds: float
    ) -> Iterator[bytes]:
        """Yield the bytes of an answer as they come; Cut or Unreachable when it breaks."""
        sent = self._headers(headers, None)
        parts = self._connection.stream(
            "GET", target_of(path, query), headers=sent, timeout_seconds=idle_seconds
        )
        head = next(parts)
        assert isinstance(head, Answer)
        if head.status >= 300:
            body = b"".join(part for part in parts if isinstance(part, bytes))
            raise self._refusal(msgspec.structs.replace(head, body=body))
        return (part for part in parts if isinstance(part, bytes))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def unanswered(self, error: Unreachable | Cut) -> Trouble:
        """Say that the cloud does not answer, and what can be done."""
        place = self.place
        here = (urlsplit(place.endpoint).hostname or "") in ("127.0.0.1", "localhost", "::1")
        remedy = (
            "See whether it runs: stratus status (start it: stratus up)."
            if here
            else "Check the address and the network, or ask the administrator of the cloud."
        )
        where = f" ({place.source})" if place.source else ""
        return Trouble(
            Exit.UNAVAILABLE,
            f"The cloud at {place.endpoint}{where} does not answer: {error}.",
            remedy=remedy,
            code="unreachable",
        )

    def _headers(
        self, headers: Mapping[str, str] | None, authorization: str | None
    ) -> dict[str, str]:
        sent = {
            "Accept": "application/json, application/problem+json",
            "User-Agent": "stratus-cli",
            "X-Request-Id": "req-" + os.urandom(8).hex(),
        }
        if said := self._authorization if authorization is None else authorization:
            sent["Authorization"] = said
        sent.update(headers or {})
        return sent

    def _answer(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        data: bytes | memoryview,
        tries: int,
        timeout_seconds: float,
    ) -> Answer:
        pause = PAUSE_SECONDS_FIRST
        for left in range(tries - 1, -1, -1):
            wait = pause
            try:
                answer = self._connection.ask(
                    method, target, headers=headers, body=data, timeout_seconds=timeout_seconds
                )
                busy = _busy_seconds(
                    answer, repeated=left < tries - 1 and "Idempotency-Key" in headers
                )
                if busy is None or busy > BUSY_SECONDS_MAX or left == 0:
                    return answer
                wait, said = max(busy, pause), "The cloud is busy"
            except Unreachable as error:
                if left == 0 or not self._connection.answered:
                    raise self.unanswered(error) from error
                said = "The cloud does not answer"
            except Slow as error:
                raise self._slow(error, headers) from error
            except Cut as error:
                if left == 0:
                    raise self.unanswered(error) from error
                said = "The connection broke"
            # The first repeat is silent: a kept connection may end at any moment.
            if self._note is not None and pause > PAUSE_SECONDS_FIRST:
                self._note(f"{said}; trying again in {wait:.1f} s.")
            self._sleep(wait)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
        raise AssertionError("the last try returns or raises")

    def _slow(self, error: Slow, headers: Mapping[str, str]) -> Trouble:
        return Trouble(
            Exit.UNAVAILABLE,
            f"The cloud at {self.place.endpoint} gave no answer in time: {error}.",
            remedy="Look whether the request was carried out before you repeat it.",
            code="unreachable",
            request_id=headers.get("X-Request-Id", ""),
        )

    def _refusal(self, answer: Answer) -> Trouble:
        request_id = answer.headers.get("x-request-id", "")
        said = problem_decode(answer.body)
        if said is None:
            return Trouble(
                exit_of("", answer.status),
                f"{self.place.endpoint} answered with HTTP status {answer.status}, "
                "but not in the words of StratusLab.",
                remedy="Check that the address is that of a StratusLab cloud.",
                request_id=request_id,
            )
        exit_ = exit_of(said.code, answer.status)
        remedy = said.remedy
        if exit_ is Exit.LOGIN and not self._authorization:
            remedy = f"stratus login {self.place.endpoint}"
        return Trouble(
            exit_,
            said.detail,
            remedy=remedy,
            code=said.code,
            request_id=said.request_id or request_id,
        )


def client_open(note: Callable[[str], None] | None = None) -> Client:
    """Open a conversation with the cloud that settings and environment name."""
    return Client(place_find(os.environ), note=note)


def target_of(path: str, query: Query | None = None) -> str:
    """Join path and query; parameters without a value are left out."""
    pairs = {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in (query or {}).items()
        if value not in (None, "", False)
    }
    return path + ("?" + urlencode(pairs) if pairs else "")


def part(text: str) -> str:
    """Make a name or id fit for one part of a path."""
    # A lone dot or two would be taken as steps through the path.
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Read an answer; a Trouble where it is not what this client knows."""
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Trouble(
            Exit.UNAVAILABLE,
            f"The cloud's answer is not what this client expects: {error}.",
            remedy="Use a client of the same release as the cloud (stratus version shows both).",
            code="unreadable",
        ) from error


def _busy_seconds(answer: Answer, *, repeated: bool) -> float | None:
    """How long to wait before asking again; None where asking again would not help."""
    if answer.status not in (409, 429, 502, 503, 504):
        return None
    said = problem_decode(answer.body)
    if said is None:
        # Not our words: a proxy before a cloud that is being restarted.
        return None if answer.status == 409 else 0.0
    # A repeated request may meet its own first try, still being carried out.
    under_way = repeated and said.code == "conflict"
    if said.code not in PASSING and not under_way:
        return None
    after = answer.headers.get("retry-after", "")
    return float(after) if after.isdigit() else 0.0
