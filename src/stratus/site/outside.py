"""How does this process reach hosts, pools and images? Drivers chosen by scheme and name."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stratus.drivers.download import Downloader
from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.hypervisor.contract import Hypervisor
from stratus.drivers.network.contract import NetworkDriver
from stratus.drivers.uploads import UploadStore
from stratus.drivers.volume.contract import ImageFound, VolumeDriver
from stratus.hosts.guests import HostDrivers
from stratus.model.ids import HostId, ImageId, NetworkId, PoolId
from stratus.model.image import ImageSpec
from stratus.model.instance import InstanceFacts
from stratus.model.network import NetworkSpec
from stratus.model.problem import Problem, Refused
from stratus.site.config import Home
from stratus.store.engine import Store
from stratus.store.hosts import LeasedHost
from stratus.store.hosts_admin import host_by_ref
from stratus.store.networks import network_by_ref, network_specs
from stratus.store.pool_work import LeasedPool
from stratus.store.pools import pool_by_ref

if TYPE_CHECKING:
    from stratus.site.fakes import Fakes

UPLOAD: Final = "upload:"
NETWORKS_WARM_MAX: Final = 16  # made when a host is connected; others when first used
FAKE: Final = "fake"


class Uploads:
    """What the API needs of the upload store, in its own words."""

    def __init__(self, store: UploadStore) -> None:
        self._store = store

    def size(self, image_id: str) -> int:
        """Return how many bytes of this image are there; 0 where none are."""
        with _refusals():
            return self._store.size(ImageId(image_id))

    def append(self, image_id: str, offset: int, data: bytes) -> int:
        """Add bytes at the end, which must be at `offset`; return the new size."""
        with _refusals():
            return self._store.append(ImageId(image_id), offset, (data,))


class _refusals:  # reads as a verb where it is used
    """What a driver refused is refused at the door."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, DriverFailed | EngineUnreachable):
            raise Refused(error.problem) from error


