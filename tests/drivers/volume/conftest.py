"""File systems to try pools on: the machine's own, and small ones mounted for the run."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stratus.model.units import MIB

FILE_SYSTEMS = {"xfs": (300 * MIB, ["mkfs.xfs", "-q"]), "btrfs": (128 * MIB, ["mkfs.btrfs", "-q"])}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool and bring back what it said."""
    return subprocess.run(
        [str(one) for one in arguments], capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def mounted(*arguments: str | Path, on: Path) -> Iterator[Path]:
    """Mount something for a while; skips the test where this machine does not let us."""
    on.mkdir(exist_ok=True)
    done = run("mount", *arguments, on)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield on
    finally:
        assert run("umount", on).returncode == 0


@pytest.fixture(scope="session", params=["xfs", pytest.param("btrfs", marks=pytest.mark.slow)])
def reflink_directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A file system with reflink, of 300 MiB or less, for the whole run."""
    size_bytes, make = FILE_SYSTEMS[request.param]
    base = tmp_path_factory.mktemp(request.param)
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    try:
        made = run(*make, image)
    except FileNotFoundError:
        pytest.skip(f"{make[0]} is not installed")
    assert made.returncode == 0, made.stderr
    with mounted("-o", "loop", image, on=base / "mnt") as directory:
        yield directory


@pytest.fixture
def tiny_directory(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB that really fills up."""
    with mounted("-t", "tmpfs", "-o", "size=4M", "tmpfs", on=tmp_path / "tiny") as directory:
        yield directory
