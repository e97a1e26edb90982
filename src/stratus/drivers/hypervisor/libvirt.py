"""Runs guests through libvirt, on this machine or on a remote one; see the contract.

A start takes three steps: define (with a mark that says which run is starting), create, and mark
the run as begun. Whoever is killed between any two of them heals it by asking again: each run
gets a fresh definition, so whether it began can be told from the domain alone.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import libvirt
from msgspec.structs import replace

from stratus.drivers.failure import DriverFailed
from stratus.drivers.hypervisor.contract import HypervisorFacts
from stratus.drivers.hypervisor.libvirt_connection import (
    Call,
    LibvirtConnection,
    is_alive,
    no_step,
)
from stratus.drivers.hypervisor.libvirt_console import (
    SYSTEM_DIR,
    console_ensure,
    console_read,
    console_remove,
)
from stratus.drivers.hypervisor.libvirt_probe import kvm_probe
from stratus.drivers.hypervisor.libvirt_refusal import (
    REFUSED_REMEDY,
    TRANSIENT_CODES,
    is_gone,
    is_unsupported,
    refusal_problem,
)
from stratus.drivers.hypervisor.libvirt_state import (
    guest_found,
    is_starting_up,
    is_stopped_by_disk,
)
from stratus.drivers.hypervisor.libvirt_xml import (
    NAMESPACE,
    PREFIX,
    DomainOptions,
    GuestMark,
    domain_render,
    domain_uuid,
    mark_parse,
    mark_render,
)
from stratus.drivers.hypervisor.run_rule import run_conflict
from stratus.model.host import GuestFound, GuestSpec, HostCapacity
from stratus.model.ids import InstanceId
from stratus.model.instance import HaltCause, Observed
from stratus.model.problem import Problem

STRIPES: Final = 64  # guests that share one are changed one after the other
STRIPE_SECONDS_MAX: Final = 60.0
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

# Versions that read the processor's features one by one at every start; tried on these alone.
FEATURE_LIST_VERSIONS: Final = range(9_000_000, 9_001_000)

ELEMENT: Final = libvirt.VIR_DOMAIN_METADATA_ELEMENT
CONFIG: Final = libvirt.VIR_DOMAIN_AFFECT_CONFIG
UNDEFINE_FLAGS: Final = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)

NO_MARK_CODES: Final = frozenset(
    {
        libvirt.VIR_ERR_NO_DOMAIN_METADATA,
        libvirt.VIR_ERR_OPERATION_INVALID,  # a transient domain has no definition
        libvirt.VIR_ERR_INVALID_ARG,
    }
)

T = TypeVar("T")

AcceleratorProbe = Callable[[], tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """One domain of ours as it was a moment ago."""

    domain: libvirt.virDomain
    state: int
    reason: int
    mark: GuestMark
    found: GuestFound

    @property
    def is_up(self) -> bool:
        """QEMU is there."""
        return self.found.observed is not Observed.HALTED


class LibvirtHypervisor:
    """One connection to the libvirt of one host.

    `accelerator_probe` tells "kvm" or "tcg", and why, for the host; without it the host is
    tried through libvirt. `console_dir` is the host's folder for what guests print; "" keeps
    none. `after_step` is called after every step of talking to libvirt.
    """

    def __init__(
        self,
        uri: str,
        *,
        accelerator_probe: AcceleratorProbe | None = None,
        console_dir: str | None = None,
        after_step: Callable[[str], None] = no_step,
    ) -> None:
        self._connection = LibvirtConnection(uri, after_step=after_step)
        self._is_record = self._connection.scheme == "test"
        self._console_dir = self._console_dir_choose(console_dir)
        self._accelerator_probe = accelerator_probe
        self._accelerator: tuple[str, str] | None = None
        self._accelerator_lock = threading.Lock()
        self._stripes = tuple(threading.Lock() for _ in range(STRIPES))
        self._wakes: list[Callable[[], None]] = []
        self._connection.on_lost(self._wake)
        self.facts = HypervisorFacts(
            name=f"libvirt-{self._connection.scheme}",
            runs_guests=not self._is_record,
            opens_files=not self._is_record,
            has_console_log=bool(self._console_dir),
            has_networks=not self._connection.is_session,
            pushes_events=True,
            acpi_shutdown=True,
        )

    # -- the host ------------------------------------------------------------------------------

    def capacity(self) -> HostCapacity:
        """Return what the host offers, as its libvirt says it."""
        return self._connection.look(self._capacity)

    def _capacity(self, call: Call) -> HostCapacity:
        accelerator, reason = self._accelerator_decide(call)
        info = call.do(call.conn.getInfo)
        return HostCapacity(
            cpus=info[2],
            memory_mib=self._memory_mib(call),
            arch=info[0],
            accelerator=accelerator,
            accelerator_reason=reason,
            hypervisor=_hypervisor_text(call),
            boot_id=self._boot_id(),
        )

    def _memory_mib(self, call: Call) -> int:
        try:
            stats = call.do(call.conn.getMemoryStats, libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
            return int(stats["total"]) // 1024
        except libvirt.libvirtError as error:
            if not is_unsupported(error):
                raise
        return int(call.do(call.conn.getInfo)[1])

    def _boot_id(self) -> str:
        if self._connection.is_local and not self._is_record:
            return BOOT_ID.read_text().strip()
        return ""

    def _accelerator_decide(self, call: Call) -> tuple[str, str]:
        with self._accelerator_lock:
            if self._accelerator is None:
                if self._is_record:
                    self._accelerator = ("fake", "libvirt's test driver only records guests")
                elif self._accelerator_probe is not None:
                    self._accelerator = self._accelerator_probe()
                else:
                    self._accelerator = kvm_probe(call, f"{id(self):x}")
            return self._accelerator

    # -- looking at guests ---------------------------------------------------------------------

    def inventory(self) -> Sequence[GuestFound]:
        """Return every domain of the host, and note on each how it halted."""
        return self._connection.look(self._inventory)

    def _inventory(self, call: Call) -> Sequence[GuestFound]:
        found: list[GuestFound] = []
        stats = call.do(call.conn.getAllDomainStats, libvirt.VIR_DOMAIN_STATS_STATE, 0)
        for domain, record in stats:
            state, reason = record["state.state"], record["state.reason"]
            try:
                mark = _mark_read(call, domain)
                guest = guest_found(domain.name(), state, reason, mark)
                if mark is not None:
                    _halt_note(call, domain, guest, mark)
            except libvirt.libvirtError as error:
                if is_gone(error):
                    continue
                raise
            found.append(guest)
        return found

    def _look_at(self, call: Call, instance_id: InstanceId, generation: int) -> _Seen | None:
        """Return this placement's domain; None when there is none."""
        name = f"{instance_id}.{generation}"
        try:
            domain = call.do(call.conn.lookupByUUID, domain_uuid(name).bytes)
            state, reason = call.do(domain.state, 0)
            mark = _mark_read(call, domain)
        except libvirt.libvirtError as error:
            if is_gone(error):
                return None
            raise
        if mark is None:
            raise _refused(
                f"Our mark on domain {name} is gone or damaged.",
                f"Somebody edited it: look at it with 'virsh dumpxml {name}', then 'virsh undefine'"
                " it once it is off.",
            )
        found = guest_found(name, state, reason, mark)
        return _Seen(domain=domain, state=state, reason=reason, mark=mark, found=found)

    # -- starting ------------------------------------------------------------------------------

    def ensure_running(self, spec: GuestSpec) -> GuestFound:
        """Leave the guest running in this run; see the contract."""
        return self._change(spec.instance_id, lambda call: self._ensure_running(call, spec))

    def _ensure_running(self, call: Call, spec: GuestSpec) -> GuestFound:
        seen = self._look_at(call, spec.instance_id, spec.generation)
        problem = run_conflict(spec, seen.found if seen else None)
        if problem is not None:
            raise DriverFailed(problem, transient=seen is not None and seen.found.run < spec.run)
        if seen is None or not seen.is_up:
            self._start(call, spec, seen)
        elif is_starting_up(seen.state, seen.reason):
            raise _refused("The guest is being started by another worker.", "Wait a moment.")
        else:
            self._go_on(call, spec, seen)
        seen = self._look_at(call, spec.instance_id, spec.generation)
        if seen is None:
            raise _refused(
                f"{spec.domain_name} was removed while it was being started.",
                "Find out who else removes domains on this host.",
            )
        return seen.found

    def _start(self, call: Call, spec: GuestSpec, before: _Seen | None) -> None:
        """Define, create, mark."""
        accelerator, _ = self._accelerator_decide(call)
        self._memory_check(call, spec)
        mark = GuestMark(
            instance_id=spec.instance_id,
            generation=spec.generation,
            run=before.found.run if before else 0,
            starting=spec.run,
            resets=spec.resets,
            accelerator=accelerator,
            halt_cause=before.found.halt_cause if before else HaltCause.NONE,
        )
        xml = domain_render(spec, mark, self._options(call, accelerator))
        if before is not None:
            # A domain that is only redefined keeps the reason for which it was off.
            self._undefine(call, before.domain)
        domain = call.do(call.conn.defineXML, xml)
        try:
            call.do(domain.create)
        except libvirt.libvirtError as error:
            if not is_alive(call.conn):
                raise  # nothing is known of the guest
            if not _is_up(call, domain):
                raise _start_failure(error) from error
        _mark_write(call, domain, replace(mark, run=spec.run, halt_cause=HaltCause.NONE))

    def _go_on(self, call: Call, spec: GuestSpec, seen: _Seen) -> None:
        """Complete whatever of the start, and of the resets, is still to be done."""
        if seen.mark.run != seen.mark.starting:
            begun = replace(seen.mark, run=seen.mark.starting, halt_cause=HaltCause.NONE)
            _mark_write(call, seen.domain, begun)
        if is_stopped_by_disk(seen.state, seen.reason):
            call.do(seen.domain.resume)
        self._reset_until(call, seen, spec.resets)

    def _memory_check(self, call: Call, spec: GuestSpec) -> None:
        memory_mib = self._memory_mib(call)
        if spec.memory_mib > memory_mib and not self._is_record:
            problem = Problem(
                code="host_refused",
                detail=f"{spec.memory_mib} MiB of memory are wanted, the host has {memory_mib}.",
                remedy="Choose a smaller type, or another host.",
            )
            raise DriverFailed(problem)

    def _options(self, call: Call, accelerator: str) -> DomainOptions:
        domain_type = {"kvm": "kvm", "tcg": "qemu", "fake": "test"}[accelerator]
        if self._console_dir and not console_ensure(call, self._console_dir):
            self._console_dir = ""
        return DomainOptions(
            domain_type=domain_type,
            console_dir=self._console_dir,
            skips_feature_list=domain_type == "qemu"
            and call.do(call.conn.getLibVersion) in FEATURE_LIST_VERSIONS,
        )

    # -- changing ------------------------------------------------------------------------------

    def ensure_reset(self, instance_id: InstanceId, generation: int, *, resets: int) -> None:
        """Reset the guest if it runs and has had fewer resets."""

        def body(call: Call) -> None:
            seen = self._look_at(call, instance_id, generation)
            if seen is not None and seen.is_up:
                self._reset_until(call, seen, resets)

        self._change(instance_id, body)

    def _reset_until(self, call: Call, seen: _Seen, resets: int) -> None:
        """Reset once for all the resets that are missing; a repetition after a crash may be one
        reset too many, never one too few."""
        if seen.mark.resets >= resets:
            return
        call.do(seen.domain.reset, 0)
        begun = replace(seen.mark, run=seen.mark.starting, halt_cause=HaltCause.NONE)
        _mark_write(call, seen.domain, replace(begun, resets=resets))

    def shutdown_ask(self, instance_id: InstanceId, generation: int) -> None:
        """Press the ACPI power button."""

        def body(call: Call) -> None:
            seen = self._look_at(call, instance_id, generation)
            if seen is None or not seen.is_up:
                return
            flag = 0 if self._is_record else libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
            with _unless_off(call, seen.domain):
                call.do(seen.domain.shutdownFlags, flag)

        self._change(instance_id, body)

    def ensure_halted(self, instance_id: InstanceId, generation: int) -> None:
        """Power the guest off at once."""

        def body(call: Call) -> None:
            seen = self._look_at(call, instance_id, generation)
            if seen is not None and seen.is_up:
                with _unless_off(call, seen.domain):
                    call.do(seen.domain.destroy)
                seen = self._look_at(call, instance_id, generation)
            if seen is not None:
                _halt_note(call, seen.domain, seen.found, seen.mark)

        self._change(instance_id, body)

    def ensure_absent(self, instance_id: InstanceId, generation: int) -> None:
        """Power the guest off, remove what it printed, and its definition last."""

        def body(call: Call) -> None:
            seen = self._look_at(call, instance_id, generation)
            if seen is not None and seen.is_up:
                with _unless_off(call, seen.domain):
                    call.do(seen.domain.destroy)
            if self._console_dir:
                console_remove(call, f"{instance_id}.{generation}")
            if seen is not None:
                self._undefine(call, seen.domain)

        self._change(instance_id, body)

    def _undefine(self, call: Call, domain: libvirt.virDomain) -> None:
        try:
            call.do(domain.undefineFlags, 0 if self._is_record else UNDEFINE_FLAGS)
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise

    def _change(self, instance_id: InstanceId, body: Callable[[Call], T]) -> T:
        """Change one instance's guest, one caller at a time."""
        stripe = self._stripes[hash(instance_id) % STRIPES]

        def alone(call: Call) -> T:
            if not stripe.acquire(timeout=STRIPE_SECONDS_MAX):
                raise _refused(
                    f"An earlier call for {instance_id} is still under way.",
                    "Look at the host's libvirt if this stays so: its QEMU may hang.",
                )
            try:
                return body(call)
            finally:
                stripe.release()

        return self._connection.change(alone)

    # -- console, events -----------------------------------------------------------------------

    def console_tail(self, instance_id: InstanceId, generation: int, *, bytes_max: int) -> bytes:
        """Return the end of what the guest printed on its serial console."""
        if not self._console_dir:
            return b""
        name = f"{instance_id}.{generation}"
        return self._connection.look(lambda call: console_read(call, name, bytes_max=bytes_max))

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` on every event of a domain, and when the connection comes or goes."""
        self._wakes.append(wake)
        if len(self._wakes) == 1:
            self._connection.on_open(self._listen)

    def _listen(self, conn: libvirt.virConnect) -> None:
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._heard, None)
        self._wake()

    def _heard(
        self, _conn: libvirt.virConnect, _domain: libvirt.virDomain, *_event: object
    ) -> None:
        self._wake()

    def _wake(self) -> None:
        for wake in tuple(self._wakes):
            wake()

    def close(self) -> None:
        """Let go of the host."""
        self._wakes.clear()
        self._connection.close()

    def _console_dir_choose(self, wanted: str | None) -> str:
        if self._is_record:
            return ""
        if wanted is not None:
            return wanted
        if not self._connection.is_session:
            return SYSTEM_DIR
        if self._connection.is_local:
            return str(Path.home() / ".cache" / "stratuslab" / "console")
        return ""


def _mark_read(call: Call, domain: libvirt.virDomain) -> GuestMark | None:
    """Read the mark of the definition; None when the domain is not ours."""
    try:
        return mark_parse(call.do(domain.metadata, ELEMENT, NAMESPACE, CONFIG))
    except libvirt.libvirtError as error:
        if error.get_error_code() in NO_MARK_CODES:
            return None
        raise


def _mark_write(call: Call, domain: libvirt.virDomain, mark: GuestMark) -> None:
    """Write the mark into the definition, which outlives the guest's runs and the daemon's."""
    call.do(domain.setMetadata, ELEMENT, mark_render(mark), PREFIX, NAMESPACE, CONFIG)


def _halt_note(call: Call, domain: libvirt.virDomain, found: GuestFound, mark: GuestMark) -> None:
    """Write down why the guest is off, since libvirt forgets it when its daemon restarts."""
    if found.observed is not Observed.HALTED or found.halt_cause is HaltCause.NONE:
        return
    noted = replace(mark, run=found.run, halt_cause=found.halt_cause)
    if noted != mark:
        _mark_write(call, domain, noted)


def _is_up(call: Call, domain: libvirt.virDomain) -> bool:
    try:
        return bool(call.do(domain.isActive))
    except libvirt.libvirtError:
        return False


@contextmanager
def _unless_off(call: Call, domain: libvirt.virDomain) -> Iterator[None]:
    """Pass over the refusal of something that a guest cannot do once it is off, if it is."""
    try:
        yield
    except libvirt.libvirtError as error:
        if is_gone(error):
            return
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or _is_up(call, domain):
            raise


def _start_failure(error: libvirt.libvirtError) -> DriverFailed:
    """Say that the guest did not start; worth another attempt unless we know what is missing."""
    problem = refusal_problem(error, code="guest_failed")
    unknown = problem.remedy == REFUSED_REMEDY
    return DriverFailed(problem, transient=unknown or error.get_error_code() in TRANSIENT_CODES)


def _refused(detail: str, remedy: str) -> DriverFailed:
    return DriverFailed(Problem(code="conflict", detail=detail, remedy=remedy), transient=True)


def _hypervisor_text(call: Call) -> str:
    """Name the hypervisor and libvirt with their versions, for people."""
    try:
        version = _version_text(call.do(call.conn.getVersion))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_RPC:
            raise
        version = "?"  # no emulator is installed; the first start will say so
    name = call.do(call.conn.getType)
    return f"{name} {version}, libvirt {_version_text(call.do(call.conn.getLibVersion))}"


def _version_text(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
