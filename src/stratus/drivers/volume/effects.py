"""How does a pool change its directory? In the few ways below, each followed by the `after` hook.

The hook is where tests stop the world: whatever raises or kills there leaves the directory
exactly as a crash at that point would.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

Hook = Callable[[str], None]

FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h
PUBLISHED_MODE: Final = 0o444
PRIVATE_MODE: Final = 0o600


def nothing_after(effect: str) -> None:
    """Let the world go on."""


class Effects:
    """The changes that a pool makes. Content is durable after `file_settle`, names after
    `directory_settle`."""

    def __init__(self, after: Hook = nothing_after) -> None:
        self.after = after

    def file_create(self, path: Path, content: bytes = b"") -> None:
        """Write a new private file; the name must be free. Durable only once settled."""
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_MODE)
        try:
            write_all(handle, content)
        finally:
            os.close(handle)
        self.after(f"create {path.name}")

    def file_settle(
        self, path: Path, *, mode: int, size_bytes: int = 0, owner: tuple[int, int] | None = None
    ) -> None:
        """Give a finished file its rights and owner, and make its content durable.

        A file smaller than `size_bytes` grows to it, sparsely.
        """
        # Read-only where that will do: its owner may have made the file so, and not be root.
        handle = os.open(path, (os.O_RDWR if size_bytes else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            if os.fstat(handle).st_size < size_bytes:
                os.ftruncate(handle, size_bytes)
            if owner is not None:
                os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        self.after(f"settle {path.name}")

    def file_clone(self, source: Path, target: Path) -> None:
        """Make a new private file that shares the source's extents (reflink)."""
        reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            writer = os.open(target, flags, PRIVATE_MODE)
            try:
                fcntl.ioctl(writer, FICLONE, reader)
            finally:
                os.close(writer)
        finally:
            os.close(reader)
        self.after(f"clone {target.name}")

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over the target in one step."""
        source.rename(target)
        self.after(f"rename {target.name}")

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which must be free."""
        target.hardlink_to(source)
        self.after(f"link {target.name}")

    def unlink(self, path: Path) -> None:
        """Take a name away, if it is there."""
        try:
            path.unlink()
        except FileNotFoundError:
            return
        self.after(f"unlink {path.name}")

    def directory_settle(self, path: Path) -> None:
        """Make the names in a directory durable."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.after(f"settle {path.name}/")


def write_all(handle: int, content: bytes | memoryview) -> None:
    """Write everything at the handle's present position."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def reflink_works(directory: Path, name: str) -> bool:
    """Try a reflink of one block in the directory; `name` must be free there."""
    source, target = directory / f"{name}.source", directory / f"{name}.target"
    effects = Effects()
    try:
        effects.file_create(source, bytes(4096))
        effects.file_clone(source, target)
    except OSError:
        return False
    finally:
        effects.unlink(source)
        effects.unlink(target)
    return True
