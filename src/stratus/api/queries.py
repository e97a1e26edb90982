"""Which parameters do addresses take? One struct each; unknown parameters are refused."""

from typing import Annotated

from msgspec import Meta

from stratus.api.decode import REFERENCE_PATTERN
from stratus.model import limits
from stratus.wire.v1 import END, PAGE_CURSOR_CHARS_MAX, Body, Name

Limit = Annotated[
    int, Meta(ge=1, le=limits.PAGE_ROWS_MAX, description="How many items the page may have")
]
Cursor = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=PAGE_CURSOR_CHARS_MAX,
        description="`next` of the page before; leave it out for the first page",
    ),
]
Wait = Annotated[
    float,
    Meta(
        ge=0,
        le=limits.WAIT_SECONDS_MAX,
        description="Answer when it has come true, or after so many seconds",
    ),
]
Ref = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=f"^{REFERENCE_PATTERN.pattern}{END}",
        description="Id or name",
    ),
]


class PageQuery(Body, frozen=True):
    """Which part of a list."""

    limit: Limit = limits.PAGE_ROWS_DEFAULT
    cursor: Cursor | None = None


class WaitQuery(Body, frozen=True):
    """Whether to wait."""

    wait: Wait = 0.0


class ProjectQuery(PageQuery, frozen=True):
    """Which projects."""

    all_projects: bool = False


class TokenQuery(PageQuery, frozen=True):
    """Whose tokens."""

    user: Ref | None = None


class InstanceQuery(PageQuery, frozen=True):
    """Which instances."""

    project: Ref | None = None
    host: Ref | None = None
    name: Name | None = None
    all_projects: bool = False


class InstanceCreateQuery(WaitQuery, frozen=True):
    """Whether to create them, or only to say what would happen."""

    dry_run: bool = False


class ImageQuery(PageQuery, frozen=True):
    """Which images."""

    project: Ref | None = None
    name: Name | None = None
    all_projects: bool = False


class ConsoleQuery(Body, frozen=True):
    """How much of the console."""

    bytes: Annotated[int, Meta(ge=1, le=limits.CONSOLE_BYTES_MAX)] = 64 * 1024


class EventQuery(PageQuery, frozen=True):
    """Which events."""

    project: Ref | None = None
    subject: Ref | None = None
    after: Cursor | None = None
