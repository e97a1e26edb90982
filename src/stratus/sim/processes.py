"""What is one control plane process? The real roles over their own way to the store and drivers."""

import io
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, cast

from stratus.control.reconcile import InstanceReconciler
from stratus.control.world import World
from stratus.drivers.hypervisor.contract import Hypervisor
from stratus.drivers.network.contract import NetworkDriver
from stratus.drivers.volume.contract import ImageFound, VolumeDriver
from stratus.hosts.guests import GuestEffects, HostDrivers
from stratus.hosts.parts import Workshop
from stratus.hosts.pools import PoolWorker
from stratus.hosts.worker import HostWorker
from stratus.model.ids import NetworkId, PoolId
from stratus.model.image import ImageSpec
from stratus.model.network import NetworkSpec
from stratus.model.problem import Problem
from stratus.model.units import SECOND_MS
from stratus.sim.broken import Broken, Crash
from stratus.sim.mishaps import Fate, Mishap, Point
from stratus.sim.outside import Outside
from stratus.sim.stores import ProcessStore, SimStore
from stratus.sim.timeline import Timeline
from stratus.sim.wires import LATE_MS_MAX, Wire
from stratus.store.hosts import LeasedHost
from stratus.store.networks import network_by_ref
from stratus.store.pool_work import LeasedPool

IDLE_TURNS_MAX: Final = 60  # of one role within a second, that found nothing to do
TURN_MS_MAX: Final = 5
HINT_MS_MAX: Final = 60
TASK_MS_MAX: Final = 400
SLOW_TASK_MS_MAX: Final = 8_000
STALL_MS: Final = (1_000, 90_000)  # leases last 30 s
IMAGE_BYTES: Final = 4096


class Turning(Protocol):
    """A reconciler or a worker."""

    def turn(self) -> int:
        """Do what can be done now."""
        ...

    def next_ms(self) -> int:
        """Return when the next turn is due at the latest."""
        ...


class Surroundings(Protocol):
    """What a process needs of the cloud around it."""

    timeline: Timeline
    chance: random.Random
    store: SimStore
    outside: Outside
    fate: Fate

    def stall(self, process: "Process", milliseconds: int) -> None:
        """Let the rest of the world go on while the process stands still."""
        ...

    def hint(self, topic: str, sender: "Process") -> None:
        """Wake the roles of this topic in every process."""
        ...

    def say(self, line: str) -> None:
        """Add a line to the trace."""
        ...


class SimWorkshop(Workshop):
    """A workshop in which a fault of ours ends the simulation instead of being logged."""

    def bug(self, error: Exception, doing: str) -> Problem:
        """Fail the seed."""
        raise Broken(f"a fault of ours while {doing}: {error!r}") from error


class Role:
    """One role of a process: turns when it is due or woken."""

    def __init__(self, process: "Process", topic: str, turning: Turning) -> None:
        self.topic = topic
        self._process = process
        self._turning = turning
        self._due_ms: int | None = None
        self._turn_number = 0
        self._idle_since_ms = 0
        self._idle_turns = 0

    def wake(self, at_ms: int) -> None:
        """Turn by this time at the latest."""
        if self._due_ms is not None and self._due_ms <= at_ms:
            return
        self._due_ms = at_ms
        self._turn_number += 1
        around = self._process.around
        delay_ms = at_ms - around.timeline.now_ms
        around.timeline.after(delay_ms, partial(self._turn, self._turn_number), self._process)

    def _turn(self, number: int) -> None:
        if number != self._turn_number:
            return  # an earlier time was asked for meanwhile
        self._due_ms = None
        around = self._process.around
        if self._turning.turn():
            self.wake(around.timeline.now_ms + around.chance.randint(0, TURN_MS_MAX))
            return
        next_ms = self._turning.next_ms()
        now_ms = around.timeline.now_ms
        if next_ms <= now_ms:
            self._idle_judge(now_ms)
        self.wake(max(next_ms, now_ms + 1))

    def _idle_judge(self, now_ms: int) -> None:
        if now_ms >= self._idle_since_ms + SECOND_MS:
            self._idle_since_ms, self._idle_turns = now_ms, 0
        self._idle_turns += 1
        if self._idle_turns > IDLE_TURNS_MAX:
            raise Broken(
                f"{self.topic} of {self._process.name} turns without end and finds nothing to do"
            )


