"""Is this file what its importer says, and is a qcow2 image whole? Judged from its first bytes.

Nothing of an untrusted image is opened by a tool before this says yes: a qcow2 header can name
other files of this machine (backing file, external data file), and tools follow such names.
Layout: QEMU, docs/interop/qcow2.txt.
"""

import struct
from typing import Final

import msgspec

from stratus.model.image import ImageFormat
from stratus.model.units import MIB

HEAD_BYTES: Final = 2 * MIB  # header and extensions lie in the first cluster, of at most 2 MiB

QCOW2_MAGIC: Final = b"QFI\xfb"
HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")  # version 2: 72 bytes
FEATURES: Final = struct.Struct(">QQQII")  # version 3: bytes 72 to 103
EXTENSION: Final = struct.Struct(">II")
EXTENSIONS_MAX: Final = 64
EXTENSION_END: Final = 0
EXTENSION_DATA_FILE: Final = 0x44415441
FEATURE_CORRUPT: Final = 1 << 1
FEATURE_DATA_FILE: Final = 1 << 2
CLUSTER_BITS: Final = range(9, 22)

# What people import as "raw" by mistake: (offset, magic, name, what to do).
UNPACK: Final = "Unpack it first, and import what comes out."
CONVERT: Final = "Convert it first: qemu-img convert -O qcow2 IMAGE NEW.qcow2"
FOREIGN_MAGICS: Final = (
    (0, QCOW2_MAGIC, "a qcow image", "Import it with format qcow2."),
    (0, b"KDMV", "a VMDK image", CONVERT),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor", CONVERT),
    (0, b"QED\0", "a QED image", CONVERT),
    (0, b"vhdxfile", "a VHDX image", CONVERT),
    (0, b"conectix", "a VHD image", CONVERT),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image", CONVERT),
    (0, b"\x1f\x8b\x08", "compressed (gzip)", UNPACK),
    (0, b"\xfd7zXZ\0", "compressed (xz)", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed (zstd)", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
)


class Flaw(msgspec.Struct, frozen=True):
    """Why an image cannot be used, and what to do about it."""

    detail: str
    remedy: str


def image_flaw(head: bytes, *, format: ImageFormat, size_bytes: int) -> Flaw | None:
    """Say what is wrong with an image that begins with these bytes; None when nothing shows."""
    if size_bytes == 0:
        return Flaw("The image is empty.", "Check the source and import it again.")
    match format:
        case ImageFormat.RAW:
            return _raw_flaw(head)
        case ImageFormat.QCOW2:
            return _qcow2_flaw(head)


def qcow2_virtual_bytes(head: bytes) -> int:
    """The size of the disk that a guest sees, of an image without flaw."""
    return int(HEADER.unpack_from(head)[5])


def _raw_flaw(head: bytes) -> Flaw | None:
    # A raw image that looks like qcow2 could make some later tool follow the names in it.
    for offset, magic, name, remedy in FOREIGN_MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return Flaw(f"The image is said to be raw, but it is {name}.", remedy)
    return None


def _qcow2_flaw(head: bytes) -> Flaw | None:
    flatten = "Make it whole first: qemu-img convert -O qcow2 IMAGE NEW.qcow2"
    if not head.startswith(QCOW2_MAGIC) or len(head) < HEADER.size:
        return Flaw("The image is not qcow2.", "Import it with its true format.")
    fields = HEADER.unpack_from(head)
    version, backing_offset, cluster_bits, crypt = fields[1], fields[2], fields[4], fields[6]
    if version not in (2, 3):
        return Flaw(f"qcow2 version {version} is not supported.", CONVERT)
    if backing_offset != 0:
        return Flaw("The image needs a backing file.", flatten)
    if crypt != 0:
        return Flaw("The image is encrypted.", "Import it decrypted.")
    if cluster_bits not in CLUSTER_BITS:
        return Flaw("The qcow2 header is damaged.", "Fetch the image again from a good source.")
    return _features_flaw(head, version=version, flatten=flatten)


def _features_flaw(head: bytes, *, version: int, flatten: str) -> Flaw | None:
    extensions_at = HEADER.size
    if version == 3:
        if len(head) < HEADER.size + FEATURES.size:
            return Flaw("The qcow2 header is cut off.", "Fetch the image again.")
        incompatible, _, _, _, extensions_at = FEATURES.unpack_from(head, HEADER.size)
        if incompatible & FEATURE_DATA_FILE:
            return Flaw("The image keeps its data in another file.", flatten)
        if incompatible & FEATURE_CORRUPT:
            return Flaw("The image is marked as corrupt.", "Repair it: qemu-img check -r all IMAGE")
    return _extensions_flaw(head, extensions_at, flatten=flatten)


def _extensions_flaw(head: bytes, at: int, *, flatten: str) -> Flaw | None:
    for _ in range(EXTENSIONS_MAX):
        if at + EXTENSION.size > len(head):
            return None
        kind, length = EXTENSION.unpack_from(head, at)
        if kind == EXTENSION_END:
            return None
        if kind == EXTENSION_DATA_FILE:
            return Flaw("The image names an external data file.", flatten)
        at += EXTENSION.size + (length + 7) // 8 * 8
    return Flaw("The qcow2 header has too many extensions.", flatten)
