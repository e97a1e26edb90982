"""What do administrators see and change of hosts? Wishes, capacity with its use, strays, fences.

What a host worker reads and writes stands in `stratus.store.hosts`.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select, text, update

from stratus.model.host import HostCapacity, HostDesired, HostFacts, StrayFacts
from stratus.model.ids import HostId, InstanceId, PoolId, ProjectId
from stratus.model.instance import Observed
from stratus.model.page import Page
from stratus.store.json import json_value, problem_value
from stratus.store.leasing import rows_wake
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import host_pools, hosts, instances, strays, tombstones
from stratus.store.upsert import upsert

_LIVE: Final = select(hosts).where(hosts.c.gone_ms == 0)

_USE: Final = (
    select(
        instances.c.host_id,
        func.count().label("instances"),
        func.sum(instances.c.vcpus).label("vcpus"),
        func.sum(instances.c.memory_mib).label("memory_mib"),
    )
    .where(instances.c.host_id.in_(bindparam("host_ids", expanding=True)))
    .group_by(instances.c.host_id)
)
_POOLS: Final = (
    select(host_pools.c.host_id, host_pools.c.pool_id)
    .where(host_pools.c.host_id.in_(bindparam("host_ids", expanding=True)))
    .order_by(host_pools.c.pool_id)
)


class PlacedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that has a place on a host."""

    id: InstanceId
    project_id: ProjectId
    generation: int


def _facts_of(connection: Connection, rows: Sequence[AnyRow]) -> list[HostFacts]:
    """Complete the rows with their pools and with what is placed on them."""
    ids = {"host_ids": [row.id for row in rows]}
    if not rows:
        return []
    used = {use.host_id: use for use in connection.execute(_USE, ids)}
    reached: dict[str, list[PoolId]] = {}
    for link in connection.execute(_POOLS, ids):
        reached.setdefault(link.host_id, []).append(link.pool_id)
    return [_facts(row, used.get(row.id), tuple(reached.get(row.id, ()))) for row in rows]


def _facts(row: AnyRow, use: AnyRow | None, pools: tuple[PoolId, ...]) -> HostFacts:
    return HostFacts(
        id=row.id,
        name=row.name,
        uri=row.uri,
        desired=HostDesired(row.desired),
        cpu_ratio=row.cpu_ratio,
        memory_ratio=row.memory_ratio,
        memory_reserved_mib=row.memory_reserved_mib,
        created_ms=row.created_ms,
        version=row.version,
        accelerator_wanted=row.accelerator_wanted,
        capacity=json_value(HostCapacity, row.capacity) if row.capacity else None,
        seen_ms=row.seen_ms,
        unreachable_ms=row.unreachable_ms,
        failure=problem_value(row.failure),
        pools=pools,
        # PostgreSQL sums integers as numerics.
        instances=0 if use is None else int(use.instances),
        vcpus_used=0 if use is None else int(use.vcpus),
        memory_used_mib=0 if use is None else int(use.memory_mib),
        lease_owner=row.lease_owner,
        lease_until_ms=row.lease_until_ms,
    )


def host_create(
    connection: Connection,
    host_id: HostId,
    *,
    now_ms: int,
    **columns: Any,  # noqa: ANN401  # column values
) -> bool:
    """Insert the host and have it looked at; False when a live host has its name."""
    done = connection.execute(
        upsert(connection, hosts)
        .values(
            id=host_id,
            desired=HostDesired.ENABLED.value,
            created_ms=now_ms,
            wake_ms=now_ms,
            **columns,
        )
        # Spelt out: PostgreSQL finds no partial index by a parameter once the plan is generic.
        .on_conflict_do_nothing(index_elements=["name"], index_where=text("gone_ms = 0"))
    )
    return done.rowcount == 1


def host_by_ref(connection: Connection, ref: str, *, lock: bool = False) -> HostFacts | None:
    """Return the live host with this id or name; `lock` holds it until the transaction ends."""
    query = _LIVE.where((hosts.c.id == ref) | (hosts.c.name == ref)).limit(1)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _facts_of(connection, [row])[0]


