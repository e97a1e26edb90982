"""What does the placer see, and how are its decisions kept from colliding?"""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, update

from stratus.model.host import HostCapacity, HostDesired, HostFacts
from stratus.model.ids import HostId, PoolId
from stratus.store.json import json_value, problem_value
from stratus.store.rows import AnyRow
from stratus.store.schema import host_pools, hosts, instances

_HOSTS: Final = select(hosts).where(hosts.c.gone_ms == 0).order_by(hosts.c.id)
_USED: Final = (
    select(
        instances.c.host_id,
        func.count().label("instances"),
        func.sum(instances.c.vcpus).label("vcpus"),
        func.sum(instances.c.memory_mib).label("memory_mib"),
    )
    .where(instances.c.host_id.is_not(None))
    .group_by(instances.c.host_id)
)
_POOLS: Final = select(host_pools.c.host_id, host_pools.c.pool_id).order_by(host_pools.c.pool_id)

_REACHING: Final = (
    select(hosts)
    .join(host_pools, host_pools.c.host_id == hosts.c.id)
    .where(
        hosts.c.gone_ms == 0,
        hosts.c.capacity != "",
        host_pools.c.pool_id == bindparam("pool_id"),
    )
    .order_by(hosts.c.id)
    .limit(bindparam("rows_max"))
)


def hosts_facts(connection: Connection) -> tuple[list[HostFacts], dict[HostId, int]]:
    """Return every live host with its present use, and how often each was placed on so far."""
    used = {row.host_id: row for row in connection.execute(_USED)}
    reached: dict[str, list[str]] = {}
    for pair in connection.execute(_POOLS):
        reached.setdefault(pair.host_id, []).append(pair.pool_id)
    found: list[HostFacts] = []
    placements: dict[HostId, int] = {}
    for row in connection.execute(_HOSTS):
        placements[row.id] = row.placements
        found.append(_facts(row, reached.get(row.id, ()), used.get(row.id)))
    return found, placements


def hosts_reaching(connection: Connection, pool_id: PoolId, *, rows_max: int) -> list[HostFacts]:
    """Return some live hosts that reach this pool and have shown what they are, as if empty."""
    rows = connection.execute(_REACHING, {"pool_id": pool_id, "rows_max": rows_max})
    return [_facts(row, (pool_id,), None) for row in rows]


def _facts(row: AnyRow, pool_ids: Sequence[str], use: AnyRow | None) -> HostFacts:
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
        capacity=json_value(HostCapacity, row.capacity) if row.capacity else None,
        seen_ms=row.seen_ms,
        unreachable_ms=row.unreachable_ms,
        failure=problem_value(row.failure),
        pools=tuple(pool_ids),  # type: ignore[arg-type]  # ids as stored
        instances=use.instances if use is not None else 0,
        vcpus_used=int(use.vcpus) if use is not None else 0,
        memory_used_mib=int(use.memory_mib) if use is not None else 0,
        lease_owner=row.lease_owner,
        lease_until_ms=row.lease_until_ms,
    )


_LOCK: Final = (
    select(hosts.c.id, hosts.c.placements)
    .where(hosts.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(hosts.c.id)
    .with_for_update()
)
_COUNT: Final = (
    update(hosts)
    .where(hosts.c.id.in_(bindparam("ids", expanding=True)))
    .values(placements=hosts.c.placements + 1)
)


def placements_book(
    connection: Connection, host_ids: Iterable[HostId], *, seen: dict[HostId, int]
) -> set[HostId]:
    """Book one more placement on each host that nobody has placed on since it was seen.

    Return those; on the others somebody else was faster, and the caller must look again.
    """
    ids = sorted(set(host_ids))
    if not ids:
        return set()
    rows = connection.execute(_LOCK, {"ids": ids})
    free = sorted(row.id for row in rows if row.placements == seen[row.id])
    if free:
        connection.execute(_COUNT, {"ids": free})
    return set(free)


def epoch_gate_open(connection: Connection, epoch: int) -> bool:
    """Every host has shown its whole inventory since the store was last restored."""
    behind = select(hosts.c.id).where(hosts.c.gone_ms == 0, hosts.c.inventory_epoch < epoch)
    return connection.execute(behind.limit(1)).first() is None
