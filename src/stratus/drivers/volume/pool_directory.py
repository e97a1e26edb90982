"""Where in its directory does a pool keep what, and which of it counts?

    pool.json             marks the directory as a pool; without it the pool does not answer
    images/ID.FORMAT      mode 0444; published when its record, images/ID.json, is there
    volumes/ID.FORMAT     mode 0600; volumes/ID.json likewise
    staging/ID.part       a prefix of an image that is being imported
    work/ID.NONCE         unfinished; garbage unless somebody holds the lock of ID
    locks                 one byte for each id (see locks.py)

A record is made by one rename, after its data and on the way to nothing before it. Whatever has
no record is garbage: it is ignored, and collected when a pool is opened or its id is used again.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from stratus.drivers.failure import DriverFailed
from stratus.drivers.refusal import failed, no_space, unreachable
from stratus.drivers.volume.contract import ImageFound
from stratus.drivers.volume.effects import PRIVATE_MODE, Effects, reflink_works
from stratus.drivers.volume.locks import WAIT_SECONDS_MAX, IdLocks
from stratus.model.ids import ImageId, VolumeId
from stratus.model.image import ImageFormat
from stratus.model.units import size_text
from stratus.model.volume import VolumeSpec

OPEN_DIRECTORY_MODE: Final = 0o711  # QEMU passes through, nobody lists
CLOSED_DIRECTORY_MODE: Final = 0o700
FILE_NAME_PATTERN: Final = re.compile(r"^[a-z0-9][a-z0-9-]{0,63}\Z")
FORMATS: Final = tuple(format.value for format in ImageFormat)
MARKER: Final = b'{"pool": "files", "version": 1}\n'


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the data of a volume."""

    spec: VolumeSpec
    size_bytes: int
    format: str


Record = TypeVar("Record", VolumeRecord, ImageFound)


class _Cached(msgspec.Struct, frozen=True):
    """A record and the file it was read from; records never change in place."""

    inode: int
    changed_ns: int
    record: VolumeRecord


