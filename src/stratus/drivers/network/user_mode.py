"""What network has a guest whose libvirt may make none? QEMU's own, one for each guest.

For `qemu:///session`: guests reach out through the user's own connections, and nobody reaches
them. Addresses are handed out by QEMU, the same to every guest.
"""

from collections.abc import Sequence
from typing import Final

from stratus.drivers.network.contract import NetworkDriverFacts, PortFound
from stratus.model.host import PortAttachment
from stratus.model.ids import NetworkId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec

FACTS: Final = NetworkDriverFacts(
    name="user-mode",
    classes=(NetworkClass.PUBLIC,),
    ipv6=False,
    fixed_leases=False,
    anti_spoofing=False,
)


class UserModeNetworkDriver:
    """Joins each card to a network of its own inside QEMU; nothing is to be made or removed."""

    def probe(self) -> NetworkDriverFacts:
        """Return the facts, which are the same everywhere."""
        return FACTS

    def ensure_network(self, spec: NetworkSpec) -> None:
        """Do nothing: every guest brings its own."""

    def ensure_port(self, spec: PortSpec) -> PortAttachment:  # noqa: ARG002  # the contract's name
        """Say that the card is plugged into QEMU's own network."""
        return PortAttachment()

    def ensure_port_absent(self, network_id: NetworkId, mac: str) -> None:
        """Do nothing: it goes with its guest."""

    def ensure_network_absent(self, network_id: NetworkId) -> None:
        """Do nothing: it goes with its guest."""

    def inventory(self) -> tuple[Sequence[NetworkId], Sequence[PortFound]]:
        """Return nothing: nothing is kept."""
        return (), ()

    def close(self) -> None:
        """There is nothing to let go of."""
