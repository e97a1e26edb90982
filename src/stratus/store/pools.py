"""Which pools does the site have, and which hosts can open their disks?

What a pool's worker reads and writes stands elsewhere; here is what administrators see.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from stratus.model.ids import HostId, PoolId
from stratus.model.page import Page
from stratus.model.pool import PoolDesired, PoolRecord, PoolRoom
from stratus.store.json import json_value, problem_value
from stratus.store.leasing import rows_wake
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import host_pools, hosts, pools
from stratus.store.upsert import rows_insert, upsert

_LIVE: Final = select(pools).where(pools.c.gone_ms == 0)


def _record(row: AnyRow) -> PoolRecord:
    return PoolRecord(
        id=row.id,
        name=row.name,
        driver=row.driver,
        location=row.location,
        desired=PoolDesired(row.desired),
        created_ms=row.created_ms,
        version=row.version,
        room=json_value(PoolRoom, row.facts) if row.facts else None,
        seen_ms=row.seen_ms,
        unreachable_ms=row.unreachable_ms,
        failure=problem_value(row.failure),
        lease_owner=row.lease_owner,
    )


def pool_create(
    connection: Connection,
    pool_id: PoolId,
    *,
    now_ms: int,
    **columns: Any,  # noqa: ANN401  # column values
) -> bool:
    """Insert the pool and have it looked at; False when its name is taken."""
    done = connection.execute(
        upsert(connection, pools)
        .values(
            id=pool_id,
            desired=PoolDesired.ENABLED.value,
            created_ms=now_ms,
            wake_ms=now_ms,
            **columns,
        )
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return done.rowcount == 1


def pool_by_ref(connection: Connection, ref: str) -> PoolRecord | None:
    """Return the live pool with this id or name."""
    row = connection.execute(
        _LIVE.where((pools.c.id == ref) | (pools.c.name == ref)).limit(1)
    ).one_or_none()
    return None if row is None else _record(row)


def pool_by_location(connection: Connection, *, driver: str, location: str) -> PoolRecord | None:
    """Return the live pool at this place, or None."""
    there = (pools.c.driver == driver) & (pools.c.location == location)
    row = connection.execute(_LIVE.where(there).order_by(pools.c.id).limit(1)).one_or_none()
    return None if row is None else _record(row)


def pool_list(
    connection: Connection, *, rows_max: int, cursor: str | None = None
) -> Page[PoolRecord]:
    """Return live pools in the order they were made."""
    return page_fetch(
        connection, _LIVE, [pools.c.id], cursor=cursor, rows_max=rows_max, make=_record
    )


def pools_live_ids(connection: Connection, *, rows_max: int) -> list[PoolId]:
    """Return the ids of the live pools, the oldest first."""
    query = select(pools.c.id).where(pools.c.gone_ms == 0).order_by(pools.c.id).limit(rows_max)
    return list(connection.execute(query).scalars())


def pool_default(connection: Connection) -> PoolRecord | None:
    """Return the pool that gets what names none: the first enabled one."""
    row = connection.execute(
        _LIVE.where(pools.c.desired == PoolDesired.ENABLED.value).order_by(pools.c.id).limit(1)
    ).one_or_none()
    return None if row is None else _record(row)


def pool_wake(connection: Connection, pool_id: PoolId, *, now_ms: int) -> None:
    """Have the pool looked at now."""
    rows_wake(connection, pools, [pool_id], wake_ms=now_ms)


def host_pools_replace(connection: Connection, host_id: HostId, pool_ids: Sequence[PoolId]) -> None:
    """Leave exactly these pools as those whose disks the host can open."""
    connection.execute(delete(host_pools).where(host_pools.c.host_id == host_id))
    rows_insert(
        connection,
        host_pools,
        [{"host_id": host_id, "pool_id": pool_id} for pool_id in sorted(set(pool_ids))],
    )


def pool_host_names(
    connection: Connection, pool_id: PoolId, *, rows_max: int
) -> list[tuple[HostId, str]]:
    """Return the live hosts that can open this pool's disks."""
    rows = connection.execute(
        select(hosts.c.id, hosts.c.name)
        .select_from(host_pools.join(hosts, hosts.c.id == host_pools.c.host_id))
        .where(host_pools.c.pool_id == pool_id, hosts.c.gone_ms == 0)
        .order_by(hosts.c.id)
        .limit(rows_max)
    )
    return [(row.id, row.name) for row in rows]
