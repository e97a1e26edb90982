"""Where do bytes wait that users send through the API? In one file per image, grown piece by piece.

The directory is shared by the role that receives (API) and the role that fills pools. A piece is
safe when `append` returns; whatever breaks in the middle, the bytes before it count.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from stratus.drivers.failure import DriverFailed
from stratus.drivers.refusal import failed, no_space, refusals
from stratus.model.ids import ImageId
from stratus.model.limits import IMAGE_BYTES_MAX
from stratus.model.units import MIB, size_text

UPLOAD_FREE_BYTES_MIN: Final = 512 * MIB
SETTLE_BYTES: Final = 64 * MIB
NAME_PATTERN: Final = re.compile(r"^[a-z0-9][a-z0-9-]{0,63}\Z")


class UploadStore:
    """The uploads of one control plane; safe for several threads and processes."""

    def __init__(self, directory: Path, *, free_bytes_min: int = UPLOAD_FREE_BYTES_MIN) -> None:
        """Use this directory, and make it where there is none."""
        self.directory = directory.absolute()
        self.free_bytes_min = free_bytes_min
        with refusals(f"Opening the uploads in {directory}"):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def size(self, image_id: ImageId) -> int:
        """How many bytes are there; 0 when none are."""
        with refusals(f"Looking for the upload of {image_id}"):
            try:
                return self._path(image_id).stat().st_size
            except FileNotFoundError:
                return 0

    def append(
        self,
        image_id: ImageId,
        offset: int,
        chunks: Iterable[bytes],
        *,
        bytes_max: int = IMAGE_BYTES_MAX,
    ) -> int:
        """Add the chunks behind the bytes that are there; return how many there are now.

        Refuses with `conflict` unless `offset` is where those end (the context tells where), and
        with `body_too_large` beyond `bytes_max`, keeping nothing beyond it.
        """
        with refusals(f"Storing the upload of {image_id}"), self._writing(image_id) as handle:
            at = os.fstat(handle).st_size
            if at == 0:
                self._settle()
            if offset != at:
                raise failed(
                    "conflict",
                    f"{at} bytes of {image_id} are here; yours begin at byte {offset}.",
                    remedy=f"Go on from byte {at}.",
                    bytes_now=at,
                )
            try:
                return self._copy(chunks, handle, at=at, bytes_max=bytes_max)
            finally:
                os.fsync(handle)

    def open(self, image_id: ImageId) -> BinaryIO:
        """Return the bytes that are there, to read from any place."""
        with refusals(f"Reading the upload of {image_id}"):
            try:
                return self._path(image_id).open("rb")
            except FileNotFoundError as error:
                raise failed(
                    "image_not_ready",
                    f"Nothing was uploaded for {image_id} yet.",
                    remedy="Upload the image first.",
                    transient=True,
                ) from error

    def remove(self, image_id: ImageId) -> None:
        """Leave no bytes of this upload."""
        with refusals(f"Removing the upload of {image_id}"):
            self._path(image_id).unlink(missing_ok=True)
            self._settle()

    def ids(self) -> list[ImageId]:
        """Name every upload of which there are bytes, so that forgotten ones can be removed."""
        with refusals(f"Listing the uploads in {self.directory}"):
            return sorted(ImageId(path.stem) for path in self.directory.glob("*.part"))

    def _copy(self, chunks: Iterable[bytes], handle: int, *, at: int, bytes_max: int) -> int:
        self._room_require()
        durable = at
        for chunk in chunks:
            rest = memoryview(chunk)[: bytes_max - at]
            at += len(rest)
            excess = len(chunk) - len(rest)
            while rest:
                rest = rest[os.write(handle, rest) :]
            if excess:
                raise _oversized(bytes_max)
            if at - durable >= SETTLE_BYTES:
                os.fsync(handle)
                durable = at
                self._room_require()
        return at

    @contextmanager
    def _writing(self, image_id: ImageId) -> Iterator[int]:
        """Be the only writer of this upload; its file is there, perhaps empty."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        handle = os.open(self._path(image_id), flags, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _busy(image_id) from error
            if os.fstat(handle).st_nlink == 0:
                raise _busy(image_id)  # removed between opening and locking
            yield handle
        finally:
            os.close(handle)

    def _room_require(self) -> None:
        space = os.statvfs(self.directory)
        free_bytes = space.f_bavail * space.f_frsize
        if free_bytes < self.free_bytes_min:
            raise no_space(
                f"No room for uploads: {size_text(free_bytes)} are free,"
                f" and {size_text(self.free_bytes_min)} are kept in reserve."
            )

    def _settle(self) -> None:
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _path(self, image_id: ImageId) -> Path:
        assert NAME_PATTERN.match(image_id), image_id
        return self.directory / f"{image_id}.part"


def _busy(image_id: ImageId) -> DriverFailed:
    return failed(
        "in_use",
        f"Another upload of {image_id} is under way.",
        remedy="Wait until it ends, then ask how many bytes are here and go on.",
        transient=True,
    )


def _oversized(bytes_max: int) -> DriverFailed:
    return failed(
        "body_too_large",
        f"The image has more than {size_text(bytes_max)} ({bytes_max} bytes).",
        remedy="Check the file, or ask your administrator for a higher limit.",
    )
