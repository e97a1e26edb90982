"""How are our networks, ports and the guard on them written as libvirt XML, and read? Pure.

All addresses of a network are bound to their cards when the network is made (`card_mac`), since
libvirt rewrites the firewall at every later change of a binding, which takes a second. A port is
then only a name: a record of the name service, which is changed in a few milliseconds and is at
the same time our note that the port exists.
"""

import hashlib
import ipaddress
import uuid
from typing import Final

import msgspec
from lxml import etree  # type: ignore[import-untyped]  # publishes no stubs

from stratus.drivers.network.contract import PortFound
from stratus.model.ids import NetworkId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec, card_mac

NAMESPACE: Final = "https://stratuslab.eu/libvirt/network/1"
PREFIX: Final = "stratus"
UUIDS: Final = uuid.UUID("5b0f6c5e-6a0e-5d0c-9a57-57a7051ab001")
NAME_CHARS_MAX: Final = 24  # of the network's own name within libvirt's
BOUND_ADDRESSES_MAX: Final = 1024  # larger networks bind each address when it is first used
CARD_LABEL: Final = "card-"
MTU_USUAL: Final = 1500


class NetworkRead(msgspec.Struct, frozen=True, kw_only=True):
    """One network of ours as libvirt holds it."""

    network_id: NetworkId
    digest: str
    class_: str
    ipv4_cidr: str
    ipv6_cidr: str
    mtu: int
    bindings: dict[str, str]  # card by IPv4 address
    records: dict[str, tuple[str, ...]]  # names by address, of either family

    def ports(self) -> list[PortFound]:
        """Return the cards that have a record, with their IPv4 address if they have one."""
        found: dict[str, str] = {}
        for address, names in self.records.items():
            mac = _card_of(names)
            if mac:
                found[mac] = address if "." in address else found.get(mac, "")
        return [
            PortFound(network_id=self.network_id, mac=mac, ipv4=ipv4) for mac, ipv4 in found.items()
        ]

    def addresses_of(self, names: tuple[str, ...]) -> list[str]:
        """Return the addresses that are recorded for the card with these names."""
        card = _card_of(names)
        return [
            address for address, held in self.records.items() if card and _card_of(held) == card
        ]


def network_uuid(network_id: NetworkId) -> uuid.UUID:
    """Return the one UUID that this network has on every host."""
    return uuid.uuid5(UUIDS, network_id)


def network_name(spec: NetworkSpec) -> str:
    """Return what libvirt calls the network: readable, and unlike any other."""
    return f"stratus-{spec.name[:NAME_CHARS_MAX]}-{spec.id[-4:]}"


def bridge_name(network_id: NetworkId) -> str:
    """Return the name of the network's bridge, within the 15 characters of the kernel."""
    return f"st-{network_id[-8:]}"


def spec_digest(spec: NetworkSpec, *, ipv6: bool) -> str:
    """Return what changes whenever the network would be written differently."""
    return hashlib.sha256(network_render(spec, digest="", ipv6=ipv6).encode()).hexdigest()[:16]


def network_render(spec: NetworkSpec, *, digest: str, ipv6: bool) -> str:
    """Write the network; `ipv6` False leaves that family out on hosts without it."""
    root = etree.Element("network")
    etree.SubElement(root, "name").text = network_name(spec)
    etree.SubElement(root, "uuid").text = str(network_uuid(spec.id))
    metadata = etree.SubElement(root, "metadata")
    mark = etree.SubElement(metadata, f"{{{NAMESPACE}}}network", nsmap={PREFIX: NAMESPACE})
    mark.set("id", spec.id)
    mark.set("digest", digest)
    mark.set("class", spec.class_)
    mark.set("ipv4", spec.ipv4_cidr)
    mark.set("ipv6", spec.ipv6_cidr if ipv6 else "")
    mark.set("mtu", str(spec.mtu))
    if spec.class_ is NetworkClass.PUBLIC:
        forward = etree.SubElement(root, "forward", mode="nat")
        if ipv6 and spec.ipv6_cidr:
            etree.SubElement(forward, "nat", ipv6="yes")
    etree.SubElement(root, "bridge", name=bridge_name(spec.id), stp="off", delay="0")
    if spec.mtu != MTU_USUAL:
        etree.SubElement(root, "mtu", size=str(spec.mtu))
    if spec.domain:
        etree.SubElement(root, "domain", name=spec.domain, localOnly="yes")
    if spec.ipv4_cidr:
        _ipv4(root, spec)
    if ipv6 and spec.ipv6_cidr:
        network = ipaddress.IPv6Network(spec.ipv6_cidr)
        gateway = spec.ipv6_gateway or str(network[1])
        etree.SubElement(root, "ip", family="ipv6", address=gateway, prefix=str(network.prefixlen))
    return str(etree.tostring(root, encoding="unicode"))


def _ipv4(root: etree._Element, spec: NetworkSpec) -> None:
    network = ipaddress.IPv4Network(spec.ipv4_cidr)
    gateway = spec.ipv4_gateway or str(network[1])
    element = etree.SubElement(root, "ip", address=gateway, netmask=str(network.netmask))
    dhcp = etree.SubElement(element, "dhcp")
    if network.num_addresses > BOUND_ADDRESSES_MAX:
        # Without any entry the service would not begin; the gateway's own harms nobody.
        _binding(dhcp, gateway, card_mac(spec.id, gateway))
        return
    for address in network.hosts():
        if str(address) != gateway:
            _binding(dhcp, str(address), card_mac(spec.id, str(address)))


