"""How does a plain directory hold volumes and images? With files that QEMU opens itself.

A clone is a reflink where the file system can do it and the image is raw, and otherwise a qcow2
overlay on the image; both take the same time for any size of image. What lies where, and what
counts, is in pool_directory.py.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final, assert_never

from stratus.drivers.failure import DriverFailed
from stratus.drivers.refusal import refusals
from stratus.drivers.volume.contract import Grant, ImageFound, PoolFacts, VolumeFound
from stratus.drivers.volume.effects import (
    PRIVATE_MODE,
    PUBLISHED_MODE,
    Effects,
    Hook,
    nothing_after,
)
from stratus.drivers.volume.locks import qemu_holds
from stratus.drivers.volume.pool_directory import PoolDirectory, VolumeRecord, data_lost
from stratus.drivers.volume.qcow2 import HEAD_BYTES, image_flaw, qcow2_virtual_bytes
from stratus.drivers.volume.qemu_img import overlay_create, qcow2_examine, swap_write
from stratus.drivers.volume.rules import (
    blocks_up,
    clone_bytes,
    fence_impossible,
    image_broken,
    image_conflict,
    image_missing,
    image_used,
    made_differently,
    mismatch,
    nothing_staged,
    parent_of,
    size_refusal,
    virtual_flaw,
    volume_missing,
    volume_open,
)
from stratus.drivers.volume.seed import seed_image
from stratus.drivers.volume.staging import Staged, bytes_append, bytes_staged, stored_digests
from stratus.model.ids import ImageId, VolumeId
from stratus.model.image import ImageFormat
from stratus.model.units import MIB
from stratus.model.volume import (
    Blank,
    DiskConnection,
    FileDisk,
    FromImage,
    SeedFiles,
    SwapArea,
    VolumeSpec,
)

POOL_FREE_BYTES_MIN: Final = 512 * MIB  # kept free for what guests write into their clones
STAT_BLOCK_BYTES: Final = 512  # stat(2), st_blocks


class FilesPool:
    """One directory as a pool; several processes may work on it at once."""

    def __init__(
        self,
        directory: Path,
        *,
        owner: tuple[int, int] | None = None,
        create: bool = True,
        free_bytes_min: int = POOL_FREE_BYTES_MIN,
        after: Hook = nothing_after,
    ) -> None:
        """Open the pool, and with `create` make it where there is none yet.

        `owner` is the user and group that volumes are given to; needed only where the
        hypervisor does not take ownership of disks by itself.
        """
        self.owner = owner
        self.free_bytes_min = free_bytes_min
        self._effects = Effects(after)
        self._place = PoolDirectory(directory, self._effects)
        with refusals(f"Opening the pool {directory}"):
            if create:
                self._place.ensure_made()
            self._place.reach()
            self._place.garbage_collect()
            self._reflink = self._place.reflink_probe()

    @property
    def directory(self) -> Path:
        """The directory that is this pool."""
        return self._place.path

    # -- facts ---------------------------------------------------------------------------------

    def probe(self) -> PoolFacts:
        """Try a reflink and ask the file system for its space."""
        with self._reached("Probing the pool"):
            self._reflink = self._place.reflink_probe()
            space = os.statvfs(self.directory)
        return PoolFacts(
            name=f"files:{self.directory}",
            clones_are_instant=True,
            reflink=self._reflink,
            fence="local",
            total_bytes=space.f_blocks * space.f_frsize,
            free_bytes=max(0, space.f_bavail * space.f_frsize - self.free_bytes_min),
        )

    def inventory(self) -> tuple[Sequence[VolumeFound], Sequence[ImageFound]]:
        """Read the records of everything whose data is there."""
        with self._reached("Listing the pool"):
            shown = (self._volume_shown(record) for record in self._place.all_volumes())
            volumes = [found for found in shown if found is not None]
            images = self._place.all_images()
            # Asked again: a directory that vanished underneath the listing looks empty.
            self._place.reach()
        return volumes, images

    # -- images --------------------------------------------------------------------------------

    def image_bytes_staged(self, image_id: ImageId) -> int:
        """How long the staged file is."""
        with self._reached(f"Looking for image {image_id}"):
            if self._place.image(image_id) is not None:
                return 0
            return bytes_staged(self._place.staged_path(image_id))

    def image_stage(
        self, image_id: ImageId, stream: BinaryIO, *, offset: int, bytes_max: int
    ) -> int:
        """Append to the staged file; at most one caller at a time."""
        with self._importing(image_id, f"Storing image {image_id}"):
            self._room_require(f"image {image_id}")
            staged = bytes_append(
                self._place.staged_path(image_id),
                stream,
                offset=offset,
                bytes_max=bytes_max,
                settled=lambda: self._room_require(f"image {image_id}"),
            )
            self._effects.after(f"stage {image_id}")
            return staged

    def image_publish(
        self, image_id: ImageId, *, format: ImageFormat, size_bytes: int, sha256: str
    ) -> ImageFound:
        """Verify the staged file and give it its published name."""
        with self._importing(image_id, f"Publishing image {image_id}"):
            image = self._place.image(image_id)
            if image is not None:
                conflict = image_conflict(image, format, size_bytes, sha256)
                if conflict is not None:
                    raise conflict
            else:
                image = self._image_verify(image_id, format, size_bytes, sha256)
                with self._place.held(image_id):
                    self._image_publish(image)
            self._effects.unlink(self._place.staged_path(image_id))
            return image

    def ensure_image_absent(self, image_id: ImageId) -> None:
        """Remove record, data and staged bytes, in this order."""
        with (
            self._importing(image_id, f"Removing image {image_id}"),
            self._place.held(image_id),
        ):
            records = self._place.all_volumes()
            clones = [record.spec.id for record in records if parent_of(record.spec) == image_id]
            if clones:
                raise image_used(image_id, clones)
            self._place.remove(self._place.images, image_id)
            self._effects.unlink(self._place.staged_path(image_id))
            self._effects.directory_settle(self._place.staging)

    def _image_verify(
        self, image_id: ImageId, format: ImageFormat, size_bytes: int, sha256: str
    ) -> ImageFound:
        """Judge the staged bytes; those that fail are removed."""
        path = self._place.staged_path(image_id)
        if not path.exists():
            raise nothing_staged(image_id)
        self._effects.file_settle(path, mode=PUBLISHED_MODE)
        staged = stored_digests(path, head_bytes=HEAD_BYTES)
        refusal = mismatch(staged.digests, size_bytes, sha256)
        refusal = refusal or _broken(path, staged, format)
        if refusal is not None:
            self._effects.unlink(path)
            self._effects.directory_settle(self._place.staging)
            raise refusal
        virtual_bytes = staged.digests.size_bytes
        if format is ImageFormat.QCOW2:
            virtual_bytes = qcow2_virtual_bytes(staged.head)
        return ImageFound(
            id=image_id,
            format=format,
            digests=staged.digests,
            virtual_bytes=blocks_up(virtual_bytes),
        )

    def _image_publish(self, image: ImageFound) -> None:
        self._place.leftovers_remove(self._place.images, image.id)
        # Linked, not renamed: until the record is there, the staged name still counts.
        self._effects.link(self._place.staged_path(image.id), self._place.image_path(image))
        self._place.image_record_publish(image)

    # -- volumes -------------------------------------------------------------------------------

    def ensure_volume(self, spec: VolumeSpec) -> VolumeFound:
        """Make the volume unless its record is there."""
        with self._reached(f"Making volume {spec.id}"), self._place.held(spec.id):
            record = self._place.volume(spec.id)
            if record is None:
                record = self._volume_make(spec)
            elif record.spec != spec:
                raise made_differently(record.spec, spec)
            found = self._volume_shown(record)
            if found is None:
                raise data_lost(self._place.volume_path(record))
            return found

    def ensure_volume_absent(self, volume_id: VolumeId) -> None:
        """Remove record, then data, unless QEMU has the data open."""
        with self._reached(f"Removing volume {volume_id}"), self._place.held(volume_id):
            data = self._place.data_paths(self._place.volumes, volume_id)
            if any(qemu_holds(path) for path in data):
                raise volume_open(volume_id)
            self._place.remove(self._place.volumes, volume_id)

    def connect(self, volume_id: VolumeId, grant: Grant) -> DiskConnection:
        """Name the file; QEMU's own lock on it keeps a second writer out."""
        with self._reached(f"Connecting volume {volume_id} for {grant.instance_id}"):
            record = self._place.volume(volume_id)
            if record is None:
                raise volume_missing(volume_id)
            path = self._place.volume_path(record)
            if not path.exists():
                raise data_lost(path)
            return FileDisk(path=str(path), format=record.format)

    def disconnect(self, volume_id: VolumeId, grant: Grant) -> None:
        """Do nothing: the path ends with the QEMU process."""

    def fence(self, volume_id: VolumeId, *, epoch: int) -> None:
        """Refuse always: only the host itself can close its files."""
        raise fence_impossible(volume_id, epoch)

    def close(self) -> None:
        """Do nothing: no handle is kept between calls."""

    def _volume_make(self, spec: VolumeSpec) -> VolumeRecord:
        refusal = size_refusal(spec)
        if refusal is not None:
            raise refusal
        self._room_require(f"volume {spec.id}")
        self._place.leftovers_remove(self._place.volumes, spec.id)
        with self._parent_held(spec):
            try:
                return self._volume_publish(spec)
            except Exception:
                if self._place.volume(spec.id) is None:
                    self._place.leftovers_remove(self._place.volumes, spec.id)
                raise

    def _volume_publish(self, spec: VolumeSpec) -> VolumeRecord:
        part = self._place.work_path(spec.id)
        record = self._data_write(spec, part)
        self._effects.after(f"write {part.name}")
        size_bytes = record.size_bytes if record.format == ImageFormat.RAW else 0
        self._effects.file_settle(part, mode=PRIVATE_MODE, size_bytes=size_bytes, owner=self.owner)
        self._effects.rename(part, self._place.volume_path(record))
        self._place.volume_record_publish(record)
        return record

    def _data_write(self, spec: VolumeSpec, part: Path) -> VolumeRecord:
        """Write the first content of a volume, not yet durable."""
        match spec.source:
            case FromImage(image_id):
                return self._clone_write(spec, image_id, part)
            case Blank():
                self._effects.file_create(part)
                return _raw_record(spec, spec.size_bytes)
            case SwapArea():
                self._effects.file_create(part)
                os.truncate(part, spec.size_bytes)
                swap_write(part)
                return _raw_record(spec, spec.size_bytes)
            case SeedFiles(label, files):
                content = seed_image(label, files)
                self._effects.file_create(part, content)
                return _raw_record(spec, max(blocks_up(len(content)), spec.size_bytes))
            case other:
                assert_never(other)

    def _clone_write(self, spec: VolumeSpec, image_id: ImageId, part: Path) -> VolumeRecord:
        image = self._place.image(image_id)
        if image is None:
            raise image_missing(image_id)
        source = self._place.image_path(image)
        size_bytes = clone_bytes(spec, image.virtual_bytes)
        if self._reflink and image.format is ImageFormat.RAW:
            self._effects.file_clone(source, part)
            return _raw_record(spec, size_bytes)
        # Relative, so that the pool may be mounted elsewhere on another host.
        backing = Path("..") / source.parent.name / source.name
        overlay_create(part, backing=backing, backing_format=image.format, size_bytes=size_bytes)
        return VolumeRecord(spec=spec, size_bytes=size_bytes, format=ImageFormat.QCOW2.value)

    def _volume_shown(self, record: VolumeRecord) -> VolumeFound | None:
        """The volume as it is now; None when its data is not there."""
        try:
            facts = self._place.volume_path(record).stat()
        except FileNotFoundError:
            return None
        return VolumeFound(
            id=record.spec.id,
            size_bytes=record.size_bytes,
            format=record.format,
            allocated_bytes=facts.st_blocks * STAT_BLOCK_BYTES,
            parent=parent_of(record.spec),
        )

    # -- the ways in ---------------------------------------------------------------------------

    def _parent_held(self, spec: VolumeSpec) -> AbstractContextManager[None]:
        """Keep the image from going until the record names it as the parent."""
        parent = parent_of(spec)
        return self._place.held(parent, shared=True) if parent else nullcontext()

    def _room_require(self, wanted_for: str) -> None:
        self._place.room_require(wanted_for, free_bytes_min=self.free_bytes_min)

    @contextmanager
    def _reached(self, doing: str) -> Iterator[None]:
        with refusals(doing):
            self._place.reach()
            yield

    @contextmanager
    def _importing(self, image_id: ImageId, doing: str) -> Iterator[None]:
        with self._reached(doing), self._place.import_held(image_id):
            yield


def _broken(path: Path, staged: Staged, format: ImageFormat) -> DriverFailed | None:
    """Say why these staged bytes are no usable image of this format; None when they are."""
    flaw = image_flaw(staged.head, format=format, size_bytes=staged.digests.size_bytes)
    if flaw is None and format is ImageFormat.QCOW2:
        flaw = virtual_flaw(qcow2_virtual_bytes(staged.head)) or qcow2_examine(path)
    return image_broken(flaw) if flaw else None


def _raw_record(spec: VolumeSpec, size_bytes: int) -> VolumeRecord:
    return VolumeRecord(spec=spec, size_bytes=size_bytes, format=ImageFormat.RAW.value)
