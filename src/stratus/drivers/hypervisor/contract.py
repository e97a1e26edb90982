"""What does a hypervisor driver promise? One object is one connection to one host."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from stratus.model.host import GuestFound, GuestSpec, HostCapacity
from stratus.model.ids import InstanceId


class HypervisorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this driver can do; callers branch on these, never on its name."""

    name: str
    runs_guests: bool  # real guests with real disks, as opposed to a record of them
    opens_files: bool  # can open volumes that are files on its machine
    has_console_log: bool
    has_networks: bool
    pushes_events: bool
    acpi_shutdown: bool


class Hypervisor(Protocol):
    """One host. Calls are thread-safe, bounded in time, and safe to repeat.

    Every method raises EngineUnreachable when the host does not answer: callers then know
    nothing, in particular not that a guest is absent. DriverFailed means that the host
    answered and refused.
    """

    facts: HypervisorFacts

    def capacity(self) -> HostCapacity:
        """Return what the host offers; decides the accelerator, by a bounded probe at most once."""
        ...

    def inventory(self) -> Sequence[GuestFound]:
        """Return every guest on the host, ours and strangers alike, complete or not at all."""
        ...

    def ensure_running(self, spec: GuestSpec) -> GuestFound:
        """Leave the guest of this placement and run running, however often called.

        A guest that already runs in `spec.run` is left untouched. One that halted in an
        earlier run is started again with the present spec. Fails for a guest that halted in
        this very run: its own will is not overruled. Also fulfils `spec.resets`.
        """
        ...

    def ensure_reset(self, instance_id: InstanceId, generation: int, *, resets: int) -> None:
        """Restart the running guest if it has had fewer resets than this."""
        ...

    def shutdown_ask(self, instance_id: InstanceId, generation: int) -> None:
        """Press the guest's power button; it may take its time or ignore it. No guest: no-op."""
        ...

    def ensure_halted(self, instance_id: InstanceId, generation: int) -> None:
        """Leave the guest powered off at once, its definition in place. No guest: no-op."""
        ...

    def ensure_absent(self, instance_id: InstanceId, generation: int) -> None:
        """Leave no trace of this placement's guest; other generations are not touched."""
        ...

    def console_tail(self, instance_id: InstanceId, generation: int, *, bytes_max: int) -> bytes:
        """Return the end of what the guest printed on its serial console; b"" if nothing."""
        ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` soon after any guest changes, where the driver can; a hint, never a fact."""
        ...

    def close(self) -> None:
        """Let go of the host; its guests run on."""
        ...
