"""Which sizes may users ask for? Named instance types, kept by administrators."""

import re
from typing import Final

from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note
from stratus.control.requests import field_refused
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, unknown
from stratus.model.instance import InstanceType
from stratus.model.limits import (
    DISK_GIB_MAX,
    MEMORY_MIB_MAX,
    MEMORY_MIB_MIN,
    PAGE_ROWS_MAX,
    SWAP_MIB_MAX,
    VCPUS_MAX,
)
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor
from stratus.store.types import type_by_name, type_create, type_list, type_remove

TYPES_MAX: Final = PAGE_ROWS_MAX  # so that one page shows them all
TYPE_NAME_PATTERN: Final = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
BOUNDS: Final = {
    "vcpus": (1, VCPUS_MAX),
    "memory_mib": (MEMORY_MIB_MIN, MEMORY_MIB_MAX),
    "swap_mib": (0, SWAP_MIB_MAX),
    "root_gib": (0, DISK_GIB_MAX),
}


def types_show(world: World, actor: Actor) -> tuple[InstanceType, ...]:
    """Return every instance type, the smallest first."""
    allow(actor, Verb.CATALOGUE_READ)
    return world.store.read(type_list)


def type_show(world: World, actor: Actor, name: str) -> InstanceType:
    """Return one instance type."""
    allow(actor, Verb.CATALOGUE_READ)
    found = world.store.read(lambda connection: type_by_name(connection, name))
    if found is None:
        raise Refused(unknown("type", name))
    return found


def type_add(world: World, actor: Actor, type_: InstanceType, *, origin: Origin) -> InstanceType:
    """Offer one more instance type."""
    allow(actor, Verb.TYPE_ADMIN)
    _type_check(type_)

    def add(connection: Connection) -> InstanceType:
        if len(type_list(connection)) >= TYPES_MAX:
            raise refuse(
                "conflict",
                f"The site has {TYPES_MAX} instance types already.",
                remedy="Remove one that nobody uses.",
            )
        if not type_create(connection, type_):
            raise refuse(
                "name_taken",
                f"There is an instance type {type_.name} already.",
                remedy="Choose another name, or remove that one first.",
                name=type_.name,
            )
        note(
            connection,
            world,
            actor,
            origin,
            "type.added",
            _subject(type_.name),
            name=type_.name,
            **{what: getattr(type_, what) for what in BOUNDS},
        )
        return type_

    return commit(world, add)


def type_drop(world: World, actor: Actor, name: str, *, origin: Origin) -> None:
    """Offer this type no longer; instances keep the size they were made with."""
    allow(actor, Verb.TYPE_ADMIN)

    def drop(connection: Connection) -> None:
        if not type_remove(connection, name):
            raise Refused(unknown("type", name))
        note(connection, world, actor, origin, "type.removed", _subject(name), name=name)

    commit(world, drop)


def _subject(name: str) -> str:
    # Types have no ids, and the column holds one; the whole name is in the event's data.
    return f"type-{name}"[:24]


def _type_check(type_: InstanceType) -> None:
    if not TYPE_NAME_PATTERN.fullmatch(type_.name):
        raise field_refused(
            "name",
            f"{type_.name[:80]!r} is not a name for a type.",
            "Use 1 to 63 small letters, digits, dots, hyphens and underscores, as in m1.small.",
        )
    for what, (least, most) in BOUNDS.items():
        value: int = getattr(type_, what)
        if not least <= value <= most:
            raise field_refused(
                what, f"{value} is not between {least} and {most}.", "Choose a size within."
            )
