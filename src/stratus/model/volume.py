"""What is a volume: block storage, with the wish for its content and the facts of its making."""

from enum import StrEnum

import msgspec

from stratus.model.ids import ImageId, InstanceId, PoolId, ProjectId, VolumeId
from stratus.model.problem import Problem


class VolumeKind(StrEnum):
    """What the volume is for; instance-owned kinds live and die with their instance."""

    ROOT = "root"
    VOLATILE = "volatile"
    SWAP = "swap"
    SEED = "seed"
    PERSISTENT = "persistent"


class Presence(StrEnum):
    """What the pool last showed of the volume or image."""

    UNKNOWN = "unknown"
    ABSENT = "absent"
    READY = "ready"


class FromImage(msgspec.Struct, frozen=True, tag="image"):
    """The volume begins as a copy-on-write clone of this image."""

    image_id: ImageId


class Blank(msgspec.Struct, frozen=True, tag="blank"):
    """The volume begins as zeros."""


class SwapArea(msgspec.Struct, frozen=True, tag="swap"):
    """The volume begins as a Linux swap area, ready for swapon."""


class SeedFiles(msgspec.Struct, frozen=True, tag="seed"):
    """The volume is a read-only medium with these small text files, labelled for its reader."""

    label: str
    files: dict[str, str]


VolumeSource = FromImage | Blank | SwapArea | SeedFiles


class VolumeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What should be there. `size_bytes` 0 means: as large as the source."""

    id: VolumeId
    source: VolumeSource
    size_bytes: int = 0


class VolumeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One volume as the store knows it."""

    id: VolumeId
    project_id: ProjectId
    kind: VolumeKind
    size_bytes: int
    version: int
    wanted: bool
    source: VolumeSource
    instance_id: InstanceId | None = None
    pool_id: PoolId | None = None
    presence: Presence = Presence.UNKNOWN
    epoch: int = 0
    failures: int = 0
    failure: Problem | None = None


# How QEMU opens a volume: what a volume driver hands out and a hypervisor driver consumes.


class FileDisk(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """The hypervisor opens this file itself."""

    path: str
    format: str  # raw | qcow2


DiskConnection = FileDisk