class Outside:
    """The drivers of one process, opened when first used and kept."""

    def __init__(
        self,
        home: Home,
        store: Store,
        *,
        accelerator_probe: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        self._home = home
        self._store = store
        self._probe = accelerator_probe
        self._fakes: Fakes | None = None
        self._lock = threading.RLock()
        self._pools: dict[PoolId, VolumeDriver] = {}
        self._networks: dict[NetworkId, NetworkSpec] = {}
        self._consoles: dict[HostId, Hypervisor] = {}
        self.upload_store = UploadStore(home.state / "uploads")
        self._downloads = Downloader(home.state / "downloads")
        self.uploads = Uploads(self.upload_store)

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            for host in self._consoles.values():
                host.close()
            self._pools.clear()
            self._consoles.clear()

    # -- hosts ------------------------------------------------------------------------------

    def host_connect(self, host: LeasedHost) -> HostDrivers:
        """Open the drivers of a host, by the scheme of its URI."""
        drivers = HostDrivers(
            hypervisor=self._hypervisor(host.uri, host.accelerator_wanted),
            network=self._network_driver(host.uri),
        )
        # Made before the first guest needs them: a network takes seconds, a guest should not.
        if drivers.network is not None:
            for spec in self._store.read(lambda c: network_specs(c, rows_max=NETWORKS_WARM_MAX)):
                with suppress(DriverFailed):  # the guest that needs it will say why
                    drivers.network.ensure_network(spec)
                    drivers.networks_up.add(spec.id)
        return drivers

    def _hypervisor(self, uri: str, accelerator_wanted: str) -> Hypervisor:
        if uri.startswith(FAKE):
            return self._fake.hypervisor(uri)
        from stratus.drivers.hypervisor.libvirt import LibvirtHypervisor

        return LibvirtHypervisor(uri, accelerator_probe=self._accelerator(uri, accelerator_wanted))

    def _accelerator(self, uri: str, wanted: str) -> Callable[[], tuple[str, str]] | None:
        if wanted != "auto":
            return lambda: (wanted, "The administrator chose it for this host.")
        local = uri.startswith(("qemu:///", "qemu+unix:///"))
        return self._probe if local else None

    def _network_driver(self, uri: str) -> NetworkDriver | None:
        if uri.startswith(FAKE):
            return self._fake.network(uri)
        if uri.startswith("test:"):
            return None
        from stratus.drivers.network.libvirt import libvirt_networks

        return libvirt_networks(uri)

    @property
    def _fake(self) -> "Fakes":
        # Imported where used: a real site pays nothing for them.
        from stratus.site.fakes import Fakes

        with self._lock:
            if self._fakes is None:
                self._fakes = Fakes()
            return self._fakes

    def network(self, network_id: NetworkId) -> NetworkSpec:
        """Return how a network should be; specs never change once made."""
        spec = self._networks.get(network_id)
        if spec is None:
            found = self._store.read(lambda c: network_by_ref(c, network_id))
            assert found is not None, "a network stays while instances are on it"
            spec = self._networks[network_id] = found.spec
        return spec

    # -- pools ------------------------------------------------------------------------------

    def pool_connect(self, pool: LeasedPool) -> VolumeDriver:
        """Open the driver of a pool that this process works on."""
        return self._pool_open(pool.id, pool.driver, pool.location, create=pool.seen_ms == 0)

    def pool(self, pool_id: PoolId) -> VolumeDriver:
        """Return the driver of any pool, to connect guests to its volumes."""
        driver = self._pools.get(pool_id)
        if driver is not None:
            return driver
        found = self._store.read(lambda c: pool_by_ref(c, pool_id))
        assert found is not None, "a pool stays while it holds disks"
        return self._pool_open(pool_id, found.driver, found.location, create=False)

    def _pool_open(
        self, pool_id: PoolId, kind: str, location: str, *, create: bool
    ) -> VolumeDriver:
        with self._lock:
            if pool_id not in self._pools:
                self._pools[pool_id] = self._pool_make(kind, location, create=create)
            return self._pools[pool_id]

    def _pool_make(self, kind: str, location: str, *, create: bool) -> VolumeDriver:
        if kind == FAKE:
            return self._fake.pool(location)
        if kind == "files":
            from stratus.drivers.volume.files import FilesPool

            # A pool that was there before is never made anew: its mount may be missing.
            return FilesPool(Path(location), create=create)
        raise EngineUnreachable(
            Problem(
                code="configuration",
                detail=f"There is no volume driver {kind}.",
                remedy="Make the pool with one of the drivers that `stratus pool add` names.",
            )
        )

    def image_fetch(
        self, spec: ImageSpec, pool: VolumeDriver, progress: Callable[[int], None]
    ) -> ImageFound:
        """Bring the bytes into the pool, verify what was stored, and publish it."""
        if spec.source.startswith(UPLOAD):
            with self.upload_store.open(spec.id) as stream:
                offset = pool.image_bytes_staged(spec.id)
                stream.seek(offset)
                bytes_max = spec.size_bytes or self.upload_store.size(spec.id)
                progress(pool.image_stage(spec.id, stream, offset=offset, bytes_max=bytes_max))
        else:
            self._downloads.fetch(pool, spec, progress=progress)
        found = pool.image_publish(
            spec.id, format=spec.format, size_bytes=spec.size_bytes, sha256=spec.sha256
        )
        if spec.source.startswith(UPLOAD):
            self.upload_store.remove(spec.id)
        return found

    # -- consoles ---------------------------------------------------------------------------

    def console(self, instance: InstanceFacts, bytes_max: int) -> bytes:
        """Return the end of what the guest printed, asking its host directly."""
        if instance.host_id is None:
            return b""
        with _refusals():
            hypervisor = self._console_host(instance.host_id)
            return hypervisor.console_tail(instance.id, instance.generation, bytes_max=bytes_max)

    def _console_host(self, host_id: HostId) -> Hypervisor:
        with self._lock:
            if host_id not in self._consoles:
                found = self._store.read(lambda c: host_by_ref(c, host_id))
                assert found is not None, "a host stays while it runs instances"
                self._consoles[host_id] = self._hypervisor(found.uri, "auto")
            return self._consoles[host_id]
