"""What is a guest told at its first boot, before it is put into the form that its reader wants?"""

import msgspec


class ContextNic(msgspec.Struct, frozen=True, kw_only=True):
    """One network card as the guest should set it up; addresses with prefix length, or ""."""

    mac: str
    ipv4: str = ""
    ipv4_gateway: str = ""
    ipv6: str = ""
    ipv6_gateway: str = ""
    dns: tuple[str, ...] = ()
    dhcp4: bool = True  # the network hands out exactly `ipv4`; otherwise the guest sets it itself
    accept_ra: bool = True  # the network announces its router and prefix


class GuestContext(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a context medium tells."""

    instance_id: str
    host_name: str
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""
    pairs: dict[str, str] = {}
    nics: tuple[ContextNic, ...] = ()
