"""How do the parts make a cloud? Builds the roles of one process and runs them to the end."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

from stratus.control.world import World
from stratus.site.config import Home, SiteConfig
from stratus.site.loops import POLL_SECONDS_MAX, PoolExecutor, RoleLoop, Turning
from stratus.store.engine import Store, store_open

if TYPE_CHECKING:
    from stratus.site.outside import Outside
    from stratus.wire.v1 import ReadyPart

STALLED_SECONDS: Final = 30.0  # a role that has not turned for so long is not ready

_log = structlog.get_logger("cloud")


class RoleName(StrEnum):
    """The roles that a process can play."""

    API = "api"
    CONTROL = "control"
    HOSTS = "hosts"


ALL_ROLES: Final = tuple(RoleName)


def now_ms() -> int:
    """Return the time in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


class Cloud:
    """The roles of one process over one store."""

    def __init__(self, home: Home, config: SiteConfig, roles: Sequence[RoleName]) -> None:
        self.home = home
        self.config = config
        self.roles = tuple(roles)
        self.store: Store = store_open(home.store_url(config))
        self.world = World(store=self.store, now_ms=now_ms, chance=secrets.randbits)
        self._loops: list[RoleLoop] = []
        self._closers: list[Callable[[], None]] = []
        self._ending = threading.Event()
        self._drivers: Outside | None = None

    def start(self) -> None:
        """Begin all roles; the API is the last, so that it answers when all is there."""
        if RoleName.CONTROL in self.roles:
            self._control_start()
        if RoleName.HOSTS in self.roles:
            self._hosts_start()
        if RoleName.API in self.roles:
            self._api_start()
        _log.info("started", roles=[str(role) for role in self.roles], site=self.config.name)

    def run(self) -> None:
        """Wait until `end` is called."""
        while not self._ending.wait(POLL_SECONDS_MAX):
            pass

    def end(self) -> None:
        """Have `run` return; callable from a signal handler."""
        self._ending.set()

    def stop(self) -> None:
        """End all roles in the reverse order; guests run on."""
        for close in reversed(self._closers):
            with suppress(Exception):  # one part's trouble must not keep the others open
                close()
        self.store.close()
        _log.info("stopped")

    # -- roles ------------------------------------------------------------------------------

    def _loop(self, name: str, topic: str, turning: Turning) -> None:
        loop = RoleLoop(name, topic, self.store, turning)
        loop.start()
        self._loops.append(loop)
        self._closers.append(loop.stop)

    def _control_start(self) -> None:
        from stratus.control.reconcile import InstanceReconciler
        from stratus.site.housekeeping import Housekeeper

        self._loop("control", "work", InstanceReconciler(self.world))
        outside = self._outside()
        self._loop("housekeeping", "never", Housekeeper(self.world, lambda: outside.upload_store))

    def _hosts_start(self) -> None:
        from stratus.hosts.guests import GuestEffects
        from stratus.hosts.parts import Workshop
        from stratus.hosts.pools import PoolWorker
        from stratus.hosts.worker import HostWorker

        owner = f"worker-{secrets.token_hex(6)}"
        shop = Workshop(store=self.store, now_ms=now_ms)
        executor = PoolExecutor(self.config.threads, "hosts")
        outside = self._outside()
        pools = PoolWorker(
            shop,
            owner=owner,
            connect=outside.pool_connect,
            fetch=outside.image_fetch,
            executor=executor,
        )
        hosts = HostWorker(
            shop,
            owner=owner,
            connect=outside.host_connect,
            effects=GuestEffects(shop, pool=outside.pool, network=outside.network),
            executor=executor,
        )
        self._closers += [executor.close, pools.stop, hosts.stop]
        self._loop("pools", "pools", pools)
        self._loop("hosts", "hosts", hosts)

    def _api_start(self) -> None:
        from stratus.api.app import app_make
        from stratus.api.server import server_make
        from stratus.api.settings import ApiSettings

        outside = self._outside()
        api = app_make(
            self.world,
            console=outside.console,
            uploads=outside.uploads,
            ready=self._ready,
            settings=ApiSettings(site=self.config.name),
        )
        server = server_make(api, host=self.config.listen, port=self.config.port)
        server.start()
        self._closers.append(server.stop)

    def _outside(self) -> "Outside":
        """Return the one set of drivers of this process."""
        from stratus.site.kvm import kvm_works
        from stratus.site.outside import Outside

        def accelerator() -> tuple[str, str]:
            answer = kvm_works(self.home.state)
            return ("kvm" if answer.works else "tcg", answer.reason)

        if self._drivers is None:
            self._drivers = Outside(self.home, self.store, accelerator_probe=accelerator)
            self._closers.append(self._drivers.close)
        return self._drivers

    def _ready(self) -> "list[ReadyPart]":
        from stratus.wire.v1 import ReadyPart

        now = time.monotonic()
        return [
            ReadyPart(name=loop.name, ready=now - loop.turned < STALLED_SECONDS)
            for loop in self._loops
        ]
