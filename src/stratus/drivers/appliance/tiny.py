"""How is the built-in 'tiny' appliance made? From Debian packages, without root or loop device."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from stratus.drivers.appliance.disk import (
    BootLoader,
    boot_partition_write,
    disk_assemble,
    root_partition_write,
)
from stratus.drivers.appliance.failure import ApplianceFailed
from stratus.drivers.appliance.initramfs import DIRECTORY, LINK, PLAIN, PROGRAM, Entry, cpio_bytes
from stratus.drivers.appliance.kernel_modules import (
    EARLY,
    LATER,
    modules_collect,
    modules_tree,
)
from stratus.drivers.appliance.packages import PackageFile, package_unpack, packages_ensure
from stratus.drivers.appliance.tools import tool_run

# What the machine that builds needs, as Debian packages.
PACKAGES = ("apt", "dpkg", "e2fsprogs", "mtools", "zstd")

GUEST = Path(__file__).parent / "guest"
GUEST_PROGRAMS = re.compile(r"sbin/.*|srv/www/cgi-bin/.*|etc/acpi/.*|usr/lib/tiny/[a-z]+")
GUEST_FOLDERS = (
    *("bin", "sbin", "usr/bin", "usr/sbin", "lib64", "lib/x86_64-linux-gnu", "proc", "sys", "dev"),
    *("run", "tmp", "mnt", "root/.ssh", "etc/dropbear", "var/lib/stratus-tiny", "var/log"),
)
GUEST_LINKS = {
    "etc/resolv.conf": "../run/resolv.conf",
    "etc/hosts": "../run/hosts",
    "etc/mtab": "../proc/mounts",
    "var/run": "../run",
}
# Where the guest finds it, and where its package keeps it.
GUEST_BINARIES = {
    "usr/sbin/dropbear": ("usr/sbin/dropbear",),
    "usr/bin/dropbearkey": ("usr/bin/dropbearkey",),
    "usr/bin/dbclient": ("usr/bin/dbclient",),
    "sbin/resize2fs": ("sbin/resize2fs", "usr/sbin/resize2fs"),
}
LOADER = ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2")
LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
EARLY_APPLETS = (
    *("sh", "mount", "modprobe", "dd", "printf", "blockdev", "usleep", "switch_root", "poweroff"),
)

SIZE_BYTES_MAX = 40_000_000
TOOL_SECONDS_MAX = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class ApplianceBuilt:
    """The published image, and what it was made of: packages as "name=version"."""

    path: Path
    size_bytes: int
    sha256: str
    kernel_release: str
    packages: tuple[str, ...]


def tiny_build(target: Path, *, cache: Path, progress: Callable[[str], None]) -> ApplianceBuilt:
    """Publish the bootable raw image at the target, whole or not at all."""
    try:
        packages = packages_ensure(cache, progress=progress)
        with TemporaryDirectory(prefix="work-", dir=cache) as folder:
            return _built(target, packages=packages, work=Path(folder), progress=progress)
    except OSError as error:
        raise ApplianceFailed(
            f"The appliance could not be written: {error}.",
            remedy="Check the free space and the rights of the target and cache folders.",
        ) from error


def _built(
    target: Path,
    *,
    packages: tuple[PackageFile, ...],
    work: Path,
    progress: Callable[[str], None],
) -> ApplianceBuilt:
    progress("Unpacking the packages")
    tree = work / "tree"
    for package in packages:
        package_unpack(package, tree)
    kernel = _first(tree, "boot/vmlinuz-*")
    release = kernel.name.removeprefix("vmlinuz-")
    modules = _first(tree, f"lib/modules/{release}", f"usr/lib/modules/{release}")
    busybox = _first(tree, "bin/busybox", "usr/bin/busybox")
    loader = BootLoader(
        installer=_first(tree, "usr/bin/syslinux"),
        core_library=_first(tree, "usr/lib/syslinux/modules/bios/ldlinux.c32"),
        master_boot_record=_first(tree, "usr/lib/syslinux/mbr/mbr.bin"),
    )

    progress("Writing the boot partition")
    initramfs = work / "initramfs.zst"
    _initramfs_write(initramfs, busybox=busybox, modules=modules)
    boot = work / "boot.fat"
    boot_partition_write(boot, loader=loader, kernel=kernel, initramfs=initramfs)

    progress("Writing the root partition")
    folder = work / "root"
    _root_fill(folder, tree=tree, busybox=busybox, modules=modules)
    root = work / "root.ext4"
    root_partition_write(root, folder=folder)

    progress("Publishing the image")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    disk_assemble(part, loader=loader, boot=boot, root=root)
    size_bytes = part.stat().st_size
    assert size_bytes < SIZE_BYTES_MAX, f"the image has {size_bytes} bytes"
    with part.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    part.replace(target)
    _folder_sync(target.parent)
    return ApplianceBuilt(
        path=target,
        size_bytes=size_bytes,
        sha256=sha256,
        kernel_release=release,
        packages=tuple(f"{package.name}={package.version}" for package in packages),
    )


def _initramfs_write(path: Path, *, busybox: Path, modules: Path) -> None:
    """Only what finds and mounts the root: each byte here is unpacked by an emulated processor."""
    files = modules_tree(modules_collect(modules, EARLY))
    module_folder = f"lib/modules/{modules.name}"
    folders = ("bin", "dev", "proc", "sys", "root", "lib", "lib/modules", module_folder)
    entries = [
        *(Entry(path=name, mode=DIRECTORY) for name in folders),
        Entry(path="init", mode=PROGRAM, content=(GUEST / "early/init").read_bytes()),
        Entry(path="bin/busybox", mode=PROGRAM, content=busybox.read_bytes()),
        *(Entry(path=f"bin/{name}", mode=LINK, content=b"busybox") for name in EARLY_APPLETS),
        *(
            Entry(path=f"{module_folder}/{name}", mode=PLAIN, content=content)
            for name, content in files.items()
        ),
    ]
    plain = path.with_suffix("")
    plain.write_bytes(cpio_bytes(entries))
    tool_run(
        ["zstd", "-q", "-f", "-19", str(plain), "-o", str(path)], timeout_seconds=TOOL_SECONDS_MAX
    )


def _root_fill(folder: Path, *, tree: Path, busybox: Path, modules: Path) -> None:
    """Leave the guest's root file system in the folder."""
    for name in GUEST_FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "root").chmod(0o700)
    (folder / "root/.ssh").chmod(0o700)
    for source in sorted((GUEST / "root").rglob("*")):
        if source.is_file():
            name = str(source.relative_to(GUEST / "root"))
            mode = 0o755 if GUEST_PROGRAMS.fullmatch(name) else 0o644
            _copy(source, folder / name, mode=mode)
    for name, leads_to in GUEST_LINKS.items():
        (folder / name).symlink_to(leads_to)
    _copy(busybox, folder / "bin/busybox", mode=0o755)
    for name in _applets(busybox):
        link = folder / name
        if not link.exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")
    for name, sources in GUEST_BINARIES.items():
        (folder / name).unlink(missing_ok=True)
        _copy(_first(tree, *sources), folder / name, mode=0o755)
    _libraries_copy(folder, tree=tree)
    for name, content in modules_tree(modules_collect(modules, (*EARLY, *LATER))).items():
        file = folder / "lib/modules" / modules.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o644)


