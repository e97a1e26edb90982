"""What would a host do? An honest one in memory: it runs out, breaks, restarts and forgets nothing.

`FakeMachine` is the host and outlives its connections; `FakeHypervisor` is one connection to it,
so making a second one is what a restarted host worker does. Guests act on their own, through the
methods of the machine. Every operation costs the same however many guests there are, except
those that list them.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.hypervisor.contract import HypervisorFacts
from stratus.drivers.hypervisor.run_rule import run_conflict
from stratus.model.host import GuestFound, GuestSpec, HostCapacity
from stratus.model.ids import InstanceId, NetworkId
from stratus.model.instance import HaltCause, Observed
from stratus.model.network import NetworkSpec, PortSpec
from stratus.model.problem import Problem

CONSOLE_BYTES_KEPT: Final = 64 * 1024

FACTS: Final = HypervisorFacts(
    name="fake",
    runs_guests=False,
    opens_files=True,
    has_console_log=True,
    has_networks=True,
    pushes_events=True,
    acpi_shutdown=True,
)

GuestKey = tuple[InstanceId, int]


class Delays(msgspec.Struct, kw_only=True):
    """How many seconds each kind of call takes; handed to the injected `sleep`."""

    look: float = 0.0
    start: float = 0.0
    change: float = 0.0
    shutdown: float = 0.0  # from pressing the button to the guest being off, by the clock


class Faults(msgspec.Struct, kw_only=True):
    """What goes wrong from now on; tests and the simulator turn these at will."""

    unreachable: bool = False
    failed_starts: int = 0  # the next N starts fail in the guest's own way
    lose_replies: int = 0  # the next N changes take effect, but the answer is lost
    refuse: Problem | None = None  # every change is refused with this
    ignores_shutdown: bool = False  # guests do not look at their power button


class _Guest:
    """One guest of the machine, as the machine knows it."""

    __slots__ = ("cause", "console", "halts_at_ms", "observed", "resets", "run", "spec")

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.observed = Observed.RUNNING
        self.cause = HaltCause.NONE
        self.run = spec.run
        self.resets = spec.resets
        self.halts_at_ms = 0
        self.console = bytearray()

    def found(self) -> GuestFound:
        """Show the guest as an inventory does."""
        return GuestFound(
            name=self.spec.domain_name,
            observed=self.observed,
            instance_id=self.spec.instance_id,
            generation=self.spec.generation,
            run=self.run,
            resets=self.resets,
            halt_cause=self.cause,
            accelerator="fake",
        )


class FakeMachine:
    """A host in memory: its guests, its networks, its clock and its troubles."""

    def __init__(
        self,
        *,
        cpus: int = 16,
        memory_mib: int = 64 * 1024,
        clock: Callable[[], int] = lambda: 0,
        sleep: Callable[[float], None] | None = None,
        delays: Delays | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.cpus = cpus
        self.memory_mib = memory_mib
        self.clock = clock
        self.sleep = sleep
        self.delays = delays or Delays()
        self.faults = faults or Faults()
        self.boots = 1
        self.starts = 0  # how often any guest was switched on, for checkers
        self.memory_used_mib = 0
        self.lock = threading.RLock()
        self.networks: dict[NetworkId, NetworkSpec] = {}
        self.ports: dict[NetworkId, dict[str, PortSpec]] = {}
        self._guests: dict[GuestKey, _Guest] = {}
        self._writers: dict[str, GuestKey] = {}  # who writes to which volume
        self._closing: dict[GuestKey, _Guest] = {}  # asked to shut down, not off yet
        self._strangers: dict[str, GuestFound] = {}
        self._watchers: list[Callable[[], None]] = []

    # -- what a checker asks -------------------------------------------------------------------

    def running(self) -> list[GuestSpec]:
        """Return the specs of all guests that are switched on, for a checker of safety."""
        with self.lock:
            self._settle()
            return [g.spec for g in self._guests.values() if g.observed is not Observed.HALTED]

    def guest(self, instance_id: InstanceId, generation: int) -> GuestFound | None:
        """Return one guest of this machine, without going through a connection."""
        with self.lock:
            self._settle()
            guest = self._guests.get((instance_id, generation))
            return guest.found() if guest else None

    @property
    def boot_id(self) -> str:
        """Name this boot of the machine."""
        return f"boot-{self.boots}"

    # -- what guests and machines do of their own ----------------------------------------------

    def guest_halts(self, instance_id: InstanceId) -> None:
        """Let every running guest of the instance power itself off."""
        self._halt_all(instance_id, HaltCause.GUEST)

    def guest_crashes(self, instance_id: InstanceId) -> None:
        """Let every running guest of the instance panic."""
        self._halt_all(instance_id, HaltCause.CRASHED)

    def guest_pauses(self, instance_id: InstanceId) -> None:
        """Let every running guest of the instance stop on a full disk."""
        with self.lock:
            for guest in self._of(instance_id):
                if guest.observed is Observed.RUNNING:
                    guest.observed = Observed.PAUSED
        self._wake()

    def guest_prints(self, instance_id: InstanceId, text: bytes) -> None:
        """Let every running guest of the instance write on its serial console."""
        with self.lock:
            for guest in self._of(instance_id):
                if guest.observed is Observed.RUNNING:
                    guest.console += text
                    del guest.console[:-CONSOLE_BYTES_KEPT]

    def reboot(self) -> None:
        """Restart the host underneath its guests: all are off, and their networks are gone."""
        with self.lock:
            self.boots += 1
            for key, guest in self._guests.items():
                if guest.observed is not Observed.HALTED:
                    self._switch_off(key, guest, HaltCause.LOST)
            self.networks.clear()
            self.ports.clear()
            self._strangers.clear()
        self._wake()

    def add_stranger(self, name: str) -> None:
        """Let somebody else run a guest here."""
        with self.lock:
            self._strangers[name] = GuestFound(name=name, observed=Observed.RUNNING)
        self._wake()

    def _halt_all(self, instance_id: InstanceId, cause: HaltCause) -> None:
        with self.lock:
            for guest in self._of(instance_id):
                if guest.observed is not Observed.HALTED:
                    self._switch_off((instance_id, guest.spec.generation), guest, cause)
        self._wake()

    def _of(self, instance_id: InstanceId) -> list[_Guest]:
        return [guest for (owner, _), guest in self._guests.items() if owner == instance_id]

    # -- what a connection does, with the lock held --------------------------------------------

    def _settle(self) -> None:
        """Let the guests whose time has come be off."""
        if not self._closing:
            return
        now_ms = self.clock()
        for key, guest in [item for item in self._closing.items() if item[1].halts_at_ms <= now_ms]:
            self._switch_off(key, guest, HaltCause.GUEST)

    def _switch_on(self, spec: GuestSpec) -> _Guest:
        key = (spec.instance_id, spec.generation)
        before = self._guests.get(key)
        guest = _Guest(spec)
        if before is not None:
            guest.console = before.console
        for disk in spec.disks:
            if not disk.read_only:
                self._writers[disk.volume_id] = key
        self.memory_used_mib += spec.memory_mib
        self.starts += 1
        self._guests[key] = guest
        guest.console += f"{spec.domain_name} run {spec.run}\n".encode()
        return guest

    def _switch_off(self, key: GuestKey, guest: _Guest, cause: HaltCause) -> None:
        assert guest.observed is not Observed.HALTED
        guest.observed = Observed.HALTED
        guest.cause = cause
        self._closing.pop(key, None)
        self.memory_used_mib -= guest.spec.memory_mib
        for disk in guest.spec.disks:
            if self._writers.get(disk.volume_id) == key:
                del self._writers[disk.volume_id]

    def _refusal(self, spec: GuestSpec) -> Problem | None:
        """Say why this guest cannot be switched on; None when it can."""
        if self.memory_used_mib + spec.memory_mib > self.memory_mib:
            free = self.memory_mib - self.memory_used_mib
            return Problem(
                code="host_refused",
                detail=f"{spec.memory_mib} MiB of memory are wanted, {free} MiB are free.",
                remedy="Choose a smaller type, or another host.",
            )
        for disk in spec.disks:
            holder = self._writers.get(disk.volume_id)
            if not disk.read_only and holder not in (None, (spec.instance_id, spec.generation)):
                return Problem(
                    code="guest_failed",
                    detail=f"Volume {disk.volume_id} is in use by another guest of this host.",
                    remedy="Stop the other guest first.",
                )
        for nic in spec.nics:
            network = nic.attachment.network
            if network and network not in (fake_network_name(known) for known in self.networks):
                return Problem(
                    code="guest_failed",
                    detail=f"Network {network} is not there.",
                    remedy="We make it again by ourselves and retry.",
                )
        return None

    def _wake(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()


def fake_network_name(network_id: NetworkId) -> str:
    """The name under which a fake machine knows a network."""
    return f"fake-{network_id}"


class FakeHypervisor:
    """One connection to a FakeMachine."""

    facts = FACTS

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self._watches: list[Callable[[], None]] = []
        self._closed = False

    def capacity(self) -> HostCapacity:
        """Return what the machine was made with."""
        with self._look() as machine:
            return HostCapacity(
                cpus=machine.cpus,
                memory_mib=machine.memory_mib,
                accelerator="fake",
                accelerator_reason="the guests are only records",
                hypervisor="fake 1",
                boot_id=machine.boot_id,
            )

    def inventory(self) -> Sequence[GuestFound]:
        """Return every guest of the machine."""
        with self._look() as machine:
            ours = [guest.found() for guest in machine._guests.values()]
            return (*ours, *machine._strangers.values())

    def ensure_running(self, spec: GuestSpec) -> GuestFound:
        """Start the guest unless it runs, or has halted, in this very run."""
        machine = self.machine
        with self._change(machine.delays.start):
            guest = machine._guests.get((spec.instance_id, spec.generation))
            problem = run_conflict(spec, guest.found() if guest else None)
            if problem is not None:
                raise DriverFailed(problem, transient=guest is not None and guest.run < spec.run)
            if guest is None or guest.observed is Observed.HALTED:
                guest = self._start(spec)
            elif guest.observed is Observed.PAUSED:
                guest.observed = Observed.RUNNING
            guest.resets = max(guest.resets, spec.resets)
            return guest.found()

    def _start(self, spec: GuestSpec) -> _Guest:
        machine = self.machine
        refusal = machine._refusal(spec)
        if refusal is not None:
            raise DriverFailed(refusal)
        if machine.faults.failed_starts > 0:
            machine.faults.failed_starts -= 1
            problem = Problem(
                code="guest_failed",
                detail="The guest ended as soon as it began.",
                remedy="Look at its console; we try again a few times.",
            )
            raise DriverFailed(problem, transient=True)
        return machine._switch_on(spec)

    def ensure_reset(self, instance_id: InstanceId, generation: int, *, resets: int) -> None:
        """Count the reset, if the guest runs and has had fewer."""
        with self._change(self.machine.delays.change):
            guest = self.machine._guests.get((instance_id, generation))
            if guest is not None and guest.observed is not Observed.HALTED:
                guest.resets = max(guest.resets, resets)

    def shutdown_ask(self, instance_id: InstanceId, generation: int) -> None:
        """Let the guest halt after the machine's delay, unless it ignores the button."""
        machine = self.machine
        key = (instance_id, generation)
        with self._change(machine.delays.change):
            guest = machine._guests.get(key)
            deaf = machine.faults.ignores_shutdown
            if guest is None or guest.observed is not Observed.RUNNING or deaf:
                return
            if key not in machine._closing:
                guest.halts_at_ms = machine.clock() + int(machine.delays.shutdown * 1000)
                machine._closing[key] = guest
                machine._settle()

    def ensure_halted(self, instance_id: InstanceId, generation: int) -> None:
        """Switch the guest off."""
        key = (instance_id, generation)
        with self._change(self.machine.delays.change):
            guest = self.machine._guests.get(key)
            if guest is not None and guest.observed is not Observed.HALTED:
                self.machine._switch_off(key, guest, HaltCause.ASKED)

    def ensure_absent(self, instance_id: InstanceId, generation: int) -> None:
        """Switch the guest off and forget it."""
        key = (instance_id, generation)
        with self._change(self.machine.delays.change):
            guest = self.machine._guests.get(key)
            if guest is not None and guest.observed is not Observed.HALTED:
                self.machine._switch_off(key, guest, HaltCause.ASKED)
            self.machine._guests.pop(key, None)

    def console_tail(self, instance_id: InstanceId, generation: int, *, bytes_max: int) -> bytes:
        """Return the end of what `guest_prints` was told."""
        with self._look() as machine:
            guest = machine._guests.get((instance_id, generation))
            return bytes(guest.console[-bytes_max:]) if guest and bytes_max > 0 else b""

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` after every change of the machine."""
        self._watches.append(wake)
        self.machine._watchers.append(wake)

    def close(self) -> None:
        """Stop watching; the guests run on."""
        self._closed = True
        for wake in self._watches:
            self.machine._watchers.remove(wake)
        self._watches.clear()

    @contextmanager
    def _look(self) -> Iterator[FakeMachine]:
        machine = self.machine
        self._take(machine.delays.look)
        with machine.lock:
            fake_reach(machine)
            machine._settle()
            yield machine

    @contextmanager
    def _change(self, seconds: float) -> Iterator[None]:
        machine = self.machine
        self._take(seconds)
        with machine.lock:
            fake_reach(machine)
            machine._settle()
            fake_refuse(machine)
            yield
            lost = fake_reply_is_lost(machine)
        machine._wake()
        if lost:
            raise EngineUnreachable(fake_silence())

    def _take(self, seconds: float) -> None:
        assert not self._closed, "this connection was closed"
        if seconds > 0 and self.machine.sleep is not None:
            self.machine.sleep(seconds)


def fake_silence() -> Problem:
    """What is said of a machine that does not answer."""
    return Problem(
        code="host_unreachable",
        detail="The fake machine does not answer.",
        remedy="Set `unreachable` of its faults to False.",
    )


def fake_reach(machine: FakeMachine) -> None:
    """Fail if the machine does not answer."""
    if machine.faults.unreachable:
        raise EngineUnreachable(fake_silence())


def fake_refuse(machine: FakeMachine) -> None:
    """Fail if the machine refuses everything."""
    if machine.faults.refuse is not None:
        raise DriverFailed(machine.faults.refuse)


def fake_reply_is_lost(machine: FakeMachine) -> bool:
    """Use up one lost reply, if any is left."""
    if machine.faults.lose_replies <= 0:
        return False
    machine.faults.lose_replies -= 1
    return True