class PoolDirectory:
    """The names, records, locks and leftovers of one pool."""

    def __init__(self, path: Path, effects: Effects) -> None:
        self.path = path.absolute()
        self.effects = effects
        self.images = self.path / "images"
        self.volumes = self.path / "volumes"
        self.staging = self.path / "staging"
        self.work = self.path / "work"
        self._marker = self.path / "pool.json"
        self._locks = IdLocks(self.path / "locks")
        self._cache: dict[str, _Cached] = {}

    # -- the whole -----------------------------------------------------------------------------

    def ensure_made(self) -> None:
        """Make the directories and, last of all, the marker; repeating it changes nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._locks.held("pool"):
            if self._marker.exists():
                return
            for directory, mode in (
                (self.path, OPEN_DIRECTORY_MODE),
                (self.images, OPEN_DIRECTORY_MODE),
                (self.volumes, OPEN_DIRECTORY_MODE),
                (self.staging, CLOSED_DIRECTORY_MODE),
                (self.work, CLOSED_DIRECTORY_MODE),
            ):
                directory.mkdir(exist_ok=True)
                directory.chmod(mode)
            self._publish(self._marker, "pool", MARKER)

    def reach(self) -> None:
        """Fail unless the pool is there: an unmounted directory is empty, and proves nothing."""
        if not self._marker.exists():
            raise unreachable(
                "volume_failed",
                f"{self.path} is not (or no longer) a pool: {self._marker.name} is missing.",
                remedy="Mount the pool's file system there.",
            )

    def room_require(self, wanted_for: str, *, free_bytes_min: int) -> None:
        """Refuse when the file system has less than this left."""
        space = os.statvfs(self.path)
        free_bytes = space.f_bavail * space.f_frsize
        if free_bytes < free_bytes_min:
            raise no_space(
                f"No room for {wanted_for}: {size_text(free_bytes)} are free,"
                f" and {size_text(free_bytes_min)} are kept in reserve."
            )

    def reflink_probe(self) -> bool:
        """Tell whether files can share extents here."""
        with self._locks.held("probe"):
            return reflink_works(self.work, f"probe.{_nonce()}")

    def held(
        self, name: str, *, shared: bool = False, wait_seconds: float = WAIT_SECONDS_MAX
    ) -> AbstractContextManager[None]:
        """Hold the lock of this volume or published image."""
        return self._locks.held(name, shared=shared, wait_seconds=wait_seconds)

    def import_held(self, image_id: ImageId) -> AbstractContextManager[None]:
        """Be the only importer of this image; others are told to come back, not to wait."""
        return self._locks.held(f"{image_id}.part", wait_seconds=0)

    # -- names ---------------------------------------------------------------------------------

    def volume_path(self, record: VolumeRecord) -> Path:
        """Where the data of a volume lies."""
        return self.volumes / f"{record.spec.id}.{record.format}"

    def image_path(self, image: ImageFound) -> Path:
        """Where the data of an image lies."""
        return self.images / f"{image.id}.{image.format.value}"

    def staged_path(self, image_id: ImageId) -> Path:
        """Where the bytes of an import lie."""
        return self.staging / f"{_file_name(image_id)}.part"

    def work_path(self, name: str) -> Path:
        """Return a name that nobody uses, for an unfinished file."""
        return self.work / f"{_file_name(name)}.{_nonce()}"

    def data_paths(self, directory: Path, name: str) -> list[Path]:
        """The data files of this id, with or without a record."""
        paths = (directory / f"{_file_name(name)}.{format}" for format in FORMATS)
        return [path for path in paths if path.exists()]

    # -- records -------------------------------------------------------------------------------

    def volume(self, volume_id: VolumeId) -> VolumeRecord | None:
        """The record of a volume; None when there is no such volume."""
        return _read(_record_path(self.volumes, volume_id), VolumeRecord)

    def image(self, image_id: ImageId) -> ImageFound | None:
        """The record of a published image; None when there is none, or its data is gone."""
        image = _read(_record_path(self.images, image_id), ImageFound)
        return image if image and self.image_path(image).exists() else None

    def all_volumes(self) -> list[VolumeRecord]:
        """Every volume's record in the order of ids; unchanged ones are not read again."""
        kept: dict[str, _Cached] = {}
        for name in sorted(_record_names(self.volumes)):
            path = _record_path(self.volumes, name)
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # removed since the directory was read
            cached = self._cache.get(name)
            if cached is None or (cached.inode, cached.changed_ns) != (
                facts.st_ino,
                facts.st_ctime_ns,
            ):
                record = _read(path, VolumeRecord)
                if record is None:
                    continue
                cached = _Cached(facts.st_ino, facts.st_ctime_ns, record)
            kept[name] = cached
        self._cache = kept
        return [cached.record for cached in kept.values()]

    def all_images(self) -> list[ImageFound]:
        """Every published image in the order of ids."""
        found = (self.image(ImageId(name)) for name in sorted(_record_names(self.images)))
        return [image for image in found if image is not None]

    def volume_record_publish(self, record: VolumeRecord) -> None:
        """Make the volume count; its data must be in place and durable."""
        target = _record_path(self.volumes, record.spec.id)
        self._publish(target, record.spec.id, msgspec.json.encode(record))

    def image_record_publish(self, image: ImageFound) -> None:
        """Make the image count; its data must be in place and durable."""
        self._publish(_record_path(self.images, image.id), image.id, msgspec.json.encode(image))

    def remove(self, directory: Path, name: str) -> None:
        """Remove record, data and unfinished files of this id, whose lock the caller holds."""
        self.effects.unlink(_record_path(directory, name))
        self.leftovers_remove(directory, name)
        self.effects.directory_settle(directory)

    def leftovers_remove(self, directory: Path, name: str) -> None:
        """Remove the files of this id that have no record; the caller holds its lock."""
        for path in self.data_paths(directory, name):
            self.effects.unlink(path)
        for path in self.work.glob(f"{_file_name(name)}.*"):
            self.effects.unlink(path)

    def _publish(self, target: Path, name: str, content: bytes) -> None:
        part = self.work_path(name)
        self.effects.file_create(part, content)
        self.effects.file_settle(part, mode=PRIVATE_MODE)
        self.effects.rename(part, target)
        self.effects.directory_settle(target.parent)

    # -- garbage -------------------------------------------------------------------------------

    def garbage_collect(self) -> None:
        """Remove what a crash left and nobody works on; staged bytes of imports are kept."""
        for path in self.work.iterdir():
            self._garbage_remove(path, record=None)
        for directory in (self.images, self.volumes):
            for path in directory.iterdir():
                if path.suffix != ".json":
                    self._garbage_remove(path, record=path.with_suffix(".json"))
        for path in self.staging.glob("*.part"):
            if _record_path(self.images, path.stem).exists():
                self._garbage_remove(path, record=None)

    def _garbage_remove(self, path: Path, *, record: Path | None) -> None:
        """Remove a file that has no record, unless somebody works on its id."""
        if record is not None and record.exists():
            return
        name = path.name.partition(".")[0]
        try:
            with (
                self._locks.held(f"{name}.part", wait_seconds=0),
                self._locks.held(name, wait_seconds=0),
            ):
                if record is None or not record.exists():
                    self.effects.unlink(path)
        except DriverFailed:
            return  # it is at work, so it is no garbage


def data_lost(path: Path) -> DriverFailed:
    """The refusal when a volume has a record but no data: it is never begun anew in silence."""
    return failed(
        "volume_failed",
        f"The data of this volume, {path}, is gone, although nobody asked for that.",
        remedy="Restore the file from a backup, or delete the volume.",
    )


def _record_path(directory: Path, name: str) -> Path:
    return directory / f"{_file_name(name)}.json"


def _record_names(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                yield entry.name.removesuffix(".json")


def _read(path: Path, type: type[Record]) -> Record | None:
    """Read one record; a damaged one stops the caller, because guessing could lose data."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=type)
    except msgspec.MsgspecError as error:
        raise failed(
            "volume_failed",
            f"The record {path} is damaged: {error}",
            remedy="Check the file system, then restore this file from a backup.",
        ) from error


def _nonce() -> str:
    return os.urandom(6).hex()


def _file_name(name: str) -> str:
    """Assert that an id is also a harmless file name."""
    assert FILE_NAME_PATTERN.match(name), name
    return name
