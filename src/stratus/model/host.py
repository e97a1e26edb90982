"""What is a host: a machine that runs instances, its wish, its capacity and the facts of it."""

from enum import StrEnum

import msgspec

from stratus.model.ids import HostId, InstanceId, PoolId, ProjectId
from stratus.model.instance import HaltCause, Nic, Observed
from stratus.model.problem import Problem
from stratus.model.volume import DiskConnection, VolumeKind


class HostDesired(StrEnum):
    """What the administrator wants of the host."""

    ENABLED = "enabled"
    DRAINING = "draining"  # keeps what it runs, gets nothing new
    ABSENT = "absent"


class HostCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the host's hypervisor offers, as it said itself."""

    cpus: int
    memory_mib: int
    arch: str = "x86_64"
    accelerator: str = "tcg"  # kvm | tcg | fake
    accelerator_reason: str = ""
    hypervisor: str = ""  # name and version, for people
    boot_id: str = ""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One host as the store knows it."""

    id: HostId
    name: str
    uri: str
    desired: HostDesired
    cpu_ratio: float
    memory_ratio: float
    memory_reserved_mib: int
    created_ms: int
    version: int
    accelerator_wanted: str = "auto"  # auto | kvm | tcg
    capacity: HostCapacity | None = None
    seen_ms: int = 0
    unreachable_ms: int = 0  # since when; 0 = it answers
    failure: Problem | None = None
    pools: tuple[PoolId, ...] = ()  # the pools whose disks its guests can open
    networks: tuple[str, ...] = ()
    instances: int = 0
    vcpus_used: int = 0
    memory_used_mib: int = 0
    lease_owner: str = ""
    lease_until_ms: int = 0


class GuestDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest, in the order the guest sees them."""

    kind: VolumeKind
    volume_id: str
    connection: DiskConnection
    read_only: bool = False


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a hypervisor needs to make the guest of one placement of an instance."""

    instance_id: InstanceId
    generation: int
    run: int
    resets: int
    title: str
    vcpus: int
    memory_mib: int
    disks: tuple[GuestDisk, ...]
    nics: tuple["GuestNic", ...] = ()

    @property
    def domain_name(self) -> str:
        """The name on the host; a stale worker acts on names nobody uses."""
        return f"{self.instance_id}.{self.generation}"


class GuestNic(msgspec.Struct, frozen=True, kw_only=True):
    """One network card as the network driver wants it plugged."""

    nic: Nic
    attachment: "PortAttachment"


class PortAttachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the hypervisor joins a card to its network: libvirt network and nwfilter, or a bridge."""

    network: str = ""  # libvirt network name
    bridge: str = ""
    filter: str = ""  # nwfilter name
    filter_parameters: dict[str, tuple[str, ...]] = {}
    mtu: int = 0


class GuestFound(msgspec.Struct, frozen=True, kw_only=True):
    """One guest as the hypervisor shows it. Without `instance_id` it is not one of ours."""

    name: str
    observed: Observed
    instance_id: InstanceId | None = None
    generation: int = 0
    run: int = 0
    resets: int = 0
    halt_cause: HaltCause = HaltCause.NONE
    accelerator: str = ""
    detail: str = ""


class GuestWish(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a host's document: what should be true of one instance on this host.

    `present` False is the explicit tombstone; a guest without a line is left alone.
    """

    instance_id: InstanceId
    project_id: ProjectId = ProjectId("")
    generation: int
    present: bool
    gently: bool = False  # what is not to be present is asked to shut down first
    running: bool
    hold: bool = False  # parked: leave as it is, start nothing
    run: int
    resets: int
    desired_ms: int
    title: str = ""
    vcpus: int = 1
    memory_mib: int = 0
    disks: tuple["WishedDisk", ...] = ()
    disks_ready: bool = False
    nics: tuple[Nic, ...] = ()
    failures: int = 0
    retry_ms: int = 0  # do not act before this time, after a failure
    known: "GuestKnown | None" = None  # what the store already knows of this guest


class GuestKnown(msgspec.Struct, frozen=True, kw_only=True):
    """The last observation as the store holds it, so that only news is reported."""

    observed: Observed
    generation: int
    run: int
    resets: int
    halt_cause: HaltCause
    fresh: bool = True  # False: seen before the store was restored


class WishedDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that the guest should have, named by volume and pool."""

    kind: VolumeKind
    volume_id: str
    pool_id: PoolId
    epoch: int


class GuestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a host worker saw, or what became of an action; facts only."""

    host_id: HostId
    instance_id: InstanceId
    generation: int
    observed: Observed
    run: int = 0
    resets: int = 0
    halt_cause: HaltCause = HaltCause.NONE
    accelerator: str = ""
    present: bool = True  # whether the line that it answers wished the guest to be there
    failure: Problem | None = None  # an action that failed
    project_id: ProjectId = ProjectId("")  # for the event
    name: str = ""


class StrayFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A guest that nobody wished for, as the store knows it; it is left alone."""

    host_id: HostId
    name: str  # as the hypervisor calls it
    instance_id: str  # "" where it is not one of ours
    generation: int
    observed: Observed
    first_ms: int
    seen_ms: int
