"""Which networks may the site have? Added once with their ranges checked, then shown with use."""

import ipaddress
import re
from typing import Final

import msgspec
from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note
from stratus.control.requests import field_refused, name_check
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, unknown
from stratus.model.ids import NetworkId
from stratus.model.network import NetworkClass, NetworkFacts, NetworkSpec
from stratus.model.page import Page
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor
from stratus.store.networks import (
    network_by_ref,
    network_create,
    network_list,
    network_specs,
    networks_lock,
)

DRIVERS: Final = ("libvirt", "fake")
NETWORKS_MAX: Final = 1000
IPV4_PREFIX_MIN: Final = 8
IPV4_PREFIX_MAX: Final = 30  # leaves one guest beside the gateway
IPV6_PREFIX: Final = 64  # guests form their own addresses
MTU_MIN: Final = 576
MTU_MIN_IPV6: Final = 1280
MTU_MAX: Final = 65_535
DOMAIN_PATTERN: Final = re.compile(
    r"^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
)


class NetworkWish(msgspec.Struct, frozen=True, kw_only=True):
    """A segment to add; "" means that it lacks the family, or that we choose."""

    name: str
    class_: NetworkClass = NetworkClass.PUBLIC
    driver: str = "libvirt"
    ipv4_cidr: str = ""
    ipv4_gateway: str = ""
    ipv6_cidr: str = ""
    ipv6_gateway: str = ""
    domain: str = ""
    mtu: int = 1500


def network_add(world: World, actor: Actor, wish: NetworkWish, *, origin: Origin) -> NetworkFacts:
    """Add a network; its range must not overlap with that of another one."""
    allow(actor, Verb.NETWORK_ADMIN)
    spec = network_spec(wish, network_id=NetworkId(world.id_new("network")))

    def add(connection: Connection) -> NetworkFacts:
        networks_lock(connection)
        others = network_specs(connection, rows_max=NETWORKS_MAX)
        if len(others) >= NETWORKS_MAX:
            raise refuse(
                "conflict",
                f"The site has {NETWORKS_MAX} networks already.",
                remedy="Use one of them.",
            )
        for other in others:
            _overlap_check(spec, other)
        if not network_create(connection, spec, now_ms=world.now_ms()):
            raise refuse(
                "name_taken",
                f"There is, or was, a network {spec.name}.",
                remedy="Choose another name.",
                name=spec.name,
            )
        note(
            connection,
            world,
            actor,
            origin,
            "network.added",
            spec.id,
            name=spec.name,
            ipv4_cidr=spec.ipv4_cidr,
            ipv6_cidr=spec.ipv6_cidr,
            network_class=spec.class_.value,
        )
        made = network_by_ref(connection, spec.id)
        assert made is not None
        return made

    return commit(world, add, "hosts", "work")


def network_show(world: World, actor: Actor, ref: str) -> NetworkFacts:
    """Return one network by name, id, or class, with its use."""
    allow(actor, Verb.CATALOGUE_READ)
    found = world.store.read(lambda connection: network_by_ref(connection, ref))
    if found is None:
        raise Refused(unknown("network", ref))
    return found


def network_page(
    world: World, actor: Actor, *, cursor: str | None = None, rows_max: int
) -> Page[NetworkFacts]:
    """Return a page of the networks, the oldest first."""
    allow(actor, Verb.CATALOGUE_READ)
    return world.store.read(
        lambda connection: network_list(connection, rows_max=rows_max, cursor=cursor)
    )


