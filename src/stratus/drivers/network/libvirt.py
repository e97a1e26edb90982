"""Joins guests to networks that libvirt makes on one host: bridge, DHCP, names, NAT, guard."""

import ipaddress
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import libvirt

from stratus.drivers.failure import DriverFailed
from stratus.drivers.hypervisor.libvirt_connection import Call, LibvirtConnection, no_step
from stratus.drivers.hypervisor.libvirt_refusal import (
    is_gone,
    is_unsupported,
    refusal_problem,
    said_by,
)
from stratus.drivers.network.contract import NetworkDriver, NetworkDriverFacts, PortFound
from stratus.drivers.network.libvirt_xml import (
    NetworkRead,
    binding_render,
    card_names,
    guard_name,
    guard_parameters,
    guard_render,
    network_name,
    network_parse,
    network_render,
    network_uuid,
    record_names,
    record_render,
    spec_digest,
)
from stratus.drivers.network.user_mode import UserModeNetworkDriver
from stratus.model.host import PortAttachment
from stratus.model.ids import NetworkId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec
from stratus.model.problem import Problem

ADD: Final = libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
DELETE: Final = libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE
BINDINGS: Final = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
RECORDS: Final = libvirt.VIR_NETWORK_SECTION_DNS_HOST
EVERYWHERE: Final = (
    libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE | libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
)

UPDATE_ATTEMPTS_MAX: Final = 3
STRIPES: Final = 16  # networks that share one are changed one after the other
STRIPE_SECONDS_MAX: Final = 60.0

# A network nobody uses, to find out whether the host can do IPv6 with address translation.
TRIAL_NAME: Final = "stratus-trial"
TRIAL_NETWORK: Final = f"""
<network><name>{TRIAL_NAME}</name><forward mode='nat'><nat ipv6='yes'/></forward>
  <bridge name='st-trial' stp='off' delay='0'/>
  <ip family='ipv6' address='fd57:7a70:51ab:ffff::1' prefix='64'/>
</network>"""

T = TypeVar("T")


def libvirt_networks(uri: str, *, after_step: Callable[[str], None] = no_step) -> NetworkDriver:
    """Return the driver for the networks of the host behind this libvirt URI."""
    if uri.partition("?")[0].endswith("/session"):
        return UserModeNetworkDriver()
    return LibvirtNetworkDriver(uri, after_step=after_step)


