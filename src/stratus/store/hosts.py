"""What does a host worker read and write? Leases, documents, and what was seen.

Everything written here is guarded by the lease token: a worker whose lease lapsed changes
nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Boolean,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    not_,
    or_,
    select,
    update,
)

from stratus.model.host import (
    GuestFound,
    GuestKnown,
    GuestReport,
    GuestWish,
    HostCapacity,
    HostDesired,
    WishedDisk,
)
from stratus.model.ids import HostId, InstanceId
from stratus.model.instance import HaltCause, Nic, Observed
from stratus.model.problem import Problem
from stratus.model.volume import VolumeKind
from stratus.store.json import json_text, json_value, problem_text
from stratus.store.leasing import leases_take
from stratus.store.placing import epoch_gate_open
from stratus.store.rows import AnyRow
from stratus.store.schema import hosts, instances, strays, tombstones, volumes
from stratus.store.site import site_epoch, site_restored_ms
from stratus.store.upsert import upsert


class LeasedHost(msgspec.Struct, frozen=True, kw_only=True):
    """A host that this worker owns until the lease ends."""

    id: HostId
    name: str
    uri: str
    desired: HostDesired
    accelerator_wanted: str
    token: int
    unreachable_ms: int
    inventory_epoch: int
    until_ms: int


class HostDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that should be true of one host's guests."""

    wishes: tuple[GuestWish, ...]
    doomed: frozenset[tuple[InstanceId, int]] = frozenset()


def hosts_lease(
    connection: Connection, owner: str, *, now_ms: int, lease_ms: int, hosts_max: int
) -> list[LeasedHost]:
    """Renew this worker's leases and take hosts that nobody holds, up to its limit."""
    rows = leases_take(
        connection, hosts, owner, now_ms=now_ms, lease_ms=lease_ms, rows_max=hosts_max
    )
    return [_leased(row) for row in rows]


def _leased(row: AnyRow) -> LeasedHost:
    return LeasedHost(
        id=row.id,
        name=row.name,
        uri=row.uri,
        desired=HostDesired(row.desired),
        accelerator_wanted=row.accelerator_wanted,
        token=row.lease_token,
        unreachable_ms=row.unreachable_ms,
        inventory_epoch=row.inventory_epoch,
        until_ms=row.lease_until_ms,
    )


_WISHES: Final = (
    select(
        instances.c.id,
        instances.c.project_id,
        instances.c.host_id,
        instances.c.generation,
        instances.c.desired,
        instances.c.desired_ms,
        instances.c.release,
        instances.c.run,
        instances.c.resets,
        instances.c.name,
        instances.c.vcpus,
        instances.c.memory_mib,
        instances.c.nics,
        instances.c.failures,
        instances.c.retry_ms,
        instances.c.parked,
        instances.c.created_epoch,
        instances.c.observed,
        instances.c.observed_generation,
        instances.c.observed_run,
        instances.c.observed_resets,
        instances.c.observed_ms,
        instances.c.halt_cause,
    )
    .where(instances.c.host_id.in_(bindparam("host_ids", expanding=True)))
    .order_by(instances.c.id)
)
_DISKS: Final = (
    select(
        volumes.c.instance_id,
        volumes.c.id,
        volumes.c.kind,
        volumes.c.pool_id,
        volumes.c.epoch,
        volumes.c.presence,
    )
    .where(
        volumes.c.gone_ms == 0,
        volumes.c.wanted,
        volumes.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
    )
    .order_by(volumes.c.instance_id, volumes.c.position)
)
_DOOMED: Final = select(
    tombstones.c.host_id, tombstones.c.instance_id, tombstones.c.generation
).where(tombstones.c.host_id.in_(bindparam("host_ids", expanding=True)))


def host_documents(
    connection: Connection, host_ids: Collection[HostId]
) -> dict[HostId, HostDocument]:
    """Return the whole document of each host."""
    if not host_ids:
        return {}
    rows = connection.execute(_WISHES, {"host_ids": list(host_ids)}).all()
    # After a restore nothing old is started before every host has shown what it runs.
    epoch = site_epoch(connection)
    gate_open = epoch == 0 or epoch_gate_open(connection, epoch)
    restored_ms = site_restored_ms(connection)
    # Only a guest that may have to be started needs its disks named.
    starting = [row.id for row in rows if _may_start(row)]
    elsewhere = _stray_elsewhere(connection, {row.id: row.host_id for row in rows})
    disks: dict[str, list[AnyRow]] = {}
    if starting:
        for disk in connection.execute(_DISKS, {"instance_ids": starting}):
            disks.setdefault(disk.instance_id, []).append(disk)
    wishes: dict[HostId, list[GuestWish]] = {host_id: [] for host_id in host_ids}
    for row in rows:
        unsure = (row.created_epoch < epoch and not gate_open) or row.id in elsewhere
        fresh = row.observed_ms >= restored_ms
        wish = _wish(row, disks.get(row.id, []), unsure=unsure, fresh=fresh)
        wishes[row.host_id].append(wish)
    doomed: dict[HostId, set[tuple[InstanceId, int]]] = {}
    for stone in connection.execute(_DOOMED, {"host_ids": list(host_ids)}):
        doomed.setdefault(stone.host_id, set()).add((stone.instance_id, stone.generation))
    return {
        host_id: HostDocument(wishes=tuple(lines), doomed=frozenset(doomed.get(host_id, ())))
        for host_id, lines in wishes.items()
    }


