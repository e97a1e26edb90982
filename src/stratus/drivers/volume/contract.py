"""What does a volume driver promise? One object is one pool of volumes and images."""

from collections.abc import Sequence
from typing import BinaryIO, Protocol

import msgspec

from stratus.model.ids import ImageId, InstanceId, VolumeId
from stratus.model.image import Digests, ImageFormat
from stratus.model.volume import DiskConnection, VolumeSpec


class PoolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this pool can do, as tested by a probe, and how full it is."""

    name: str
    clones_are_instant: bool
    reflink: bool
    fence: str  # local | server | cluster: who can cut off a writer without its host's help
    total_bytes: int
    free_bytes: int
    bytes_min: int = 4096  # sizes are multiples of this


class VolumeFound(msgspec.Struct, frozen=True, kw_only=True):
    """One volume as the pool shows it."""

    id: VolumeId
    size_bytes: int
    format: str
    allocated_bytes: int = 0
    parent: ImageId | None = None


class ImageFound(msgspec.Struct, frozen=True, kw_only=True):
    """One published image; `virtual_bytes` is the size of disk that a guest sees."""

    id: ImageId
    format: ImageFormat
    digests: Digests
    virtual_bytes: int


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The right of one instance to open a volume, valid for one epoch."""

    instance_id: InstanceId
    epoch: int
    read_only: bool = False


class VolumeDriver(Protocol):
    """One pool. Calls are thread-safe and safe to repeat, also by another process after a crash.

    Raises EngineUnreachable when the pool does not answer, DriverFailed when it refuses
    (`no_space`, `volume_failed`, `image_broken`, `checksum_mismatch`).
    """

    def probe(self) -> PoolFacts:
        """Test what the pool can do; nothing is assumed from its type."""
        ...

    def image_bytes_staged(self, image_id: ImageId) -> int:
        """How many bytes of an interrupted import are safely there, to go on from."""
        ...

    def image_stage(
        self, image_id: ImageId, stream: BinaryIO, *, offset: int, bytes_max: int
    ) -> int:
        """Append the stream to the staged bytes from `offset` on; return the bytes now staged.

        Refuses with `body_too_large` beyond `bytes_max`, keeping nothing beyond it.
        """
        ...

    def image_publish(
        self, image_id: ImageId, *, format: ImageFormat, size_bytes: int, sha256: str
    ) -> ImageFound:
        """Verify what was stored, byte for byte re-read, then publish it in one step.

        `size_bytes` 0 and `sha256` "" mean "not said beforehand". An image that is
        already published with these digests is returned as it is. A mismatch removes the
        staged bytes. A qcow2 image must be whole: no backing file, no external data.
        """
        ...

    def ensure_image_absent(self, image_id: ImageId) -> None:
        """Leave neither the image nor staged bytes; refused with `in_use` while clones exist."""
        ...

    def ensure_volume(self, spec: VolumeSpec) -> VolumeFound:
        """Leave exactly this volume; the same spec again changes nothing, not even its content.

        Cloning takes the same time for any size of image. The clone is at least as large
        as its image; a larger `size_bytes` grows it.
        """
        ...

    def ensure_volume_absent(self, volume_id: VolumeId) -> None:
        """Leave no such volume; refused with `in_use` while a process holds it open."""
        ...

    def connect(self, volume_id: VolumeId, grant: Grant) -> DiskConnection:
        """Return how QEMU opens the volume, for this grant only; the volume must exist."""
        ...

    def disconnect(self, volume_id: VolumeId, grant: Grant) -> None:
        """End the grant; returns when the path is closed."""
        ...

    def fence(self, volume_id: VolumeId, *, epoch: int) -> None:
        """On return no write of this epoch or an earlier one can reach the data.

        Raises DriverFailed where the pool cannot promise that without the host's help.
        """
        ...

    def inventory(self) -> tuple[Sequence[VolumeFound], Sequence[ImageFound]]:
        """Return everything published in the pool, complete or not at all."""
        ...

    def close(self) -> None:
        """Let go of the pool; volumes and guests stay."""
        ...
