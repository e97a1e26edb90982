"""What must be there before a site can work? Its secrets, first pool, network, host and types.

Every step is an `ensure`: set-up that was cut off goes on where it stopped.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from stratus.control.hosts import HostWish, host_add
from stratus.control.networks import NetworkWish, network_add
from stratus.control.pools import pool_add
from stratus.control.site import FirstSecrets, admin_secrets_renew, site_init
from stratus.control.world import Origin, World
from stratus.model.ids import UserId
from stratus.model.network import NetworkClass
from stratus.model.tenancy import Actor
from stratus.site.cloud import now_ms
from stratus.site.config import Home, SiteConfig
from stratus.store.engine import Store
from stratus.store.hosts_admin import host_by_ref
from stratus.store.networks import network_by_ref
from stratus.store.pools import pool_by_ref

SETUP: Final = Actor(user_id=UserId("usr-setup"), name="setup", admin=True)
ORIGIN: Final = Origin(request_id="setup")
LOCAL_POOL: Final = "local"
LOCAL_HOST: Final = "local"
PUBLIC_NETWORK: Final = "outward"  # of class public
PROJECT: Final = "default"
IPV6_SWITCH: Final = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")


class AdminFile(msgspec.Struct, kw_only=True):
    """What the command line needs to act as the first administrator."""

    endpoint: str
    token: str
    project: str
    user: str
    password: str


def site_ensure(home: Home, config: SiteConfig, store: Store) -> None:
    """Leave a site that can start instances as soon as its roles run."""
    world = World(store=store, now_ms=now_ms, chance=secrets.randbits)
    made = site_init(world, name=config.name, origin=ORIGIN)
    if made is None and not home.admin.exists():
        # Set-up was cut off between the two, or the file was lost: the machine's owner renews.
        made = admin_secrets_renew(world)
    if made is not None:
        _admin_write(home, config, made)
    if not config.host_uri:
        return
    home.pool.mkdir(mode=0o711, exist_ok=True)
    home.pool.chmod(0o711)
    if store.read(lambda c: pool_by_ref(c, LOCAL_POOL)) is None:
        pool_add(
            world,
            SETUP,
            name=LOCAL_POOL,
            driver="files",
            location=str(home.pool),
            origin=ORIGIN,
        )
    if store.read(lambda c: network_by_ref(c, PUBLIC_NETWORK)) is None:
        network_add(world, SETUP, _network_wish(home, config), origin=ORIGIN)
    if store.read(lambda c: host_by_ref(c, LOCAL_HOST)) is None:
        host_add(world, SETUP, _host_wish(config), origin=ORIGIN)


def _network_wish(home: Home, config: SiteConfig) -> NetworkWish:
    return NetworkWish(
        name=PUBLIC_NETWORK,
        class_=NetworkClass.PUBLIC,
        driver="libvirt",
        ipv4_cidr=config.network_ipv4,
        ipv6_cidr=config.network_ipv6 or ipv6_prefix(home),
        domain=f"{config.name}.internal",
    )


def _host_wish(config: SiteConfig) -> HostWish:
    return HostWish(
        name=LOCAL_HOST,
        uri=config.host_uri,
        cpu_ratio=config.cpu_ratio,
        memory_ratio=config.memory_ratio,
        memory_reserved_mib=config.memory_reserved_mib,
        accelerator=config.accelerator,
        pools=(LOCAL_POOL,),
    )


def ipv6_prefix(home: Home) -> str:
    """Return a unique local /64 for this site (RFC 4193), "" where the machine has no IPv6.

    Derived from the place and the machine, so that set-up run twice finds the same.
    """
    try:
        if IPV6_SWITCH.read_text().strip() != "0":
            return ""
    except OSError:
        return ""
    seed = f"{os.uname().nodename}:{home.root}".encode()
    digits = hashlib.sha256(seed).hexdigest()[:10]
    return f"fd{digits[:2]}:{digits[2:6]}:{digits[6:10]}::/64"


def endpoint_of(config: SiteConfig) -> str:
    """Return where clients on this machine reach the API."""
    host = "127.0.0.1" if config.listen in ("0.0.0.0", "::") else config.listen  # noqa: S104  # compared only
    return f"http://{host}:{config.port}"


def _admin_write(home: Home, config: SiteConfig, made: FirstSecrets) -> None:
    content = AdminFile(
        endpoint=endpoint_of(config),
        token=made.token,
        project=PROJECT,
        user=made.user,
        password=made.password,
    )
    part = home.admin.with_suffix(".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(home.admin)


def admin_read(home: Home) -> AdminFile:
    """Return how to act as the first administrator."""
    return msgspec.json.decode(home.admin.read_bytes(), type=AdminFile)