def network_spec(wish: NetworkWish, *, network_id: NetworkId) -> NetworkSpec:
    """Turn the wish into what a driver should make, or refuse what no driver could."""
    name_check(wish.name)
    if wish.name in NetworkClass.__members__.values() and wish.name != wish.class_:
        raise field_refused(
            "name",
            f"{wish.name} is the name of a class, and this network is {wish.class_.value}.",
            "Choose another name: a class named in a request means its first network.",
        )
    if wish.driver not in DRIVERS:
        raise field_refused(
            "driver", f"There is no driver {wish.driver!r}.", f"Choose of: {', '.join(DRIVERS)}."
        )
    if not wish.ipv4_cidr and not wish.ipv6_cidr:
        raise field_refused(
            "ipv4_cidr",
            "The network has neither IPv4 nor IPv6.",
            "Give a range, such as 10.64.0.0/16 or fd00:64::/64.",
        )
    mtu_min = MTU_MIN_IPV6 if wish.ipv6_cidr else MTU_MIN
    if not mtu_min <= wish.mtu <= MTU_MAX:
        raise field_refused(
            "mtu", f"{wish.mtu} is not between {mtu_min} and {MTU_MAX}.", "1500 suits most."
        )
    if wish.domain and not DOMAIN_PATTERN.fullmatch(wish.domain):
        raise field_refused(
            "domain",
            f"{wish.domain[:80]!r} is not a domain name.",
            "Use small letters, digits, hyphens and dots, such as cloud.example.org.",
        )
    ipv4 = _ipv4(wish.ipv4_cidr) if wish.ipv4_cidr else None
    ipv6 = _ipv6(wish.ipv6_cidr) if wish.ipv6_cidr else None
    return NetworkSpec(
        id=network_id,
        name=wish.name,
        class_=wish.class_,
        driver=wish.driver,
        ipv4_cidr="" if ipv4 is None else str(ipv4),
        ipv4_gateway=_gateway("ipv4_gateway", ipv4, wish.ipv4_gateway),
        ipv6_cidr="" if ipv6 is None else str(ipv6),
        ipv6_gateway=_gateway("ipv6_gateway", ipv6, wish.ipv6_gateway),
        domain=wish.domain,
        mtu=wish.mtu,
    )


def _ipv4(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise field_refused(
            "ipv4_cidr",
            f"{text[:40]!r} is not a range of IPv4 addresses ({error}).",
            "Write the first address and the prefix length, such as 10.64.0.0/16.",
        ) from error
    if not IPV4_PREFIX_MIN <= network.prefixlen <= IPV4_PREFIX_MAX:
        raise field_refused(
            "ipv4_cidr",
            f"/{network.prefixlen} is not between /{IPV4_PREFIX_MIN} and /{IPV4_PREFIX_MAX}.",
            "Choose a range between those sizes.",
        )
    _use_check("ipv4_cidr", network)
    return network


def _ipv6(text: str) -> ipaddress.IPv6Network:
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError as error:
        raise field_refused(
            "ipv6_cidr",
            f"{text[:60]!r} is not a range of IPv6 addresses ({error}).",
            "Write the first address and /64, such as fd00:64::/64.",
        ) from error
    if network.prefixlen != IPV6_PREFIX:
        raise field_refused(
            "ipv6_cidr",
            f"/{network.prefixlen} is not /{IPV6_PREFIX}.",
            f"Use a /{IPV6_PREFIX}: guests form the other half of the address themselves.",
        )
    _use_check("ipv6_cidr", network)
    return network


def _use_check(field: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    # 240.0.0.0/4 is "reserved"; so, to this module, are many good IPv6 ranges.
    reserved = network.version == 4 and network.is_reserved
    if (
        network.is_multicast
        or network.is_loopback
        or network.is_link_local
        or network.network_address.is_unspecified
        or reserved
    ):
        raise field_refused(
            field,
            f"{network} cannot be given to guests.",
            "Use a private range (RFC 1918, fc00::/7) or one that was assigned to you.",
        )


def _gateway(
    field: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network | None, wanted: str
) -> str:
    """Return the gateway, which is always the first address: guests get those after it."""
    if network is None:
        if wanted:
            raise field_refused(
                field, "The network has no range of this family.", "Leave the gateway out."
            )
        return ""
    first = network.network_address + 1
    if wanted:
        try:
            same = ipaddress.ip_address(wanted) == first
        except ValueError:
            same = False
        if not same:
            raise field_refused(
                field,
                f"{wanted[:60]!r} is not the first address of {network}.",
                f"Leave it out, or write {first}.",
            )
    return str(first)


def _overlap_check(spec: NetworkSpec, other: NetworkSpec) -> None:
    pairs = (
        ("ipv4_cidr", spec.ipv4_cidr, other.ipv4_cidr),
        ("ipv6_cidr", spec.ipv6_cidr, other.ipv6_cidr),
    )
    for field, mine, theirs in pairs:
        if not mine or not theirs:
            continue
        if ipaddress.ip_network(mine).overlaps(ipaddress.ip_network(theirs)):
            raise refuse(
                "conflict",
                f"{mine} overlaps with {theirs} of network {other.name}.",
                remedy="Choose a range that no other network uses.",
                field=field,
                network=other.name,
            )
