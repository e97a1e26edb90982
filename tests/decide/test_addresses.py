"""Does every card get an address of its own, in turn, and none that is somebody else's?"""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.addresses import (
    ipv4_capacity,
    ipv4_number,
    ipv4_pick,
    ipv4_range,
    ipv4_text,
    ipv6_of,
    mac_text,
)

CIDRS = st.builds(
    lambda number, length: str(ipaddress.IPv4Network((number, length), strict=False)),
    st.integers(min_value=0, max_value=(1 << 32) - 1),
    st.integers(min_value=27, max_value=32),
)
CURSORS = st.integers(min_value=0, max_value=(1 << 32) - 1)


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, int, set[int]]:
    """A small network with a cursor somewhere near it and some addresses taken."""
    cidr = draw(CIDRS)
    network = ipaddress.IPv4Network(cidr)
    low, high = int(network.network_address), int(network.broadcast_address)
    inside = st.integers(min_value=low, max_value=high)
    return cidr, draw(st.one_of(inside, CURSORS)), draw(st.sets(inside))


@given(networks(), st.integers(min_value=0, max_value=300))
def test_what_is_picked_is_free_different_and_fit_for_a_guest(
    network: tuple[str, int, set[int]], count: int
) -> None:
    cidr, cursor, taken = network
    picked = ipv4_pick(cidr, cursor=cursor, taken=taken, count=count)
    known = ipaddress.IPv4Network(cidr)
    reserved = {int(known.network_address), int(known[0]) + 1, int(known.broadcast_address)}
    assert len(set(picked)) == len(picked) <= count
    assert not set(picked) & (taken | reserved)
    assert all(ipaddress.IPv4Address(number) in known for number in picked)


@given(networks(), st.integers(min_value=0, max_value=300))
def test_fewer_than_asked_for_are_picked_only_when_there_are_no_more(
    network: tuple[str, int, set[int]], count: int
) -> None:
    cidr, cursor, taken = network
    first, last = ipv4_range(cidr)
    free = [number for number in range(first, last + 1) if number not in taken]
    assert len(ipv4_pick(cidr, cursor=cursor, taken=taken, count=count)) == min(count, len(free))


@given(networks())
def test_one_address_at_a_time_walks_round_the_whole_range(
    network: tuple[str, int, set[int]],
) -> None:
    cidr, cursor, _ = network
    first, last = ipv4_range(cidr)
    seen = []
    for _ in range(ipv4_capacity(cidr)):
        (number,) = ipv4_pick(cidr, cursor=cursor, taken=(), count=1)
        seen.append(number)
        cursor = number + 1
    assert sorted(seen) == list(range(first, last + 1))


def test_the_search_goes_on_from_the_cursor_and_round_the_end() -> None:
    cidr, taken = "10.0.0.0/29", {ipv4_number("10.0.0.6")}
    picked = ipv4_pick(cidr, cursor=ipv4_number("10.0.0.5"), taken=taken, count=9)
    assert [ipv4_text(number) for number in picked] == [
        "10.0.0.5",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
    ]


@pytest.mark.parametrize(
    ("cidr", "guests"), [("10.0.0.0/8", 16_777_213), ("10.0.0.0/30", 1), ("10.0.0.0/31", 0)]
)
def test_a_network_holds_all_but_its_own_two_addresses_and_the_gateway(
    cidr: str, guests: int
) -> None:
    assert ipv4_capacity(cidr) == guests


@given(CURSORS)
def test_an_address_reads_back_as_the_number_it_was(number: int) -> None:
    assert ipv4_number(ipv4_text(number)) == number


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        # RFC 4291, appendix A: 34-56-78-9A-BC-DE becomes 36-56-78-FF-FE-9A-BC-DE.
        ("34:56:78:9a:bc:de", "fe80::3656:78ff:fe9a:bcde"),
        # RFC 2464, section 4, the same rule on Ethernet.
        ("00:00:00:00:00:00", "fe80::200:ff:fe00:0"),
        ("52:54:00:12:34:56", "fe80::5054:ff:fe12:3456"),
        ("ff:ff:ff:ff:ff:ff", "fe80::fdff:ffff:feff:ffff"),
    ],
)
def test_a_card_forms_the_address_of_rfc_4291(mac: str, address: str) -> None:
    assert ipv6_of("fe80::/64", mac) == str(ipaddress.IPv6Address(address))


@given(st.integers(min_value=0, max_value=(1 << 24) - 1))
def test_a_cards_address_is_for_one_station_and_made_locally(chance: int) -> None:
    octets = [int(part, 16) for part in mac_text(chance).split(":")]
    assert len(octets) == 6
    assert octets[0] & 3 == 2
    assert octets[3] << 16 | octets[4] << 8 | octets[5] == chance


def test_only_a_prefix_of_64_bits_leaves_room_for_the_card() -> None:
    with pytest.raises(AssertionError):
        ipv6_of("fd00::/65", "52:54:00:00:00:01")
