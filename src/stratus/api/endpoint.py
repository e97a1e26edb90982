"""What is one address of the API? Its method, path, structs and the function that answers.

The same table makes the routes, the rights to ask at all, and the OpenAPI document.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from stratus.api.answer import Header
from stratus.api.names import NameBook
from stratus.api.pools import Lane
from stratus.api.settings import ApiSettings
from stratus.control.world import Origin, World
from stratus.model.event import Event
from stratus.model.instance import InstanceFacts
from stratus.model.tenancy import Actor
from stratus.wire.v1 import Body, ReadyPart

B = TypeVar("B", bound=msgspec.Struct)
Q = TypeVar("Q", bound=msgspec.Struct)


class NoBody(Body, frozen=True):
    """Nothing needs to be said; an empty body or `{}`."""


class RawBody(Body, frozen=True):
    """The body as it came, for documents whose very bytes count."""

    data: bytes


class NoQuery(Body, frozen=True):
    """No parameters."""


class Uploads(Protocol):
    """Where the bytes of uploaded images are collected."""

    def size(self, image_id: str) -> int:
        """Return how many bytes of this image are there; 0 where none are."""
        ...

    def append(self, image_id: str, offset: int, data: bytes) -> int:
        """Add bytes at the end, which must be at `offset`; return the new size.

        Refused (conflict) where the end is elsewhere, (no_space) where the disk is full.
        """
        ...


Console = Callable[[InstanceFacts, int], bytes]  # the last so many bytes of its console
Ready = Callable[[], Sequence[ReadyPart]]
Figures = Callable[[], Sequence["Figure"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number for /metrics that the composition root knows."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What endpoints stand on besides the world."""

    settings: ApiSettings
    console: Console
    uploads: Uploads
    ready: Ready
    metrics: Callable[[], bytes]
    openapi: Callable[[], bytes]
    names: NameBook


class Access(StrEnum):
    """Who may ask at all; what they get is for control to decide."""

    NONE = "none"
    TOKEN = "token"  # noqa: S105  # a word, not a secret
    LOGIN = "login"  # a token, or name and password


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Name and password as HTTP Basic brought them."""

    name: str
    password: str = field(repr=False)
    address: str


class Piece(Body, frozen=True):
    """Some bytes of an upload and where they belong; none when it is only asked for leave."""

    offset: int
    data: bytes
    whole: int | None  # bytes of the whole image, where the client said
    last: bool = False  # the body ended with this piece, as it should


class Call(msgspec.Struct, Generic[B, Q], frozen=True, kw_only=True):
    """One request, decoded: all that a function needs to answer it."""

    world: World
    services: Services
    actor: Actor
    origin: Origin
    params: dict[str, str]
    query: Q
    body: B
    version: int | None = None  # from If-Match
    stream: bool = False  # the client asks for text/event-stream
    last_event_id: str = ""
    credentials: Credentials | None = None


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """How to tell whether a change has come true: look again when one of these has an event."""

    subjects: tuple[str, ...]
    again: Callable[[], "Reply | None"]  # None: not yet
    late: Callable[[], "Reply"] | None = None  # the answer when time is over; else the first one


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a stream carries."""

    after: str
    mine: Callable[[Event], bool]
    page: Callable[[str, int], Sequence[Event]]  # events after a cursor, at most so many


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What to answer: a value to encode, or text; with the version it was shown at."""

    value: object = None
    text: bytes | None = None
    status: int | None = None  # the endpoint's where not said
    version: int | None = None
    operation: str = ""
    headers: tuple[Header, ...] = ()
    follow: Follow | None = None
    stream: Stream | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One address: what it takes, what it answers, and how."""

    method: str
    path: str  # with {name} for its parts
    name: str  # operationId
    tag: str
    title: str
    about: str
    run: Callable[[Call[Any, Any]], Reply]
    body: type[msgspec.Struct] | None
    query: type[msgspec.Struct]
    answer: Any  # a type, or None where there is no JSON answer
    status: int
    others: tuple[tuple[int, Any], ...]  # other good answers: status and type
    lane: Lane
    access: Access
    codes: tuple[str, ...]  # problems particular to it, for the documentation
    keyed: bool  # may be repeated under an Idempotency-Key
    matched: bool  # honours If-Match
    media: str  # of the answer
    also: tuple[str, ...]  # other media of the answer
    uploads: bool  # the body is bytes, taken piece by piece

    @property
    def parts(self) -> tuple[str, ...]:
        """The names within the path."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def endpoint(
    method: str,
    path: str,
    *,
    tag: str,
    title: str,
    answer: Any = None,  # noqa: ANN401  # any type form
    body: type[B] = NoBody,  # type: ignore[assignment]  # B is NoBody then
    query: type[Q] = NoQuery,  # type: ignore[assignment]  # Q is NoQuery then
    status: int = 200,
    others: tuple[tuple[int, Any], ...] = (),
    lane: Lane | None = None,
    access: Access = Access.TOKEN,
    codes: tuple[str, ...] = (),
    keyed: bool | None = None,
    matched: bool = False,
    media: str = "application/json",
    also: tuple[str, ...] = (),
    uploads: bool = False,
) -> Callable[[Callable[[Call[B, Q]], Reply]], Endpoint]:
    """Make the function below it the answer of this address; its docstring is documentation."""
    changes = method in CHANGES

    def made(run: Callable[[Call[B, Q]], Reply]) -> Endpoint:
        return Endpoint(
            method=method,
            path=path,
            name=run.__name__,
            tag=tag,
            title=title,
            about=" ".join((run.__doc__ or "").split()),
            run=run,
            body=body if changes and not uploads else None,
            query=query,
            answer=answer,
            status=status,
            others=others,
            lane=lane or (Lane.WRITE if changes else Lane.READ),
            access=access,
            codes=codes,
            keyed=(method in ("POST", "PATCH", "DELETE")) if keyed is None else keyed,
            matched=matched,
            media=media,
            also=also,
            uploads=uploads,
        )

    return made
