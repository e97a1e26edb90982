"""What do we know of instances? Their rows in and out, guarded by version."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, bindparam, case, func, select, update

from stratus.model.ids import HostId, InstanceId, ProjectId
from stratus.model.instance import (
    Desired,
    HaltCause,
    InstanceFacts,
    Nic,
    Observed,
    OnHalt,
    Ranking,
)
from stratus.store.json import json_value, problem_value
from stratus.store.rows import AnyRow
from stratus.store.schema import hosts, instances, strays, volumes
from stratus.store.upsert import rows_insert
from stratus.store.work import INSTANCE, work_wake

WAITING_WAKE_MAX: Final = 500  # the next room wakes the next ones

_FACTS: Final = select(
    *[column for column in instances.c if column.name != "context"],
    hosts.c.name.label("host_name"),
    hosts.c.unreachable_ms.label("host_unreachable_ms"),
).select_from(instances.outerjoin(hosts, instances.c.host_id == hosts.c.id))

_COUNTS: Final = (
    select(
        volumes.c.instance_id,
        func.sum(case((volumes.c.wanted, 1), else_=0)).label("wanted"),
        func.sum(case((and_(volumes.c.wanted, volumes.c.presence == "ready"), 1), else_=0)).label(
            "ready"
        ),
        func.count().label("left"),
        func.max(volumes.c.failure).label("failure"),
    )
    .where(
        volumes.c.gone_ms == 0,
        volumes.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
    )
    .group_by(volumes.c.instance_id)
)

# Of several the last row counts: the newest that is alive, else the newest.
_STRAYS: Final = (
    select(strays.c.instance_id, strays.c.host_id, strays.c.generation, strays.c.observed)
    .where(strays.c.instance_id.in_(bindparam("instance_ids", expanding=True)))
    .order_by(strays.c.observed != "halted", strays.c.generation, strays.c.host_id)
)


class Disks(msgspec.Struct, frozen=True):
    """How many volumes an instance has: wished for, ready, and still there in any form."""

    wanted: int = 0
    ready: int = 0
    left: int = 0
    failure: str = ""  # what the pool said of one of them


def _facts(row: AnyRow, disks: Disks, stray: AnyRow | None) -> InstanceFacts:
    return InstanceFacts(
        id=row.id,
        project_id=row.project_id,
        user_id=row.user_id,
        name=row.name,
        created_ms=row.created_ms,
        version=row.version,
        created_epoch=row.created_epoch,
        desired=Desired(row.desired),
        desired_ms=row.desired_ms,
        run=row.run,
        resets=row.resets,
        release=row.release,
        on_halt=OnHalt(row.on_halt),
        ranking=Ranking(row.ranking),
        image_id=row.image_id,
        type_name=row.type_name,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        swap_mib=row.swap_mib,
        root_gib=row.root_gib,
        volatile_gib=row.volatile_gib,
        nics=json_value(tuple[Nic, ...], row.nics),
        host_id=row.host_id,
        host_name=row.host_name or "",
        pool_id=row.pool_id,
        generation=row.generation,
        placed_ms=row.placed_ms,
        observed=Observed(row.observed),
        observed_generation=row.observed_generation,
        observed_run=row.observed_run,
        observed_resets=row.observed_resets,
        observed_ms=row.observed_ms,
        halt_cause=HaltCause(row.halt_cause),
        accelerator=row.accelerator,
        failures=row.failures,
        failure=problem_value(row.failure or disks.failure),
        rounds=row.rounds,
        host_unreachable_ms=row.host_unreachable_ms or 0,
        volumes_wanted=disks.wanted,
        volumes_ready=disks.ready,
        volumes_left=disks.left,
        stray_host_id=stray.host_id if stray is not None else None,
        stray_generation=stray.generation if stray is not None else 0,
        stray_alive=stray is not None and stray.observed != Observed.HALTED.value,
        parked=problem_value(row.parked),
        waiting=problem_value(row.waiting),
        gone_ms=row.gone_ms,
    )


def _facts_of(connection: Connection, rows: Sequence[AnyRow]) -> list[InstanceFacts]:
    """Complete the rows with their disks and strays, where those can matter."""
    open_ids = [row.id for row in rows if not row.gone_ms and not _is_plainly_running(row)]
    disks: dict[str, Disks] = {}
    elsewhere: dict[str, AnyRow] = {}
    if open_ids:
        for count in connection.execute(_COUNTS, {"instance_ids": open_ids}):
            disks[count.instance_id] = Disks(count.wanted, count.ready, count.left, count.failure)
        for stray in connection.execute(_STRAYS, {"instance_ids": open_ids}):
            elsewhere[stray.instance_id] = stray
    none = Disks()
    return [_facts(row, disks.get(row.id, none), elsewhere.get(row.id)) for row in rows]


def _is_plainly_running(row: AnyRow) -> bool:
    return bool(
        row.desired == "running"
        and row.observed == "running"
        and row.observed_generation == row.generation
        and row.observed_run == row.run
    )


_BY_IDS: Final = _FACTS.where(instances.c.id.in_(bindparam("ids", expanding=True)))
_BY_ID: Final = _FACTS.where(instances.c.id == bindparam("id"))


def instances_by_ids(
    connection: Connection, ids: Collection[InstanceId]
) -> dict[InstanceId, InstanceFacts]:
    """Return what is known of these, gone ones included; unknown ids are left out."""
    if not ids:
        return {}
    rows = connection.execute(_BY_IDS, {"ids": list(ids)}).all()
    return {facts.id: facts for facts in _facts_of(connection, rows)}


def instance_by_id(connection: Connection, instance_id: InstanceId) -> InstanceFacts | None:
    """Return what is known of this one, or None."""
    row = connection.execute(_BY_ID, {"id": instance_id}).one_or_none()
    return None if row is None else _facts_of(connection, [row])[0]


def instance_rows(
    connection: Connection,
    *,
    project_ids: Collection[ProjectId] | None,
    rows_max: int,
    after: InstanceId | None = None,
    host_id: HostId | None = None,
    name: str | None = None,
) -> list[InstanceFacts]:
    """Return live instances in the order they were made; `project_ids` None means all."""
    query = _FACTS.where(instances.c.gone_ms == 0).order_by(instances.c.id).limit(rows_max)
    if project_ids is not None:
        only = list(project_ids)
        if len(only) == 1:
            query = query.where(instances.c.project_id == only[0])
        else:
            query = query.where(instances.c.project_id.in_(only))
    if after is not None:
        query = query.where(instances.c.id > after)
    if host_id is not None:
        query = query.where(instances.c.host_id == host_id)
    if name is not None:
        query = query.where(instances.c.name == name)
    return _facts_of(connection, connection.execute(query).all())


def instances_create(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert these rows of wishes."""
    rows_insert(connection, instances, rows)


