"""How does cloud-init's NoCloud source want its context? As three small files on a medium.

Format: cloud-init documentation, "NoCloud" and "Networking config Version 2". Texts are quoted as
in JSON, structure is told by lines and indent, so that small readers without a YAML parser (awk in
a tiny guest) find their way too. Key=value pairs appear under `context` in `meta-data`.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from stratus.wire.guest_context import ContextNic, GuestContext

LABEL: Final = "cidata"
CLOUD_CONFIG: Final = "#cloud-config\n"

# Legal in JSON strings, but to YAML 1.1 a line break, a byte order mark, or not printable.
NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
PLAIN_KEY: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*\Z")
YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def nocloud_files(context: GuestContext) -> dict[str, str]:
    """Return the content of `meta-data`, `user-data` and, where there are cards, their set-up."""
    files = {
        "meta-data": _yaml(_meta_data(context)),
        "user-data": context.user_data or CLOUD_CONFIG + _yaml(_cloud_config(context)),
    }
    # A file without cards would mean "leave all cards alone" instead of "nothing to say".
    if context.nics:
        files["network-config"] = _yaml(_network_config(context.nics))
    return files


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
    names = (f"eth{number}" for number in range(len(nics)))
    return {
        "version": 2,
        "ethernets": {name: _ethernet(name, nic) for name, nic in zip(names, nics, strict=True)},
    }


def _ethernet(name: str, nic: ContextNic) -> dict[str, Any]:
    """One card, known by its hardware address, and named by us.

    Without `set-name` some renderers of cloud-init (22.4: networkd, ENI) look for a card that
    is already called like the key. `gateway4` and `gateway6` are the older words for a default
    route, but the newer `to: ::/0` comes out as ::/64 there.
    """
    by_dhcp = nic.dhcp4 and nic.ipv4 != ""
    addresses = [nic.ipv6] if nic.ipv6 else []
    if nic.ipv4 and not by_dhcp:
        addresses.insert(0, nic.ipv4)
    ethernet: dict[str, Any] = {
        "match": {"macaddress": nic.mac.lower()},
        "set-name": name,
        "dhcp4": by_dhcp,
    }
    if nic.ipv6:
        ethernet["accept-ra"] = nic.accept_ra
    if addresses:
        ethernet["addresses"] = addresses
    if nic.ipv4 and nic.ipv4_gateway and not by_dhcp:
        ethernet["gateway4"] = nic.ipv4_gateway
    if nic.ipv6 and nic.ipv6_gateway and not nic.accept_ra:
        ethernet["gateway6"] = nic.ipv6_gateway
    if nic.dns and not by_dhcp:  # DHCP brings its own
        ethernet["nameservers"] = {"addresses": list(nic.dns)}
    return ethernet


def _yaml(value: dict[str, Any]) -> str:
    return "\n".join(_lines(value)) + "\n"


def _lines(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    """Write a mapping or a list as a block, one entry on a line."""
    if isinstance(value, list):
        yield from (f"- {_scalar(one)}" for one in value)
        return
    for key, inner in value.items():
        if isinstance(inner, dict | list) and inner:
            yield f"{_key(key)}:"
            yield from (f"  {line}" for line in _lines(inner))
        else:
            yield f"{_key(key)}: {_scalar(inner)}"


def _key(key: str) -> str:
    plain = PLAIN_KEY.match(key) and key.lower() not in YAML_WORDS
    return key if plain else _scalar(key)


def _scalar(value: object) -> str:
    """Write a text, number, truth value, or something empty, as JSON that is also YAML."""
    text = msgspec.json.encode(value).decode()
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
