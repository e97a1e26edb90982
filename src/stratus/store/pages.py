"""How is a long list handed out in pieces? By key, never by counting rows."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Select, tuple_
from sqlalchemy.sql import ColumnElement

from stratus.model.limits import PAGE_ROWS_MAX
from stratus.model.page import Page
from stratus.model.problem import Refused, refuse
from stratus.store.rows import AnyRow

T = TypeVar("T")

CURSOR_CHARS_MAX: Final = 512
INTEGER_MAX: Final = (1 << 63) - 1  # what a column can hold

Key = tuple[str | int, ...]


def cursor_text(key: Key) -> str:
    """Wrap the key of the last row; readers hand it back unread."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode("ascii")


def cursor_key(text: str, kinds: Sequence[type[str] | type[int]]) -> Key:
    """Unwrap a cursor into values of exactly these kinds, or refuse it."""
    try:
        if len(text) > CURSOR_CHARS_MAX:
            raise _cursor_refused()
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        key = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, msgspec.DecodeError) as error:
        raise _cursor_refused() from error
    if not isinstance(key, list) or [type(value) for value in key] != list(kinds):
        raise _cursor_refused()
    if any(abs(value) > INTEGER_MAX if isinstance(value, int) else "\0" in value for value in key):
        raise _cursor_refused()
    return tuple(key)


def _cursor_refused() -> Refused:
    return refuse(
        "invalid_field",
        "The cursor is not one that this list gave out.",
        remedy="Begin the list again without a cursor.",
        field="cursor",
    )


def rows_bounded(rows_max: int) -> int:
    """Keep a page within the hard maximum and at least one row long."""
    return max(1, min(rows_max, PAGE_ROWS_MAX))


def page_make(items: Sequence[T], *, rows_max: int, key_of: Callable[[T], Key]) -> Page[T]:
    """Make the page from up to `rows_max` + 1 items: the one too many says that more follow."""
    bound = rows_bounded(rows_max)
    if len(items) <= bound:
        return Page(items=tuple(items))
    kept = tuple(items[:bound])
    return Page(items=kept, next=cursor_text(key_of(kept[-1])))


def page_fetch(
    connection: Connection,
    query: Select[*tuple[Any, ...]],
    keys: Sequence[ColumnElement[Any]],
    *,
    cursor: str | None,
    rows_max: int,
    make: Callable[[AnyRow], T],
) -> Page[T]:
    """Return the rows of the query that follow the cursor, in ascending order of its keys.

    The keys together are unique, not null, and among the columns of the query.
    """
    bound = rows_bounded(rows_max)
    if cursor is not None:
        key = cursor_key(cursor, [column.type.python_type for column in keys])
        after = keys[0] > key[0] if len(keys) == 1 else tuple_(*keys) > tuple_(*key)
        query = query.where(after)
    rows = connection.execute(query.order_by(*keys).limit(bound + 1)).all()
    following = None
    if len(rows) > bound:
        rows = rows[:bound]
        last = rows[-1]._mapping
        following = cursor_text(tuple(last[column] for column in keys))
    return Page(items=tuple(make(row) for row in rows), next=following)