def host_list(
    connection: Connection, *, rows_max: int, cursor: str | None = None
) -> Page[HostFacts]:
    """Return live hosts in the order they were added."""
    rows = page_fetch(
        connection, _LIVE, [hosts.c.id], cursor=cursor, rows_max=rows_max, make=_unchanged
    )
    return Page(items=tuple(_facts_of(connection, rows.items)), next=rows.next)


def _unchanged(row: AnyRow) -> AnyRow:
    return row


def hosts_count(connection: Connection) -> int:
    """Count the live hosts."""
    return int(
        connection.execute(
            select(func.count()).select_from(hosts).where(hosts.c.gone_ms == 0)
        ).scalar_one()
    )


def host_set(connection: Connection, host_id: HostId, **columns: Any) -> None:  # noqa: ANN401  # column values
    """Change these columns of a host that the caller has locked, and raise its version.

    Placements that were decided before and not booked yet are decided anew.
    """
    connection.execute(
        update(hosts)
        .where(hosts.c.id == host_id)
        .values(version=hosts.c.version + 1, placements=hosts.c.placements + 1, **columns)
    )


def host_wake(connection: Connection, host_id: HostId, *, now_ms: int) -> None:
    """Have the host looked at now."""
    rows_wake(connection, hosts, [host_id], wake_ms=now_ms)


def stray_list(
    connection: Connection, host_id: HostId, *, rows_max: int, cursor: str | None = None
) -> Page[StrayFacts]:
    """Return the guests on this host that nobody wished for, by their names."""
    return page_fetch(
        connection,
        select(strays).where(strays.c.host_id == host_id),
        [strays.c.name],
        cursor=cursor,
        rows_max=rows_max,
        make=_stray,
    )


def _stray(row: AnyRow) -> StrayFacts:
    return StrayFacts(
        host_id=row.host_id,
        name=row.name,
        instance_id=row.instance_id,
        generation=row.generation,
        observed=Observed(row.observed),
        first_ms=row.first_ms,
        seen_ms=row.seen_ms,
    )


def placed_lock(connection: Connection, host_id: HostId) -> list[PlacedInstance]:
    """Hold the instances placed on this host until the transaction ends, and return them."""
    rows = connection.execute(
        select(instances.c.id, instances.c.project_id, instances.c.generation)
        .where(instances.c.host_id == host_id)
        .order_by(instances.c.id)
        .with_for_update()
    )
    return [
        PlacedInstance(id=row.id, project_id=row.project_id, generation=row.generation)
        for row in rows
    ]


def guests_doom(
    connection: Connection,
    host_id: HostId,
    guests: Sequence[tuple[InstanceId, int]],
    *,
    now_ms: int,
) -> None:
    """Have these placements removed should the host ever show them again."""
    if guests:
        connection.execute(
            upsert(connection, tombstones).on_conflict_do_nothing(),
            [
                {
                    "host_id": host_id,
                    "instance_id": instance_id,
                    "generation": generation,
                    "created_ms": now_ms,
                }
                for instance_id, generation in guests
            ],
        )


def strays_forget_ours(connection: Connection, host_id: HostId) -> list[tuple[InstanceId, int]]:
    """Forget the strays of this host that are guests of ours, and return which those were."""
    ours = (strays.c.host_id == host_id) & (strays.c.instance_id != "")
    found = connection.execute(
        select(strays.c.instance_id, strays.c.generation).where(ours).order_by(strays.c.name)
    ).all()
    connection.execute(delete(strays).where(ours))
    return [(row.instance_id, row.generation) for row in found]


def placed_give_up(connection: Connection, host_id: HostId, *, now_ms: int) -> None:
    """Declare the guests placed on this host gone, and have the placements given back."""
    connection.execute(
        update(instances)
        .where(instances.c.host_id == host_id)
        .values(
            observed=Observed.ABSENT.value,
            observed_generation=instances.c.generation,
            observed_ms=now_ms,
            release=True,
            version=instances.c.version + 1,
        )
    )
