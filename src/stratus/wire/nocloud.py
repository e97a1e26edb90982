"""How does cloud-init's NoCloud source want its context? As three small files on a medium.

Format: cloud-init documentation, "NoCloud" and "Networking config Version 2". The structured files
are JSON, which every YAML reader takes. Key=value pairs appear under `context` in `meta-data`.
"""

import re
from typing import Any, Final

import msgspec

from stratus.wire.guest_context import ContextNic, GuestContext

LABEL: Final = "cidata"
CLOUD_CONFIG: Final = "#cloud-config\n"

# Legal in JSON strings, but to YAML 1.1 a line break, a byte order mark, or not printable.
NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def nocloud_files(context: GuestContext) -> dict[str, str]:
    """Return the content of `meta-data`, `user-data` and `network-config`."""
    return {
        "meta-data": _yaml(_meta_data(context)),
        "user-data": context.user_data or CLOUD_CONFIG + _yaml(_cloud_config(context)),
        "network-config": _yaml(_network_config(context.nics)),
    }


def _meta_data(context: GuestContext) -> dict[str, Any]:
    return {
        "instance-id": context.instance_id,
        "local-hostname": context.host_name,
        # Here too, so that the keys work beside any user data, a script for instance.
        "public-keys": list(context.ssh_keys),
        "context": context.pairs,
    }


def _cloud_config(context: GuestContext) -> dict[str, Any]:
    return {"hostname": context.host_name, "ssh_authorized_keys": list(context.ssh_keys)}


def _network_config(nics: tuple[ContextNic, ...]) -> dict[str, Any]:
    return {
        "version": 2,
        "ethernets": {f"nic{number}": _ethernet(nic) for number, nic in enumerate(nics)},
    }


def _ethernet(nic: ContextNic) -> dict[str, Any]:
    """One card, known by its hardware address: names of cards differ between guests."""
    by_dhcp = nic.dhcp4 and nic.ipv4 != ""
    addresses = [nic.ipv6] if nic.ipv6 else []
    routes = []
    if nic.ipv4 and not by_dhcp:
        addresses.insert(0, nic.ipv4)
        if nic.ipv4_gateway:
            routes.append({"to": "0.0.0.0/0", "via": nic.ipv4_gateway})
    if nic.ipv6_gateway and not nic.accept_ra:
        routes.append({"to": "::/0", "via": nic.ipv6_gateway})
    ethernet: dict[str, Any] = {"match": {"macaddress": nic.mac.lower()}, "dhcp4": by_dhcp}
    if nic.ipv6:
        ethernet["accept-ra"] = nic.accept_ra
    if addresses:
        ethernet["addresses"] = addresses
    if routes:
        ethernet["routes"] = routes
    if nic.dns:
        ethernet["nameservers"] = {"addresses": list(nic.dns)}
    return ethernet


def _yaml(value: dict[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