def _binding(parent: etree._Element | None, ipv4: str, mac: str) -> etree._Element:
    # The name keeps guests from giving themselves one: the name service would believe them.
    attributes = {"mac": mac, "name": f"ip-{ipv4.replace('.', '-')}", "ip": ipv4}
    if parent is None:
        return etree.Element("host", attrib=attributes)
    return etree.SubElement(parent, "host", attrib=attributes)


def binding_render(ipv4: str, mac: str) -> str:
    """Write the binding of an address to a card, as an update of the network wants it."""
    return str(etree.tostring(_binding(None, ipv4, mac), encoding="unicode"))


def record_names(port: PortSpec) -> tuple[str, ...]:
    """Return the names of a port; the last one says which card it is."""
    return (port.host_name or port.instance_id, *card_names(port.mac))


def card_names(mac: str) -> tuple[str, ...]:
    """Return the name that says which card it is."""
    return (CARD_LABEL + mac.lower().replace(":", ""),)


def record_render(address: str, names: tuple[str, ...]) -> str:
    """Write a record of the name service, as an update of the network wants it."""
    host = etree.Element("host", ip=address)
    for name in names:
        etree.SubElement(host, "hostname").text = name
    return str(etree.tostring(host, encoding="unicode"))


def _card_of(names: tuple[str, ...]) -> str:
    for name in names:
        digits = name.removeprefix(CARD_LABEL)
        if digits != name and len(digits) == 12:
            return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
    return ""


def network_parse(xml: str) -> NetworkRead | None:
    """Read a network; None when it is not one of ours."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    root = etree.fromstring(xml, parser)
    mark = root.find(f"metadata/{{{NAMESPACE}}}network")
    if mark is None or not mark.get("id"):
        return None
    return NetworkRead(
        network_id=NetworkId(mark.get("id")),
        digest=mark.get("digest", ""),
        class_=mark.get("class", ""),
        ipv4_cidr=mark.get("ipv4", ""),
        ipv6_cidr=mark.get("ipv6", ""),
        mtu=int(mark.get("mtu", str(MTU_USUAL))),
        bindings={
            host.get("ip", ""): host.get("mac", "").lower()
            for host in root.iterfind("ip/dhcp/host")
        },
        records={
            host.get("ip", ""): tuple(name.text or "" for name in host.iterfind("hostname"))
            for host in root.iterfind("dns/host")
        },
    )


# -- the guard ---------------------------------------------------------------------------------

# As few rules as can be: each is a command of its own whenever a guest starts. The number in the
# name changes with the rules, so that running guests keep theirs.
GUARD_PREFIX: Final = "stratus-guard-"
GUARD: Final = GUARD_PREFIX + "1"

_GUARD_CARD: Final = """
  <rule action='drop' direction='out' priority='-900'>
    <mac match='no' srcmacaddr='$MAC'/>
  </rule>"""
_GUARD_IPV4: Final = """
  <rule action='accept' direction='out' priority='-800'>
    <arp arpsrcmacaddr='$MAC' arpsrcipaddr='$IP'/>
  </rule>
  <rule action='accept' direction='out' priority='-790'>
    <arp arpsrcmacaddr='$MAC' arpsrcipaddr='0.0.0.0'/>
  </rule>
  <rule action='drop' direction='out' priority='-700'>
    <ip protocol='udp' srcportstart='67'/>
  </rule>
  <rule action='accept' direction='out' priority='-690'>
    <ip srcipaddr='$IP'/>
  </rule>
  <rule action='accept' direction='out' priority='-680'>
    <ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68'
        dstportstart='67'/>
  </rule>"""
_GUARD_IPV6: Final = """
  <rule action='drop' direction='out' priority='-600'>
    <ipv6 protocol='icmpv6' type='134'/>
  </rule>
  <rule action='drop' direction='out' priority='-590'>
    <ipv6 protocol='udp' srcportstart='547'/>
  </rule>
  <rule action='accept' direction='out' priority='-580'>
    <ipv6 srcipaddr='$IPV6'/>
  </rule>
  <rule action='accept' direction='out' priority='-570'>
    <ipv6 srcipaddr='::' protocol='icmpv6'/>
  </rule>"""
_GUARD_REST: Final = """
  <rule action='drop' direction='out' priority='900'>
    <mac/>
  </rule>"""


def guard_name(*, ipv4: bool, ipv6: bool) -> str:
    """Name the guard for cards with addresses of these families."""
    return GUARD + ("-4" if ipv4 else "") + ("-6" if ipv6 else "")


def guard_render(*, ipv4: bool, ipv6: bool) -> str:
    """Write the guard: from a card comes only what has its own addresses as source.

    Neither does it offer addresses or routes to others. Everything else is dropped.
    """
    rules = _GUARD_CARD + (_GUARD_IPV4 if ipv4 else "") + (_GUARD_IPV6 if ipv6 else "")
    name = guard_name(ipv4=ipv4, ipv6=ipv6)
    return f"<filter name='{name}' chain='root'>{rules}{_GUARD_REST}\n</filter>"


def guard_parameters(port: PortSpec) -> dict[str, tuple[str, ...]]:
    """Return what the guard holds this card to; its MAC is known to libvirt."""
    parameters: dict[str, tuple[str, ...]] = {}
    if port.ipv4:
        parameters["IP"] = (port.ipv4,)
    if port.ipv6:
        parameters["IPV6"] = (port.ipv6, link_local(port.mac))
    return parameters


def link_local(mac: str) -> str:
    """Return the link-local address that this card forms (modified EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    eui = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return str(ipaddress.IPv6Network("fe80::/64")[int.from_bytes(eui, "big")])
