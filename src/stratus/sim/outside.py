"""What is there whatever the control plane thinks? Machines, one shared pool, and the locks.

Every change of the outside passes through here, and is judged before it happens.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from stratus.drivers.failure import DriverFailed
from stratus.drivers.hypervisor.fake import Delays, FakeHypervisor, FakeMachine
from stratus.drivers.network.fake import FakeNetworkDriver
from stratus.drivers.volume.fake import FakePool, FakePoolState
from stratus.drivers.volume.rules import volume_open
from stratus.model.host import GuestFound, GuestSpec
from stratus.model.ids import HostId, ImageId, InstanceId, NetworkId, VolumeId
from stratus.model.instance import HaltCause, Observed
from stratus.model.problem import Problem
from stratus.model.units import SECOND_MS
from stratus.sim.broken import Broken
from stratus.sim.ledger import GuestKey, Ledger
from stratus.sim.timeline import Timeline

SAME_CALLS_MAX: Final = 30  # of one kind about one guest within the window
SAME_CALLS_WINDOW_MS: Final = 10 * SECOND_MS


class Place:
    """One machine, with the host that the site knows it as."""

    def __init__(self, name: str, machine: FakeMachine) -> None:
        self.name = name
        self.uri = f"fake://{name}/"
        self.machine = machine
        self.host_id: HostId | None = None
        self.off_until_ms = 0  # switched off by its administrator until then
        self.strangers: set[str] = set()


class Outside:
    """The machines and the pool, and who runs what on them."""

    def __init__(self, timeline: Timeline, ledger: Ledger, *, disorder: bool) -> None:
        self._timeline = timeline
        self._ledger = ledger
        self.disorder = disorder
        self.pool = FakePoolState(name="pool")
        self.places: dict[str, Place] = {}  # by URI
        self.lock_saved = 0  # how often only the lock on a disk kept it from two guests
        self.alive: dict[tuple[str, InstanceId, int], GuestSpec] = {}
        self.started: list[tuple[Place, GuestSpec]] = []  # since the checker last looked
        self.changed: set[str] = set()  # machines that something happened to
        self.say: Callable[[str], None] = lambda _line: None
        self.asked: dict[InstanceId, int] = {}  # by when their power button has its effect
        self._calls: dict[tuple[str, str, str], list[int]] = {}
        self._going_down: dict[str, int] = {}  # machines whose guests go down by this time

    def place_add(self, name: str, chance: random.Random) -> Place:
        """Put up one more machine."""
        machine = FakeMachine(
            cpus=chance.choice((4, 8, 16)),
            memory_mib=chance.choice((8, 16, 32)) * 1024,
            clock=self._timeline.now,
            delays=Delays(shutdown=chance.choice((0.0, 2.0, 20.0, 90.0))),
        )
        place = Place(name, machine)
        self.places[place.uri] = place
        return place

    def place_of(self, host_id: HostId) -> Place:
        """Return the machine of a host."""
        return next(place for place in self.places.values() if place.host_id == host_id)

    # -- what a checker asks -------------------------------------------------------------------

    def look(self) -> None:
        """Take note of guests that came up or went down."""
        for uri in tuple(self.changed):
            place = self.places[uri]
            now = {(uri, s.instance_id, s.generation): s for s in place.machine.running()}
            before = {key: spec for key, spec in self.alive.items() if key[0] == uri}
            for key in before.keys() - now.keys():
                del self.alive[key]
                self.say(f"{place.name}: {key[1]}.{key[2]} is off")
            for key, spec in now.items():
                known = before.get(key)
                if known is None or known.run != spec.run:
                    self.started.append((place, spec))
                    self.say(f"{place.name}: {key[1]}.{key[2]} runs, run {spec.run}")
                self.alive[key] = spec
            if self._going_down.get(uri, 0) < self._timeline.now_ms:
                self.changed.discard(uri)

    def guests(self, place: Place) -> list[GuestFound]:
        """Return every guest of a machine, whether it answers or not."""
        unreachable, place.machine.faults.unreachable = place.machine.faults.unreachable, False
        try:
            return list(FakeHypervisor(place.machine).inventory())
        finally:
            place.machine.faults.unreachable = unreachable

    # -- the ways in ---------------------------------------------------------------------------

    def hypervisor(self, place: Place) -> FakeHypervisor:
        """Open a connection."""
        return FakeHypervisor(place.machine)

    def network(self, place: Place) -> FakeNetworkDriver:
        """Open a connection."""
        return FakeNetworkDriver(place.machine)

    def pool_driver(self) -> FakePool:
        """Open the pool."""
        return FakePool(self.pool)

    def judge(
        self, uri: str, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        """Let a change happen, stop it as a lock would, or break the seed over it."""
        self.look()  # one task may make several calls
        place = self.places.get(uri)
        if place is not None:
            self.changed.add(uri)
        match name:
            case "ensure_running":
                assert place is not None
                self._start_judge(place, arguments[0])
            case "shutdown_ask" | "ensure_halted" | "ensure_absent":
                assert place is not None
                self._down_judge(place, name, arguments[0], arguments[1])
            case "ensure_reset":
                self._reset_judge(arguments[0], options["resets"])
            case "ensure_port_absent":
                assert place is not None
                self._port_judge(place, arguments[0], arguments[1])
            case "ensure_volume_absent":
                self._volume_judge(arguments[0])
            case "ensure_image_absent":
                self._image_judge(arguments[0])
            case _:
                pass

    def _often_judge(self, uri: str, name: str, what: str) -> None:
        now_ms = self._timeline.now_ms
        times = self._calls.setdefault((uri, name, what), [])
        times.append(now_ms)
        while times[0] < now_ms - SAME_CALLS_WINDOW_MS:
            times.pop(0)
        if len(times) > SAME_CALLS_MAX:
            raise Broken(f"{name} {what} was called {len(times)} times in 10 s: a busy loop")

    def _start_judge(self, place: Place, spec: GuestSpec) -> None:
        self._often_judge(place.uri, "ensure_running", spec.domain_name)
        for disk in spec.disks:
            if self.pool.volume(VolumeId(disk.volume_id)) is None:
                raise DriverFailed(_refusal(f"The disk {disk.volume_id} cannot be opened."))
        holder = self._writer_elsewhere(place, spec)
        if holder is None:
            return
        if not self.disorder:
            raise Broken(
                f"{spec.domain_name} was started on {place.name} while {holder} has its disks open"
            )
        self.lock_saved += 1
        self.say(f"{place.name}: the lock on its disks keeps {spec.domain_name} from starting")
        raise DriverFailed(_refusal("Failed to get a write lock: is another process using it?"))

    def _writer_elsewhere(self, place: Place, spec: GuestSpec) -> str | None:
        mine = (place.uri, spec.instance_id, spec.generation)
        wanted = {disk.volume_id for disk in spec.disks if not disk.read_only}
        for key, other in self.alive.items():
            if key != mine and any(
                disk.volume_id in wanted and not disk.read_only for disk in other.disks
            ):
                return f"{other.domain_name} on {self.places[key[0]].name}"
        return None

    def _down_judge(self, place: Place, name: str, instance_id: InstanceId, number: int) -> None:
        found = place.machine.guest(instance_id, number)
        self._often_judge(place.uri, name, f"{instance_id}.{number}")
        down_ms = self._timeline.now_ms + int(place.machine.delays.shutdown * SECOND_MS)
        self._going_down[place.uri] = down_ms
        if name == "shutdown_ask":
            self.asked[instance_id] = down_ms
        if found is None or found.observed is Observed.HALTED:
            return
        assert place.host_id is not None
        key: GuestKey = (place.host_id, instance_id, number)
        if not self._ledger.may_go_down(key, found.run, host_name=place.name):
            raise Broken(
                f"{name} of {instance_id}.{number} in run {found.run} on {place.name},"
                " which nobody wished"
            )

    def _reset_judge(self, instance_id: InstanceId, resets: int) -> None:
        wishes = self._ledger.wishes(instance_id)
        if wishes is None or resets > wishes.resets:
            raise Broken(f"ensure_reset {resets} of {instance_id}, which nobody wished")

    def _port_judge(self, place: Place, network_id: NetworkId, mac: str) -> None:
        for (uri, _, _), spec in self.alive.items():
            if uri != place.uri:
                continue
            if spec.instance_id in self._ledger.lost:
                continue  # its address was given to another one, see the checker of addresses
            if any(n.nic.mac == mac and n.nic.network_id == network_id for n in spec.nics):
                raise Broken(f"the card {mac} of {spec.domain_name} was unplugged while it runs")

    def _volume_judge(self, volume_id: VolumeId) -> None:
        if self.pool.volume(volume_id) is None:
            return
        owner = self._ledger.volumes.get(volume_id)
        if owner is None or not self._ledger.may_lose_disks(owner):
            raise Broken(f"volume {volume_id} of {owner} was removed, which nobody wished")
        for spec in self.alive.values():
            if any(disk.volume_id == volume_id for disk in spec.disks):
                if not self.disorder:
                    raise Broken(f"volume {volume_id} was removed while {spec.domain_name} runs")
                self.lock_saved += 1
                raise volume_open(volume_id)

    def _image_judge(self, image_id: ImageId) -> None:
        if image_id not in self._ledger.images_deleted:
            raise Broken(f"image {image_id} was removed, which nobody wished")

    # -- what guests and machines do -----------------------------------------------------------

    def guest_ends(self, place: Place, instance_id: InstanceId, cause: HaltCause) -> None:
        """Let a guest halt or panic."""
        wishes = self._ledger.wishes(instance_id)
        if wishes is not None:
            wishes.halted_itself = True
        self.changed.add(place.uri)
        if cause is HaltCause.CRASHED:
            place.machine.guest_crashes(instance_id)
        else:
            place.machine.guest_halts(instance_id)

    def machine_restarts(self, place: Place) -> None:
        """Let a machine lose power for a moment, and everything that ran on it."""
        for spec in place.machine.running():
            wishes = self._ledger.wishes(spec.instance_id)
            if wishes is not None:
                wishes.halted_itself = True
        self.changed.add(place.uri)
        place.strangers.clear()
        place.machine.reboot()


def _refusal(detail: str) -> Problem:
    return Problem(code="guest_failed", detail=detail, remedy="Nothing is needed: we try again.")
