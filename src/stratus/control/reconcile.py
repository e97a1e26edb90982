"""What makes wishes true? Claim work, look at the whole, decide purely, apply in one transaction.

A batch is looked at together: one read, one pass of the placer, one write. Rows that changed
between the read and the write are left alone and looked at again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import msgspec
from sqlalchemy import Connection

from stratus.control.trust import image_verdict
from stratus.control.world import World
from stratus.decide.lifecycle import (
    Adopt,
    AdoptStray,
    Delete,
    Forget,
    LetGo,
    Park,
    Place,
    Release,
    Settled,
    StartAgain,
    Step,
    Wait,
    next_step,
    observed_once_unwanted,
)
from stratus.decide.placement import HostTable, Placed, Request, Unplaced, placement_decide
from stratus.decide.trust import Forbidden
from stratus.model.ids import HostId, ImageId, InstanceId, PoolId
from stratus.model.instance import Desired, InstanceFacts, Observed
from stratus.model.problem import Problem
from stratus.model.units import SECOND_MS
from stratus.store.events import EventDraft, event_append_many
from stratus.store.hosts_admin import guests_doom
from stratus.store.images import images_by_ids
from stratus.store.instances import (
    avoided_hosts,
    instances_by_ids,
    instances_lock,
    instances_set,
    waiting_wake,
)
from stratus.store.json import problem_text
from stratus.store.leases import leases_release
from stratus.store.leasing import rows_wake
from stratus.store.placing import epoch_gate_open, hosts_facts, placements_book
from stratus.store.schema import hosts, pools
from stratus.store.site import site_epoch
from stratus.store.volumes import volumes_place, volumes_pools, volumes_unwant
from stratus.store.work import INSTANCE, WorkRow, work_claim, work_finish, work_held, work_next_ms

BATCH_ROWS_MAX: Final = 512
WORK_LEASE_MS: Final = 30 * SECOND_MS
ROOM_LOOK_MS: Final = 30 * SECOND_MS  # how soon a request that fits nowhere is looked at again
ACTOR: Final = "reconciler"


@dataclass(kw_only=True, slots=True)
class _Views:
    """Everything one batch was decided on."""

    facts: dict[InstanceId, InstanceFacts]
    forbidden: dict[ImageId, Problem]
    image_pools: dict[ImageId, PoolId]
    table: HostTable
    placements: dict[HostId, int]
    avoid: dict[InstanceId, HostId]
    epoch: int
    gate_open: bool


@dataclass(kw_only=True, slots=True)
class _Writing:
    """What one batch will write, gathered before anything is written."""

    now_ms: int
    changes: list[tuple[InstanceId, Mapping[str, Any]]] = field(default_factory=list)
    wakes: dict[str, int] = field(default_factory=dict)
    events: list[EventDraft] = field(default_factory=list)
    hosts: set[HostId] = field(default_factory=set)
    placed: list[tuple[InstanceId, PoolId]] = field(default_factory=list)
    unwanted: list[InstanceId] = field(default_factory=list)
    disks_due: list[InstanceId] = field(default_factory=list)
    forgotten: list[InstanceId] = field(default_factory=list)
    doomed: list[tuple[HostId, InstanceId, int]] = field(default_factory=list)
    room: bool = False

    def event(self, kind: str, facts: InstanceFacts, **data: Any) -> None:  # noqa: ANN401  # JSON
        """Note one event of this instance."""
        self.events.append(
            EventDraft(
                kind=kind,
                subject=facts.id,
                project_id=facts.project_id,
                actor=ACTOR,
                data=data,
            )
        )


class InstanceReconciler:
    """Looks at instances that somebody woke; several may run at once, anywhere."""

    def __init__(self, world: World) -> None:
        self._world = world

    def turn(self) -> int:
        """Look at one batch of due work; return how many instances that was."""
        now_ms = self._world.now_ms()
        token = self._world.chance(62) + 1
        store = self._world.store
        rows = store.write(
            lambda c: work_claim(
                c,
                INSTANCE,
                token=token,
                now_ms=now_ms,
                lease_ms=WORK_LEASE_MS,
                rows_max=BATCH_ROWS_MAX,
            )
        )
        if not rows:
            return 0
        ids = [InstanceId(row.subject) for row in rows]
        views = store.read(lambda c: _views(c, ids, now_ms=now_ms))
        steps = {
            facts.id: next_step(facts, now_ms=now_ms, forbidden=views.forbidden.get(facts.image_id))
            for facts in views.facts.values()
        }
        answers = _place_all(views, steps)
        store.write(lambda c: _apply(c, rows, token, views, steps, answers, now_ms=now_ms))
        for topic in ("hosts", "pools", "work", "events"):
            store.hints.send(topic)
        return len(rows)

    def next_ms(self) -> int:
        """Return when the next work is due at the latest, unless woken before."""
        due_ms = self._world.store.read(lambda c: work_next_ms(c, INSTANCE))
        idle_ms = self._world.now_ms() + ROOM_LOOK_MS
        return idle_ms if due_ms is None else min(idle_ms, due_ms)


def _views(connection: Connection, ids: Sequence[InstanceId], *, now_ms: int) -> _Views:
    facts = instances_by_ids(connection, ids)
    # Only what may start is worth the questions of trust and room.
    starting = [f for f in facts.values() if f.desired is Desired.RUNNING and not f.gone_ms]
    unplaced = [f for f in starting if f.host_id is None]
    unsure = [f for f in starting if not (f.seen_here and f.observed is Observed.RUNNING)]
    strayed = [f for f in facts.values() if f.stray_host_id is not None]
    images = images_by_ids(connection, {f.image_id for f in (*unsure, *strayed)})
    forbidden: dict[ImageId, Problem] = {}
    for image in images.values():
        verdict = image_verdict(connection, image, now_ms=now_ms)
        if isinstance(verdict, Forbidden):
            forbidden[image.id] = verdict.problem
    found, placements = hosts_facts(connection) if unplaced else ([], {})
    epoch = site_epoch(connection) if unplaced else 0
    return _Views(
        facts=facts,
        forbidden=forbidden,
        image_pools={i.id: i.pool_id for i in images.values() if i.pool_id is not None},
        table=HostTable(found),
        placements=placements,
        avoid=avoided_hosts(connection, [f.id for f in unplaced]),
        epoch=epoch,
        gate_open=epoch == 0 or epoch_gate_open(connection, epoch),
    )


def _place_all(
    views: _Views, steps: Mapping[InstanceId, Step]
) -> dict[InstanceId, Placed | Unplaced]:
    """Decide for all that need a host, oldest first."""
    order = sorted(
        instance_id
        for instance_id, step in steps.items()
        if isinstance(step, Place)
        and (views.gate_open or views.facts[instance_id].created_epoch >= views.epoch)
    )
    requests = [_request(views, views.facts[instance_id]) for instance_id in order]
    return dict(zip(order, placement_decide(views.table, requests), strict=True))


def _request(views: _Views, facts: InstanceFacts) -> Request:
    return Request(
        vcpus=facts.vcpus,
        memory_mib=facts.memory_mib,
        # Disks that were made stay where they are.
        pool_id=facts.pool_id or views.image_pools.get(facts.image_id),
        ranking=facts.ranking,
        avoid=views.avoid.get(facts.id),
    )


# -- applying -------------------------------------------------------------------------------


def _apply(
    connection: Connection,
    rows: Sequence[WorkRow],
    token: int,
    views: _Views,
    steps: Mapping[InstanceId, Step],
    answers: Mapping[InstanceId, Placed | Unplaced],
    *,
    now_ms: int,
) -> None:
    held = work_held(connection, INSTANCE, [row.subject for row in rows], token=token)
    versions = instances_lock(connection, [InstanceId(subject) for subject in held])
    fresh = {
        instance_id
        for instance_id, version in versions.items()
        if version == views.facts[instance_id].version
    }
    booked = placements_book(
        connection,
        [a.host_id for i, a in answers.items() if isinstance(a, Placed) and i in fresh],
        seen=views.placements,
    )
    writing = _Writing(now_ms=now_ms)
    for instance_id in sorted(versions):
        if instance_id not in fresh:
            writing.wakes[instance_id] = now_ms
            continue
        facts = views.facts[instance_id]
        step = steps[instance_id]
        if isinstance(step, Place):
            _place(writing, views, facts, answers.get(instance_id), booked)
        else:
            _step(writing, views, facts, step)
    _write(connection, writing)
    work_finish(connection, INSTANCE, rows, token=token, wakes_ms=writing.wakes)


def _write(connection: Connection, writing: _Writing) -> None:
    now_ms = writing.now_ms
    instances_set(connection, writing.changes)
    volumes_place(connection, writing.placed)
    due_pools = {pool_id for _, pool_id in writing.placed}
    due_pools.update(volumes_unwant(connection, writing.unwanted, now_ms=now_ms))
    due_pools.update(volumes_pools(connection, writing.disks_due))
    leases_release(connection, writing.forgotten, now_ms=now_ms)
    for host_id, instance_id, generation in writing.doomed:
        guests_doom(connection, host_id, [(instance_id, generation)], now_ms=now_ms)
        writing.hosts.add(host_id)
    event_append_many(connection, writing.events, now_ms=now_ms)
    if writing.room:
        waiting_wake(connection, now_ms=now_ms)
    rows_wake(connection, pools, due_pools, wake_ms=now_ms)
    rows_wake(connection, hosts, writing.hosts, wake_ms=now_ms)


def _place(
    writing: _Writing,
    views: _Views,
    facts: InstanceFacts,
    answer: Placed | Unplaced | None,
    booked: set[HostId],
) -> None:
    if answer is None:
        _wait_for_room(writing, facts, _RESTORING)
        return
    if isinstance(answer, Unplaced):
        _wait_for_room(writing, facts, answer.problem)
        return
    if answer.host_id not in booked:
        writing.wakes[facts.id] = writing.now_ms
        return
    pool_id = facts.pool_id or views.image_pools[facts.image_id]
    writing.changes.append(
        (
            facts.id,
            {
                "host_id": answer.host_id,
                "pool_id": pool_id,
                "generation": facts.generation + 1,
                "placed_ms": writing.now_ms,
                "waiting": "",
                "failures": 0,
                "failure": "",
                "retry_ms": 0,
            },
        )
    )
    writing.placed.append((facts.id, pool_id))
    writing.hosts.add(answer.host_id)
    writing.wakes[facts.id] = writing.now_ms + ROOM_LOOK_MS
    writing.event("instance.placed", facts, host=views.table.hosts[answer.row].name)


def _wait_for_room(writing: _Writing, facts: InstanceFacts, problem: Problem) -> None:
    writing.wakes[facts.id] = writing.now_ms + ROOM_LOOK_MS
    if facts.waiting is None or facts.waiting.detail != problem.detail:
        writing.changes.append((facts.id, {"waiting": problem_text(problem)}))
        if facts.waiting is None:
            writing.event("instance.waiting", facts, reason=problem.code, detail=problem.detail)


def _step(writing: _Writing, views: _Views, facts: InstanceFacts, step: Step) -> None:
    now_ms = writing.now_ms
    values: dict[str, Any]
    match step:
        case Settled():
            _note_settled(writing, facts)
        case Wait(until_ms=until_ms):
            writing.wakes[facts.id] = until_ms
            if facts.host_id is None and facts.volumes_left:
                writing.disks_due.append(facts.id)
        case Adopt(generation=generation, run=run):
            values = {"generation": generation, "run": max(facts.run, run)}
            if facts.observed is not Observed.HALTED:
                values |= _wished_later(facts)
            writing.changes.append((facts.id, values))
            writing.wakes[facts.id] = now_ms
            writing.hosts.add(_host(facts))
            writing.event("instance.adopted", facts, generation=generation)
        case AdoptStray(host_id=host_id, generation=generation):
            values = {"host_id": host_id, "generation": generation, "observed": "unknown"}
            if facts.stray_alive and generation > facts.generation:
                values |= _wished_later(facts)
            writing.changes.append((facts.id, {**values, "placed_ms": now_ms, "waiting": ""}))
            if facts.host_id is not None:
                writing.doomed.append((facts.host_id, facts.id, facts.generation))
            if facts.pool_id is not None or facts.image_id in views.image_pools:
                pool_id = facts.pool_id or views.image_pools[facts.image_id]
                writing.placed.append((facts.id, pool_id))
            writing.wakes[facts.id] = now_ms + ROOM_LOOK_MS
            writing.hosts.add(host_id)
            writing.event("instance.adopted", facts, host=host_id, generation=generation)
        case LetGo(avoid=avoid):
            _let_go(writing, facts, avoid=avoid)
        case Release():
            _release(writing, facts)
        case Delete():
            values = {"desired": Desired.ABSENT.value, "desired_ms": now_ms}
            values |= {"observed": observed_once_unwanted(facts).value}
            writing.changes.append((facts.id, values))
            writing.unwanted.append(facts.id)
            writing.wakes[facts.id] = now_ms
            writing.hosts.add(_host(facts))
            writing.event("instance.delete", facts, reason="on_halt")
        case StartAgain():
            values = {"run": facts.run + 1, "rounds": facts.rounds + 1}
            writing.changes.append((facts.id, {**values, "desired_ms": now_ms}))
            writing.wakes[facts.id] = now_ms + ROOM_LOOK_MS
            writing.hosts.add(_host(facts))
            writing.event("instance.started_again", facts, cause=facts.halt_cause.value)
        case Forget():
            writing.changes.append((facts.id, {"gone_ms": now_ms, "parked": "", "waiting": ""}))
            writing.forgotten.append(facts.id)
            writing.event("instance.deleted", facts)
        case Park(problem=problem):
            writing.changes.append((facts.id, {"parked": problem_text(problem)}))
            writing.wakes.pop(facts.id, None)
            writing.event("instance.parked", facts, reason=problem.code, detail=problem.detail)
        case Place():
            raise AssertionError("placing is decided with the whole batch")
        case other:
            assert_never(other)


def _wished_later(facts: InstanceFacts) -> dict[str, Any]:
    """A guest that began after the restored store's time was wished on after it, too."""
    if facts.desired is not Desired.STOPPED and not facts.release:
        return {}
    desired = Desired.ABSENT if facts.desired is Desired.ABSENT else Desired.RUNNING
    return {"desired": desired.value, "release": False}


