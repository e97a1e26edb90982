"""What is a network: a segment with address ranges, of class public, local or private."""

from enum import StrEnum

import msgspec

from stratus.model.ids import InstanceId, NetworkId


class NetworkClass(StrEnum):
    """Who can reach an address: everybody, the cloud's machines, or guests of one host."""

    PUBLIC = "public"
    LOCAL = "local"
    PRIVATE = "private"


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A network as its driver should make it. IPv6 prefixes are /64; "" means no such family."""

    id: NetworkId
    name: str
    class_: NetworkClass = msgspec.field(name="class")
    driver: str = "libvirt"
    ipv4_cidr: str = ""
    ipv4_gateway: str = ""
    ipv6_cidr: str = ""
    ipv6_gateway: str = ""
    domain: str = ""
    mtu: int = 1500


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One network as the store knows it."""

    spec: NetworkSpec
    version: int
    created_ms: int
    used: int = 0
    capacity: int = 0
    gone_ms: int = 0


class PortSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One place on a network: exactly this card with exactly these addresses."""

    network_id: NetworkId
    instance_id: InstanceId
    mac: str
    ipv4: str = ""
    ipv6: str = ""
    host_name: str = ""


def card_mac(network_id: NetworkId, ipv4: str) -> str:
    """Return the hardware address of the card that holds this IPv4 address of this network.

    One address, one card: a network driver can thus bind all addresses of a network when it
    makes the network, and a port costs it next to nothing. Locally administered, unicast.
    """
    octets = [0x52, sum(network_id.encode()) & 255, *(int(part) for part in ipv4.split("."))]
    return ":".join(f"{octet:02x}" for octet in octets)
