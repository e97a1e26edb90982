"""What may administrators wish of hosts? Add, drain, enable, change, remove, and declare dead."""

import math
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note, version_check
from stratus.control.requests import field_refused, name_check
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, unknown
from stratus.model.host import HostDesired, HostFacts, StrayFacts
from stratus.model.ids import HostId, InstanceId, PoolId
from stratus.model.limits import MEMORY_MIB_MAX
from stratus.model.page import Page
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor
from stratus.model.units import MINUTE_MS
from stratus.store.events import EventDraft, event_append_many
from stratus.store.hosts_admin import (
    PlacedInstance,
    guests_doom,
    host_by_ref,
    host_create,
    host_list,
    host_set,
    host_wake,
    hosts_count,
    placed_give_up,
    placed_lock,
    stray_list,
    strays_forget_ours,
)
from stratus.store.instances import waiting_wake
from stratus.store.pools import host_pools_replace, pool_by_ref, pools_live_ids
from stratus.store.site import site_epoch
from stratus.store.work import INSTANCE, work_wake

SCHEMES: Final = ("qemu", "qemu+tls", "qemu+ssh", "qemu+unix", "test", "fake")
REMOTE_SCHEMES: Final = ("qemu+tls", "qemu+ssh")
ACCELERATORS: Final = ("auto", "kvm", "tcg")
RATIO_MAX: Final = 64.0
HOSTS_MAX: Final = 20_000
POOLS_OF_HOST_MAX: Final = 64
URI_CHARS_MAX: Final = 1024
# How long a host must have been silent before it may be declared dead. Longer than the time
# between two looks: a host that answers is never fenced.
FENCE_SILENCE_MS: Final = 2 * MINUTE_MS
# What libvirt may be told in the query of a URI. `command` and `netcat` would run programs
# here or there, `no_verify` would trust any host.
URI_OPTIONS: Final = frozenset(
    ("keyfile", "known_hosts", "socket", "mode", "proxy", "pkipath", "tls_priority", "no_tty")
)
HOST_PART: Final = re.compile(r"^([a-z0-9_][a-z0-9._-]{0,63}@)?[a-z0-9\[][a-z0-9.:\]_-]{0,254}$")


class HostWish(msgspec.Struct, frozen=True, kw_only=True):
    """A host to add. `pools` None: all pools where it is this machine, otherwise none."""

    name: str
    uri: str
    cpu_ratio: float = 1.0
    memory_ratio: float = 1.0
    memory_reserved_mib: int = 0
    accelerator: str = "auto"
    pools: tuple[str, ...] | None = None


class HostChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a host; None stays as it is."""

    cpu_ratio: float | None = None
    memory_ratio: float | None = None
    memory_reserved_mib: int | None = None
    accelerator: str | None = None
    pools: tuple[str, ...] | None = None


# -- reading --------------------------------------------------------------------------------


def host_show(world: World, actor: Actor, ref: str) -> HostFacts:
    """Return one host by name or id, with its capacity and use."""
    allow(actor, Verb.HOST_READ)
    return world.store.read(lambda connection: _host(connection, ref))


def host_page(
    world: World, actor: Actor, *, cursor: str | None = None, rows_max: int
) -> Page[HostFacts]:
    """Return a page of the hosts with their capacity and use, in the order they were added."""
    allow(actor, Verb.HOST_READ)
    return world.store.read(
        lambda connection: host_list(connection, rows_max=rows_max, cursor=cursor)
    )


def stray_page(
    world: World, actor: Actor, ref: str, *, cursor: str | None = None, rows_max: int
) -> Page[StrayFacts]:
    """Return a page of the guests on this host that nobody wished for."""
    allow(actor, Verb.HOST_READ)

    def page(connection: Connection) -> Page[StrayFacts]:
        host = _host(connection, ref)
        return stray_list(connection, host.id, rows_max=rows_max, cursor=cursor)

    return world.store.read(page)


# -- wishing --------------------------------------------------------------------------------


def host_add(world: World, actor: Actor, wish: HostWish, *, origin: Origin) -> HostFacts:
    """Add a host; a host worker takes it up and looks what it has."""
    allow(actor, Verb.HOST_ADMIN)
    name_check(wish.name)
    uri_check(wish.uri)
    columns = _columns(
        cpu_ratio=wish.cpu_ratio,
        memory_ratio=wish.memory_ratio,
        memory_reserved_mib=wish.memory_reserved_mib,
        accelerator=wish.accelerator,
    )
    host_id = HostId(world.id_new("host"))

    def add(connection: Connection) -> HostFacts:
        if hosts_count(connection) >= HOSTS_MAX:
            raise refuse(
                "conflict",
                f"The site has {HOSTS_MAX} hosts already.",
                remedy="Remove a host first, or set up another site.",
            )
        made = host_create(
            connection,
            host_id,
            now_ms=world.now_ms(),
            name=wish.name,
            uri=wish.uri,
            # A host that the site never knew has nothing to show from before a restore.
            inventory_epoch=site_epoch(connection),
            **columns,
        )
        if not made:
            raise refuse(
                "name_taken",
                f"There is a host {wish.name} already.",
                remedy="Choose another name.",
                name=wish.name,
            )
        host_pools_replace(connection, host_id, _pools_at_first(connection, wish))
        note(connection, world, actor, origin, "host.added", host_id, name=wish.name, uri=wish.uri)
        return _host(connection, host_id)

    return commit(world, add, "hosts")


def host_update(
    world: World,
    actor: Actor,
    ref: str,
    change: HostChange,
    *,
    version: int | None = None,
    origin: Origin,
) -> HostFacts:
    """Change what is said; guests that run keep running whatever the new limits are."""
    allow(actor, Verb.HOST_ADMIN)
    columns = _columns(
        cpu_ratio=change.cpu_ratio,
        memory_ratio=change.memory_ratio,
        memory_reserved_mib=change.memory_reserved_mib,
        accelerator=change.accelerator,
    )

    def write(connection: Connection) -> HostFacts:
        host = _host_held(connection, ref, version)
        host_set(connection, host.id, **columns)
        if change.pools is not None:
            host_pools_replace(connection, host.id, _pool_ids(connection, change.pools))
        note(
            connection,
            world,
            actor,
            origin,
            "host.changed",
            host.id,
            name=host.name,
            **{name: getattr(change, name) for name in _said(change)},
        )
        return _wake(connection, world, host)

    return commit(world, write, "hosts", "work")


def host_drain(
    world: World, actor: Actor, ref: str, *, version: int | None = None, origin: Origin
) -> HostFacts:
    """Let the host keep what it runs and get nothing new."""
    return _desire(
        world, actor, ref, HostDesired.DRAINING, "host.drained", version=version, origin=origin
    )


def host_enable(
    world: World, actor: Actor, ref: str, *, version: int | None = None, origin: Origin
) -> HostFacts:
    """Let the host get instances (again)."""
    return _desire(
        world, actor, ref, HostDesired.ENABLED, "host.enabled", version=version, origin=origin
    )


def host_remove(
    world: World, actor: Actor, ref: str, *, version: int | None = None, origin: Origin
) -> HostFacts:
    """Wish the host away; refused while instances have their place on it."""
    allow(actor, Verb.HOST_ADMIN)

    def write(connection: Connection) -> HostFacts:
        host = _host_held(connection, ref, version)
        if host.instances:
            raise refuse(
                "in_use",
                f"{host.instances} instances have their place on host {host.name}.",
                remedy=f"Drain it (`stratus host drain {host.name}`) and delete or release its"
                f" instances; if it is dead, declare it so with `stratus host fence {host.name}`.",
                instances=host.instances,
            )
        return _desired(
            connection, world, actor, host, HostDesired.ABSENT, "host.removed", origin=origin
        )

    return commit(world, write, "hosts", "work")


def _desire(
    world: World,
    actor: Actor,
    ref: str,
    desired: HostDesired,
    kind: str,
    *,
    version: int | None,
    origin: Origin,
) -> HostFacts:
    allow(actor, Verb.HOST_ADMIN)

    def write(connection: Connection) -> HostFacts:
        host = _host_held(connection, ref, version)
        if host.desired is HostDesired.ABSENT:
            raise refuse(
                "conflict",
                f"Host {host.name} is being removed.",
                remedy="Add it again once it is gone.",
            )
        if host.desired is desired:
            return host
        return _desired(connection, world, actor, host, desired, kind, origin=origin)

    return commit(world, write, "hosts", "work")


def _desired(
    connection: Connection,
    world: World,
    actor: Actor,
    host: HostFacts,
    desired: HostDesired,
    kind: str,
    *,
    origin: Origin,
) -> HostFacts:
    host_set(connection, host.id, desired=desired.value)
    note(connection, world, actor, origin, kind, host.id, name=host.name)
    return _wake(connection, world, host)


def _wake(connection: Connection, world: World, host: HostFacts) -> HostFacts:
    """Have the host and whoever waits for room looked at; return the host as it is now."""
    now_ms = world.now_ms()
    host_wake(connection, host.id, now_ms=now_ms)
    waiting_wake(connection, now_ms=now_ms)
    return _host(connection, host.id)


# -- declaring dead -------------------------------------------------------------------------


def host_fence(
    world: World,
    actor: Actor,
    ref: str,
    *,
    confirm: bool,
    version: int | None = None,
    origin: Origin,
) -> tuple[HostFacts, Sequence[InstanceId]]:
    """Take the operator's word that this host is dead: its guests are gone for good.

    Its instances get started elsewhere where they should run, and should the host come back,
    their old guests are removed there. Refused while the host answers, since then guests may
    run twice. Return the host and the instances that lost their place.
    """
    allow(actor, Verb.HOST_ADMIN)
    if not confirm:
        raise field_refused(
            "confirm",
            "It is not said that the host is dead.",
            "Make sure that the host is switched off, then ask again with confirm.",
        )

    def write(connection: Connection) -> tuple[HostFacts, Sequence[InstanceId]]:
        now_ms = world.now_ms()
        host = _host_held(connection, ref, version)
        _silence_check(host, now_ms=now_ms)
        placed = placed_lock(connection, host.id)
        placed_give_up(connection, host.id, now_ms=now_ms)
        lost = strays_forget_ours(connection, host.id)
        doomed = [(instance.id, instance.generation) for instance in placed]
        guests_doom(connection, host.id, [*doomed, *lost], now_ms=now_ms)
        ids = [instance.id for instance in placed]
        strayed = [instance_id for instance_id, _ in lost]
        work_wake(connection, INSTANCE, [*ids, *strayed], wake_ms=now_ms)
        # Nothing of it is waited for any more, not even after a restore of the store.
        host_set(
            connection,
            host.id,
            desired=HostDesired.DRAINING.value,
            inventory_epoch=site_epoch(connection),
        )
        note(
            connection,
            world,
            actor,
            origin,
            "host.fenced",
            host.id,
            name=host.name,
            instances=len(ids),
        )
        _fence_note(connection, host, placed, actor, origin, now_ms=now_ms)
        return _wake(connection, world, host), ids

    return commit(world, write, "hosts", "work")


def _silence_check(host: HostFacts, *, now_ms: int) -> None:
    silent = now_ms - max(host.seen_ms, host.created_ms) >= FENCE_SILENCE_MS
    draining = host.desired is HostDesired.DRAINING
    if host.unreachable_ms or (draining and silent):
        return
    raise refuse(
        "conflict",
        f"Host {host.name} answers: its guests are alive, and would run twice.",
        remedy=f"Drain it (`stratus host drain {host.name}`) and stop or delete its instances. If"
        " it is switched off, wait until it shows as unreachable.",
    )


def _fence_note(
    connection: Connection,
    host: HostFacts,
    placed: Sequence[PlacedInstance],
    actor: Actor,
    origin: Origin,
    *,
    now_ms: int,
) -> None:
    """Tell each instance's project."""
    drafts = [
        EventDraft(
            kind="instance.fenced",
            subject=instance.id,
            project_id=instance.project_id,
            actor=actor.name,
            request_id=origin.request_id,
            data={"host": host.name, "generation": instance.generation},
        )
        for instance in placed
    ]
    event_append_many(connection, drafts, now_ms=now_ms)


