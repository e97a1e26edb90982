"""What may a user ask of instances? One transaction each: the wish, an event, work."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from stratus.control.requests import name_check, request_check
from stratus.control.seed import instance_seed
from stratus.control.trust import image_verdict
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, access_decide, unknown
from stratus.decide.addresses import (
    ipv4_pick,
    ipv4_range,
    ipv4_text,
    ipv6_of,
    mac_text,
)
from stratus.decide.lifecycle import observed_once_unwanted
from stratus.decide.operation import Goal, InstanceGoal
from stratus.decide.placement import (
    WITH_ROOM,
    HostTable,
    Placed,
    Request,
    Unplaced,
    placement_decide,
    rules_count,
)
from stratus.decide.quota import quota_decide
from stratus.decide.trust import Forbidden
from stratus.model.host import HostFacts
from stratus.model.ids import (
    HostId,
    InstanceId,
    OperationId,
    PoolId,
    ProjectId,
    VolumeId,
)
from stratus.model.image import ImageFacts
from stratus.model.instance import (
    Desired,
    InstanceCreate,
    InstanceFacts,
    InstanceType,
    Nic,
    Observed,
    Phase,
    phase_of,
)
from stratus.model.network import NetworkSpec, card_mac
from stratus.model.page import Page
from stratus.model.problem import Problem, Refused, refuse
from stratus.model.tenancy import Actor, Usage
from stratus.model.units import GIB, MIB
from stratus.model.volume import (
    Blank,
    FromImage,
    Presence,
    SwapArea,
    VolumeKind,
    VolumeSource,
)
from stratus.store.events import EventDraft, event_append, event_append_many
from stratus.store.images import image_by_id, image_by_ref
from stratus.store.instances import (
    instance_by_id,
    instance_rows,
    instances_by_ids,
    instances_lock,
    instances_set,
)
from stratus.store.instances import (
    instances_create as rows_create,
)
from stratus.store.json import json_text
from stratus.store.leases import (
    ipv4_free,
    ipv4_taken,
    leases_create,
    macs_taken,
    network_cursor_set,
    network_lock,
)
from stratus.store.leasing import rows_wake
from stratus.store.networks import network_spec_by_ref
from stratus.store.operations import OperationRow, operation_create
from stratus.store.pages import cursor_key, page_make
from stratus.store.placing import hosts_facts, hosts_reaching
from stratus.store.projects import (
    ProjectRow,
    project_by_id,
    project_by_name,
    project_lock,
    project_usage,
)
from stratus.store.schema import hosts as hosts_table
from stratus.store.site import site_epoch
from stratus.store.types import type_by_name, type_list
from stratus.store.volumes import volumes_create, volumes_unwant
from stratus.store.work import INSTANCE, work_wake

SEED_BYTES: Final = 1 * MIB  # what a medium is counted as; it is made as large as it needs
# How many addresses more than needed are looked at, before the whole network is read.
ADDRESSES_BEYOND: Final = (0, 64, 1024)
HOSTS_TRIED_FIRST: Final = 3  # before all hosts are asked whether a request can ever fit
MAC_TRIES_MAX: Final = 8
HOSTS_EXPLAINED_MAX: Final = 20


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a request: would it fit, where, and what each rule removed."""

    fits: bool
    placed: int
    count: int
    hosts: tuple[str, ...]
    rules: tuple[tuple[int, str], ...]
    problem: Problem | None = None


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request with everything it names looked up."""

    wish: InstanceCreate
    project: ProjectRow
    type: InstanceType
    image: ImageFacts
    pool_id: PoolId
    network: NetworkSpec
    swap_mib: int
    root_bytes: int

    @property
    def placement(self) -> Request:
        return Request(
            vcpus=self.type.vcpus,
            memory_mib=self.type.memory_mib,
            pool_id=self.pool_id,
            ranking=self.wish.ranking,
        )

    @property
    def usage(self) -> Usage:
        """What all of it together would add to the project's use."""
        sizes = [self.root_bytes, self.swap_mib * MIB, self.wish.volatile_gib * GIB]
        disks = [size for size in sizes if size]
        count = self.wish.count
        return Usage(
            instances=count,
            vcpus=count * self.type.vcpus,
            memory_mib=count * self.type.memory_mib,
            volumes=count * len(disks),
            volume_gib=count * sum((size + GIB - 1) // GIB for size in disks),
            addresses=count,
        )


# -- asking ---------------------------------------------------------------------------------


def instances_create(
    world: World, actor: Actor, wish: InstanceCreate, *, origin: Origin
) -> tuple[OperationId, Sequence[InstanceFacts]]:
    """Wish for `count` instances, all of them or none; addresses are theirs on return.

    A request that fits nowhere now is accepted and waits; one that can never fit is refused.
    """
    request_check(wish)

    def create(connection: Connection) -> tuple[OperationId, Sequence[InstanceFacts]]:
        order = _order(connection, actor, wish, now_ms=world.now_ms())
        _never_fits_check(connection, order)
        # Held until the end: nobody else adds to the project's use meanwhile.
        project = project_lock(connection, order.project.id)
        assert project is not None
        usage = project_usage(connection, project.id, ceilings=project.quota)
        excess = quota_decide(project.quota, usage, order.usage, project_name=project.name)
        if excess is not None:
            raise Refused(excess)
        return _write(world, connection, actor, order, origin=origin)

    made = world.store.write(create)
    world.store.hints.send("work")
    world.store.hints.send("events")
    return made


def instances_explain(
    world: World, actor: Actor, wish: InstanceCreate, *, origin: Origin
) -> Explanation:
    """Say what would become of the request, without making anything."""
    del origin
    request_check(wish)

    def explain(connection: Connection) -> Explanation:
        order = _order(connection, actor, wish, now_ms=world.now_ms())
        project = order.project
        usage = project_usage(connection, project.id, ceilings=project.quota)
        excess = quota_decide(project.quota, usage, order.usage, project_name=project.name)
        facts, _ = hosts_facts(connection)
        table = HostTable(facts)
        removed = [
            c for c in rules_count(table, order.placement) if c.hosts and c.words != WITH_ROOM
        ]
        rules = tuple((c.hosts, c.words) for c in removed)
        answers = placement_decide(table, [order.placement] * wish.count)
        placed = [answer for answer in answers if isinstance(answer, Placed)]
        refused = next((a.problem for a in answers if isinstance(a, Unplaced)), None)
        names = {host.id: host.name for host in facts}
        chosen = list(dict.fromkeys(names[answer.host_id] for answer in placed))
        return Explanation(
            fits=excess is None and refused is None,
            placed=len(placed),
            count=wish.count,
            hosts=tuple(chosen[:HOSTS_EXPLAINED_MAX]),
            rules=rules,
            problem=excess or refused,
        )

    return world.store.read(explain)


def _never_fits_check(connection: Connection, order: _Order) -> None:
    # Fleets are alike: a few hosts nearly always show that some host could hold it.
    some = hosts_reaching(connection, order.pool_id, rows_max=HOSTS_TRIED_FIRST)
    if some and _never_refusal(some, order) is None:
        return
    found, _ = hosts_facts(connection)
    refusal = _never_refusal(found, order)
    # A site without hosts may get one: the request waits.
    if found and refusal is not None:
        raise Refused(refusal)


def _never_refusal(hosts: Sequence[HostFacts], order: _Order) -> Problem | None:
    answer = placement_decide(HostTable(hosts), [order.placement])[0]
    return answer.problem if isinstance(answer, Unplaced) and answer.never else None


def _order(connection: Connection, actor: Actor, wish: InstanceCreate, *, now_ms: int) -> _Order:
    project = _project(connection, actor, wish.project_id)
    type_ = type_by_name(connection, wish.type)
    if type_ is None:
        known = ", ".join(each.name for each in type_list(connection)[:20])
        raise refuse(
            "invalid_field",
            f"type: there is no instance type {wish.type!r}.",
            remedy=f"Choose one of: {known}.",
            field="type",
        )
    image = image_by_ref(connection, wish.image, project_ids=[project.id])
    if image is None:
        raise Refused(unknown("image", wish.image))
    pool_id = image_startable(connection, image, now_ms=now_ms)
    network = network_spec_by_ref(connection, wish.network)
    if network is None:
        raise refuse(
            "invalid_field",
            f"network: there is no network {wish.network!r}.",
            remedy="Choose a class (public, local, private) or a name from `stratus network ls`.",
            field="network",
        )
    return _Order(
        wish=wish,
        project=project,
        type=type_,
        image=image,
        pool_id=pool_id,
        network=network,
        swap_mib=type_.swap_mib if wish.swap_mib is None else wish.swap_mib,
        root_bytes=max(image.virtual_bytes, type_.root_gib * GIB),
    )


def _project(connection: Connection, actor: Actor, ref: str) -> ProjectRow:
    project = project_by_id(connection, ProjectId(ref)) or project_by_name(connection, ref)
    if project is None or project.gone_ms:
        raise Refused(unknown("project", ref))
    refusal = access_decide(actor, Verb.INSTANCE_WRITE, project_id=project.id, ref=ref)
    if refusal is not None:
        raise Refused(refusal)
    return project


def image_startable(connection: Connection, image: ImageFacts, *, now_ms: int) -> PoolId:
    """Return the pool of an image that may be started now, or refuse with the reason."""
    if not image.wanted or image.presence is not Presence.READY or image.pool_id is None:
        failure = image.parked or image.failure
        said = f": {failure.detail}" if failure is not None else "."
        raise refuse(
            "image_not_ready",
            f"Image {image.name} is not ready{said}",
            remedy="Follow its import with `stratus image show`.",
        )
    verdict = image_verdict(connection, image, now_ms=now_ms)
    if isinstance(verdict, Forbidden):
        raise Refused(verdict.problem)
    return image.pool_id


# -- writing --------------------------------------------------------------------------------


def _write(
    world: World, connection: Connection, actor: Actor, order: _Order, *, origin: Origin
) -> tuple[OperationId, Sequence[InstanceFacts]]:
    now_ms = world.now_ms()
    count = order.wish.count
    ids = [InstanceId(world.id_new("instance")) for _ in range(count)]
    names = _names(order.wish, ids)
    nics = _nics(world, connection, order, ids)
    epoch = site_epoch(connection)
    rows_create(
        connection,
        [
            _instance_row(actor, order, instance_id, name, nic, now_ms=now_ms, epoch=epoch)
            for instance_id, name, nic in zip(ids, names, nics, strict=True)
        ],
    )
    leases_create(
        connection,
        [
            {
                "id": world.id_new("address"),
                "network_id": nic.network_id,
                "project_id": order.project.id,
                "instance_id": instance_id,
                "position": 0,
                "mac": nic.mac,
                "ipv4": nic.ipv4,
                "ipv6": nic.ipv6,
                "leased_ms": now_ms,
            }
            for instance_id, nic in zip(ids, nics, strict=True)
        ],
    )
    volumes = [
        row
        for instance_id, name, nic in zip(ids, names, nics, strict=True)
        for row in _volume_rows(world, order, instance_id, name, nic, now_ms=now_ms)
    ]
    volumes_create(connection, volumes)
    drafts = [
        EventDraft(
            kind="instance.created",
            subject=instance_id,
            project_id=order.project.id,
            actor=actor.name,
            request_id=origin.request_id,
            data={
                "name": name,
                "type": order.type.name,
                "image": order.image.id,
                "ipv4": nic.ipv4,
                "ipv6": nic.ipv6,
            },
        )
        for instance_id, name, nic in zip(ids, names, nics, strict=True)
    ]
    event_append_many(connection, drafts, now_ms=now_ms)
    work_wake(connection, INSTANCE, ids, wake_ms=now_ms)
    goal = InstanceGoal(goal=Goal.RUNNING, run=1)
    operation_id = _operation(
        world, connection, actor, "instance.create", order.project.id, ids, goal
    )
    found = instances_by_ids(connection, ids)
    return operation_id, [found[instance_id] for instance_id in ids]


def _names(wish: InstanceCreate, ids: Sequence[InstanceId]) -> list[str]:
    if not wish.name:
        return list(ids)
    if wish.count == 1:
        return [wish.name]
    return [f"{wish.name}-{number}" for number in range(1, wish.count + 1)]


def _nics(
    world: World, connection: Connection, order: _Order, ids: Sequence[InstanceId]
) -> list[Nic]:
    spec = order.network
    count = len(ids)
    ipv4s = _ipv4s(connection, order.network, count) if spec.ipv4_cidr else [""] * count
    # Where there is an IPv4 address the card belongs to it; otherwise it is drawn.
    macs = [card_mac(spec.id, ipv4) for ipv4 in ipv4s if ipv4] or _macs(world, connection, count)
    return [
        Nic(
            network_id=spec.id,
            mac=mac,
            ipv4=ipv4,
            ipv6=ipv6_of(spec.ipv6_cidr, mac) if spec.ipv6_cidr else "",
        )
        for mac, ipv4 in zip(macs, ipv4s, strict=True)
    ]


def _ipv4s(connection: Connection, network: NetworkSpec, count: int) -> list[str]:
    """Take the next free addresses; the cursor's row lock keeps others off them."""
    cidr, network_id = network.ipv4_cidr, network.id
    cursor = network_lock(connection, network_id)
    texts: dict[str, int] = {}
    picked: list[int] = []
    # The cursor walks round the range, so that the next ones are nearly always free.
    for beyond in ADDRESSES_BEYOND:
        window = ipv4_pick(cidr, cursor=cursor, taken=(), count=count + beyond)
        texts = {ipv4_text(number): number for number in window}
        free = ipv4_free(connection, network_id, list(texts))
        picked = [number for text, number in texts.items() if text in free][:count]
        if len(picked) == count:
            break
    else:
        taken = ipv4_taken(connection, network_id)
        picked = ipv4_pick(cidr, cursor=cursor, taken=taken, count=count)
        texts = {ipv4_text(number): number for number in picked}
    if len(picked) < count:
        raise refuse(
            "addresses_exhausted",
            f"Network {network.name} has {len(picked)} free addresses, not {count}.",
            remedy="Delete instances you no longer need, or choose another network.",
        )
    first, last = ipv4_range(cidr)
    following = picked[-1] + 1
    network_cursor_set(connection, network_id, following if following <= last else first)
    words = {number: text for text, number in texts.items()}
    return [words[number] for number in picked]


def _macs(world: World, connection: Connection, count: int) -> list[str]:
    made: set[str] = set()
    for _ in range(MAC_TRIES_MAX):
        while len(made) < count:
            made.add(mac_text(world.chance(24)))
        made -= macs_taken(connection, sorted(made))
        if len(made) == count:
            return sorted(made)
    raise refuse(
        "addresses_exhausted",
        "No free card addresses were found.",
        remedy="Delete instances you no longer need.",
    )


def _instance_row(
    actor: Actor,
    order: _Order,
    instance_id: InstanceId,
    name: str,
    nic: Nic,
    *,
    now_ms: int,
    epoch: int,
) -> dict[str, Any]:
    wish = order.wish
    return {
        "id": instance_id,
        "project_id": order.project.id,
        "user_id": actor.user_id,
        "name": name,
        "created_ms": now_ms,
        "created_epoch": epoch,
        "desired": Desired.RUNNING.value,
        "desired_ms": now_ms,
        "run": 1,
        "on_halt": wish.on_halt.value,
        "ranking": wish.ranking.value,
        "image_id": order.image.id,
        "type_name": order.type.name,
        "vcpus": order.type.vcpus,
        "memory_mib": order.type.memory_mib,
        "swap_mib": order.swap_mib,
        "root_gib": order.type.root_gib,
        "volatile_gib": wish.volatile_gib,
        "network": wish.network,
        "nics": json_text((nic,)),
        "context": json_text(wish.context),
        "observed": Observed.UNKNOWN.value,
    }


def _volume_rows(
    world: World, order: _Order, instance_id: InstanceId, name: str, nic: Nic, *, now_ms: int
) -> list[dict[str, Any]]:
    seed = instance_seed(order.wish.context, order.network, instance_id, name, nic)
    wanted: list[tuple[VolumeKind, VolumeSource, int]] = [
        (VolumeKind.ROOT, FromImage(order.image.id), order.root_bytes)
    ]
    if order.wish.volatile_gib:
        wanted.append((VolumeKind.VOLATILE, Blank(), order.wish.volatile_gib * GIB))
    if order.swap_mib:
        wanted.append((VolumeKind.SWAP, SwapArea(), order.swap_mib * MIB))
    wanted.append((VolumeKind.SEED, seed, SEED_BYTES))
    return [
        {
            "id": VolumeId(world.id_new("volume")),
            "project_id": order.project.id,
            "instance_id": instance_id,
            "kind": kind.value,
            "position": position,
            "size_bytes": size_bytes if kind is not VolumeKind.SEED else 0,
            "source": json_text(source),
            "image_id": order.image.id if kind is VolumeKind.ROOT else None,
            "wanted": True,
            "presence": Presence.UNKNOWN.value,
            "created_ms": now_ms,
        }
        for position, (kind, source, size_bytes) in enumerate(wanted)
    ]


def _operation(
    world: World,
    connection: Connection,
    actor: Actor,
    kind: str,
    project_id: ProjectId,
    subjects: Sequence[InstanceId],
    goal: InstanceGoal,
) -> OperationId:
    operation_id = OperationId(world.id_new("operation"))
    operation_create(
        connection,
        OperationRow(
            id=operation_id,
            kind=kind,
            project_id=project_id,
            user_id=actor.user_id,
            subjects=tuple(subjects),
            goal=msgspec.to_builtins(goal),
            created_ms=world.now_ms(),
        ),
    )
    return operation_id


# -- looking --------------------------------------------------------------------------------


def instance_show(world: World, actor: Actor, instance_id: InstanceId) -> InstanceFacts:
    """Return one instance; another project's is answered exactly like an unknown one."""
    found = world.store.read(lambda c: instance_by_id(c, instance_id))
    if found is None:
        raise Refused(unknown("instance", instance_id))
    _access(actor, Verb.INSTANCE_READ, found)
    return found


def instance_page(
    world: World,
    actor: Actor,
    *,
    project_id: ProjectId | None,
    all_projects: bool,
    host_id: HostId | None = None,
    name: str | None = None,
    cursor: str | None = None,
    rows_max: int,
) -> Page[InstanceFacts]:
    """Return a page of live instances: of one project, of the actor's, or of all."""
    project_ids = _projects_seen(actor, project_id, all_projects=all_projects)
    after = InstanceId(str(cursor_key(cursor, [str])[0])) if cursor else None
    rows = world.store.read(
        lambda c: instance_rows(
            c,
            project_ids=project_ids,
            rows_max=rows_max + 1,
            after=after,
            host_id=host_id,
            name=name,
        )
    )
    return page_make(rows, rows_max=rows_max, key_of=lambda facts: (facts.id,))


def _projects_seen(
    actor: Actor, project_id: ProjectId | None, *, all_projects: bool
) -> list[ProjectId] | None:
    if project_id is not None:
        refusal = access_decide(actor, Verb.INSTANCE_READ, project_id=project_id, ref=project_id)
    elif all_projects:
        refusal = access_decide(actor, Verb.AUDIT_READ)
    else:
        refusal = access_decide(actor, Verb.SELF_READ)
    if refusal is not None:
        raise Refused(refusal)
    if project_id is not None:
        return [project_id]
    return None if all_projects else sorted(actor.roles)


def _access(actor: Actor, verb: Verb, facts: InstanceFacts) -> None:
    refusal = access_decide(actor, verb, project_id=facts.project_id, ref=facts.id)
    if refusal is None:
        return
    if refusal.code == "not_found":
        refusal = unknown("instance", facts.id)
    raise Refused(refusal)


# -- changing -------------------------------------------------------------------------------


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    """What one command writes: columns, the goal of its operation, and more for the event."""

    kind: str
    values: Mapping[str, Any]
    goal: InstanceGoal
    data: Mapping[str, Any] = {}


def _change(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    version: int | None,
    origin: Origin,
    decide: Any,  # noqa: ANN401  # see the alias below
) -> tuple[OperationId, InstanceFacts]:
    """Apply what `decide(connection, facts, now_ms)` says in one transaction."""

    def change(connection: Connection) -> tuple[OperationId, InstanceFacts]:
        instances_lock(connection, [instance_id])
        facts = instance_by_id(connection, instance_id)
        if facts is None or facts.gone_ms:
            raise Refused(unknown("instance", instance_id))
        _access(actor, Verb.INSTANCE_WRITE, facts)
        if version is not None and version != facts.version:
            raise refuse(
                "stale",
                f"Instance {facts.name} is at version {facts.version}, not {version}.",
                remedy="Read it again and repeat the request with its present ETag.",
            )
        now_ms = world.now_ms()
        wanted: _Change = decide(connection, facts, now_ms)
        if wanted.values:
            instances_set(connection, [(instance_id, wanted.values)])
        event_append(
            connection,
            now_ms=now_ms,
            kind=wanted.kind,
            subject=instance_id,
            project_id=facts.project_id,
            actor=actor.name,
            request_id=origin.request_id,
            data=dict(wanted.data),
        )
        work_wake(connection, INSTANCE, [instance_id], wake_ms=now_ms)
        if facts.host_id is not None:
            rows_wake(connection, hosts_table, [facts.host_id], wake_ms=now_ms)
        operation_id = _operation(
            world, connection, actor, wanted.kind, facts.project_id, [instance_id], wanted.goal
        )
        after = instance_by_id(connection, instance_id)
        assert after is not None
        return operation_id, after

    done = world.store.write(change)
    for topic in ("hosts", "pools", "work", "events"):
        world.store.hints.send(topic)
    return done


# A new wish of the user begins with a clean slate.
_FRESH: Final = {
    "parked": "",
    "failures": 0,
    "failure": "",
    "retry_ms": 0,
    "rounds": 0,
    "avoid_host_id": None,
}


def _refuse_deleting(facts: InstanceFacts) -> None:
    if facts.desired is Desired.ABSENT:
        raise refuse(
            "conflict",
            f"Instance {facts.name} is being deleted.",
            remedy="Make a new one with `stratus run`.",
        )


def instance_start(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Wish it running; one that runs already is left alone. The trust policy is asked anew."""

    def decide(connection: Connection, facts: InstanceFacts, now_ms: int) -> _Change:
        _refuse_deleting(facts)
        image = image_by_id(connection, facts.image_id)
        assert image is not None
        image_startable(connection, image, now_ms=now_ms)
        values: dict[str, Any] = {}
        run = facts.run
        # Also where the host does not answer now: the wish is kept until it does.
        answering = msgspec.structs.replace(facts, host_unreachable_ms=0)
        if phase_of(answering) not in (Phase.RUNNING, Phase.STARTING, Phase.PENDING):
            _quota_check(connection, facts)
            # A run that never came to be is still the one wished for.
            used = facts.seen_here and facts.observed_run >= facts.run
            run = facts.run + 1 if used or facts.desired is Desired.STOPPED else facts.run
            values = {
                **_FRESH,
                "desired": Desired.RUNNING.value,
                "desired_ms": now_ms,
                "run": run,
                "release": facts.release and facts.host_id is not None,
            }
        goal = InstanceGoal(goal=Goal.RUNNING, run=run)
        return _Change(kind="instance.start", values=values, goal=goal)

    return _change(world, actor, instance_id, version, origin, decide)


def _quota_check(connection: Connection, facts: InstanceFacts) -> None:
    """A stopped instance that gave its host back counts again when it starts."""
    if not (facts.release and facts.host_id is None):
        return
    project = project_lock(connection, facts.project_id)
    assert project is not None
    usage = project_usage(connection, project.id, ceilings=project.quota)
    wanted = Usage(vcpus=facts.vcpus, memory_mib=facts.memory_mib)
    excess = quota_decide(project.quota, usage, wanted, project_name=project.name)
    if excess is not None:
        raise Refused(excess)


def instance_stop(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    release: bool = False,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Wish it stopped: the power button first, the plug after the grace. Disks and addresses stay.

    With `release` it also gives its place on the host back.
    """

    def decide(_connection: Connection, facts: InstanceFacts, now_ms: int) -> _Change:
        _refuse_deleting(facts)
        values: dict[str, Any] = {}
        if facts.desired is not Desired.STOPPED or facts.parked is not None:
            values = {
                **_FRESH,
                "desired": Desired.STOPPED.value,
                "desired_ms": now_ms,
                "waiting": "",
            }
        if release and not facts.release:
            values |= {"release": True, "desired_ms": now_ms}
            values["observed"] = observed_once_unwanted(facts).value
        goal = InstanceGoal(goal=Goal.STOPPED)
        return _Change(kind="instance.stop", values=values, goal=goal, data={"release": release})

    return _change(world, actor, instance_id, version, origin, decide)


def instance_release(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Give a stopped instance's place on its host back; its disks and addresses stay."""

    def decide(_connection: Connection, facts: InstanceFacts, now_ms: int) -> _Change:
        _refuse_deleting(facts)
        if phase_of(facts) not in (Phase.STOPPED, Phase.STOPPING):
            raise refuse(
                "conflict",
                f"Instance {facts.name} is {phase_of(facts)}, not stopped.",
                remedy="Stop it first, or stop it with --release.",
            )
        values = {
            **_FRESH,
            "desired": Desired.STOPPED.value,
            "desired_ms": now_ms,
            "release": True,
            "observed": observed_once_unwanted(facts).value,
        }
        return _Change(kind="instance.release", values=values, goal=InstanceGoal(goal=Goal.STOPPED))

    return _change(world, actor, instance_id, version, origin, decide)


def instance_reboot(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Wish one restart of the running guest, in place."""

    def decide(_connection: Connection, facts: InstanceFacts, _now_ms: int) -> _Change:
        _refuse_deleting(facts)
        if phase_of(facts) is not Phase.RUNNING:
            raise refuse(
                "conflict",
                f"Instance {facts.name} is {phase_of(facts)}, not running.",
                remedy="Start it instead.",
            )
        resets = facts.resets + 1
        return _Change(
            kind="instance.reboot",
            values={**_FRESH, "resets": resets},
            goal=InstanceGoal(goal=Goal.RESET, resets=resets),
        )

    return _change(world, actor, instance_id, version, origin, decide)


def instance_rename(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    name: str,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Give it another name here; what the guest calls itself is the guest's affair."""
    name_check(name)

    def decide(_connection: Connection, facts: InstanceFacts, _now_ms: int) -> _Change:
        _refuse_deleting(facts)
        # A rename asks for nothing more, so the goal is what holds already.
        goal = InstanceGoal(goal=Goal.RESET, resets=0)
        return _Change(
            kind="instance.rename",
            values={"name": name},
            goal=goal,
            data={"from": facts.name, "to": name},
        )

    return _change(world, actor, instance_id, version, origin, decide)


def instance_delete(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Wish it gone, disks and addresses with it. Asking again changes nothing."""

    def decide(connection: Connection, facts: InstanceFacts, now_ms: int) -> _Change:
        values: dict[str, Any] = {}
        if facts.desired is not Desired.ABSENT or facts.parked is not None:
            values = {
                **_FRESH,
                "desired": Desired.ABSENT.value,
                "desired_ms": now_ms,
                "waiting": "",
                "observed": observed_once_unwanted(facts).value,
            }
            volumes_unwant(connection, [instance_id], now_ms=now_ms)
        return _Change(kind="instance.delete", values=values, goal=InstanceGoal(goal=Goal.ABSENT))

    return _change(world, actor, instance_id, version, origin, decide)


def instance_retry(
    world: World,
    actor: Actor,
    instance_id: InstanceId,
    *,
    version: int | None = None,
    origin: Origin,
) -> tuple[OperationId, InstanceFacts]:
    """Try again what was given up; one that is not parked is left alone."""

    def decide(connection: Connection, facts: InstanceFacts, now_ms: int) -> _Change:
        if facts.desired is Desired.RUNNING:
            image = image_by_id(connection, facts.image_id)
            assert image is not None
            image_startable(connection, image, now_ms=now_ms)
        values = {**_FRESH, "desired_ms": now_ms} if facts.parked is not None else {}
        goal = {
            Desired.RUNNING: InstanceGoal(goal=Goal.RUNNING, run=facts.run),
            Desired.STOPPED: InstanceGoal(goal=Goal.STOPPED),
            Desired.ABSENT: InstanceGoal(goal=Goal.ABSENT),
        }[facts.desired]
        return _Change(kind="instance.retry", values=values, goal=goal)

    return _change(world, actor, instance_id, version, origin, decide)
