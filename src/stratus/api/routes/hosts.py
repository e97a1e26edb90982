"""The machines that run instances, the pools that hold their disks, the networks they are on."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec import UNSET, UnsetType

from stratus.api.endpoint import Call, Endpoint, NoBody, NoQuery, Reply, endpoint
from stratus.api.queries import PageQuery
from stratus.control.hosts import HostChange as Change
from stratus.control.hosts import (
    HostWish,
    host_add,
    host_drain,
    host_enable,
    host_fence,
    host_page,
    host_remove,
    host_show,
    host_update,
    stray_page,
)
from stratus.control.networks import NetworkWish, network_add, network_page, network_show
from stratus.control.pools import pool_add, pool_page, pool_show
from stratus.model.host import HostFacts
from stratus.model.network import NetworkFacts
from stratus.model.pool import PoolRecord
from stratus.wire.v1 import (
    HostChange,
    HostCreate,
    HostFence,
    HostFenced,
    HostView,
    NetworkCreate,
    NetworkView,
    Page,
    PoolCreate,
    PoolView,
    StrayView,
    host_fenced,
    host_view,
    network_view,
    pool_view,
    stray_view,
)

TAG: Final = "hosts"
V = TypeVar("V")


def _said(value: V | UnsetType) -> V | None:
    return None if value is UNSET else value


def _host(call: Call[Any, Any], facts: HostFacts) -> Reply:
    names = call.services.names.of_hosts((facts,))
    return Reply(value=host_view(facts, names), version=facts.version)


@endpoint("GET", "/v1/hosts", tag=TAG, title="List hosts", query=PageQuery, answer=Page[HostView])
def host_list(call: Call[NoBody, PageQuery]) -> Reply:
    """The site's hosts with their capacity and use, in the order they were added."""
    page = host_page(call.world, call.actor, cursor=call.query.cursor, rows_max=call.query.limit)
    names = call.services.names.of_hosts(page.items)
    return Reply(value=Page(items=[host_view(f, names) for f in page.items], next=page.next))


@endpoint(
    "POST",
    "/v1/hosts",
    tag=TAG,
    title="Add a host",
    body=HostCreate,
    answer=HostView,
    status=201,
    codes=("name_taken",),
)
def host_create(call: Call[HostCreate, NoQuery]) -> Reply:
    """Adds a machine by the libvirt URI that reaches it; a host worker then looks what it has."""
    body = call.body
    wish = HostWish(
        name=body.name,
        uri=body.uri,
        cpu_ratio=body.cpu_ratio,
        memory_ratio=body.memory_ratio,
        memory_reserved_mib=body.memory_reserved_mib,
        accelerator=body.accelerator,
        pools=body.pools,
    )
    return _host(call, host_add(call.world, call.actor, wish, origin=call.origin))


@endpoint("GET", "/v1/hosts/{host}", tag=TAG, title="Show a host", answer=HostView)
def host_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One host by id or name."""
    return _host(call, host_show(call.world, call.actor, call.params["host"]))


@endpoint(
    "PATCH",
    "/v1/hosts/{host}",
    tag=TAG,
    title="Change a host",
    body=HostChange,
    answer=HostView,
    matched=True,
)
def host_change(call: Call[HostChange, NoQuery]) -> Reply:
    """Changes what is said; guests that run keep running whatever the new limits are."""
    body = call.body
    change = Change(
        cpu_ratio=_said(body.cpu_ratio),
        memory_ratio=_said(body.memory_ratio),
        memory_reserved_mib=_said(body.memory_reserved_mib),
        accelerator=_said(body.accelerator),
        pools=_said(body.pools),
    )
    facts = host_update(
        call.world,
        call.actor,
        call.params["host"],
        change,
        version=call.version,
        origin=call.origin,
    )
    return _host(call, facts)


@endpoint(
    "DELETE",
    "/v1/hosts/{host}",
    tag=TAG,
    title="Remove a host",
    answer=HostView,
    status=202,
    matched=True,
    codes=("in_use",),
)
def host_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Wishes it away; refused while instances have their place on it."""
    return _act(call, host_remove)


@endpoint(
    "POST",
    "/v1/hosts/{host}/drain",
    tag=TAG,
    title="Drain a host",
    answer=HostView,
    matched=True,
)
def host_drain_(call: Call[NoBody, NoQuery]) -> Reply:
    """Lets it keep what it runs and gives it nothing new."""
    return _act(call, host_drain)


@endpoint(
    "POST",
    "/v1/hosts/{host}/enable",
    tag=TAG,
    title="Enable a host",
    answer=HostView,
    matched=True,
)
def host_enable_(call: Call[NoBody, NoQuery]) -> Reply:
    """Lets it get instances (again)."""
    return _act(call, host_enable)