# -- checking -------------------------------------------------------------------------------


def _host(connection: Connection, ref: str) -> HostFacts:
    found = host_by_ref(connection, ref)
    if found is None:
        raise Refused(unknown("host", ref))
    return found


def _host_held(connection: Connection, ref: str, version: int | None) -> HostFacts:
    """Return the host, held until the transaction ends, if it is as the caller read it."""
    host = host_by_ref(connection, ref, lock=True)
    if host is None:
        raise Refused(unknown("host", ref))
    version_check("host", ref, found=host.version, wanted=version)
    return host


def _said(change: HostChange) -> tuple[str, ...]:
    return tuple(name for name in change.__struct_fields__ if getattr(change, name) is not None)


def _columns(
    *,
    cpu_ratio: float | None,
    memory_ratio: float | None,
    memory_reserved_mib: int | None,
    accelerator: str | None,
) -> dict[str, Any]:
    """Return the columns of what is said, each within its limits."""
    columns: dict[str, Any] = {}
    for field, ratio in (("cpu_ratio", cpu_ratio), ("memory_ratio", memory_ratio)):
        if ratio is None:
            continue
        if not (math.isfinite(ratio) and 0 < ratio <= RATIO_MAX):
            raise field_refused(
                field,
                f"{ratio} is not above 0 and at most {RATIO_MAX:g}.",
                "1 means no over-commitment, 2 twice what the host has.",
            )
        columns[field] = ratio
    if memory_reserved_mib is not None:
        if not 0 <= memory_reserved_mib <= MEMORY_MIB_MAX:
            raise field_refused(
                "memory_reserved_mib",
                f"{memory_reserved_mib} is not between 0 and {MEMORY_MIB_MAX}.",
                "Give what the host needs for itself in MiB.",
            )
        columns["memory_reserved_mib"] = memory_reserved_mib
    if accelerator is not None:
        if accelerator not in ACCELERATORS:
            raise field_refused(
                "accelerator",
                f"{accelerator[:40]!r} is not known.",
                f"Choose of: {', '.join(ACCELERATORS)}.",
            )
        columns["accelerator_wanted"] = accelerator
    return columns


