"""What must be looked at again? One table with a lease and a wake-up time is the whole queue.

A wake-up that arrives while somebody looks raises `poked`; the looker then cannot mark the
row done, and it is looked at once more.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

import msgspec
from sqlalchemy import Connection, Executable, bindparam, case, delete, func, select, update

from stratus.store.schema import work
from stratus.store.upsert import upsert_in

INSTANCE: Final = "instance"
IMAGE: Final = "image"


class WorkRow(msgspec.Struct, frozen=True):
    """One claimed row; `poked` tells later whether somebody woke it in the meantime."""

    subject: str
    poked: int


def work_wake(connection: Connection, kind: str, subjects: Iterable[str], *, wake_ms: int) -> None:
    """See that these are looked at by this time; never later than already planned."""
    # One order for everybody: two transactions that wake the same rows must not deadlock.
    rows = [
        {"kind": kind, "subject": subject, "wake_ms": wake_ms} for subject in sorted(set(subjects))
    ]
    if not rows:
        return
    connection.execute(_wake(connection.dialect.name), rows)


@cache
def _wake(dialect: str) -> Executable:
    insert = upsert_in(dialect, work)
    earlier = case(
        (work.c.wake_ms < insert.excluded.wake_ms, work.c.wake_ms), else_=insert.excluded.wake_ms
    )
    return insert.on_conflict_do_update(
        index_elements=["kind", "subject"],
        set_={"wake_ms": earlier, "poked": work.c.poked + 1},
    )


_DUE = (
    select(work.c.subject, work.c.poked)
    .where(
        work.c.kind == bindparam("kind"),
        work.c.wake_ms <= bindparam("now_ms"),
        work.c.lease_until_ms <= bindparam("now_ms"),
    )
    .order_by(work.c.wake_ms)
    .limit(bindparam("rows_max"))
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(work)
    .where(
        work.c.kind == bindparam("b_kind"),
        work.c.subject.in_(bindparam("subjects", expanding=True)),
    )
    .values(lease_token=bindparam("token"), lease_until_ms=bindparam("until_ms"))
)


def work_claim(
    connection: Connection, kind: str, *, token: int, now_ms: int, lease_ms: int, rows_max: int
) -> list[WorkRow]:
    """Take what is due and nobody else looks at, for a limited time."""
    found = connection.execute(_DUE, {"kind": kind, "now_ms": now_ms, "rows_max": rows_max}).all()
    if found:
        connection.execute(
            _LEASE,
            {
                "b_kind": kind,
                "subjects": [row.subject for row in found],
                "token": token,
                "until_ms": now_ms + lease_ms,
            },
        )
    return [WorkRow(row.subject, row.poked) for row in found]


_HELD = (
    select(work.c.subject)
    .where(
        work.c.kind == bindparam("kind"),
        work.c.subject.in_(bindparam("subjects", expanding=True)),
        work.c.lease_token == bindparam("token"),
    )
    .with_for_update()
)


def work_held(
    connection: Connection, kind: str, subjects: Sequence[str], *, token: int
) -> set[str]:
    """Return which of these are still leased under this token; others are not ours to change."""
    if not subjects:
        return set()
    rows = connection.execute(_HELD, {"kind": kind, "subjects": list(subjects), "token": token})
    return set(rows.scalars())


_DONE = delete(work).where(
    work.c.kind == bindparam("b_kind"),
    work.c.subject == bindparam("b_subject"),
    work.c.lease_token == bindparam("b_token"),
    work.c.poked == bindparam("b_poked"),
)
_SLEEP = (
    update(work)
    .where(
        work.c.kind == bindparam("b_kind"),
        work.c.subject == bindparam("b_subject"),
        work.c.lease_token == bindparam("b_token"),
        work.c.poked == bindparam("b_poked"),
    )
    .values(wake_ms=bindparam("b_wake_ms"), lease_until_ms=0, lease_token=0)
)
_LET_GO = (
    update(work)
    .where(
        work.c.kind == bindparam("b_kind"),
        work.c.subject.in_(bindparam("subjects", expanding=True)),
        work.c.lease_token == bindparam("token"),
    )
    .values(lease_until_ms=0, lease_token=0)
)


def work_finish(
    connection: Connection,
    kind: str,
    rows: Sequence[WorkRow],
    *,
    token: int,
    wakes_ms: dict[str, int],
) -> None:
    """End the look: rows with a wake-up time sleep until then, others are done.

    A row that was woken in the meantime stays due.
    """
    done = [row for row in rows if row.subject not in wakes_ms]
    asleep = [row for row in rows if row.subject in wakes_ms]
    if done:
        connection.execute(_DONE, [_keys(kind, row, token) for row in done])
    if asleep:
        connection.execute(
            _SLEEP,
            [_keys(kind, row, token) | {"b_wake_ms": wakes_ms[row.subject]} for row in asleep],
        )
    subjects = [row.subject for row in rows]
    if subjects:
        connection.execute(_LET_GO, {"b_kind": kind, "subjects": subjects, "token": token})


def _keys(kind: str, row: WorkRow, token: int) -> dict[str, object]:
    return {
        "b_kind": kind,
        "b_subject": row.subject,
        "b_token": token,
        "b_poked": row.poked,
    }


_NEXT = select(
    func.min(
        case((work.c.lease_until_ms > work.c.wake_ms, work.c.lease_until_ms), else_=work.c.wake_ms)
    )
).where(work.c.kind == bindparam("kind"))


def work_next_ms(connection: Connection, kind: str) -> int | None:
    """Return when the next row is due; None when there is none."""
    return connection.execute(_NEXT, {"kind": kind}).scalar()


def work_depth(connection: Connection, kind: str) -> int:
    """Count the rows of this kind."""
    return int(
        connection.execute(
            select(func.count()).select_from(work).where(work.c.kind == kind)
        ).scalar_one()
    )
