"""How does a benchmark get a cloud? The real `stratus serve` over fake hosts, ended afterwards."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection

from stratus.cli.client import Client
from stratus.control.hosts import HostWish, host_add
from stratus.control.networks import NetworkWish, network_add
from stratus.control.pools import pool_add
from stratus.control.world import World
from stratus.model.image import ImageFormat, Visibility
from stratus.site.appliance import client_of, image_endorse
from stratus.site.cloud import now_ms
from stratus.site.config import Home, SiteConfig, config_write
from stratus.site.daemon import is_ready
from stratus.site.setup import ORIGIN, SETUP, admin_read, site_ensure
from stratus.store.engine import store_open
from stratus.wire.v1 import ImageCreate, ImageView, ProjectChange, QuotaBody

SERVE: Final = (sys.executable, "-m", "stratus.site.main", "serve")
NETWORK: Final = "10.128.0.0/15"
READY_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.05
IMAGE_BYTES: Final = 1 << 20
ENDORSER: Final = "bench@stratus.invalid"
UNLIMITED: Final = QuotaBody(
    instances=-1, vcpus=-1, memory_mib=-1, volumes=-1, volume_gib=-1, addresses=-1
)


class BenchCloud:
    """A running cloud: where it listens, how to ask it, and which process it is."""

    def __init__(self, home: Home, config: SiteConfig, process: "subprocess.Popen[bytes]") -> None:
        self.home = home
        self.port = config.port
        self.process = process
        self.admin = admin_read(home)
        self.client: Client = client_of(home)

    def cpu_seconds(self) -> float:
        """Return how much processor time the process has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks: int = os.sysconf("SC_CLK_TCK")
        return (int(fields[11]) + int(fields[12])) / ticks


def port_free() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@contextmanager
def cloud_lent(
    under: Path,
    store: str,
    *,
    hosts: int,
    host_uri: str = "",
    roles: tuple[str, ...] = (),
    prepare: Callable[[Connection], None] | None = None,
) -> Iterator[BenchCloud]:
    """Lend a cloud with so many fake hosts, all seen; without ceilings in its project.

    `prepare` puts rows into its store before it is served.
    """
    home = Home(under / "home")
    home.ensure()
    config = SiteConfig(name="bench", port=port_free(), store=store, host_uri=host_uri)
    config_write(home, config)
    _site_make(home, config, hosts, prepare)
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [*SERVE, "--home", str(home.root), *(f"--role={role}" for role in roles)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _until(lambda: is_ready(config), process, home)
        cloud = BenchCloud(home, config, process)
        if hosts:
            _project_free(cloud)
            _image_import(cloud)
            _until(lambda: _hosts_seen(cloud) >= hosts, process, home)
        yield cloud
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _site_make(
    home: Home,
    config: SiteConfig,
    hosts: int,
    prepare: Callable[[Connection], None] | None = None,
) -> None:
    """Make the site with its hosts, before anybody serves it."""
    store = store_open(home.store_url(config))
    try:
        site_ensure(home, config, store)
        if prepare is not None:
            store.write(prepare)
        if not hosts:
            return
        world = World(store=store, now_ms=now_ms, chance=secrets.randbits)
        pool_add(world, SETUP, name="fake", driver="fake", location="fake", origin=ORIGIN)
        network = NetworkWish(name="wide", driver="fake", ipv4_cidr=NETWORK)
        network_add(world, SETUP, network, origin=ORIGIN)
        for number in range(hosts):
            host = HostWish(
                name=f"h{number:04}", uri=f"fake://h{number:04}", cpu_ratio=8.0, pools=("fake",)
            )
            host_add(world, SETUP, host, origin=ORIGIN)
    finally:
        store.close()


def _until(true: Callable[[], bool], process: "subprocess.Popen[bytes]", home: Home) -> None:
    until = time.monotonic() + READY_SECONDS_MAX
    while not true():
        log = home.log.read_text()[-2000:]
        assert process.poll() is None, f"the cloud ended: {log}"
        assert time.monotonic() < until, f"the cloud did not become ready: {log}"
        time.sleep(POLL_SECONDS)


def _project_free(cloud: BenchCloud) -> None:
    body = ProjectChange(quota=UNLIMITED)
    cloud.client.call("PATCH", f"/v1/projects/{cloud.admin.project}", body=body)


def _image_import(cloud: BenchCloud) -> None:
    client = cloud.client
    wish = ImageCreate(
        project=cloud.admin.project,
        name="tiny",
        format=ImageFormat.RAW,
        visibility=Visibility.PUBLIC,
    )
    made = msgspec.json.decode(client.call("POST", "/v1/images", body=wish).body, type=ImageView)
    span = {"Content-Range": f"bytes 0-{IMAGE_BYTES - 1}/{IMAGE_BYTES}"}
    client.call("PUT", f"/v1/images/{made.id}/content", body=bytes(IMAGE_BYTES), headers=span)
    path = f"/v1/images/{made.id}"
    _until(lambda: client.get(path, ImageView).phase == "ready", cloud.process, cloud.home)
    image_endorse(made.id, cloud.home.state / "endorser.pem", ENDORSER, 1, cloud.home)


def _hosts_seen(cloud: BenchCloud) -> int:
    seen = 0
    for page in cloud.client.pages("/v1/hosts"):
        seen += sum(msgspec.json.decode(raw)["phase"] == "ready" for raw in page.items)
    return seen