def _note_settled(writing: _Writing, facts: InstanceFacts) -> None:
    """Forget why it waited or was given up, where the wish came true after all."""
    values: dict[str, Any] = {}
    if facts.waiting is not None and facts.host_id is not None:
        values["waiting"] = ""
    if facts.parked is not None:
        unparked = msgspec.structs.replace(facts, parked=None)
        if isinstance(next_step(unparked, now_ms=writing.now_ms), Settled):
            values["parked"] = ""
    if values:
        writing.changes.append((facts.id, values))


def _let_go(writing: _Writing, facts: InstanceFacts, *, avoid: bool) -> None:
    values: dict[str, Any] = {"release": True, "desired_ms": writing.now_ms}
    values |= {"observed": observed_once_unwanted(facts).value}
    if avoid:
        values |= {"avoid_host_id": facts.host_id, "rounds": facts.rounds + 1}
        writing.event(
            "instance.given_up_here",
            facts,
            host=facts.host_name,
            detail=facts.failure.detail if facts.failure is not None else "",
        )
    else:
        # The guest halted by itself and its owner wished the place given back.
        values["desired"] = Desired.STOPPED.value
        writing.event("instance.release", facts, reason="on_halt")
    writing.changes.append((facts.id, values))
    writing.wakes[facts.id] = writing.now_ms
    writing.hosts.add(_host(facts))


def _release(writing: _Writing, facts: InstanceFacts) -> None:
    values: dict[str, Any] = {"host_id": None, "observed": Observed.ABSENT.value, "parked": ""}
    if facts.desired is Desired.RUNNING:
        values |= {"release": False, "failures": 0, "retry_ms": 0}
    writing.changes.append((facts.id, values))
    writing.wakes[facts.id] = writing.now_ms
    writing.disks_due.append(facts.id)
    writing.room = True
    writing.event("instance.released", facts, host=facts.host_name)


def _host(facts: InstanceFacts) -> HostId:
    assert facts.host_id is not None
    return facts.host_id


_RESTORING: Final = Problem(
    code="no_room_now",
    detail="The store was restored, and not every host has shown yet what it runs.",
    remedy="It goes on by itself; a host that is dead must be fenced with `stratus host fence`.",
)
