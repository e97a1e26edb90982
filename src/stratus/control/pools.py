"""Which pools may the site have? Added by administrators, shown with their room as last seen."""

import posixpath
from typing import Final

from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note
from stratus.control.requests import field_refused, name_check
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, unknown
from stratus.model.ids import PoolId
from stratus.model.page import Page
from stratus.model.pool import PoolRecord
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor
from stratus.store.pools import pool_by_location, pool_by_ref, pool_create, pool_list

FILES: Final = "files"
DRIVERS: Final = (FILES, "fake")
LOCATION_CHARS_MAX: Final = 1024


def pool_add(
    world: World,
    actor: Actor,
    *,
    name: str,
    driver: str = FILES,
    location: str,
    origin: Origin,
) -> PoolRecord:
    """Add a pool: for `files` a directory, by its absolute path on the control plane's machine."""
    allow(actor, Verb.POOL_ADMIN)
    name_check(name)
    if driver not in DRIVERS:
        raise field_refused(
            "driver", f"There is no driver {driver!r}.", f"Choose of: {', '.join(DRIVERS)}."
        )
    _location_check(driver, location)
    pool_id = PoolId(world.id_new("pool"))

    def add(connection: Connection) -> PoolRecord:
        same = pool_by_location(connection, driver=driver, location=location)
        if same is not None:
            raise refuse(
                "conflict",
                f"Pool {same.name} is at {location} already.",
                remedy="Use that pool, or give this one a directory of its own.",
                pool=same.name,
            )
        made = pool_create(
            connection,
            pool_id,
            now_ms=world.now_ms(),
            name=name,
            driver=driver,
            location=location,
        )
        if not made:
            raise refuse(
                "name_taken",
                f"There is, or was, a pool {name}.",
                remedy="Choose another name.",
                name=name,
            )
        note(
            connection,
            world,
            actor,
            origin,
            "pool.added",
            pool_id,
            name=name,
            driver=driver,
            location=location,
        )
        pool = pool_by_ref(connection, pool_id)
        assert pool is not None
        return pool

    return commit(world, add, "pools")


def pool_show(world: World, actor: Actor, ref: str) -> PoolRecord:
    """Return one pool by name or id."""
    allow(actor, Verb.POOL_READ)
    found = world.store.read(lambda connection: pool_by_ref(connection, ref))
    if found is None:
        raise Refused(unknown("pool", ref))
    return found


def pool_page(
    world: World, actor: Actor, *, cursor: str | None = None, rows_max: int
) -> Page[PoolRecord]:
    """Return a page of the pools, the oldest first."""
    allow(actor, Verb.POOL_READ)
    return world.store.read(
        lambda connection: pool_list(connection, rows_max=rows_max, cursor=cursor)
    )


def _location_check(driver: str, location: str) -> None:
    whole = 0 < len(location) <= LOCATION_CHARS_MAX and location.isprintable()
    if driver == FILES:
        whole = whole and location.startswith("/") and location not in ("/", "//")
        whole = whole and posixpath.normpath(location) == location
    if not whole:
        raise field_refused(
            "location",
            f"{location[:80]!r} is not the absolute path of a directory.",
            "Write it in full and without . or .., such as /var/lib/stratus/pool.",
        )
