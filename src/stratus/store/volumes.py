"""What do we know of volumes? Their wishes, and what their pools showed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from stratus.model.ids import InstanceId, PoolId, VolumeId
from stratus.model.volume import Presence, VolumeFacts, VolumeKind, VolumeSource
from stratus.store.json import json_text, json_value, problem_value
from stratus.store.rows import AnyRow
from stratus.store.schema import instances, volumes
from stratus.store.upsert import rows_insert

REOPEN_ROWS_MAX: Final = 1000  # ids in one statement


def volumes_create(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert these rows of wishes."""
    rows_insert(connection, volumes, rows)


def volume_source_text(source: VolumeSource) -> str:
    """Encode what a volume begins as."""
    return json_text(source)


def _facts(row: AnyRow) -> VolumeFacts:
    return VolumeFacts(
        id=row.id,
        project_id=row.project_id,
        kind=VolumeKind(row.kind),
        size_bytes=row.size_bytes,
        version=row.version,
        wanted=row.wanted,
        source=json_value(VolumeSource, row.source),  # type: ignore[arg-type]  # a union
        instance_id=row.instance_id,
        pool_id=row.pool_id,
        presence=Presence(row.presence),
        epoch=row.epoch,
        failures=row.failures,
        failure=problem_value(row.failure),
    )


_PLACE: Final = (
    update(volumes)
    .where(
        volumes.c.instance_id == bindparam("b_instance_id"),
        volumes.c.gone_ms == 0,
        volumes.c.pool_id.is_(None),
    )
    .values(pool_id=bindparam("b_pool_id"), version=volumes.c.version + 1)
)
_GRANT: Final = (
    update(volumes)
    .where(
        volumes.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
        volumes.c.gone_ms == 0,
    )
    .values(epoch=volumes.c.epoch + 1)
)


def volumes_place(connection: Connection, placed: Sequence[tuple[InstanceId, PoolId]]) -> None:
    """Say in which pool the disks of these instances are made, and grant them anew.

    A disk that has a pool keeps it; its epoch rises, so that older grants are void.
    """
    if not placed:
        return
    connection.execute(
        _PLACE, [{"b_instance_id": i, "b_pool_id": pool_id} for i, pool_id in placed]
    )
    connection.execute(_GRANT, {"instance_ids": [i for i, _ in placed]})


_UNWANT: Final = (
    update(volumes)
    .where(
        volumes.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
        volumes.c.gone_ms == 0,
        volumes.c.wanted,
    )
    .values(wanted=False, failures=0, retry_ms=0, version=volumes.c.version + 1)
)
_NEVER_MADE: Final = (
    update(volumes)
    .where(
        volumes.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
        volumes.c.gone_ms == 0,
        volumes.c.pool_id.is_(None),
    )
    .values(gone_ms=bindparam("now_ms"), presence="absent", version=volumes.c.version + 1)
)
_POOLS: Final = (
    select(volumes.c.pool_id)
    .where(
        volumes.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
        volumes.c.gone_ms == 0,
        volumes.c.pool_id.is_not(None),
    )
    .distinct()
)


def volumes_pools(connection: Connection, instance_ids: Collection[InstanceId]) -> list[PoolId]:
    """Return the pools that hold disks of these instances."""
    if not instance_ids:
        return []
    return list(connection.execute(_POOLS, {"instance_ids": list(instance_ids)}).scalars())


def volumes_unwant(
    connection: Connection, instance_ids: Collection[InstanceId], *, now_ms: int
) -> list[PoolId]:
    """Wish the disks of these instances away; return the pools that must act.

    Disks that no pool was ever asked for are gone at once.
    """
    if not instance_ids:
        return []
    ids = {"instance_ids": list(instance_ids)}
    connection.execute(_UNWANT, ids)
    connection.execute(_NEVER_MADE, ids | {"now_ms": now_ms})
    return volumes_pools(connection, instance_ids)