_LOCK: Final = (
    select(instances.c.id, instances.c.version)
    .where(instances.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(instances.c.id)
    .with_for_update()
)


def instances_lock(connection: Connection, ids: Collection[InstanceId]) -> dict[InstanceId, int]:
    """Hold these rows until the transaction ends; return their present versions."""
    if not ids:
        return {}
    return {row.id: row.version for row in connection.execute(_LOCK, {"ids": list(ids)})}


_STATEMENTS: dict[tuple[str, ...], Any] = {}


def instances_set(
    connection: Connection, changes: Sequence[tuple[InstanceId, Mapping[str, Any]]]
) -> None:
    """Change these columns of rows that the caller has locked, and raise their versions."""
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for instance_id, values in changes:
        key = tuple(sorted(values))
        row = {f"b_{name}": value for name, value in values.items()} | {"b_id": instance_id}
        grouped.setdefault(key, []).append(row)
    for key, rows in grouped.items():
        statement = _STATEMENTS.get(key)
        if statement is None:
            statement = _STATEMENTS[key] = (
                update(instances)
                .where(instances.c.id == bindparam("b_id"))
                .values(
                    version=instances.c.version + 1,
                    **{name: bindparam(f"b_{name}") for name in key},
                )
            )
        connection.execute(statement, rows)


def avoided_hosts(connection: Connection, ids: Collection[InstanceId]) -> dict[InstanceId, HostId]:
    """Return, of these, which host each would rather not try again."""
    if not ids:
        return {}
    rows = connection.execute(
        select(instances.c.id, instances.c.avoid_host_id).where(
            instances.c.id.in_(list(ids)), instances.c.avoid_host_id.is_not(None)
        )
    )
    return {row.id: row.avoid_host_id for row in rows}


def context_of(connection: Connection, instance_id: InstanceId) -> str:
    """Return the guest's context as stored."""
    return str(
        connection.execute(
            select(instances.c.context).where(instances.c.id == instance_id)
        ).scalar_one()
    )


_WAITING: Final = (
    select(instances.c.id)
    .where(
        instances.c.gone_ms == 0,
        instances.c.desired == "running",
        instances.c.host_id.is_(None),
        instances.c.waiting != "",
        instances.c.parked == "",
    )
    .order_by(instances.c.id)
    .limit(WAITING_WAKE_MAX)
)


def waiting_wake(connection: Connection, *, now_ms: int) -> None:
    """Look again at requests that wait for room, oldest first: there may be some now."""
    waiting = list(connection.execute(_WAITING).scalars())
    work_wake(connection, INSTANCE, waiting, wake_ms=now_ms)


def instances_known(connection: Connection) -> set[InstanceId]:
    """Return the id of every instance there ever was."""
    return set(connection.execute(select(instances.c.id)).scalars())
