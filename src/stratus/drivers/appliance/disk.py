"""How do a kernel, an initramfs and a folder become a disk that a BIOS can start?

Partition 1 is a small FAT for the boot loader: SYSLINUX asks the BIOS for long runs of sectors,
and is thereby several times faster than GRUB, which matters most in an emulated processor.
Partition 2 is the root, last on the disk so that it can grow.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from stratus.drivers.appliance.tools import BUILD_EPOCH_SECONDS, tool_run

SECTOR_BYTES = 512
MIB = 1024 * 1024

BOOT_START_MIB = 1
BOOT_MIB = 17
ROOT_START_MIB = BOOT_START_MIB + BOOT_MIB
ROOT_MIB = 20
DISK_MIB = ROOT_START_MIB + ROOT_MIB

ROOT_LABEL = "tiny-root"
ROOT_UUID = "74696e79-0000-4000-8000-000000000001"
BOOT_SERIAL = "74696e79"
DISK_SIGNATURE = 0x74696E79

JOURNAL_MIB = 4
# Per 128 MiB of a grown root. Few, since the kernel clears the inode tables while it grows.
INODES = 2048
# Room for the descriptors of a root of 2 TiB, the most that this partition table can say.
GROWTH_BLOCKS_MAX = 2**29 - 1

PARTITION_TABLE_OFFSET = 446
TYPE_FAT16_LBA = 0x0E
TYPE_LINUX = 0x83
ACTIVE = 0x80
# "Use the sector numbers instead": the cylinder, head and sector of everything too far away.
CHS_UNUSED = b"\xfe\xff\xff"

TOOL_SECONDS_MAX = 120
COPY_BYTES = MIB

# Each word spares an emulated processor work: no probing of old disks, no security modules in a
# machine with one user, no self-tests, no mitigations for a processor that is not there.
COMMAND_LINE = (
    "console=ttyS0 quiet panic=10 edd=off lsm= mitigations=off nokaslr no_timer_check "
    "tsc=reliable cryptomgr.notests initcall_blacklist=crypto_kdf108_init "
    "random.trust_cpu=on 8250.nr_uarts=1"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BootLoader:
    """The files of SYSLINUX that a bootable disk needs."""

    installer: Path
    core_library: Path
    master_boot_record: Path


def boot_partition_write(path: Path, *, loader: BootLoader, kernel: Path, initramfs: Path) -> None:
    """Leave a FAT file system with boot loader, kernel and initramfs in the file."""
    configuration = path.with_suffix(".cfg")
    configuration.write_text(
        "DEFAULT tiny\nPROMPT 0\nLABEL tiny\n"
        f" LINUX vmlinuz\n INITRD initrd\n APPEND {COMMAND_LINE}\n"
    )
    path.write_bytes(b"")
    os.truncate(path, BOOT_MIB * MIB)
    image = str(path)
    tool_run(
        [
            *("mformat", "-i", image, "-N", BOOT_SERIAL, "-v", "TINYBOOT"),
            *("-T", str(_sectors(BOOT_MIB)), "-h", "64", "-s", "32"),
            *("-H", str(_sectors(BOOT_START_MIB)), "::"),
        ],
        timeout_seconds=TOOL_SECONDS_MAX,
    )
    contents = {
        "vmlinuz": kernel,
        "initrd": initramfs,
        "ldlinux.c32": loader.core_library,
        "syslinux.cfg": configuration,
    }
    for name, source in contents.items():
        tool_run(["mcopy", "-i", image, str(source), f"::{name}"], timeout_seconds=TOOL_SECONDS_MAX)
    tool_run([str(loader.installer), "--install", image], timeout_seconds=TOOL_SECONDS_MAX)


def root_partition_write(path: Path, *, folder: Path) -> None:
    """Leave an ext4 file system with the folder's content, owned by root, in the file."""
    path.write_bytes(b"")
    os.truncate(path, ROOT_MIB * MIB)
    for inner in sorted(folder.rglob("*")):
        os.utime(inner, (BUILD_EPOCH_SECONDS, BUILD_EPOCH_SECONDS), follow_symlinks=False)
    extended = (
        f"root_owner=0:0,hash_seed={ROOT_UUID},resize={GROWTH_BLOCKS_MAX},"
        "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    )
    tool_run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256"),
            *("-O", "^64bit,^metadata_csum,^orphan_file", "-L", ROOT_LABEL, "-U", ROOT_UUID),
            *("-N", str(INODES), "-J", f"size={JOURNAL_MIB}", "-E", extended),
            *("-d", str(folder), str(path)),
        ],
        timeout_seconds=TOOL_SECONDS_MAX,
    )
    _builder_forget(path, folder=folder)


def _builder_forget(path: Path, *, folder: Path) -> None:
    """Take out of the file system who built it and when, which mke2fs copies from the folder."""
    fixed = {
        "uid": "0",
        "gid": "0",
        "atime": f"@{BUILD_EPOCH_SECONDS}",
        "ctime": f"@{BUILD_EPOCH_SECONDS}",
        "mtime": f"@{BUILD_EPOCH_SECONDS}",
        "crtime": f"@{BUILD_EPOCH_SECONDS}",
        "atime_extra": "0",
        "ctime_extra": "0",
        "mtime_extra": "0",
        "crtime_extra": "0",
    }
    inner = ["/", *(f"/{file.relative_to(folder)}" for file in sorted(folder.rglob("*")))]
    script = "".join(
        f'set_inode_field "{name}" {field} {value}\n'
        for name in inner
        for field, value in fixed.items()
    )
    tool_run(
        ["debugfs", "-w", "-f", "-", str(path)], text_in=script, timeout_seconds=TOOL_SECONDS_MAX
    )


def disk_assemble(path: Path, *, loader: BootLoader, boot: Path, root: Path) -> None:
    """Leave a whole disk in the file: partition table, boot code and both partitions."""
    sector = bytearray(SECTOR_BYTES)
    code = loader.master_boot_record.read_bytes()
    assert len(code) <= PARTITION_TABLE_OFFSET - 6, "the boot code leaves room for the signature"
    sector[: len(code)] = code
    struct.pack_into("<I", sector, PARTITION_TABLE_OFFSET - 6, DISK_SIGNATURE)
    partitions = (
        (ACTIVE, TYPE_FAT16_LBA, BOOT_START_MIB, BOOT_MIB),
        (0, TYPE_LINUX, ROOT_START_MIB, ROOT_MIB),
    )
    for index, (active, kind, start_mib, size_mib) in enumerate(partitions):
        struct.pack_into(
            "<B3sB3sII",
            sector,
            PARTITION_TABLE_OFFSET + 16 * index,
            *(active, CHS_UNUSED, kind, CHS_UNUSED, _sectors(start_mib), _sectors(size_mib)),
        )
    sector[-2:] = b"\x55\xaa"
    with path.open("wb") as disk:
        disk.truncate(DISK_MIB * MIB)
        disk.write(sector)
        for part, start_mib in ((boot, BOOT_START_MIB), (root, ROOT_START_MIB)):
            data = part.read_bytes()
            for offset in range(0, len(data), COPY_BYTES):
                piece = data[offset : offset + COPY_BYTES]
                # What is empty stays a hole, and costs no room.
                if piece.strip(b"\0"):
                    disk.seek(start_mib * MIB + offset)
                    disk.write(piece)
        disk.flush()
        os.fsync(disk.fileno())


def _sectors(mib: int) -> int:
    return mib * MIB // SECTOR_BYTES
