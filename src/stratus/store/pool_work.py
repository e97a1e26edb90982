"""What does a pool worker read and write? Leases, undone images, and what was seen."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, bindparam, or_, select, update

from stratus.model.ids import HostId, ImageId, InstanceId, PoolId
from stratus.model.image import ImageFormat, ImageSpec
from stratus.model.problem import Problem
from stratus.store.json import json_text, problem_text
from stratus.store.leasing import leases_take
from stratus.store.schema import images, instances, pools, volumes


class LeasedPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool that this worker owns until the lease ends."""

    id: PoolId
    name: str
    driver: str
    location: str
    token: int
    seen_ms: int  # when it last answered; 0 = never yet
    unreachable_ms: int
    until_ms: int


class ImageUndone(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose wish is not fulfilled: to be fetched and published, or removed."""

    spec: ImageSpec
    wanted: bool
    version: int
    failures: int


def pools_lease(
    connection: Connection, owner: str, *, now_ms: int, lease_ms: int, pools_max: int
) -> list[LeasedPool]:
    """Renew this worker's leases and take pools that nobody holds, up to its limit."""
    rows = leases_take(
        connection, pools, owner, now_ms=now_ms, lease_ms=lease_ms, rows_max=pools_max
    )
    return [
        LeasedPool(
            id=row.id,
            name=row.name,
            driver=row.driver,
            location=row.location,
            token=row.lease_token,
            seen_ms=row.seen_ms,
            unreachable_ms=row.unreachable_ms,
            until_ms=row.lease_until_ms,
        )
        for row in rows
    ]


_UNDONE: Final = (
    select(images)
    .where(
        images.c.gone_ms == 0,
        images.c.pool_id == bindparam("pool_id"),
        images.c.retry_ms <= bindparam("now_ms"),
        images.c.parked == "",
        or_(and_(images.c.wanted, images.c.presence != "ready"), ~images.c.wanted),
    )
    .order_by(images.c.id)
    .limit(bindparam("rows_max"))
)


def images_undone(
    connection: Connection, pool_id: PoolId, *, now_ms: int, rows_max: int
) -> list[ImageUndone]:
    """Return the images of this pool that must be fetched or removed now.

    One that clones still stand on is not removed before they are gone.
    """
    rows = connection.execute(
        _UNDONE, {"pool_id": pool_id, "now_ms": now_ms, "rows_max": rows_max}
    ).all()
    leaving = [row.id for row in rows if not row.wanted]
    needed = set(
        connection.execute(
            select(volumes.c.image_id)
            .where(volumes.c.gone_ms == 0, volumes.c.image_id.in_(leaving))
            .distinct()
        ).scalars()
        if leaving
        else ()
    )
    return [
        ImageUndone(
            spec=ImageSpec(
                id=row.id,
                source=row.source,
                format=ImageFormat(row.format),
                size_bytes=row.said_bytes,
                sha256=row.said_sha256,
            ),
            wanted=row.wanted,
            version=row.version,
            failures=row.failures,
        )
        for row in rows
        if row.id not in needed
    ]


def images_next_ms(connection: Connection, pool_id: PoolId, *, now_ms: int) -> int | None:
    """Return when the next image that failed may be tried again."""
    return connection.execute(
        select(images.c.retry_ms)
        .where(
            images.c.gone_ms == 0,
            images.c.pool_id == pool_id,
            images.c.parked == "",
            images.c.retry_ms > now_ms,
        )
        .order_by(images.c.retry_ms)
        .limit(1)
    ).scalar()


def image_set(
    connection: Connection, image_id: ImageId, values: Mapping[str, Any], *, version: int | None
) -> bool:
    """Change these columns, where the version is still the one given; tell whether it was."""
    where = images.c.id == image_id
    if version is not None:
        where &= images.c.version == version
    done = connection.execute(
        update(images).where(where).values(version=images.c.version + 1, **values)
    )
    return done.rowcount == 1


def image_progress(connection: Connection, image_id: ImageId, fetched_bytes: int) -> None:
    """Write down how far a fetch has come; no new version, nobody waits for it."""
    connection.execute(
        update(images).where(images.c.id == image_id).values(fetched_bytes=fetched_bytes)
    )


def pool_seen(
    connection: Connection, pool_id: PoolId, *, now_ms: int, facts: object | None
) -> None:
    """Write down that the pool answered, and what its probe said."""
    values: dict[str, Any] = {"seen_ms": now_ms, "unreachable_ms": 0, "failure": ""}
    if facts is not None:
        values["facts"] = json_text(facts)
    connection.execute(update(pools).where(pools.c.id == pool_id).values(**values))


def pool_unreachable(
    connection: Connection, pool_id: PoolId, *, now_ms: int, problem: Problem
) -> bool:
    """Write down that the pool did not answer; True when that is news."""
    connection.execute(
        update(pools).where(pools.c.id == pool_id).values(failure=problem_text(problem))
    )
    done = connection.execute(
        update(pools)
        .where(pools.c.id == pool_id, pools.c.unreachable_ms == 0)
        .values(unreachable_ms=now_ms)
    )
    return done.rowcount == 1


_HOSTS: Final = (
    select(instances.c.host_id)
    .where(
        instances.c.id.in_(bindparam("instance_ids", expanding=True)),
        instances.c.host_id.is_not(None),
    )
    .distinct()
)


def hosts_of_instances(
    connection: Connection, instance_ids: Collection[InstanceId]
) -> Sequence[HostId]:
    """Return the hosts on which these instances are placed."""
    if not instance_ids:
        return []
    return connection.execute(_HOSTS, {"instance_ids": list(instance_ids)}).scalars().all()
