"""Which bytes of an image are safely here, and what are their digests?"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from stratus.drivers.volume.effects import PRIVATE_MODE, write_all
from stratus.drivers.volume.rules import image_oversized, staged_gap
from stratus.model.image import Digests
from stratus.model.units import MIB

CHUNK_BYTES: Final = 1 * MIB
SETTLE_BYTES: Final = 64 * MIB  # at most this much is fetched again after a power cut


class Staged(msgspec.Struct, frozen=True):
    """What is known of staged bytes after reading all of them again."""

    digests: Digests
    head: bytes


def bytes_staged(path: Path) -> int:
    """How many bytes are staged here; 0 when none are."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def bytes_append(
    path: Path,
    stream: BinaryIO,
    *,
    offset: int,
    bytes_max: int,
    settled: Callable[[], None],
) -> int:
    """Append the stream behind the first `offset` bytes; return the bytes now staged.

    Whatever ends it, the bytes so far are durable and in place. `settled` is called after
    every SETTLE_BYTES and may stop it by raising.
    """
    present = bytes_staged(path)
    if offset > present:
        raise staged_gap(present, offset)
    if present:
        path.chmod(PRIVATE_MODE)  # an attempt to publish may have made it read-only
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        os.ftruncate(handle, offset)
        os.lseek(handle, offset, os.SEEK_SET)
        try:
            return _copy(stream, handle, offset=offset, bytes_max=bytes_max, settled=settled)
        finally:
            os.fsync(handle)
    finally:
        os.close(handle)


def _copy(
    stream: BinaryIO, handle: int, *, offset: int, bytes_max: int, settled: Callable[[], None]
) -> int:
    at, durable = offset, offset
    while chunk := stream.read(CHUNK_BYTES):
        allowed = memoryview(chunk)[: bytes_max - at]
        write_all(handle, allowed)
        at += len(allowed)
        if len(allowed) < len(chunk):
            raise image_oversized(bytes_max)
        if at - durable >= SETTLE_BYTES:
            os.fsync(handle)
            durable = at
            settled()
    return at


def stored_digests(path: Path, *, head_bytes: int) -> Staged:
    """Read what the disk holds, byte for byte, in one pass; the bytes must be durable already."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Forget the cached pages, so that the medium itself is read.
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        sha256, sha1, size_bytes = hashlib.sha256(), hashlib.sha1(usedforsecurity=False), 0
        head = os.pread(handle, head_bytes, 0)
        buffer = bytearray(CHUNK_BYTES)
        view = memoryview(buffer)
        while count := os.readv(handle, [buffer]):
            sha256.update(view[:count])
            sha1.update(view[:count])
            size_bytes += count
    finally:
        os.close(handle)
    digests = Digests(size_bytes=size_bytes, sha256=sha256.hexdigest(), sha1=sha1.hexdigest())
    return Staged(digests, head)
