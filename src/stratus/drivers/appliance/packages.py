"""Which Debian packages is the appliance made of, and where are they once fetched?"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from stratus.drivers.appliance.failure import ApplianceFailed
from stratus.drivers.appliance.tools import tool_run

KERNEL = "linux-image-cloud-amd64"
# Taken together with the libraries they need.
PROGRAMS = ("dropbear-bin", "e2fsprogs")
# Taken alone: statically linked, or only data and a tool of the build.
ALONE = ("busybox-static", "syslinux", "syslinux-common")

DOWNLOAD_SECONDS_MAX = 600
QUERY_SECONDS_MAX = 60
UNPACK_SECONDS_MAX = 120

LOCK_NAME = "packages.json"
APT_REMEDY = "Run 'apt-get update' and check that this machine reaches its Debian mirror."


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageFile:
    """One downloaded package."""

    name: str
    version: str
    path: Path


def packages_ensure(cache: Path, *, progress: Callable[[str], None]) -> tuple[PackageFile, ...]:
    """The packages, from the cache alone if it is whole; deleting the cache renews them."""
    cached = _lock_read(cache)
    if cached is not None:
        progress(f"Using {len(cached)} cached Debian packages")
        return cached
    names = sorted({_kernel_name(), *ALONE, *_with_libraries()})
    progress(f"Downloading {len(names)} Debian packages")
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=cache) as folder:
        tool_run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", *names],
            cwd=Path(folder),
            timeout_seconds=DOWNLOAD_SECONDS_MAX,
            remedy=APT_REMEDY,
        )
        files = [path.replace(cache / path.name) for path in sorted(Path(folder).glob("*.deb"))]
    packages = tuple(_package_named(path) for path in files)
    missing = set(names) - {package.name for package in packages}
    if missing:
        raise ApplianceFailed(
            f"These packages were not downloaded: {', '.join(sorted(missing))}.",
            remedy=APT_REMEDY,
        )
    _lock_write(cache, packages)
    return packages


def package_unpack(package: PackageFile, into: Path) -> None:
    """Leave the package's files in the folder, without installing anything."""
    tool_run(
        ["dpkg-deb", "--extract", str(package.path), str(into)],
        timeout_seconds=UNPACK_SECONDS_MAX,
        remedy="The file may be damaged: delete the cache and build again.",
    )


def _kernel_name() -> str:
    """The package that the metapackage stands for today."""
    text = tool_run(
        ["apt-cache", "depends", KERNEL], timeout_seconds=QUERY_SECONDS_MAX, remedy=APT_REMEDY
    )
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", text)
    if found is None:
        raise ApplianceFailed(f"The package {KERNEL} names no kernel.", remedy=APT_REMEDY)
    return found.group(1)


def _with_libraries() -> set[str]:
    ignored = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    text = tool_run(
        ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in ignored), *PROGRAMS],
        timeout_seconds=QUERY_SECONDS_MAX,
        remedy=APT_REMEDY,
    )
    names = {line.strip() for line in text.splitlines() if re.match(r"[a-z0-9]", line)}
    libraries = {name for name in names if name.startswith(("lib", "zlib1g")) and ":" not in name}
    return libraries.union(PROGRAMS)


def _package_named(path: Path) -> PackageFile:
    """The package in a file that apt named: NAME_VERSION_ARCHITECTURE.deb."""
    name, version, _ = path.name.split("_")
    return PackageFile(name=name, version=unquote(version), path=path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock_write(cache: Path, packages: tuple[PackageFile, ...]) -> None:
    lock = {package.path.name: _sha256(package.path) for package in packages}
    part = cache / f"{LOCK_NAME}.part"
    part.write_text(json.dumps(lock, indent=2) + "\n")
    part.replace(cache / LOCK_NAME)


def _lock_read(cache: Path) -> tuple[PackageFile, ...] | None:
    """The cached packages; None if the cache is empty, partial or damaged."""
    try:
        lock = json.loads((cache / LOCK_NAME).read_text())
        whole = all(_sha256(cache / name) == digest for name, digest in lock.items())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return tuple(_package_named(cache / name) for name in sorted(lock)) if whole else None
