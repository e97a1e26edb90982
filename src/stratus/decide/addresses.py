"""Which addresses does a new card get? Pure: the network's range, what is taken, where to go on.

The cursor walks round the range, so that an address that was just given back rests longest.
"""

import ipaddress
from collections.abc import Collection
from typing import Final

IPV4_RESERVED_LOW: Final = 2  # network address and gateway
MAC_PREFIX: Final = "52:54:00"  # the prefix that QEMU and libvirt use for guests


def ipv4_range(cidr: str) -> tuple[int, int]:
    """Return the first and last number that guests may have in this network."""
    network = ipaddress.IPv4Network(cidr)
    first = int(network.network_address) + IPV4_RESERVED_LOW
    return first, int(network.broadcast_address) - 1


def ipv4_capacity(cidr: str) -> int:
    """Return how many guests the network can hold."""
    first, last = ipv4_range(cidr)
    return max(0, last - first + 1)


def ipv4_pick(cidr: str, *, cursor: int, taken: Collection[int], count: int) -> list[int]:
    """Return up to `count` free numbers, going on from the cursor and round the range once.

    Fewer than `count` means that the network has no more.
    """
    first, last = ipv4_range(cidr)
    size = last - first + 1
    if size <= 0:
        return []
    start = cursor - first if first <= cursor <= last else 0
    picked: list[int] = []
    for offset in range(size):
        if len(picked) == count:
            break
        number = first + (start + offset) % size
        if number not in taken:
            picked.append(number)
    return picked


def ipv4_text(number: int) -> str:
    """Write a number as a dotted quad."""
    return str(ipaddress.IPv4Address(number))


def ipv4_number(text: str) -> int:
    """Read a dotted quad as a number."""
    return int(ipaddress.IPv4Address(text))


def mac_text(chance: int) -> str:
    """Make a card's address from 24 bits of chance."""
    assert 0 <= chance < 1 << 24
    return f"{MAC_PREFIX}:{chance >> 16:02x}:{chance >> 8 & 255:02x}:{chance & 255:02x}"


def ipv6_of(cidr: str, mac: str) -> str:
    """Return the address that this card forms in this /64 (modified EUI-64, RFC 4291 A)."""
    network = ipaddress.IPv6Network(cidr)
    assert network.prefixlen == 64, "SLAAC needs a /64"
    octets = [int(part, 16) for part in mac.split(":")]
    eui = [octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]
    return str(network[int.from_bytes(bytes(eui), "big")])
