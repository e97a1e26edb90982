"""Are networks held apart, and is nonsense refused before a driver meets it?"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from stratus.control.networks import NetworkWish, network_add, network_page, network_show
from stratus.model.network import NetworkClass, NetworkFacts
from stratus.model.problem import Refused
from stratus.model.tenancy import Role
from stratus.store.schema import leases
from tests.control.sites import ORIGIN, Site, in_memory, refused

PUBLIC = NetworkWish(name="public", ipv4_cidr="10.64.0.0/16", ipv6_cidr="fd00:64::/64")


def add(site: Site, wish: NetworkWish = PUBLIC) -> NetworkFacts:
    site.clock.ms += 1  # ids of one millisecond have no order
    return network_add(site.world, site.admin, wish, origin=ORIGIN)


def test_a_network_has_its_first_addresses_as_gateways(site: Site) -> None:
    made = add(site)
    assert made.spec.ipv4_gateway == "10.64.0.1"
    assert made.spec.ipv6_gateway == "fd00:64::1"
    assert (made.used, made.capacity) == (0, 65_533)
    event = site.events("network.added")[-1]
    assert (event.subject, event.data["network_class"]) == (made.spec.id, "public")


def test_a_network_is_found_by_class_name_and_id(site: Site) -> None:
    first = add(site)
    add(site, NetworkWish(name="more", ipv4_cidr="10.65.0.0/16"))
    local = add(site, NetworkWish(name="lan", class_=NetworkClass.LOCAL, ipv4_cidr="10.66.0.0/16"))
    ana = site.user("ana")
    assert network_show(site.world, ana, "public").spec.id == first.spec.id
    for ref in ("local", "lan", local.spec.id):
        assert network_show(site.world, ana, ref).spec.id == local.spec.id
    for ref in ("private", "wan", "net-0000000000000000"):
        with refused("not_found", ref):
            network_show(site.world, ana, ref)
    page = network_page(site.world, ana, rows_max=2)
    assert [network.spec.name for network in page.items] == ["public", "more"]
    rest = network_page(site.world, ana, rows_max=2, cursor=page.next)
    assert [network.spec.name for network in rest.items] == ["lan"]


def test_the_use_of_a_network_counts_live_leases(site: Site) -> None:
    made = add(site)
    for number, released in ((2, 0), (3, 0), (4, 1)):
        site.insert(
            leases,
            id=f"adr-{number}",
            network_id=made.spec.id,
            mac=f"52:54:00:00:00:0{number}",
            ipv4=f"10.64.0.{number}",
            released_ms=released,
        )
    assert network_show(site.world, site.admin, "public").used == 2


@in_memory
@pytest.mark.parametrize("prefix", [30, 29])
def test_a_small_network_says_how_many_guests_it_holds(site: Site, prefix: int) -> None:
    made = add(site, NetworkWish(name="small", ipv4_cidr=f"10.9.0.0/{prefix}"))
    assert made.capacity == {30: 1, 29: 5}[prefix]


@in_memory
@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("name", {"name": "Public"}),
        ("name", {"name": "public\n"}),
        ("name", {"name": "local"}),  # the name of a class, but of another one
        ("driver", {"driver": "ovn"}),
        ("ipv4_cidr", {"ipv4_cidr": "", "ipv6_cidr": ""}),
        ("ipv4_cidr", {"ipv4_cidr": "10.64.0.0"}),  # a single address
        ("ipv4_cidr", {"ipv4_cidr": "10.64.0.5/16"}),  # not its first address
        ("ipv4_cidr", {"ipv4_cidr": "10.64.0.0/31"}),
        ("ipv4_cidr", {"ipv4_cidr": "0.0.0.0/0"}),
        ("ipv4_cidr", {"ipv4_cidr": "127.0.0.0/8"}),
        ("ipv4_cidr", {"ipv4_cidr": "169.254.0.0/16"}),
        ("ipv4_cidr", {"ipv4_cidr": "224.0.0.0/8"}),
        ("ipv4_cidr", {"ipv4_cidr": "240.0.0.0/8"}),
        ("ipv4_cidr", {"ipv4_cidr": "fd00:64::/64"}),
        ("ipv4_cidr", {"ipv4_cidr": "ten"}),
        ("ipv6_cidr", {"ipv6_cidr": "fd00:64::/48"}),
        ("ipv6_cidr", {"ipv6_cidr": "fe80::/64"}),
        ("ipv6_cidr", {"ipv6_cidr": "ff00::/64"}),
        ("ipv6_cidr", {"ipv6_cidr": "fd00:64::1/64"}),
        ("ipv6_cidr", {"ipv6_cidr": "10.0.0.0/8"}),
        ("ipv4_gateway", {"ipv4_gateway": "10.64.255.254"}),
        ("ipv4_gateway", {"ipv4_gateway": "gate"}),
        ("ipv6_gateway", {"ipv6_cidr": "", "ipv6_gateway": "fd00:64::1"}),
        ("mtu", {"mtu": 1279}),  # too small for IPv6
        ("mtu", {"mtu": 65_536}),
        ("domain", {"domain": "Cloud.example"}),
        ("domain", {"domain": "a..b"}),
        ("domain", {"domain": "cloud.example\n"}),
        ("domain", {"domain": "a." * 127 + "aa"}),
    ],
)
def test_an_impossible_network_is_refused_by_field(
    site: Site, field: str, wish: dict[str, object]
) -> None:
    fields = {name: getattr(PUBLIC, name) for name in PUBLIC.__struct_fields__} | wish
    with refused("invalid_field", field=field):
        add(site, NetworkWish(**fields))
    assert network_page(site.world, site.admin, rows_max=10).items == ()


def test_a_gateway_that_is_the_first_address_may_be_said(site: Site) -> None:
    made = add(
        site,
        NetworkWish(
            name="public",
            ipv4_cidr="10.64.0.0/16",
            ipv4_gateway="10.64.0.1",
            domain="cloud.example.org",
            mtu=9000,
        ),
    )
    assert made.spec.domain == "cloud.example.org"
    assert made.spec.ipv6_gateway == ""


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("ipv4_cidr", NetworkWish(name="two", ipv4_cidr="10.64.128.0/17")),
        ("ipv4_cidr", NetworkWish(name="two", ipv4_cidr="10.0.0.0/8")),
        ("ipv6_cidr", NetworkWish(name="two", ipv6_cidr="fd00:64::/64")),
    ],
)
def test_networks_do_not_overlap(site: Site, field: str, wish: NetworkWish) -> None:
    add(site)
    with refused("conflict", "overlaps", "public") as refusal:
        add(site, wish)
    assert refusal.problem.context["field"] == field


def test_networks_that_are_added_at_once_do_not_overlap_either(site: Site) -> None:
    def try_add(number: int) -> bool:
        wish = NetworkWish(name=f"n{number}", ipv4_cidr="10.64.0.0/16")
        try:
            network_add(site.world, site.admin, wish, origin=ORIGIN)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(max_workers=4) as threads:
        assert sorted(threads.map(try_add, range(4))) == [False, False, False, True]


def test_the_name_of_a_network_is_not_given_twice(site: Site) -> None:
    add(site)
    with refused("name_taken", "public"):
        add(site, NetworkWish(name="public", ipv4_cidr="10.70.0.0/16"))


def test_only_administrators_add_networks(site: Site) -> None:
    for actor in (site.user("ana", Role.OWNER), site.user("aud", auditor=True)):
        with refused("forbidden"):
            network_add(site.world, actor, PUBLIC, origin=ORIGIN)