class LibvirtNetworkDriver:
    """The networks of one host, through its libvirt."""

    def __init__(self, uri: str, *, after_step: Callable[[str], None] = no_step) -> None:
        self._connection = LibvirtConnection(
            uri, after_step=after_step, refusal_code="network_failed"
        )
        self._stripes = tuple(threading.Lock() for _ in range(STRIPES))
        self._facts: NetworkDriverFacts | None = None
        self._facts_lock = threading.Lock()

    # -- what can be done ----------------------------------------------------------------------

    def probe(self) -> NetworkDriverFacts:
        """Try a guard and an IPv6 network on the host, once."""
        return self._connection.change(self._probe)

    def _probe(self, call: Call) -> NetworkDriverFacts:
        with self._facts_lock:
            if self._facts is None:
                self._facts = NetworkDriverFacts(
                    name=f"libvirt-{self._connection.scheme}",
                    classes=tuple(NetworkClass),
                    ipv6=_ipv6_try(call),
                    fixed_leases=True,
                    anti_spoofing=_guard_ensure(call, ipv4=True, ipv6=True) != "",
                )
            return self._facts

    # -- networks ------------------------------------------------------------------------------

    def ensure_network(self, spec: NetworkSpec) -> None:
        """Leave the network up as specified; see the contract."""
        self._change(spec.id, lambda call: self._ensure_network(call, spec))

    def _ensure_network(self, call: Call, spec: NetworkSpec) -> None:
        ipv6 = bool(spec.ipv6_cidr) and self._probe(call).ipv6
        digest = spec_digest(spec, ipv6=ipv6)
        network = _network_find(call, spec.id)
        if network is not None:
            read = _network_read(call, network)
            if read.digest != digest and not _must_stay(call, network, read, spec):
                _network_remove(call, network)
                network = None
            elif call.do(network.isActive):
                return
        if network is None:
            _overlap_check(call, spec)
            network = call.do(
                call.conn.networkDefineXML, network_render(spec, digest=digest, ipv6=ipv6)
            )
        call.do(network.setAutostart, 1)
        try:
            call.do(network.create)
        except libvirt.libvirtError as error:
            if not call.do(network.isActive):
                call.do(network.undefine)
                raise _failed(spec, error) from error

    def ensure_network_absent(self, network_id: NetworkId) -> None:
        """Leave no such network, unless a guest is plugged into it."""

        def body(call: Call) -> None:
            network = _network_find(call, network_id)
            if network is None:
                return
            plugged = _plugged(call, network)
            if plugged:
                raise DriverFailed(
                    Problem(
                        code="in_use",
                        detail=f"{plugged} guests are plugged into network {network.name()}.",
                        remedy="Stop or delete these instances first.",
                    )
                )
            _network_remove(call, network)

        self._change(network_id, body)

    # -- ports ---------------------------------------------------------------------------------

    def ensure_port(self, spec: PortSpec) -> PortAttachment:
        """Leave the addresses bound to the card; say how to plug it."""
        return self._change(spec.network_id, lambda call: self._ensure_port(call, spec))

    def _ensure_port(self, call: Call, spec: PortSpec) -> PortAttachment:
        network = _network_find(call, spec.network_id)
        if network is None:
            raise DriverFailed(
                Problem(
                    code="network_failed",
                    detail=f"Network {spec.network_id} is not on this host.",
                    remedy="We make it again by ourselves; look again in a minute.",
                ),
                transient=True,
            )
        for attempt in range(UPDATE_ATTEMPTS_MAX):
            read = _network_read(call, network)
            try:
                _binding_ensure(call, network, read, spec)
                _records_ensure(call, network, read, spec)
                break
            except libvirt.libvirtError as error:
                # Another worker changed the same entry between our look and our change.
                raced = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
                if not raced or attempt + 1 == UPDATE_ATTEMPTS_MAX:
                    raise
        ipv4, ipv6 = bool(spec.ipv4), bool(spec.ipv6) and bool(read.ipv6_cidr)
        guard = _guard_ensure(call, ipv4=ipv4, ipv6=ipv6)
        parameters = guard_parameters(spec) if guard else {}
        return PortAttachment(
            network=network.name(),
            filter=guard,
            filter_parameters={
                name: values for name, values in parameters.items() if ipv6 or name != "IPV6"
            },
            mtu=read.mtu,
        )

    def ensure_port_absent(self, network_id: NetworkId, mac: str) -> None:
        """Leave no record of the card; its address stays reserved for its next holder."""

        def body(call: Call) -> None:
            network = _network_find(call, network_id)
            if network is None:
                return
            for address in _network_read(call, network).addresses_of(card_names(mac)):
                _update(call, network, DELETE, RECORDS, record_render(address, ()))

        self._change(network_id, body)

    def inventory(self) -> tuple[Sequence[NetworkId], Sequence[PortFound]]:
        """Return our networks, up or not, and the cards recorded on them."""
        return self._connection.look(_inventory)

    def close(self) -> None:
        """Let go of the host."""
        self._connection.close()

    def _change(self, network_id: NetworkId, body: Callable[[Call], T]) -> T:
        """Change one network, one caller at a time."""
        stripe = self._stripes[hash(network_id) % STRIPES]

        def alone(call: Call) -> T:
            with _held(stripe, network_id):
                return body(call)

        return self._connection.change(alone)


@contextmanager
def _held(stripe: threading.Lock, network_id: NetworkId) -> Iterator[None]:
    if not stripe.acquire(timeout=STRIPE_SECONDS_MAX):
        problem = Problem(
            code="network_failed",
            detail=f"An earlier change of network {network_id} is still under way.",
            remedy="Look at the host's libvirt if this stays so.",
        )
        raise DriverFailed(problem, transient=True)
    try:
        yield
    finally:
        stripe.release()


def _network_find(call: Call, network_id: NetworkId) -> libvirt.virNetwork | None:
    try:
        return call.do(call.conn.networkLookupByUUID, network_uuid(network_id).bytes)
    except libvirt.libvirtError as error:
        if is_gone(error):
            return None
        raise


def _network_read(call: Call, network: libvirt.virNetwork) -> NetworkRead:
    read = network_parse(call.do(network.XMLDesc, 0))
    if read is None:
        raise DriverFailed(
            Problem(
                code="network_failed",
                detail=f"Our mark on network {network.name()} is gone.",
                remedy=f"Somebody edited it: 'virsh net-destroy {network.name()}' and "
                f"'virsh net-undefine {network.name()}' let us make it anew.",
            )
        )
    return read


def _network_remove(call: Call, network: libvirt.virNetwork) -> None:
    if call.do(network.isActive):
        call.do(network.destroy)
    call.do(network.undefine)


def _plugged(call: Call, network: libvirt.virNetwork) -> int:
    """Count the cards of running guests on this network."""
    try:
        return len(call.do(network.listAllPorts, 0)) if call.do(network.isActive) else 0
    except libvirt.libvirtError as error:
        if is_unsupported(error):
            return 0
        raise


def _must_stay(
    call: Call, network: libvirt.virNetwork, read: NetworkRead, spec: NetworkSpec
) -> bool:
    """Tell whether a network that is not written as wished has to stay because it is in use.

    It stays as it is as long as its addresses and its class are right; else it is refused.
    """
    plugged = _plugged(call, network)
    if not plugged:
        return False
    if (read.ipv4_cidr, read.class_) == (spec.ipv4_cidr, spec.class_):
        return True
    raise DriverFailed(
        Problem(
            code="network_failed",
            detail=f"Network {spec.name} has other addresses on this host "
            f"({read.ipv4_cidr} {read.class_}), and {plugged} guests are plugged into it.",
            remedy="Stop its instances, and it is made anew; or give the change a new network.",
        )
    )


