"""What is an instance: the wish for it, the facts seen of it, and the phase computed from both."""

from enum import StrEnum
from typing import assert_never

import msgspec

from stratus.model.ids import HostId, ImageId, InstanceId, PoolId, ProjectId, UserId
from stratus.model.problem import Problem


class Desired(StrEnum):
    """The wish: what the user wants of a thing."""

    RUNNING = "running"
    STOPPED = "stopped"
    ABSENT = "absent"


class Observed(StrEnum):
    """The fact: what the host last showed of the guest."""

    UNKNOWN = "unknown"  # nobody has looked since the instance was placed
    ABSENT = "absent"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"


class Phase(StrEnum):
    """The summary that people read; computed, never stored."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"
    UNKNOWN = "unknown"


class HaltCause(StrEnum):
    """Why a guest is not running although it is defined."""

    NONE = ""
    GUEST = "guest"  # it powered itself off
    ASKED = "asked"  # we powered it off
    CRASHED = "crashed"  # it panicked, or its hypervisor process died
    LOST = "lost"  # the host restarted underneath it


class OnHalt(StrEnum):
    """What becomes of the resources when the guest halts by itself."""

    KEEP = "keep"
    RELEASE = "release"
    DELETE = "delete"


class Ranking(StrEnum):
    """Which of the fitting hosts is best for this request."""

    SPREAD = "spread"
    PACK = "pack"


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """A named size. `root_gib` 0 leaves the root disk as large as its image."""

    name: str
    vcpus: int
    memory_mib: int
    swap_mib: int = 0
    root_gib: int = 0


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guest is told at its first boot."""

    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""
    pairs: dict[str, str] = {}


class InstanceCreate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request for `count` equal instances, granted whole or not at all."""

    project_id: ProjectId
    image: str
    type: str = "m1.small"
    name: str = ""
    count: int = 1
    network: str = "public"
    volatile_gib: int = 0
    swap_mib: int | None = None
    context: Context = Context()
    on_halt: OnHalt = OnHalt.KEEP
    ranking: Ranking = Ranking.SPREAD


class Nic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network card with the addresses allotted to it; CIDR-less text, "" where none."""

    network_id: str
    mac: str
    ipv4: str = ""
    ipv6: str = ""


class InstanceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as the store knows it: wish, placement and last observation together."""

    id: InstanceId
    project_id: ProjectId
    user_id: UserId
    name: str
    created_ms: int
    version: int
    created_epoch: int = 0  # which restore of the store it was made after
    # the wish
    desired: Desired
    desired_ms: int  # when the wish was last changed
    run: int  # counts the starts wished for; a guest that halted in run N starts again in N + 1
    resets: int  # counts the reboots wished for
    release: bool  # give the host back while stopped
    on_halt: OnHalt
    ranking: Ranking
    # what it is
    image_id: ImageId
    type_name: str
    vcpus: int
    memory_mib: int
    swap_mib: int
    root_gib: int
    volatile_gib: int
    nics: tuple[Nic, ...] = ()
    # where it is
    host_id: HostId | None = None
    host_name: str = ""
    pool_id: PoolId | None = None
    generation: int = 0  # counts placements
    placed_ms: int = 0
    # what was seen
    observed: Observed = Observed.UNKNOWN
    observed_generation: int = 0
    observed_run: int = 0
    observed_resets: int = 0
    observed_ms: int = 0
    halt_cause: HaltCause = HaltCause.NONE
    accelerator: str = ""
    failures: int = 0  # attempts that failed since something last went well
    failure: Problem | None = None  # what the last of them said
    rounds: int = 0  # hosts given up in this run
    host_unreachable_ms: int = 0  # since when its host does not answer; 0 = it does
    volumes_wanted: int = 0
    volumes_ready: int = 0
    volumes_left: int = 0  # volumes that still exist or may exist
    # another host shows a guest of this instance, as after a restore of the store
    stray_host_id: HostId | None = None
    stray_generation: int = 0
    stray_alive: bool = False
    # why we stopped trying, or what we wait for
    parked: Problem | None = None
    waiting: Problem | None = None
    gone_ms: int = 0

    @property
    def seen_here(self) -> bool:
        """The observation is about the present placement."""
        return self.host_id is not None and self.observed_generation == self.generation

    @property
    def halted_by_itself(self) -> bool:
        """The guest ended the run that the user wished for."""
        return self.seen_here and self.observed is Observed.HALTED and self.observed_run == self.run


def phase_of(facts: InstanceFacts) -> Phase:
    """Sum up wish and facts in one word."""
    if facts.gone_ms:
        return Phase.DELETED
    if facts.desired is Desired.ABSENT:
        return Phase.DELETING
    if facts.host_id is not None and facts.host_unreachable_ms:
        return Phase.UNKNOWN
    up = facts.seen_here and facts.observed in (Observed.RUNNING, Observed.PAUSED)
    match facts.desired:
        case Desired.RUNNING:
            if up and facts.observed_run == facts.run:
                return Phase.RUNNING
            if facts.parked is not None:
                return Phase.FAILED
            if facts.halted_by_itself:
                return Phase.STOPPED
            return Phase.PENDING if facts.host_id is None else Phase.STARTING
        case Desired.STOPPED:
            if up:
                return Phase.STOPPING
            if facts.host_id is not None and not facts.seen_here:
                return Phase.STOPPING
            return Phase.STOPPED
        case other:
            assert_never(other)


def reason_of(facts: InstanceFacts) -> str:
    """Say in machine-readable words why the phase is what it is; "" where it needs no reason."""
    if facts.gone_ms:
        return ""
    if facts.host_id is not None and facts.host_unreachable_ms:
        return "host_unreachable"
    if facts.parked is not None:
        return facts.parked.code
    phase = phase_of(facts)
    if phase is Phase.PENDING and facts.waiting is not None:
        return facts.waiting.code
    if phase is Phase.STARTING:
        if facts.failure is not None:
            return facts.failure.code
        ready = facts.volumes_ready >= facts.volumes_wanted
        return "starting_guest" if ready else "preparing_disks"
    if phase is Phase.RUNNING and facts.observed is Observed.PAUSED:
        return "guest_paused"
    ended_by_itself = phase is Phase.STOPPED and facts.desired is Desired.RUNNING
    if ended_by_itself and facts.observed is Observed.HALTED:
        return {
            HaltCause.GUEST: "guest_halted",
            HaltCause.CRASHED: "guest_crashed",
            HaltCause.LOST: "host_restarted",
        }.get(facts.halt_cause, "")
    return ""
