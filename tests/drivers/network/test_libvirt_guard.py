"""What gets past the guard? Raw frames, written into a guarded tap as a guest's card would."""

import fcntl
import ipaddress
import os
import select
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libvirt
import pytest
from tests.fixtures_libvirt import Libvirtd

from stratus.decide.addresses import ipv6_of
from stratus.drivers.network.libvirt import libvirt_networks
from stratus.drivers.network.libvirt_xml import bridge_name, link_local
from stratus.model.host import PortAttachment
from stratus.model.ids import InstanceId, NetworkId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec, card_mac

TUNSETIFF: Final = 0x400454CA
IFF_TAP_NO_PI: Final = 0x1002
HEAR_SECONDS: Final = 0.5
SPEAKER: Final = "st-speaks"
LISTENER: Final = "st-listens"
BINDING: Final = """
<filterbinding><owner><name>guard-trial</name><uuid>{uuid}</uuid></owner>
  <portdev name='{port}'/><mac address='{mac}'/>
  <filterref filter='{filter}'>{parameters}</filterref></filterbinding>"""

NETWORK: Final = NetworkSpec(
    id=NetworkId("net-00000000guardtri"),
    name="guard-trial",
    class_=NetworkClass.PRIVATE,
    ipv4_cidr="10.214.0.0/24",
    ipv4_gateway="10.214.0.1",
    ipv6_cidr="fd57:7a70:51ab:aaaa::/64",
    ipv6_gateway="fd57:7a70:51ab:aaaa::1",
)
OWN4: Final = "10.214.0.10"
OTHER4: Final = "10.214.0.11"
OWN_MAC: Final = card_mac(NETWORK.id, OWN4)
OTHER_MAC: Final = card_mac(NETWORK.id, OTHER4)
OWN6: Final = ipv6_of(NETWORK.ipv6_cidr, OWN_MAC)
OTHER6: Final = ipv6_of(NETWORK.ipv6_cidr, OTHER_MAC)
NO_ADDRESS: Final = "0.0.0.0"  # noqa: S104  # a source, nothing is bound
EVERY_MAC: Final = "ff:ff:ff:ff:ff:ff"
ALL_NODES: Final = ("33:33:00:00:00:01", "ff02::1")


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(payload: bytes, *, kind: int, source: str = OWN_MAC, target: str = OTHER_MAC) -> bytes:
    return (mac_bytes(target) + mac_bytes(source) + struct.pack(">H", kind) + payload).ljust(
        60, b"\0"
    )


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(source_port: int, target_port: int, text: bytes = b"stratus guard trial") -> bytes:
    return struct.pack(">HHHH", source_port, target_port, 8 + len(text), 0) + text


def ipv4(source: str, target: str, payload: bytes, protocol: int = 17) -> bytes:
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0) + addresses
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(source: str, target: str, payload: bytes, protocol: int = 17) -> bytes:
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255) + addresses + payload


def arp(mac: str, address: str, *, operation: int = 2) -> bytes:
    sender = mac_bytes(mac) + ipaddress.IPv4Address(address).packed
    target = mac_bytes(OTHER_MAC) + ipaddress.IPv4Address(OTHER4).packed
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + sender + target


def icmpv6(kind: int) -> bytes:
    return struct.pack(">BBH", kind, 0, 0) + bytes(20)


