"""What does every pool refuse, and in which words? Shared by all volume drivers; pure."""

from collections.abc import Sequence
from typing import Final

from stratus.drivers.failure import DriverFailed
from stratus.drivers.refusal import failed
from stratus.drivers.volume.contract import ImageFound
from stratus.drivers.volume.qcow2 import Flaw
from stratus.model.ids import ImageId, VolumeId
from stratus.model.image import Digests, ImageFormat
from stratus.model.limits import IMAGE_BYTES_MAX
from stratus.model.units import KIB, size_text
from stratus.model.volume import Blank, FromImage, SeedFiles, SwapArea, VolumeSpec

BLOCK_BYTES: Final = 4 * KIB  # sizes are multiples of this
SWAP_BYTES_MIN: Final = 64 * KIB  # mkswap(8) wants ten pages
NAMED_MAX: Final = 5


def blocks_up(size_bytes: int) -> int:
    """Round a size up to whole blocks."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def clone_bytes(spec: VolumeSpec, virtual_bytes: int) -> int:
    """How large a clone becomes: never smaller than its image."""
    return max(blocks_up(virtual_bytes), spec.size_bytes)


def parent_of(spec: VolumeSpec) -> ImageId | None:
    """The image that a volume is a clone of."""
    return spec.source.image_id if isinstance(spec.source, FromImage) else None


def size_refusal(spec: VolumeSpec) -> DriverFailed | None:
    """Say why no pool can make a volume of this size; None when it can."""
    least = {Blank: BLOCK_BYTES, SwapArea: SWAP_BYTES_MIN, FromImage: 0, SeedFiles: 0}
    if spec.size_bytes % BLOCK_BYTES or spec.size_bytes < least[type(spec.source)]:
        return failed(
            "volume_failed",
            f"Volume {spec.id} cannot have {spec.size_bytes} bytes.",
            remedy=f"Ask for a multiple of {BLOCK_BYTES} bytes, {SWAP_BYTES_MIN} or more for swap.",
        )
    return None


def made_differently(present: VolumeSpec, wanted: VolumeSpec) -> DriverFailed:
    """The refusal when a volume of this name was made from another specification."""
    return failed(
        "conflict",
        f"Volume {wanted.id} is there, but made differently: {_told(present)},"
        f" not {_told(wanted)}.",
        remedy="Delete it first if its content is not needed, or use a new volume.",
    )


def _told(spec: VolumeSpec) -> str:
    size = size_text(spec.size_bytes) if spec.size_bytes else "the size of its source"
    match spec.source:
        case FromImage(image_id):
            return f"a clone of {image_id} with {size}"
        case Blank():
            return f"a blank volume with {size}"
        case SwapArea():
            return f"a swap area with {size}"
        case SeedFiles(label, files):
            return f"a medium {label} with {', '.join(sorted(files))}"


def volume_missing(volume_id: VolumeId) -> DriverFailed:
    """The refusal when a volume that should be opened is not there."""
    return failed(
        "volume_failed",
        f"Volume {volume_id} is not in this pool.",
        remedy="Nothing needs to be done if it is being made; otherwise look at its failure.",
        transient=True,
    )


def image_missing(image_id: ImageId) -> DriverFailed:
    """The refusal when a volume should be cloned from an image that is not published."""
    return failed(
        "image_not_ready",
        f"Image {image_id} is not in this pool.",
        remedy="Wait until it is imported, or choose another image.",
        transient=True,
    )


def staged_gap(present: int, offset: int) -> DriverFailed:
    """The refusal when staged bytes would not join on."""
    return failed(
        "conflict",
        f"{present} bytes are staged; bytes from {offset} on would leave a gap.",
        remedy=f"Go on from byte {present}.",
        bytes_staged=present,
    )


def image_oversized(bytes_max: int) -> DriverFailed:
    """The refusal of an image that does not end in time."""
    return failed(
        "body_too_large",
        f"The image has more than {size_text(bytes_max)} ({bytes_max} bytes).",
        remedy="Check the source, or ask your administrator for a higher limit.",
    )


def importer_busy(image_id: ImageId) -> DriverFailed:
    """The refusal when another worker imports this image already."""
    return failed(
        "in_use",
        f"Another worker is busy with image {image_id}.",
        remedy="Nothing needs to be done: we look again by ourselves.",
        transient=True,
    )


def volume_open(volume_id: VolumeId) -> DriverFailed:
    """The refusal when a volume that somebody uses should go."""
    return failed(
        "in_use",
        f"Volume {volume_id} is open in a guest.",
        remedy="Stop the instance that uses it; we then try again by ourselves.",
        transient=True,
    )


def grant_outdated(volume_id: VolumeId, epoch: int) -> DriverFailed:
    """The refusal of a grant whose epoch was fenced off."""
    return failed(
        "conflict",
        f"Epoch {epoch} of volume {volume_id} is over.",
        remedy="Nothing needs to be done: the wish was outdated.",
    )


def fence_impossible(volume_id: VolumeId, epoch: int) -> DriverFailed:
    """The refusal of a pool that cannot cut off a writer without its host's help."""
    return failed(
        "volume_failed",
        f"Nobody but its host can stop writes of epoch {epoch} to volume {volume_id}.",
        remedy="Make sure that the host is off, then tell us so.",
    )


