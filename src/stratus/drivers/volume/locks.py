"""Who works on this volume, and does QEMU hold it open?

Both answers come from locks of open file descriptions (fcntl(2), F_OFD_*): they end with the
process that holds them, however it ends, and they exclude threads as well as processes.
"""

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stratus.drivers.refusal import failed

WAIT_SECONDS_MAX: Final = 60.0
PAUSE_SECONDS: Final = 0.005

# QEMU, block/file-posix.c: RAW_LOCK_PERM_BASE is 100 and RAW_LOCK_SHARED_BASE 200, one byte per
# permission bit (64 at most); libvirt's virtlockd takes byte 0.
QEMU_BYTES_FIRST: Final = 0
QEMU_BYTES_COUNT: Final = 264

FLOCK: Final = "hhqqi0q"  # struct flock: l_type, l_whence, l_start, l_len, l_pid


class IdLocks:
    """One lock for each id, kept on one byte each of a single file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(
        self,
        name: str,
        *,
        shared: bool = False,
        wait_seconds: float = WAIT_SECONDS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[None]:
        """Hold the lock of this id; refuses with `in_use` after waiting in vain."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
            until = clock() + wait_seconds
            while not _lock_taken(handle, kind, byte=_byte_of(name)):
                if clock() >= until:
                    raise failed(
                        "in_use",
                        f"Another worker is busy with {name}.",
                        remedy="Nothing needs to be done: we look again by ourselves.",
                        transient=True,
                    )
                time.sleep(PAUSE_SECONDS)
            yield
        finally:
            os.close(handle)


def qemu_holds(path: Path) -> bool:
    """Tell whether a QEMU process (guest or tool) has this file open with its usual locks."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        asked = struct.pack(
            FLOCK, fcntl.F_WRLCK, os.SEEK_SET, QEMU_BYTES_FIRST, QEMU_BYTES_COUNT, 0
        )
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked)
    finally:
        os.close(handle)
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


def _byte_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


def _lock_taken(handle: int, kind: int, *, byte: int) -> bool:
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True
