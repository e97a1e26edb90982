"""What is a new guest told? Its context put on the medium that its image reads."""

import ipaddress

from stratus.model.ids import InstanceId
from stratus.model.instance import Context, Nic
from stratus.model.network import NetworkSpec
from stratus.model.volume import SeedFiles
from stratus.wire.guest_context import ContextNic, GuestContext
from stratus.wire.media import seed_of


def instance_seed(
    context: Context, network: NetworkSpec, instance_id: InstanceId, name: str, nic: Nic
) -> SeedFiles:
    """Return the content of the instance's seed medium."""
    return seed_of(
        GuestContext(
            instance_id=instance_id,
            host_name=name,
            ssh_keys=context.ssh_keys,
            user_data=context.user_data,
            pairs=context.pairs,
            nics=(_nic(network, nic),),
        )
    )


def _nic(network: NetworkSpec, nic: Nic) -> ContextNic:
    return ContextNic(
        mac=nic.mac,
        ipv4=_with_length(nic.ipv4, network.ipv4_cidr),
        ipv4_gateway=network.ipv4_gateway,
        ipv6=_with_length(nic.ipv6, network.ipv6_cidr),
        ipv6_gateway=network.ipv6_gateway,
        dns=tuple(gateway for gateway in (network.ipv4_gateway,) if gateway),
    )


def _with_length(address: str, cidr: str) -> str:
    if not address:
        return ""
    return f"{address}/{ipaddress.ip_network(cidr).prefixlen}"
