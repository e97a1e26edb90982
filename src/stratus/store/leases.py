"""Who has which address, and who had it when? Rows are closed, never overwritten."""

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from stratus.model.ids import InstanceId, NetworkId
from stratus.store.schema import leases, networks
from stratus.store.upsert import rows_insert

_CURSOR: Final = (
    select(networks.c.cursor).where(networks.c.id == bindparam("network_id")).with_for_update()
)
_CURSOR_SET: Final = (
    update(networks)
    .where(networks.c.id == bindparam("b_network_id"))
    .values(cursor=bindparam("b_cursor"))
)


def network_lock(connection: Connection, network_id: NetworkId) -> int:
    """Hold the network's address cursor until the transaction ends; return the cursor."""
    return int(connection.execute(_CURSOR, {"network_id": network_id}).scalar_one())


def network_cursor_set(connection: Connection, network_id: NetworkId, cursor: int) -> None:
    """Remember where the next search for an address begins."""
    connection.execute(_CURSOR_SET, {"b_network_id": network_id, "b_cursor": cursor})


def ipv4_taken(connection: Connection, network_id: NetworkId) -> set[int]:
    """Return every IPv4 address of this network that is leased now, as numbers."""
    rows = connection.execute(
        select(leases.c.ipv4).where(
            leases.c.network_id == network_id, leases.c.released_ms == 0, leases.c.ipv4 != ""
        )
    )
    return {int(ipaddress.IPv4Address(text)) for text in rows.scalars()}


_LEASED: Final = select(leases.c.ipv4).where(
    leases.c.network_id == bindparam("network_id"),
    leases.c.released_ms == 0,
    leases.c.ipv4 != "",  # what the index of live addresses is made of
    leases.c.ipv4.in_(bindparam("texts", expanding=True)),
)


def ipv4_free(connection: Connection, network_id: NetworkId, texts: Sequence[str]) -> set[str]:
    """Return which of these addresses nobody has."""
    rows = connection.execute(_LEASED, {"network_id": network_id, "texts": list(texts)})
    return set(texts) - set(rows.scalars())


def macs_taken(connection: Connection, macs: Sequence[str]) -> set[str]:
    """Return which of these card addresses are in use."""
    rows = connection.execute(
        select(leases.c.mac).where(leases.c.released_ms == 0, leases.c.mac.in_(macs))
    )
    return set(rows.scalars())


def leases_create(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Lease these addresses; a clash with a live lease fails the whole transaction."""
    rows_insert(connection, leases, rows)


_RELEASE = (
    update(leases)
    .where(
        leases.c.instance_id.in_(bindparam("instance_ids", expanding=True)),
        leases.c.released_ms == 0,
    )
    .values(released_ms=bindparam("now_ms"))
)


def leases_release(
    connection: Connection, instance_ids: Sequence[InstanceId], *, now_ms: int
) -> None:
    """Close every live lease of these instances."""
    if instance_ids:
        connection.execute(_RELEASE, {"instance_ids": list(instance_ids), "now_ms": now_ms})