def _stray_elsewhere(connection: Connection, placed: Mapping[str, str]) -> set[str]:
    """Return the instances whose guest was seen on a host other than their own."""
    found = connection.execute(
        select(strays.c.instance_id, strays.c.host_id).where(strays.c.instance_id != "")
    )
    return {
        row.instance_id for row in found if placed.get(row.instance_id) not in (None, row.host_id)
    }


def _may_start(row: AnyRow) -> bool:
    if row.desired != "running" or row.release:
        return False
    return not (
        row.observed == "running"
        and row.observed_generation == row.generation
        and row.observed_run == row.run
        and row.observed_resets >= row.resets
    )


def _wish(row: AnyRow, disks: Sequence[AnyRow], *, unsure: bool, fresh: bool) -> GuestWish:
    return GuestWish(
        instance_id=row.id,
        project_id=row.project_id,
        generation=row.generation,
        present=row.desired != "absent" and not row.release,
        # A deleted guest has nothing left to save; one that gives its place back has its disks.
        gently=row.desired != "absent",
        running=row.desired == "running",
        hold=unsure or row.parked != "",
        run=row.run,
        resets=row.resets,
        desired_ms=row.desired_ms,
        title=row.name,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        disks=tuple(
            WishedDisk(
                kind=VolumeKind(disk.kind),
                volume_id=disk.id,
                pool_id=disk.pool_id,
                epoch=disk.epoch,
            )
            for disk in disks
        ),
        disks_ready=bool(disks) and all(disk.presence == "ready" for disk in disks),
        nics=json_value(tuple[Nic, ...], row.nics),
        failures=row.failures,
        retry_ms=row.retry_ms,
        known=GuestKnown(
            observed=Observed(row.observed),
            generation=row.observed_generation,
            run=row.observed_run,
            resets=row.observed_resets,
            halt_cause=HaltCause(row.halt_cause),
            fresh=fresh,
        ),
    )


_OBSERVE: Final = (
    update(instances)
    .where(
        instances.c.id == bindparam("b_id"),
        instances.c.host_id == bindparam("b_host_id"),
        instances.c.generation <= bindparam("b_generation"),
        # That the guest was not there yet says nothing to one who wishes it gone.
        or_(
            bindparam("b_observed") != Observed.ABSENT.value,
            bindparam("b_present", type_=Boolean)
            == and_(instances.c.desired != "absent", not_(instances.c.release)),
        ),
    )
    .values(
        observed=bindparam("b_observed"),
        observed_generation=bindparam("b_generation"),
        observed_run=bindparam("b_run"),
        observed_resets=bindparam("b_resets"),
        observed_ms=bindparam("b_now_ms"),
        halt_cause=bindparam("b_halt_cause"),
        accelerator=case(
            (bindparam("b_accelerator") != "", bindparam("b_accelerator")),
            else_=instances.c.accelerator,
        ),
        failures=0,
        failure="",
        retry_ms=0,
        version=instances.c.version + 1,
    )
)
_FAIL: Final = (
    update(instances)
    .where(
        instances.c.id == bindparam("b_id"),
        instances.c.host_id == bindparam("b_host_id"),
        instances.c.generation == bindparam("b_generation"),
    )
    .values(
        failures=instances.c.failures + 1,
        failure=bindparam("b_failure"),
        retry_ms=bindparam("b_retry_ms"),
        version=instances.c.version + 1,
    )
)


def guests_observe(
    connection: Connection,
    reports: Sequence[GuestReport],
    *,
    now_ms: int,
    retry_ms: Mapping[InstanceId, int],
) -> None:
    """Write down what was seen; reports about a placement that is over change nothing."""
    seen = [report for report in reports if report.failure is None]
    failed = [report for report in reports if report.failure is not None]
    if seen:
        connection.execute(
            _OBSERVE,
            [
                {
                    "b_id": report.instance_id,
                    "b_host_id": report.host_id,
                    "b_generation": report.generation,
                    "b_observed": report.observed.value,
                    "b_present": report.present,
                    "b_run": report.run,
                    "b_resets": report.resets,
                    "b_now_ms": now_ms,
                    "b_halt_cause": report.halt_cause.value,
                    "b_accelerator": report.accelerator,
                }
                for report in seen
            ],
        )
    if failed:
        connection.execute(
            _FAIL,
            [
                {
                    "b_id": report.instance_id,
                    "b_host_id": report.host_id,
                    "b_generation": report.generation,
                    "b_failure": problem_text(report.failure),
                    "b_retry_ms": retry_ms[report.instance_id],
                }
                for report in failed
            ],
        )