@endpoint(
    "POST",
    "/v1/hosts/{host}/fence",
    tag=TAG,
    title="Declare a host dead",
    body=HostFence,
    answer=HostFenced,
    matched=True,
    codes=("conflict",),
)
def host_fence_(call: Call[HostFence, NoQuery]) -> Reply:
    """Takes the operator's word that the host is switched off: its instances start elsewhere.
    Refused while it answers, since its guests would run twice."""
    facts, lost = host_fence(
        call.world,
        call.actor,
        call.params["host"],
        confirm=call.body.confirm,
        version=call.version,
        origin=call.origin,
    )
    names = call.services.names.of_hosts((facts,))
    return Reply(value=host_fenced(facts, names, lost=lost), version=facts.version)


@endpoint(
    "GET",
    "/v1/hosts/{host}/strays",
    tag=TAG,
    title="List a host's strays",
    query=PageQuery,
    answer=Page[StrayView],
)
def stray_list(call: Call[NoBody, PageQuery]) -> Reply:
    """Guests on it that nobody wished for; they are left alone."""
    page = stray_page(
        call.world,
        call.actor,
        call.params["host"],
        cursor=call.query.cursor,
        rows_max=call.query.limit,
    )
    return Reply(value=Page(items=[stray_view(facts) for facts in page.items], next=page.next))


def _act(call: Call[NoBody, NoQuery], act: Callable[..., HostFacts]) -> Reply:
    facts = act(
        call.world, call.actor, call.params["host"], version=call.version, origin=call.origin
    )
    return _host(call, facts)


# --- pools ---


def _pool(facts: PoolRecord) -> Reply:
    return Reply(value=pool_view(facts), version=facts.version)


@endpoint("GET", "/v1/pools", tag=TAG, title="List pools", query=PageQuery, answer=Page[PoolView])
def pool_list(call: Call[NoBody, PageQuery]) -> Reply:
    """The places for disks and images, with their room as last seen."""
    page = pool_page(call.world, call.actor, cursor=call.query.cursor, rows_max=call.query.limit)
    return Reply(value=Page(items=[pool_view(facts) for facts in page.items], next=page.next))


@endpoint(
    "POST",
    "/v1/pools",
    tag=TAG,
    title="Add a pool",
    body=PoolCreate,
    answer=PoolView,
    status=201,
    codes=("name_taken",),
)
def pool_create(call: Call[PoolCreate, NoQuery]) -> Reply:
    """Adds a place for disks and images."""
    body = call.body
    facts = pool_add(
        call.world,
        call.actor,
        name=body.name,
        driver=body.driver,
        location=body.location,
        origin=call.origin,
    )
    return _pool(facts)


@endpoint("GET", "/v1/pools/{pool}", tag=TAG, title="Show a pool", answer=PoolView)
def pool_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One pool by id or name."""
    return _pool(pool_show(call.world, call.actor, call.params["pool"]))


# --- networks ---


def _network(facts: NetworkFacts) -> Reply:
    return Reply(value=network_view(facts), version=facts.version)


@endpoint(
    "GET",
    "/v1/networks",
    tag=TAG,
    title="List networks",
    query=PageQuery,
    answer=Page[NetworkView],
)
def network_list(call: Call[NoBody, PageQuery]) -> Reply:
    """The networks that instances can be on, with the use of their addresses."""
    page = network_page(call.world, call.actor, cursor=call.query.cursor, rows_max=call.query.limit)
    return Reply(value=Page(items=[network_view(facts) for facts in page.items], next=page.next))


@endpoint(
    "POST",
    "/v1/networks",
    tag=TAG,
    title="Add a network",
    body=NetworkCreate,
    answer=NetworkView,
    status=201,
    codes=("name_taken", "conflict"),
)
def network_create(call: Call[NetworkCreate, NoQuery]) -> Reply:
    """Adds a network; its ranges must not overlap with those of another one."""
    body = call.body
    wish = NetworkWish(
        name=body.name,
        class_=body.class_,
        driver=body.driver,
        ipv4_cidr=body.ipv4_cidr,
        ipv4_gateway=body.ipv4_gateway,
        ipv6_cidr=body.ipv6_cidr,
        ipv6_gateway=body.ipv6_gateway,
        domain=body.domain,
        mtu=body.mtu,
    )
    return _network(network_add(call.world, call.actor, wish, origin=call.origin))


@endpoint("GET", "/v1/networks/{network}", tag=TAG, title="Show a network", answer=NetworkView)
def network_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One network by id, name, or class."""
    return _network(network_show(call.world, call.actor, call.params["network"]))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    host_list,
    host_create,
    host_get,
    host_change,
    host_delete,
    host_drain_,
    host_enable_,
    host_fence_,
    stray_list,
    pool_list,
    pool_create,
    pool_get,
    network_list,
    network_create,
    network_get,
)