def nothing_staged(image_id: ImageId) -> DriverFailed:
    """The refusal when an image without any bytes should be published."""
    return failed(
        "image_not_ready",
        f"No bytes of image {image_id} are here yet.",
        remedy="Import it again.",
        transient=True,
    )


def image_used(image_id: ImageId, clones: Sequence[VolumeId]) -> DriverFailed:
    """The refusal when an image with clones should go."""
    named = ", ".join(clones[:NAMED_MAX]) + (", …" if len(clones) > NAMED_MAX else "")
    return failed(
        "in_use",
        f"{len(clones)} volumes were cloned from image {image_id}: {named}.",
        remedy="Delete these instances or volumes first; the image then goes by itself.",
        transient=True,
        clones=len(clones),
    )


def image_conflict(
    image: ImageFound, format: ImageFormat, size_bytes: int, sha256: str
) -> DriverFailed | None:
    """Say how a published image differs from what is to be published; None when it does not."""
    same = (
        image.format is format
        and size_bytes in (0, image.digests.size_bytes)
        and sha256 in ("", image.digests.sha256)
    )
    if same:
        return None
    return failed(
        "conflict",
        f"Image {image.id} is published already, as {image.format.value} with SHA-256"
        f" {image.digests.sha256}.",
        remedy="Import the other bytes as a new image.",
    )


def mismatch(found: Digests, size_bytes: int, sha256: str) -> DriverFailed | None:
    """Say how stored bytes differ from what was announced; None when they do not."""
    if size_bytes not in (0, found.size_bytes):
        detail = f"{size_bytes} bytes were announced, {found.size_bytes} were stored."
    elif sha256 not in ("", found.sha256):
        detail = f"SHA-256 {sha256} was announced, the stored bytes have {found.sha256}."
    else:
        return None
    return failed(
        "checksum_mismatch",
        detail,
        remedy="Check size and checksum with the image's publisher, then import it again.",
        sha256=found.sha256,
        size_bytes=found.size_bytes,
    )


def image_broken(flaw: Flaw) -> DriverFailed:
    """The refusal of an image that cannot be used."""
    return failed("image_broken", flaw.detail, remedy=flaw.remedy)


def virtual_flaw(virtual_bytes: int) -> Flaw | None:
    """Judge the size of disk that an image claims to be."""
    if 0 < virtual_bytes <= IMAGE_BYTES_MAX:
        return None
    return Flaw(
        f"The image claims to be a disk of {virtual_bytes} bytes.",
        f"Import a disk of at most {size_text(IMAGE_BYTES_MAX)}.",
    )
