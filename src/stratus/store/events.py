"""What happened, in an order that no reader ever misses a line of?

Sequence numbers are handed out before a commit, so a late commit may show a smaller number
than one that was read already. Events are therefore ordered by (tx, seq): on PostgreSQL `tx` is
the id of the transaction, and a reader sees only transactions older than every one that still
runs. SQLite has one writer, so `tx` is 0 there. Both add a base that a restore raises: what
comes after a restore also comes after everything that the lost future had shown.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Connection,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.sql import ColumnElement

from stratus.model.event import Event
from stratus.model.ids import ProjectId
from stratus.model.page import Page
from stratus.model.problem import refuse
from stratus.store.json import json_text, json_value
from stratus.store.pages import INTEGER_MAX, rows_bounded
from stratus.store.rows import AnyRow
from stratus.store.schema import events, site
from stratus.store.site import EVENT_BASE

CURSOR_BEGIN: Final = "0-0"
CURSOR_PATTERN: Final = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


class EventDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened, not yet written."""

    kind: str
    subject: str
    project_id: str = ""
    actor: str = ""
    request_id: str = ""
    data: Mapping[str, Any] = {}


_BASE: Final = func.coalesce(
    select(cast(site.c.value, BigInteger)).where(site.c.key == EVENT_BASE).scalar_subquery(), 0
)
_OWN_TX: Final[dict[str, ColumnElement[int]]] = {
    "sqlite": _BASE,
    "postgresql": _BASE + literal_column("pg_current_xact_id()::text::bigint", BigInteger),
}
# Inline: nobody asks for the sequence number, so the engine need not hand it back.
_APPEND: Final = {
    dialect: insert(events).values(tx=own_tx).inline() for dialect, own_tx in _OWN_TX.items()
}
# The oldest transaction that may still commit; everything before it has been decided.
_OLDEST_OPEN: Final = _BASE + literal_column(
    "pg_snapshot_xmin(pg_current_snapshot())::text::bigint", BigInteger
)

_ROWS: Final = select(
    events.c.seq,
    events.c.tx,
    events.c.at_ms,
    events.c.kind,
    events.c.subject,
    events.c.project_id,
    events.c.actor,
    events.c.request_id,
    events.c.data,
)


def event_append(
    connection: Connection,
    *,
    now_ms: int,
    kind: str,
    subject: str,
    project_id: str | None = "",
    actor: str = "",
    request_id: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write down what this transaction does."""
    draft = EventDraft(
        kind=kind,
        subject=subject,
        project_id=project_id or "",
        actor=actor,
        request_id=request_id,
        data=data or {},
    )
    event_append_many(connection, [draft], now_ms=now_ms)


def event_append_many(connection: Connection, drafts: Sequence[EventDraft], *, now_ms: int) -> None:
    """Write down what this transaction does, in this order."""
    if not drafts:
        return
    connection.execute(
        _APPEND[connection.dialect.name],
        [
            {
                "at_ms": now_ms,
                "kind": draft.kind,
                "subject": draft.subject,
                "project_id": draft.project_id,
                "actor": draft.actor,
                "request_id": draft.request_id,
                "data": json_text(draft.data) if draft.data else "{}",
            }
            for draft in drafts
        ],
    )


def _event(row: AnyRow) -> Event:
    return Event(
        cursor=f"{row.tx}-{row.seq}",
        at_ms=row.at_ms,
        kind=row.kind,
        subject=row.subject,
        project_id=row.project_id or None,
        actor=row.actor,
        request_id=row.request_id,
        data={} if row.data == "{}" else json_value(dict[str, Any], row.data),
    )


def _cursor_parse(cursor: str) -> tuple[int, int]:
    match = CURSOR_PATTERN.fullmatch(cursor)
    key = (int(match[1]), int(match[2])) if match is not None else None
    if key is None or max(key) > INTEGER_MAX:
        raise refuse(
            "invalid_field",
            "The event cursor is not one that this store gave out.",
            remedy=f"Begin with {CURSOR_BEGIN}, or without a cursor.",
            field="cursor",
        )
    return key


def event_page(
    connection: Connection,
    *,
    after: str,
    rows_max: int,
    project_ids: Collection[ProjectId] | None = None,
    subject: str | None = None,
    kinds: Collection[str] | None = None,
) -> Page[Event]:
    """Return what happened after the cursor, in order; None as a filter lets everything pass.

    `next` is never None: the log has no end, and the same cursor may be asked again later.
    """
    bound = rows_bounded(rows_max)
    query = _ROWS.where(tuple_(events.c.tx, events.c.seq) > tuple_(*_cursor_parse(after)))
    if connection.dialect.name == "postgresql":
        query = query.where(events.c.tx < _OLDEST_OPEN)
    if project_ids is not None:
        query = query.where(events.c.project_id.in_(list(project_ids)))
    if subject is not None:
        query = query.where(events.c.subject == subject)
    if kinds is not None:
        query = query.where(events.c.kind.in_(list(kinds)))
    rows = connection.execute(query.order_by(events.c.tx, events.c.seq).limit(bound)).all()
    found = tuple(_event(row) for row in rows)
    return Page(items=found, next=found[-1].cursor if found else after)


_LAST: Final = (
    select(events.c.tx, events.c.seq).order_by(events.c.tx.desc(), events.c.seq.desc()).limit(1)
)
_LAST_DECIDED: Final = _LAST.where(events.c.tx < _OLDEST_OPEN)


def event_cursor_last(connection: Connection) -> str:
    """Return the cursor after which only what is not yet to be seen follows."""
    last = _LAST_DECIDED if connection.dialect.name == "postgresql" else _LAST
    row = connection.execute(last).one_or_none()
    return CURSOR_BEGIN if row is None else f"{row.tx}-{row.seq}"


_OF_SUBJECT: Final = (
    _ROWS.where(events.c.subject == bindparam("subject"))
    .order_by(events.c.tx.desc(), events.c.seq.desc())
    .limit(bindparam("rows_max"))
)


def event_history(connection: Connection, subject: str, *, rows_max: int) -> tuple[Event, ...]:
    """Return the last things that happened to this, oldest first, those of this moment included."""
    bound = rows_bounded(rows_max)
    rows = connection.execute(_OF_SUBJECT, {"subject": subject, "rows_max": bound}).all()
    return tuple(_event(row) for row in reversed(rows))