# Frame by what it is; those of PASSES get through the guard, those of STOPPED do not.
PASSES: Final = {
    "IPv4 from its own address": ethernet(ipv4(OWN4, OTHER4, udp(5000, 6000)), kind=0x0800),
    "an ARP answer about itself": ethernet(arp(OWN_MAC, OWN4), kind=0x0806),
    "an ARP question before it has an address": ethernet(
        arp(OWN_MAC, NO_ADDRESS, operation=1), kind=0x0806, target=EVERY_MAC
    ),
    "a DHCP question": ethernet(
        ipv4(NO_ADDRESS, "255.255.255.255", udp(68, 67)), kind=0x0800, target=EVERY_MAC
    ),
    "IPv6 from its own address": ethernet(ipv6(OWN6, OTHER6, udp(5000, 6000)), kind=0x86DD),
    "IPv6 from its link-local address": ethernet(
        ipv6(link_local(OWN_MAC), OTHER6, icmpv6(136), 58), kind=0x86DD
    ),
    "a question whether its IPv6 address is free": ethernet(
        ipv6("::", ALL_NODES[1], icmpv6(135), 58), kind=0x86DD, target=ALL_NODES[0]
    ),
}
STOPPED: Final = {
    "another card": ethernet(
        ipv4(OWN4, OTHER4, udp(5000, 6000)), kind=0x0800, source="52:54:00:99:99:99"
    ),
    "another IPv4 address": ethernet(ipv4("10.214.0.77", OTHER4, udp(5000, 6000)), kind=0x0800),
    "the gateway's IPv4 address": ethernet(
        ipv4("10.214.0.1", OTHER4, udp(5000, 6000)), kind=0x0800
    ),
    "no IPv4 address, but not for DHCP": ethernet(
        ipv4(NO_ADDRESS, OTHER4, udp(5000, 6000)), kind=0x0800
    ),
    "a DHCP answer": ethernet(ipv4(OWN4, OTHER4, udp(67, 68)), kind=0x0800),
    "an ARP answer about the gateway": ethernet(arp(OWN_MAC, "10.214.0.1"), kind=0x0806),
    "an ARP answer with another card": ethernet(arp("52:54:00:99:99:99", OWN4), kind=0x0806),
    "another IPv6 address": ethernet(ipv6(OTHER6, OTHER6, udp(5000, 6000)), kind=0x86DD),
    "another link-local address": ethernet(ipv6("fe80::1", OTHER6, udp(5000, 6000)), kind=0x86DD),
    "no IPv6 address, but data": ethernet(ipv6("::", OTHER6, udp(5000, 6000)), kind=0x86DD),
    "a router announcement": ethernet(
        ipv6(link_local(OWN_MAC), ALL_NODES[1], icmpv6(134), 58),
        kind=0x86DD,
        target=ALL_NODES[0],
    ),
    "a DHCPv6 answer": ethernet(ipv6(OWN6, OTHER6, udp(547, 546)), kind=0x86DD),
    "a VLAN tag": ethernet(
        struct.pack(">HH", 5, 0x0800) + ipv4(OWN4, OTHER4, udp(5000, 6000)), kind=0x8100
    ),
    "something that is not IP": ethernet(b"stratus", kind=0x88B5),
}


@contextmanager
def tap(name: str, bridge: str) -> Iterator[int]:
    """A card on the bridge whose frames we write and read."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP_NO_PI))
        # Without addresses of its own the card says nothing unasked.
        switch = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")
        subprocess.run(["ip", "link", "set", name, "master", bridge, "up"], check=True)
        yield handle
    finally:
        os.close(handle)


def arrives(handle: int, frame: bytes, seconds: float) -> bool:
    """Read frames until this one comes, for so long at most."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([handle], [], [], left)[0] and os.read(handle, 4096) == frame:
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A guarded card and a listening one on the same bridge."""

    speaker: int
    listener: int

    def heard(self, frame: bytes) -> bool:
        """Send the frame; tell whether the listener got it."""
        os.write(self.speaker, frame)
        return arrives(self.listener, frame, HEAR_SECONDS)


@pytest.fixture(scope="module")
def wire(libvirtd: Libvirtd) -> Iterator[Wire]:
    networks = libvirt_networks(libvirtd.uri)
    networks.ensure_network(NETWORK)
    bridge = bridge_name(NETWORK.id)
    port = PortSpec(
        network_id=NETWORK.id,
        instance_id=InstanceId("ins-guard"),
        mac=OWN_MAC,
        ipv4=OWN4,
        ipv6=OWN6,
    )
    attachment = networks.ensure_port(port)
    with ExitStack() as stack:
        stack.callback(networks.close)
        stack.callback(networks.ensure_network_absent, NETWORK.id)
        wire = Wire(
            speaker=stack.enter_context(tap(SPEAKER, bridge)),
            listener=stack.enter_context(tap(LISTENER, bridge)),
        )
        # The listener is known to the bridge, as a neighbour that has spoken is.
        os.write(wire.listener, ethernet(b"here", kind=0x88B5, source=OTHER_MAC, target=EVERY_MAC))
        unheard = [what for what, frame in (PASSES | STOPPED).items() if not wire.heard(frame)]
        assert not unheard, "without the guard everything is heard"
        binding = bind(libvirtd.uri, attachment)
        stack.callback(binding.delete)
        yield wire


def bind(uri: str, attachment: PortAttachment) -> libvirt.virNWFilterBinding:
    """Put the guard on the speaker's card, exactly as libvirt does for a guest's."""
    parameters = "".join(
        f"<parameter name='{name}' value='{value}'/>"
        for name, values in attachment.filter_parameters.items()
        for value in values
    )
    xml = BINDING.format(
        uuid="d54df46f-1ab5-4a22-8618-4560ef5fac2d",
        port=SPEAKER,
        mac=OWN_MAC,
        filter=attachment.filter,
        parameters=parameters,
    )
    return libvirt.open(uri).nwfilterBindingCreateXML(xml)


@pytest.mark.libvirt
@pytest.mark.parametrize("what", PASSES)
def test_what_is_a_cards_own_passes(wire: Wire, what: str) -> None:
    assert wire.heard(PASSES[what])


@pytest.mark.libvirt
@pytest.mark.parametrize("what", STOPPED)
def test_what_is_not_a_cards_own_is_stopped(wire: Wire, what: str) -> None:
    assert not wire.heard(STOPPED[what])