class Process:
    """One process with all roles; when it ends, only the store and the outside remain."""

    def __init__(self, around: Surroundings, name: str, *, hosts_max: int) -> None:
        self.around = around
        self.name = name
        self.dead = False
        self.stalls = 0
        self.backlog: list[Callable[[], None]] = []
        self.store = ProcessStore(around.store, self)
        timeline = around.timeline
        self.world = World(store=self.store, now_ms=timeline.now, chance=around.chance.getrandbits)
        self._open: list[Any] = []
        shop = SimWorkshop(store=self.store, now_ms=timeline.now)
        self.hosts = HostWorker(
            shop,
            owner=name,
            connect=self._host_connect,
            effects=GuestEffects(shop, pool=self._pool, network=self._network),
            executor=self,
            hosts_max=hosts_max,
        )
        self.pools = PoolWorker(
            shop, owner=name, connect=self._pool_connect, fetch=self._fetch, executor=self
        )
        self.roles = (
            Role(self, "work", InstanceReconciler(self.world)),
            Role(self, "hosts", self.hosts),
            Role(self, "pools", self.pools),
        )
        for role in self.roles:
            role.wake(timeline.now_ms + around.chance.randint(0, SECOND_MS))

    def end(self) -> None:
        """Let go of everything, as the kernel does for a process that was killed."""
        self.dead = True
        for driver in self._open:
            driver.close()

    # -- what happens to it --------------------------------------------------------------------

    def meet(self, point: Point, what: str) -> Mishap | None:
        """Return what goes wrong at this point, after standing still where that is it."""
        mishap = self.around.fate.at(point, what)
        if mishap is None:
            return None
        self.around.say(f"{self.name}: {mishap} at {what}")
        if mishap is Mishap.STALL:
            self.around.stall(self, self.around.chance.randint(*STALL_MS))
            if self.dead:
                raise Crash
            return None
        return mishap

    def hint(self, topic: str) -> None:
        """Wake the roles of this topic, here and elsewhere."""
        self.around.hint(topic, self)

    def woken(self, topic: str, *, within_ms: int) -> None:
        """Hear a hint, soon."""
        for role in self.roles:
            if role.topic == topic:
                chance = self.around.chance
                role.wake(self.around.timeline.now_ms + chance.randint(1, within_ms))

    # -- where its tasks run -------------------------------------------------------------------

    def submit(self, task: Callable[[], None]) -> None:
        """Run the task at some time, before or after those submitted next."""
        chance = self.around.chance
        slow = chance.random() < 0.05
        delay_ms = chance.randint(1, SLOW_TASK_MS_MAX if slow else TASK_MS_MAX)
        self.around.timeline.after(delay_ms, task, self)

    # -- how it reaches the outside ------------------------------------------------------------

    def _wire(self, where: str, open_driver: Callable[[], Any]) -> Any:  # noqa: ANN401  # stands in for any driver
        def opened() -> Any:  # noqa: ANN401  # any driver
            driver = open_driver()
            self._open.append(driver)
            return driver

        return Wire(
            where=where,
            open_driver=opened,
            judge=self.around.outside.judge,
            meet=self.meet,
            later=self._later,
        )

    def _later(self, effect: Callable[[], None]) -> None:
        self.around.timeline.after(self.around.chance.randint(50, LATE_MS_MAX), effect)

    def _host_connect(self, host: LeasedHost) -> HostDrivers:
        outside = self.around.outside
        place = outside.places[host.uri]
        hypervisor = self._wire(host.uri, partial(outside.hypervisor, place))
        network = self._wire(host.uri, partial(outside.network, place))
        return HostDrivers(
            hypervisor=cast(Hypervisor, hypervisor), network=cast(NetworkDriver, network)
        )

    def _pool_connect(self, _pool: LeasedPool) -> VolumeDriver:
        return cast(VolumeDriver, self._wire("pool", self.around.outside.pool_driver))

    def _pool(self, _pool_id: PoolId) -> VolumeDriver:
        return cast(VolumeDriver, self._wire("pool", self.around.outside.pool_driver))

    def _network(self, network_id: NetworkId) -> NetworkSpec:
        found = self.store.read(lambda c: network_by_ref(c, network_id))
        assert found is not None, "a network stays while instances are on it"
        return found.spec

    def _fetch(
        self, spec: ImageSpec, driver: VolumeDriver, progress: Callable[[int], None]
    ) -> ImageFound:
        content = image_content(spec.source)
        offset = driver.image_bytes_staged(spec.id)
        stream = io.BytesIO(content[offset:])
        progress(driver.image_stage(spec.id, stream, offset=offset, bytes_max=len(content)))
        return driver.image_publish(
            spec.id, format=spec.format, size_bytes=spec.size_bytes, sha256=spec.sha256
        )


def image_content(source: str) -> bytes:
    """Return the bytes that are at this address, the same for ever."""
    return (source.encode() + b"\n").ljust(IMAGE_BYTES, b"-")
