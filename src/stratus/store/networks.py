"""Which networks does the site have, and how full are they?"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from stratus.decide.addresses import ipv4_capacity
from stratus.model.network import NetworkClass, NetworkFacts, NetworkSpec
from stratus.model.page import Page
from stratus.store.json import json_text, json_value
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import leases, networks, site
from stratus.store.upsert import upsert

IPV6_CAPACITY: Final = 1 << 32  # what we say of a network of a /64 alone

_USED: Final = (
    select(func.count())
    .select_from(leases)
    .where(leases.c.network_id == networks.c.id, leases.c.released_ms == 0)
    .correlate(networks)
    .scalar_subquery()
    .label("used")
)
_FACTS: Final = select(networks, _USED)


def _facts(row: AnyRow) -> NetworkFacts:
    spec = json_value(NetworkSpec, row.spec)
    return NetworkFacts(
        spec=spec,
        version=row.version,
        created_ms=row.created_ms,
        used=row.used,
        capacity=ipv4_capacity(spec.ipv4_cidr) if spec.ipv4_cidr else IPV6_CAPACITY,
        gone_ms=row.gone_ms,
    )


def networks_lock(connection: Connection) -> None:
    """Let nobody else add a network until the transaction ends."""
    # SQLite has one writer anyway; elsewhere the site's first row stands for all networks.
    connection.execute(select(site.c.key).order_by(site.c.key).limit(1).with_for_update())


def network_create(connection: Connection, spec: NetworkSpec, *, now_ms: int) -> bool:
    """Insert the network; False when its name is taken, also by one that is gone."""
    done = connection.execute(
        upsert(connection, networks)
        .values(
            {
                "id": spec.id,
                "name": spec.name,
                "class": spec.class_.value,
                "spec": json_text(spec),
                "created_ms": now_ms,
            }
        )
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return done.rowcount == 1


_OF_CLASS: Final = networks.c["class"] == bindparam("ref")
_OF_NAME: Final = (networks.c.name == bindparam("ref")) | (networks.c.id == bindparam("ref"))
_LIVE: Final = _FACTS.where(networks.c.gone_ms == 0).order_by(networks.c.id).limit(1)
# Without its use, which takes longer to count the more instances there are.
_SPEC: Final = (
    select(networks.c.spec).where(networks.c.gone_ms == 0).order_by(networks.c.id).limit(1)
)
# By whether the word is a class.
_MEANT: Final = {True: _LIVE.where(_OF_CLASS), False: _LIVE.where(_OF_NAME)}
_SPEC_MEANT: Final = {True: _SPEC.where(_OF_CLASS), False: _SPEC.where(_OF_NAME)}


def network_by_ref(connection: Connection, ref: str) -> NetworkFacts | None:
    """Return the live network meant: the first of a class, else by name, else by id."""
    row = connection.execute(_MEANT[_is_class(ref)], {"ref": ref}).one_or_none()
    return None if row is None else _facts(row)


def network_spec_by_ref(connection: Connection, ref: str) -> NetworkSpec | None:
    """Return how the network is that `network_by_ref` would return, at a constant cost."""
    text = connection.execute(_SPEC_MEANT[_is_class(ref)], {"ref": ref}).scalar_one_or_none()
    return None if text is None else json_value(NetworkSpec, text)


def _is_class(ref: str) -> bool:
    return ref in NetworkClass.__members__.values()


def network_list(
    connection: Connection, *, rows_max: int, cursor: str | None = None
) -> Page[NetworkFacts]:
    """Return live networks in the order they were made."""
    query = _FACTS.where(networks.c.gone_ms == 0)
    return page_fetch(
        connection, query, [networks.c.id], cursor=cursor, rows_max=rows_max, make=_facts
    )


def network_specs(connection: Connection, *, rows_max: int) -> Sequence[NetworkSpec]:
    """Return what every live network should be, in the order they were made."""
    rows = connection.execute(
        select(networks.c.spec)
        .where(networks.c.gone_ms == 0)
        .order_by(networks.c.id)
        .limit(rows_max)
    )
    return [json_value(NetworkSpec, text) for text in rows.scalars()]