def host_seen(
    connection: Connection,
    host_id: HostId,
    *,
    now_ms: int,
    epoch: int,
    capacity: HostCapacity | None,
) -> None:
    """Write down that the host answered with a whole inventory."""
    values: dict[str, Any] = {
        "seen_ms": now_ms,
        "unreachable_ms": 0,
        "failure": "",
        "inventory_epoch": epoch,
    }
    if capacity is not None:
        values["capacity"] = json_text(capacity)
    connection.execute(update(hosts).where(hosts.c.id == host_id).values(**values))


def host_unreachable(
    connection: Connection, host_id: HostId, *, now_ms: int, problem: Problem
) -> bool:
    """Write down that the host did not answer; True when that is news."""
    connection.execute(
        update(hosts).where(hosts.c.id == host_id).values(failure=problem_text(problem))
    )
    done = connection.execute(
        update(hosts)
        .where(hosts.c.id == host_id, hosts.c.unreachable_ms == 0)
        .values(unreachable_ms=now_ms)
    )
    return done.rowcount == 1


def host_forget(connection: Connection, host_id: HostId, *, now_ms: int) -> None:
    """Close the record of a host that was removed; what it ran is no longer known."""
    connection.execute(delete(strays).where(strays.c.host_id == host_id))
    connection.execute(
        update(hosts).where(hosts.c.id == host_id).values(gone_ms=now_ms, lease_until_ms=0)
    )


def host_instances(connection: Connection, host_id: HostId) -> list[InstanceId]:
    """Return the instances placed on this host."""
    return list(
        connection.execute(
            select(instances.c.id).where(instances.c.host_id == host_id).order_by(instances.c.id)
        ).scalars()
    )


def strays_replace(
    connection: Connection, host_id: HostId, found: Sequence[GuestFound], *, now_ms: int
) -> list[GuestFound]:
    """Write down which guests nobody wished for; return those seen for the first time."""
    known = set(
        connection.execute(select(strays.c.name).where(strays.c.host_id == host_id)).scalars()
    )
    names = {guest.name for guest in found}
    if known - names:
        connection.execute(
            delete(strays).where(strays.c.host_id == host_id, strays.c.name.not_in(sorted(names)))
        )
    if not found:
        return []
    insert = upsert(connection, strays)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["host_id", "name"],
            set_={"observed": insert.excluded.observed, "seen_ms": insert.excluded.seen_ms},
        ),
        [
            {
                "host_id": host_id,
                "name": guest.name,
                "instance_id": guest.instance_id or "",
                "generation": guest.generation,
                "observed": guest.observed.value,
                "first_ms": now_ms,
                "seen_ms": now_ms,
            }
            for guest in found
        ],
    )
    return [guest for guest in found if guest.name not in known]


def tombstones_for_gone(
    connection: Connection, host_id: HostId, found: Sequence[GuestFound], *, now_ms: int
) -> int:
    """Doom guests whose instance was deleted by an explicit wish; return how many.

    That wish is still written in the closed record, so this is no absence that commands.
    """
    ours = {guest.instance_id: guest for guest in found if guest.instance_id is not None}
    if not ours:
        return 0
    gone = (
        connection.execute(
            select(instances.c.id).where(
                instances.c.id.in_(sorted(ours)),
                instances.c.gone_ms > 0,
                instances.c.desired == "absent",
            )
        )
        .scalars()
        .all()
    )
    if gone:
        connection.execute(
            upsert(connection, tombstones).on_conflict_do_nothing(),
            [
                {
                    "host_id": host_id,
                    "instance_id": instance_id,
                    "generation": ours[instance_id].generation,
                    "created_ms": now_ms,
                }
                for instance_id in gone
            ],
        )
    return len(gone)


def tombstones_fulfil(
    connection: Connection, host_id: HostId, done: Iterable[tuple[InstanceId, int]]
) -> None:
    """Remove tombstones whose guests are confirmed gone."""
    rows = [
        {"b_host_id": host_id, "b_instance_id": instance_id, "b_generation": generation}
        for instance_id, generation in done
    ]
    if rows:
        connection.execute(
            delete(tombstones).where(
                tombstones.c.host_id == bindparam("b_host_id"),
                tombstones.c.instance_id == bindparam("b_instance_id"),
                tombstones.c.generation == bindparam("b_generation"),
            ),
            rows,
        )
