"""What would the networks of a host do? Honest ones in the memory of a FakeMachine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.hypervisor.fake import (
    FakeMachine,
    fake_network_name,
    fake_reach,
    fake_refuse,
    fake_reply_is_lost,
    fake_silence,
)
from stratus.drivers.network.contract import NetworkDriverFacts, PortFound
from stratus.model.host import PortAttachment
from stratus.model.ids import NetworkId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec
from stratus.model.problem import Problem

FACTS: Final = NetworkDriverFacts(
    name="fake",
    classes=tuple(NetworkClass),
    ipv6=True,
    fixed_leases=True,
    anti_spoofing=True,
)


class FakeNetworkDriver:
    """One connection to the networks of a FakeMachine."""

    def __init__(self, machine: FakeMachine, *, facts: NetworkDriverFacts = FACTS) -> None:
        self.machine = machine
        self.facts = facts

    def probe(self) -> NetworkDriverFacts:
        """Return the facts that the driver was made with."""
        with self._look():
            return self.facts

    def ensure_network(self, spec: NetworkSpec) -> None:
        """Remember the network; refuse addresses that another network has."""
        with self._change() as machine:
            for other in machine.networks.values():
                if other.id != spec.id and spec.ipv4_cidr and other.ipv4_cidr == spec.ipv4_cidr:
                    raise _failed(f"{spec.ipv4_cidr} is in use by network {other.name}.")
            machine.networks[spec.id] = spec
            machine.ports.setdefault(spec.id, {})

    def ensure_port(self, spec: PortSpec) -> PortAttachment:
        """Remember the card; it takes its addresses over from any other card."""
        with self._change() as machine:
            network = machine.networks.get(spec.network_id)
            if network is None:
                raise _failed(f"Network {spec.network_id} is not there.")
            ports = machine.ports[spec.network_id]
            for mac, other in tuple(ports.items()):
                if spec.ipv4 and other.ipv4 == spec.ipv4 and mac != spec.mac:
                    del ports[mac]
            ports[spec.mac] = spec
            return PortAttachment(network=fake_network_name(spec.network_id), mtu=network.mtu)

    def ensure_port_absent(self, network_id: NetworkId, mac: str) -> None:
        """Forget the card."""
        with self._change() as machine:
            machine.ports.get(network_id, {}).pop(mac, None)

    def ensure_network_absent(self, network_id: NetworkId) -> None:
        """Forget the network, unless a running guest is plugged into it."""
        with self._change() as machine:
            for guest in machine.running():
                if any(nic.nic.network_id == network_id for nic in guest.nics):
                    raise DriverFailed(
                        Problem(
                            code="in_use",
                            detail=f"{guest.domain_name} is plugged into network {network_id}.",
                            remedy="Stop or delete the instance first.",
                        )
                    )
            machine.networks.pop(network_id, None)
            machine.ports.pop(network_id, None)

    def inventory(self) -> tuple[Sequence[NetworkId], Sequence[PortFound]]:
        """Return every network and card of the machine."""
        with self._look() as machine:
            ports = [
                PortFound(network_id=network_id, mac=port.mac, ipv4=port.ipv4)
                for network_id, cards in machine.ports.items()
                for port in cards.values()
            ]
            return tuple(machine.networks), ports

    def close(self) -> None:
        """Let go of the machine; its networks stay."""

    @contextmanager
    def _look(self) -> Iterator[FakeMachine]:
        machine = self.machine
        if machine.sleep is not None and machine.delays.look > 0:
            machine.sleep(machine.delays.look)
        with machine.lock:
            fake_reach(machine)
            yield machine

    @contextmanager
    def _change(self) -> Iterator[FakeMachine]:
        machine = self.machine
        if machine.sleep is not None and machine.delays.change > 0:
            machine.sleep(machine.delays.change)
        with machine.lock:
            fake_reach(machine)
            fake_refuse(machine)
            yield machine
            if fake_reply_is_lost(machine):
                raise EngineUnreachable(fake_silence())


def _failed(detail: str) -> DriverFailed:
    return DriverFailed(
        Problem(
            code="network_failed",
            detail=detail,
            remedy="Ask the administrator to give the network other addresses.",
        )
    )