def _applets(busybox: Path) -> list[str]:
    text = tool_run([str(busybox), "--list-full"], timeout_seconds=TOOL_SECONDS_MAX)
    return [name for name in text.split() if Path(name).name != "busybox"]


def _libraries_copy(folder: Path, *, tree: Path) -> None:
    """Give the guest the libraries that its programs name, from the packages and not this host."""
    loader = _first(tree, *LOADER)
    search = ":".join(str(tree / name) for name in LIBRARY_FOLDERS)
    _copy(loader, folder / "lib64/ld-linux-x86-64.so.2", mode=0o755)
    needed: set[Path] = set()
    for name in GUEST_BINARIES:
        command = [str(loader), "--library-path", search, "--list", str(folder / name)]
        text = tool_run(command, timeout_seconds=TOOL_SECONDS_MAX)
        needed.update(Path(found) for found in re.findall(r"=> (/\S+)", text))
    for library in sorted(needed):
        if not library.is_relative_to(tree):
            raise ApplianceFailed(
                f"The library {library.name} is in none of the packages.",
                remedy="Delete the cache and build again.",
            )
        if not library.name.startswith("ld-linux"):
            _copy(library, folder / "lib/x86_64-linux-gnu" / library.name, mode=0o755)


def _copy(source: Path, target: Path, *, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _first(tree: Path, *patterns: str) -> Path:
    """The first match; distributions move files between / and /usr."""
    for pattern in patterns:
        found = sorted(tree.glob(pattern))
        if found:
            return found[0]
    raise ApplianceFailed(
        f"The packages hold no {patterns[0]}.",
        remedy="Build with the packages of a supported Debian release, or delete the cache.",
    )


def _folder_sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
