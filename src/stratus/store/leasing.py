"""Who owns a host or a pool for now? Leases with a token, and rows that say when to look.

The same columns stand in both tables: wake_ms, poked, lease_owner, lease_token, lease_until_ms.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    select,
    update,
)

from stratus.store.rows import AnyRow


def leases_take(
    connection: Connection, table: Table, owner: str, *, now_ms: int, lease_ms: int, rows_max: int
) -> Sequence[AnyRow]:
    """Renew what this owner holds, take what nobody holds up to its limit, return all of it.

    A lease that had lapsed is taken anew under a new token, also by its former owner. What is
    taken is due at once.
    """
    until_ms = now_ms + lease_ms
    mine = {"b_owner": owner, "b_now_ms": now_ms}
    rows = connection.execute(_mine(table), mine).all()
    renew = [row.id for row in rows if row.lease_until_ms < until_ms - lease_ms // 3]
    taken = _free_ids(connection, table, now_ms=now_ms, rows_max=rows_max - len(rows))
    if renew:
        values = {**mine, "b_ids": renew, "b_until_ms": until_ms}
        connection.execute(_renew(table), values)
    if taken:
        values = {**mine, "b_ids": taken, "b_until_ms": until_ms}
        connection.execute(_take(table), values)
    return connection.execute(_mine(table), mine).all() if renew or taken else rows


def _free_ids(connection: Connection, table: Table, *, now_ms: int, rows_max: int) -> list[str]:
    if rows_max <= 0:
        return []
    values = {"b_now_ms": now_ms, "b_rows_max": rows_max}
    return list(connection.execute(_free(table), values).scalars())


# Workers ask these all day long, so each statement is built once for its table.


@cache
def _mine(table: Table) -> Select[Any]:
    return (
        select(table)
        .where(
            table.c.gone_ms == 0,
            table.c.lease_owner == bindparam("b_owner"),
            table.c.lease_until_ms > bindparam("b_now_ms"),
        )
        .order_by(table.c.id)
    )


@cache
def _renew(table: Table) -> Update:
    return (
        update(table)
        .where(
            table.c.id.in_(bindparam("b_ids", expanding=True)),
            table.c.gone_ms == 0,
            table.c.lease_owner == bindparam("b_owner"),
            table.c.lease_until_ms > bindparam("b_now_ms"),
        )
        .values(lease_until_ms=bindparam("b_until_ms"))
    )


@cache
def _free(table: Table) -> Select[Any]:
    return (
        select(table.c.id)
        .where(table.c.gone_ms == 0, table.c.lease_until_ms <= bindparam("b_now_ms"))
        .order_by(table.c.id)
        .limit(bindparam("b_rows_max"))
        .with_for_update(skip_locked=True)
    )


@cache
def _take(table: Table) -> Update:
    return (
        update(table)
        .where(table.c.id.in_(bindparam("b_ids", expanding=True)))
        .values(
            lease_owner=bindparam("b_owner"),
            lease_token=table.c.lease_token + 1,
            lease_until_ms=bindparam("b_until_ms"),
            wake_ms=bindparam("b_now_ms"),
            poked=table.c.poked + 1,
        )
    )


def leases_end(connection: Connection, table: Table, owner: str) -> None:
    """Give everything back, so that another may take it at once."""
    connection.execute(
        update(table)
        .where(table.c.lease_owner == owner)
        .values(lease_owner="", lease_until_ms=0, lease_token=table.c.lease_token + 1)
    )


def leases_still_held(connection: Connection, table: Table, tokens: Mapping[str, int]) -> set[str]:
    """Keep these rows from changing hands until the transaction ends; return those still ours."""
    if not tokens:
        return set()
    rows = connection.execute(_tokens(table), {"b_ids": sorted(tokens)})
    return {row.id for row in rows if row.lease_token == tokens[row.id]}


@cache
def _tokens(table: Table) -> Select[Any]:
    return (
        select(table.c.id, table.c.lease_token)
        .where(table.c.id.in_(bindparam("b_ids", expanding=True)))
        .order_by(table.c.id)
        .with_for_update()
    )


def rows_wake(connection: Connection, table: Table, ids: Iterable[str], *, wake_ms: int) -> None:
    """See that these are looked at by this time; never later than already planned."""
    # One order for everybody, so that two wakers do not deadlock.
    subjects = sorted(set(ids))
    if not subjects:
        return
    connection.execute(_tokens(table), {"b_ids": subjects})
    connection.execute(_wake(table), {"b_ids": subjects, "b_wake_ms": wake_ms})


@cache
def _wake(table: Table) -> Update:
    wake_ms = bindparam("b_wake_ms", type_=BigInteger)
    earlier = case(
        (and_(table.c.wake_ms.is_not(None), table.c.wake_ms < wake_ms), table.c.wake_ms),
        else_=wake_ms,
    )
    return (
        update(table)
        .where(table.c.id.in_(bindparam("b_ids", expanding=True)))
        .values(wake_ms=earlier, poked=table.c.poked + 1)
    )


def rows_due(
    connection: Connection, table: Table, owner: str, *, now_ms: int, rows_max: int
) -> list[tuple[str, int]]:
    """Return what this owner must look at now, with the poke counts."""
    values = {"b_owner": owner, "b_now_ms": now_ms, "b_rows_max": rows_max}
    rows = connection.execute(_due(table), values)
    return [(row.id, row.poked) for row in rows]


@cache
def _due(table: Table) -> Select[Any]:
    return (
        select(table.c.id, table.c.poked)
        .where(
            table.c.gone_ms == 0,
            table.c.lease_owner == bindparam("b_owner"),
            table.c.lease_until_ms > bindparam("b_now_ms"),
            table.c.wake_ms <= bindparam("b_now_ms"),
        )
        .order_by(table.c.wake_ms)
        .limit(bindparam("b_rows_max"))
    )


def rows_sleep(
    connection: Connection, table: Table, looked: Sequence[tuple[str, int, int]]
) -> None:
    """Let each sleep until its time, unless it was poked since its count was read."""
    if looked:
        connection.execute(
            _sleep(table),
            [{"b_id": i, "b_poked": poked, "b_wake_ms": ms} for i, poked, ms in looked],
        )


@cache
def _sleep(table: Table) -> Update:
    return (
        update(table)
        .where(table.c.id == bindparam("b_id"), table.c.poked == bindparam("b_poked"))
        .values(wake_ms=bindparam("b_wake_ms"))
    )


def rows_next_ms(
    connection: Connection, table: Table, owner: str, *, after_ms: int = -1
) -> int | None:
    """Return when the next of this owner's rows is due; None when there is none.

    Rows that were due by `after_ms` are being looked at, and are left out.
    """
    return connection.execute(_next(table), {"b_owner": owner, "b_after_ms": after_ms}).scalar()


@cache
def _next(table: Table) -> Select[Any]:
    return select(func.min(table.c.wake_ms)).where(
        table.c.gone_ms == 0,
        table.c.lease_owner == bindparam("b_owner"),
        table.c.wake_ms > bindparam("b_after_ms"),
    )