def uri_check(uri: str) -> None:
    """Refuse the address of a host that libvirt does not understand or that does harm."""
    if not 0 < len(uri) <= URI_CHARS_MAX or not uri.isascii() or not uri.isprintable():
        raise _uri_refused(uri, "is too long or not plain text")
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  # reading it checks it
    except ValueError as error:
        raise _uri_refused(uri, f"cannot be read ({error})") from error
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        raise _uri_refused(uri, f"does not begin with one of {', '.join(SCHEMES)}")
    if parts.password is not None:
        raise _uri_refused(uri, "holds a password")
    if parts.fragment or " " in uri:
        raise _uri_refused(uri, "has parts that libvirt does not read")
    if parts.netloc and not HOST_PART.fullmatch(parts.netloc.lower()):
        raise _uri_refused(uri, "names no machine")
    if scheme in REMOTE_SCHEMES and not parts.hostname:
        raise _uri_refused(uri, "names no machine")
    if scheme in ("qemu", "qemu+unix") and parts.netloc:
        raise _uri_refused(uri, "names another machine; that needs qemu+tls or qemu+ssh")
    if scheme.startswith("qemu") and parts.path not in ("/system", "/session"):
        raise _uri_refused(uri, "does not end with /system or /session")
    for option, _ in parse_qsl(parts.query, keep_blank_values=True):
        if option not in URI_OPTIONS:
            raise _uri_refused(uri, f"has the option {option[:40]!r}, which is not allowed")


def _uri_refused(uri: str, why: str) -> Refused:
    # What may be a password is not repeated.
    shown = "The address" if "@" in uri else f"{uri[:80]!r}"
    return field_refused(
        "uri",
        f"{shown} {why}.",
        "Write, for example, qemu:///system, qemu+tls://host.example.org/system or"
        " qemu+ssh://user@host.example.org/system.",
    )


def _pools_at_first(connection: Connection, wish: HostWish) -> Sequence[PoolId]:
    if wish.pools is not None:
        return _pool_ids(connection, wish.pools)
    if urlsplit(wish.uri).netloc and not wish.uri.startswith("fake:"):
        return ()  # another machine: somebody must say what it can reach
    return pools_live_ids(connection, rows_max=POOLS_OF_HOST_MAX)


def _pool_ids(connection: Connection, refs: Sequence[str]) -> list[PoolId]:
    if len(refs) > POOLS_OF_HOST_MAX:
        raise field_refused(
            "pools", f"More than {POOLS_OF_HOST_MAX} pools are named.", "Name fewer."
        )
    found = []
    for ref in refs:
        pool = pool_by_ref(connection, ref)
        if pool is None:
            raise field_refused(
                "pools",
                f"There is no pool {ref[:80]!r}.",
                "List the pools with `stratus pool ls`, or add it first.",
            )
        found.append(pool.id)
    return found