# A disk is removed only when its instance has no guest that could hold it open.
_UNDONE: Final = (
    select(volumes)
    .select_from(volumes.outerjoin(instances, instances.c.id == volumes.c.instance_id))
    .where(
        volumes.c.gone_ms == 0,
        volumes.c.pool_id == bindparam("pool_id"),
        volumes.c.retry_ms <= bindparam("now_ms"),
        or_(
            and_(volumes.c.wanted, volumes.c.presence != "ready"),
            and_(~volumes.c.wanted, instances.c.host_id.is_(None)),
        ),
    )
    .order_by(volumes.c.id)
    .limit(bindparam("rows_max"))
)


def volumes_undone(
    connection: Connection, pool_id: PoolId, *, now_ms: int, rows_max: int
) -> list[VolumeFacts]:
    """Return the volumes of this pool whose wish is not fulfilled and may be acted on now."""
    rows = connection.execute(_UNDONE, {"pool_id": pool_id, "now_ms": now_ms, "rows_max": rows_max})
    return [_facts(row) for row in rows]


_NEXT_RETRY: Final = (
    select(volumes.c.retry_ms)
    .where(
        volumes.c.gone_ms == 0,
        volumes.c.pool_id == bindparam("pool_id"),
        or_(volumes.c.presence != "ready", ~volumes.c.wanted),
        volumes.c.retry_ms > bindparam("now_ms"),
    )
    .order_by(volumes.c.retry_ms)
    .limit(1)
)


def volumes_next_ms(connection: Connection, pool_id: PoolId, *, now_ms: int) -> int | None:
    """Return when the next volume that failed may be tried again."""
    query = {"pool_id": pool_id, "now_ms": now_ms}
    return connection.execute(_NEXT_RETRY, query).scalar()


_STATEMENTS: dict[tuple[str, ...], Any] = {}


def volumes_set(
    connection: Connection, changes: Sequence[tuple[VolumeId, int, Mapping[str, Any]]]
) -> None:
    """Change these columns where the version is still the one given; others are left alone."""
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for volume_id, version, values in changes:
        row = {f"b_{name}": value for name, value in values.items()}
        row |= {"b_id": volume_id, "b_version": version}
        grouped.setdefault(tuple(sorted(values)), []).append(row)
    for key, rows in grouped.items():
        statement = _STATEMENTS.get(key)
        if statement is None:
            statement = _STATEMENTS[key] = (
                update(volumes)
                .where(
                    volumes.c.id == bindparam("b_id"), volumes.c.version == bindparam("b_version")
                )
                .values(
                    version=volumes.c.version + 1,
                    **{name: bindparam(f"b_{name}") for name in key},
                )
            )
        connection.execute(statement, rows)


_REOPEN: Final = (
    update(volumes)
    .where(volumes.c.id.in_(bindparam("volume_ids", expanding=True)), volumes.c.gone_ms > 0)
    .values(
        gone_ms=0,
        wanted=False,
        presence="unknown",
        failures=0,
        retry_ms=0,
        version=volumes.c.version + 1,
    )
)


def volumes_reopen(connection: Connection, found: Sequence[VolumeId]) -> None:
    """Have those of these removed again that were wished away, and are there all the same.

    A worker that stood still may have made a volume after another one had removed it. The
    wish is still written in the closed record, so this is no absence that commands.
    """
    for start in range(0, len(found), REOPEN_ROWS_MAX):
        ids = list(found[start : start + REOPEN_ROWS_MAX])
        connection.execute(_REOPEN, {"volume_ids": ids})


def volumes_of(connection: Connection, instance_id: InstanceId) -> list[VolumeFacts]:
    """Return the live volumes of an instance, in the order its guest sees them."""
    rows = connection.execute(
        select(volumes)
        .where(volumes.c.instance_id == instance_id, volumes.c.gone_ms == 0)
        .order_by(volumes.c.position)
    )
    return [_facts(row) for row in rows]
