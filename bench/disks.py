"""How long does it take to make a root disk, by the size of its image?

    python -m bench.disks [--rounds 20]

FilesPool on ext4 (an overlay per disk), and on a loop-mounted XFS (a reflink per disk) where we
are root; beside it `cp --sparse=always` of the same image, which is what one would do by hand.
Images hold 10 MiB of data in all sizes, so that the copy is not slower for want of sparseness.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.common import Figure, directory, finish, machine_read, quantile, say
from stratus.drivers.volume.files import FilesPool
from stratus.model.ids import ImageId, VolumeId
from stratus.model.image import ImageFormat
from stratus.model.units import GIB, MIB
from stratus.model.volume import FromImage, VolumeSpec

SIZES: Final = (("10 MiB", 10 * MIB), ("1 GiB", GIB), ("10 GiB", 10 * GIB))
DATA_BYTES: Final = 10 * MIB
XFS_BYTES: Final = 40 * GIB  # sparse
GROWTH_MAX: Final = 2.0  # how much slower the largest image may be than the smallest


def image_write(path: Path, size: int) -> None:
    """Write a sparse file with some data spread over it."""
    pieces = 10
    with path.open("wb") as file:
        for number in range(pieces):
            file.seek(number * (size // pieces))
            file.write(os.urandom(DATA_BYTES // pieces))
        file.truncate(size)


def pool_fill(pool: FilesPool, image: Path, image_id: ImageId) -> None:
    """Put the image into the pool."""
    with image.open("rb") as stream:
        pool.image_stage(image_id, stream, offset=0, bytes_max=image.stat().st_size)
    pool.image_publish(image_id, format=ImageFormat.RAW, size_bytes=0, sha256="")


def disk_seconds(pool: FilesPool, image_id: ImageId, rounds: int) -> list[float]:
    """Make so many disks of this image; return how long each took."""
    took: list[float] = []
    for number in range(rounds):
        spec = VolumeSpec(
            id=VolumeId(f"vol-{image_id[4:]}{number:04}"),
            source=FromImage(image_id),
            size_bytes=0,
        )
        began = time.perf_counter()
        pool.ensure_volume(spec)
        took.append(time.perf_counter() - began)
        pool.ensure_volume_absent(spec.id)
    return took


def copy_seconds(image: Path, rounds: int) -> list[float]:
    """Copy the image as one would by hand, durably."""
    took: list[float] = []
    target = image.with_suffix(".copy")
    for _ in range(rounds):
        began = time.perf_counter()
        copy = ["cp", "--sparse=always", "--reflink=never", str(image), str(target)]
        subprocess.run(copy, check=True)
        subprocess.run(["sync", str(target)], check=True)
        took.append(time.perf_counter() - began)
        target.unlink()
    return took


@contextmanager
def xfs_lent(under: Path) -> Iterator[Path | None]:
    """Lend a file system that shares blocks between files; None where it cannot be mounted."""
    if os.geteuid() != 0:
        yield None
        return
    file, mount = under / "xfs.img", under / "xfs"
    with file.open("wb") as opened:
        opened.truncate(XFS_BYTES)
    mount.mkdir()
    made = subprocess.run(
        ["mkfs.xfs", "-q", "-m", "reflink=1", str(file)], capture_output=True, check=False
    )
    mounted = made.returncode == 0 and (
        subprocess.run(
            ["mount", "-o", "loop", str(file), str(mount)], capture_output=True, check=False
        ).returncode
        == 0
    )
    try:
        yield mount if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(mount)], check=True)


def measure(kind: str, place: Path, rounds: int) -> list[Figure]:
    """Measure one directory with every size."""
    pool = FilesPool(place / "pool")
    reflink = pool.probe().reflink
    how = "reflink" if reflink else "overlay"
    figures: list[Figure] = []
    first = 0.0
    for number, (word, size) in enumerate(SIZES):
        say(f"{kind}: {word}")
        image = place / "image.raw"
        image_write(image, size)
        image_id = ImageId(f"img-{number:012}")
        pool_fill(pool, image, image_id)
        took = quantile(disk_seconds(pool, image_id, rounds), 0.5)
        copied = quantile(copy_seconds(image, max(1, rounds // 4)), 0.5)
        first = first or took
        image.unlink()
        pool.ensure_image_absent(image_id)
        figures.append(
            Figure(
                what=f"{kind} ({how}): disk from {word}",
                value=round(1000 * took, 2),
                unit="ms",
                at_most=round(1000 * first * GROWTH_MAX, 2),
                note=f"cp --sparse: {1000 * copied:.1f} ms",
            )
        )
    pool.close()
    return figures


def main() -> None:
    """Measure the disk that is there, and one that shares blocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    machine = machine_read()
    notes = [f"A target is {GROWTH_MAX:g} times what the smallest image took there."]
    with directory() as place:
        (place / "pool").mkdir()
        kind = subprocess.run(
            ["stat", "-f", "-c", "%T", str(place)], capture_output=True, text=True, check=True
        ).stdout.strip()
        figures = measure(kind, place, asked.rounds)
        with xfs_lent(place) as mount:
            if mount is None:
                notes.append("No XFS could be mounted here, so reflinks were not measured.")
            else:
                (mount / "pool").mkdir()
                figures += measure("xfs", mount, asked.rounds)
    finish("disks", __doc__, machine, figures, notes)


if __name__ == "__main__":
    main()
