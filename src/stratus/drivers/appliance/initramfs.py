"""How do files become the archive that the kernel unpacks first? Pure bytes, no tool."""

from dataclasses import dataclass

DIRECTORY = 0o040755
PROGRAM = 0o100755
PLAIN = 0o100644
LINK = 0o120777

MAGIC = "070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file, folder or symbolic link of the archive; a link's content is where it leads."""

    path: str
    mode: int
    content: bytes = b""


def cpio_bytes(entries: list[Entry]) -> bytes:
    """The archive in the kernel's "newc" format; the same entries give the same bytes."""
    listed = [*entries, Entry(path=TRAILER, mode=0)]
    return b"".join(_record(number, entry) for number, entry in enumerate(listed, start=1))


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if entry.mode == DIRECTORY else 1
    fields = [number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0]
    header = (MAGIC + "".join(f"{field:08x}" for field in fields)).encode()
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
