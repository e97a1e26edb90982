"""Who owns a host or a pool for now? Leases with a token, and rows that say when to look.

The same columns stand in both tables: wake_ms, poked, lease_owner, lease_token, lease_until_ms.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, Table, and_, bindparam, case, func, select, update

from stratus.store.rows import AnyRow


def leases_take(
    connection: Connection, table: Table, owner: str, *, now_ms: int, lease_ms: int, rows_max: int
) -> Sequence[AnyRow]:
    """Renew what this owner holds, take what nobody holds up to its limit, return all of it.

    A lease that had lapsed is taken anew under a new token, also by its former owner. What is
    taken is due at once.
    """
    until_ms = now_ms + lease_ms
    held = (
        (table.c.gone_ms == 0) & (table.c.lease_owner == owner) & (table.c.lease_until_ms > now_ms)
    )
    mine = select(table).where(held).order_by(table.c.id)
    rows = connection.execute(mine).all()
    renew = [row.id for row in rows if row.lease_until_ms < until_ms - lease_ms // 3]
    taken = _free_ids(connection, table, now_ms=now_ms, rows_max=rows_max - len(rows))
    if renew:
        connection.execute(
            update(table).where(table.c.id.in_(renew), held).values(lease_until_ms=until_ms)
        )
    if taken:
        connection.execute(
            update(table)
            .where(table.c.id.in_(taken))
            .values(
                lease_owner=owner,
                lease_token=table.c.lease_token + 1,
                lease_until_ms=until_ms,
                wake_ms=now_ms,
                poked=table.c.poked + 1,
            )
        )
    return connection.execute(mine).all() if renew or taken else rows


def _free_ids(connection: Connection, table: Table, *, now_ms: int, rows_max: int) -> list[str]:
    if rows_max <= 0:
        return []
    return list(
        connection.execute(
            select(table.c.id)
            .where(table.c.gone_ms == 0, table.c.lease_until_ms <= now_ms)
            .order_by(table.c.id)
            .limit(rows_max)
            .with_for_update(skip_locked=True)
        ).scalars()
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
    rows = connection.execute(
        select(table.c.id, table.c.lease_token)
        .where(table.c.id.in_(sorted(tokens)))
        .order_by(table.c.id)
        .with_for_update()
    )
    return {row.id for row in rows if row.lease_token == tokens[row.id]}


def rows_wake(connection: Connection, table: Table, ids: Iterable[str], *, wake_ms: int) -> None:
    """See that these are looked at by this time; never later than already planned."""
    # One order for everybody, so that two wakers do not deadlock.
    subjects = sorted(set(ids))
    if not subjects:
        return
    earlier = case(
        (and_(table.c.wake_ms.is_not(None), table.c.wake_ms < wake_ms), table.c.wake_ms),
        else_=wake_ms,
    )
    connection.execute(
        select(table.c.id).where(table.c.id.in_(subjects)).order_by(table.c.id).with_for_update()
    )
    connection.execute(
        update(table)
        .where(table.c.id.in_(subjects))
        .values(wake_ms=earlier, poked=table.c.poked + 1)
    )


def rows_due(
    connection: Connection, table: Table, owner: str, *, now_ms: int, rows_max: int
) -> list[tuple[str, int]]:
    """Return what this owner must look at now, with the poke counts."""
    rows = connection.execute(
        select(table.c.id, table.c.poked)
        .where(
            table.c.gone_ms == 0,
            table.c.lease_owner == owner,
            table.c.lease_until_ms > now_ms,
            table.c.wake_ms <= now_ms,
        )
        .order_by(table.c.wake_ms)
        .limit(rows_max)
    )
    return [(row.id, row.poked) for row in rows]


def rows_sleep(
    connection: Connection, table: Table, looked: Sequence[tuple[str, int, int]]
) -> None:
    """Let each sleep until its time, unless it was poked since its count was read."""
    if looked:
        connection.execute(
            update(table)
            .where(table.c.id == bindparam("b_id"), table.c.poked == bindparam("b_poked"))
            .values(wake_ms=bindparam("b_wake_ms")),
            [{"b_id": i, "b_poked": poked, "b_wake_ms": ms} for i, poked, ms in looked],
        )


def rows_next_ms(connection: Connection, table: Table, owner: str) -> int | None:
    """Return when the next of this owner's rows is due; None when it holds none."""
    return connection.execute(
        select(func.min(table.c.wake_ms)).where(table.c.gone_ms == 0, table.c.lease_owner == owner)
    ).scalar()
