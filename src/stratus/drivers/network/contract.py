"""What does a network driver promise? One object joins guests of one host to networks."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from stratus.model.host import PortAttachment
from stratus.model.ids import NetworkId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec


class NetworkDriverFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this driver can do on its host, as tested by a probe."""

    name: str
    classes: tuple[NetworkClass, ...]
    ipv6: bool
    fixed_leases: bool  # DHCP hands out exactly the allotted address
    anti_spoofing: bool  # MAC, ARP, IPv4 and IPv6 sources are held to what was allotted


class PortFound(msgspec.Struct, frozen=True, kw_only=True):
    """One card that the network knows on this host."""

    network_id: NetworkId
    mac: str
    ipv4: str = ""


class NetworkDriver(Protocol):
    """The networks of one host. Calls are thread-safe and safe to repeat.

    Raises EngineUnreachable when the host does not answer, DriverFailed (`network_failed`)
    when it refuses.
    """

    def probe(self) -> NetworkDriverFacts:
        """Test what can be done on this host."""
        ...

    def ensure_network(self, spec: NetworkSpec) -> None:
        """Leave the network up as specified; a network that is, is not disturbed."""
        ...

    def ensure_port(self, spec: PortSpec) -> PortAttachment:
        """Leave the address bound to the card, before the guest starts; say how to plug it."""
        ...

    def ensure_port_absent(self, network_id: NetworkId, mac: str) -> None:
        """Leave no binding for this card."""
        ...

    def ensure_network_absent(self, network_id: NetworkId) -> None:
        """Leave no such network; refused with `in_use` while guests are plugged into it."""
        ...

    def inventory(self) -> tuple[Sequence[NetworkId], Sequence[PortFound]]:
        """Return our networks and ports on this host, complete or not at all."""
        ...

    def close(self) -> None:
        """Let go of the host; its networks stay up."""
        ...