def _overlap_check(call: Call, spec: NetworkSpec) -> None:
    """Refuse addresses that another network of this host has; libvirt sees only active ones."""
    if not spec.ipv4_cidr:
        return
    wanted = ipaddress.IPv4Network(spec.ipv4_cidr)
    for network in call.do(call.conn.listAllNetworks, 0):
        read = network_parse(call.do(network.XMLDesc, 0))
        if read is None or not read.ipv4_cidr or read.network_id == spec.id:
            continue
        if wanted.overlaps(ipaddress.IPv4Network(read.ipv4_cidr)):
            raise DriverFailed(
                Problem(
                    code="network_failed",
                    detail=f"{spec.ipv4_cidr} overlaps {read.ipv4_cidr} of {network.name()}.",
                    remedy="Give the network addresses that no other network of the host has.",
                )
            )


def _failed(spec: NetworkSpec, error: libvirt.libvirtError) -> DriverFailed:
    problem = refusal_problem(error, code="network_failed")
    detail = f"{network_name(spec)} ({spec.ipv4_cidr or spec.ipv6_cidr}): {said_by(error)}"
    return DriverFailed(Problem(code="network_failed", detail=detail, remedy=problem.remedy))


def _binding_ensure(
    call: Call, network: libvirt.virNetwork, read: NetworkRead, spec: PortSpec
) -> None:
    """Leave the IPv4 address bound to this card alone; nearly always it is already."""
    mac = spec.mac.lower()
    if not spec.ipv4 or read.bindings.get(spec.ipv4) == mac:
        return
    for ipv4, holder in read.bindings.items():
        if ipv4 == spec.ipv4 or holder == mac:
            _update(call, network, DELETE, BINDINGS, binding_render(ipv4, holder))
    _update(call, network, ADD, BINDINGS, binding_render(spec.ipv4, mac))


def _records_ensure(
    call: Call, network: libvirt.virNetwork, read: NetworkRead, spec: PortSpec
) -> None:
    """Leave exactly the records of this port for its card and its addresses."""
    names = record_names(spec)
    wanted = [spec.ipv4, spec.ipv6 if read.ipv6_cidr else ""]
    wanted = [address for address in wanted if address]
    stale = {address for address in read.addresses_of(names) if address not in wanted}
    for address in wanted:
        present = read.records.get(address)
        if present is not None and present != names:
            # A card that lost one of its addresses to another is gone as a whole.
            stale.update({address}, read.addresses_of(present))
    for address in stale & read.records.keys():
        _update(call, network, DELETE, RECORDS, record_render(address, ()))
    for address in wanted:
        if address in stale or read.records.get(address) != names:
            _update(call, network, ADD, RECORDS, record_render(address, names))


def _update(call: Call, network: libvirt.virNetwork, command: int, section: int, xml: str) -> None:
    """Change one entry of the network, in its definition and, if it is up, at once."""
    flags = EVERYWHERE
    if not call.do(network.isActive):
        flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    call.do(network.update, command, section, -1, xml, flags)


def _inventory(call: Call) -> tuple[Sequence[NetworkId], Sequence[PortFound]]:
    networks: list[NetworkId] = []
    ports: list[PortFound] = []
    for network in call.do(call.conn.listAllNetworks, 0):
        try:
            read = network_parse(call.do(network.XMLDesc, 0))
        except libvirt.libvirtError as error:
            if is_gone(error):
                continue
            raise
        if read is not None:
            networks.append(read.network_id)
            ports.extend(read.ports())
    return networks, ports


def _guard_ensure(call: Call, *, ipv4: bool, ipv6: bool) -> str:
    """Leave the guard defined; return its name, "" where this libvirt has no filters."""
    name = guard_name(ipv4=ipv4, ipv6=ipv6)
    try:
        call.do(call.conn.nwfilterLookupByName, name)
    except libvirt.libvirtError as error:
        if is_unsupported(error):
            return ""
        if not is_gone(error):
            raise
        call.do(call.conn.nwfilterDefineXML, guard_render(ipv4=ipv4, ipv6=ipv6))
    return name


def _ipv6_try(call: Call) -> bool:
    """Make a network with IPv6 and take it away again; tell whether that works."""
    for _ in range(UPDATE_ATTEMPTS_MAX):
        _trial_remove(call)
        try:
            call.do(call.conn.networkCreateXML, TRIAL_NETWORK)
        except libvirt.libvirtError as error:
            # Another worker may be trying the same host right now.
            if "already" in said_by(error):
                continue
            return False
        _trial_remove(call)
        return True
    return False


def _trial_remove(call: Call) -> None:
    try:
        call.do(call.do(call.conn.networkLookupByName, TRIAL_NAME).destroy)
    except libvirt.libvirtError as error:
        if not is_gone(error):
            raise
