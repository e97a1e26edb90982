"""What would a pool do? An honest one in memory: it fills up, stops answering, and keeps its word.

`FakePoolState` is the storage and outlives its drivers; `FakePool` is one driver on it, so making
a second one is what a restarted worker does. Every operation costs the same however many volumes
there are, except those that list them.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final

import msgspec

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.refusal import failed, no_space, unreachable
from stratus.drivers.volume.contract import Grant, ImageFound, PoolFacts, VolumeFound
from stratus.drivers.volume.effects import Hook, nothing_after
from stratus.drivers.volume.qcow2 import HEAD_BYTES, image_flaw, qcow2_virtual_bytes
from stratus.drivers.volume.rules import (
    blocks_up,
    clone_bytes,
    fence_impossible,
    grant_outdated,
    image_broken,
    image_conflict,
    image_missing,
    image_oversized,
    image_used,
    importer_busy,
    made_differently,
    mismatch,
    nothing_staged,
    parent_of,
    size_refusal,
    staged_gap,
    virtual_flaw,
    volume_missing,
    volume_open,
)
from stratus.model.ids import ImageId, VolumeId
from stratus.model.image import Digests, ImageFormat
from stratus.model.problem import Problem
from stratus.model.units import GIB, KIB, MIB, size_text
from stratus.model.volume import DiskConnection, FileDisk, SeedFiles, VolumeSpec

SEED_BYTES: Final = 68 * KIB  # what a small ISO 9660 medium takes
VOLUME_COST_BYTES: Final = 200 * KIB  # what an empty overlay takes
CHUNK_BYTES: Final = 1 * MIB


class PoolDelays(msgspec.Struct, kw_only=True):
    """How many seconds each kind of call takes; handed to the injected `sleep`."""

    look: float = 0.0
    make: float = 0.0
    remove: float = 0.0
    stage: float = 0.0  # for each piece of the stream
    publish: float = 0.0


class PoolFaults(msgspec.Struct, kw_only=True):
    """What goes wrong from now on; tests and the simulator turn these at will."""

    unreachable: bool = False
    no_space: bool = False  # whatever needs room is refused
    lose_replies: int = 0  # the next N changes take effect, but the answer is lost
    refuse: Problem | None = None  # every change is refused with this
    failed_makes: int = 0  # the next N volumes are refused, for once


class FakePoolState:
    """The storage itself: its volumes, images, and troubles."""

    def __init__(
        self,
        *,
        name: str = "fake",
        total_bytes: int = 1024 * GIB,
        fences: bool = False,
        sleep: Callable[[float], None] | None = None,
        delays: PoolDelays | None = None,
        faults: PoolFaults | None = None,
    ) -> None:
        self.name = name
        self.total_bytes = total_bytes
        self.fences = fences
        self.sleep = sleep
        self.delays = delays or PoolDelays()
        self.faults = faults or PoolFaults()
        self.lock = threading.RLock()
        self.used_bytes = 0
        self.makes = 0  # how often any volume was made, for checkers
        self.removals = 0
        self._volumes: dict[VolumeId, VolumeFound] = {}
        self._specs: dict[VolumeId, VolumeSpec] = {}
        self._images: dict[ImageId, ImageFound] = {}
        self._staged: dict[ImageId, bytearray] = {}
        self._importing: set[ImageId] = set()
        self._clones: dict[ImageId, set[VolumeId]] = {}
        self._holders: dict[VolumeId, set[str]] = {}
        self._fenced: dict[VolumeId, int] = {}

    # -- what a checker asks, and what guests do -----------------------------------------------

    def volume(self, volume_id: VolumeId) -> VolumeFound | None:
        """Return one volume, without going through a driver."""
        with self.lock:
            return self._volumes.get(volume_id)

    def volume_ids(self) -> list[VolumeId]:
        """Return the ids of all volumes, for a checker of leaks."""
        with self.lock:
            return list(self._volumes)

    def image(self, image_id: ImageId) -> ImageFound | None:
        """Return one published image, without going through a driver."""
        with self.lock:
            return self._images.get(image_id)

    def image_add(self, image: ImageFound) -> None:
        """Publish an image without any bytes, as an import that somebody did earlier."""
        with self.lock:
            self._images[image.id] = image
            self.used_bytes += image.digests.size_bytes

    def hold(self, volume_id: VolumeId, holder: str) -> None:
        """Let a guest have the volume open; while it does, the volume cannot be deleted."""
        with self.lock:
            self._holders.setdefault(volume_id, set()).add(holder)

    def release(self, volume_id: VolumeId, holder: str) -> None:
        """Let the guest close the volume."""
        with self.lock:
            holders = self._holders.get(volume_id, set())
            holders.discard(holder)
            if not holders:
                self._holders.pop(volume_id, None)

    # -- changes, with the lock held -----------------------------------------------------------

    def _room_take(self, size_bytes: int, wanted_for: str) -> None:
        free_bytes = self.total_bytes - self.used_bytes
        if self.faults.no_space or size_bytes > free_bytes:
            raise no_space(f"No room for {wanted_for}: {size_text(max(0, free_bytes))} are free.")
        self.used_bytes += size_bytes

    def _volume_put(self, spec: VolumeSpec, found: VolumeFound) -> None:
        self._volumes[spec.id] = found
        self._specs[spec.id] = spec
        self.makes += 1
        if found.parent is not None:
            self._clones.setdefault(found.parent, set()).add(spec.id)

    def _volume_drop(self, volume_id: VolumeId) -> None:
        found = self._volumes.pop(volume_id, None)
        if found is None:
            return
        del self._specs[volume_id]
        self._fenced.pop(volume_id, None)
        self.used_bytes -= found.allocated_bytes
        self.removals += 1
        if found.parent is not None:
            self._clones[found.parent].discard(volume_id)


class FakePool:
    """One driver on a FakePoolState."""

    def __init__(self, state: FakePoolState, *, after: Hook = nothing_after) -> None:
        self.state = state
        self._after = after

    def probe(self) -> PoolFacts:
        """Return what the state was made with."""
        with self._look() as state:
            full = state.faults.no_space
            return PoolFacts(
                name=state.name,
                clones_are_instant=True,
                reflink=False,
                fence="server" if state.fences else "local",
                total_bytes=state.total_bytes,
                free_bytes=0 if full else max(0, state.total_bytes - state.used_bytes),
            )

    def inventory(self) -> tuple[Sequence[VolumeFound], Sequence[ImageFound]]:
        """Return every volume and image of the state."""
        with self._look() as state:
            return tuple(state._volumes.values()), tuple(state._images.values())

    # -- images --------------------------------------------------------------------------------

    def image_bytes_staged(self, image_id: ImageId) -> int:
        """How many bytes were staged."""
        with self._look() as state:
            staged = state._staged.get(image_id)
            return len(staged) if staged else 0

    def image_stage(
        self, image_id: ImageId, stream: BinaryIO, *, offset: int, bytes_max: int
    ) -> int:
        """Keep the bytes of the stream; they cost memory, so tests use small images."""
        with self._importing(image_id):
            with self._reached() as state:
                staged = state._staged.setdefault(image_id, bytearray())
                if offset > len(staged):
                    raise staged_gap(len(staged), offset)
                state.used_bytes -= len(staged) - offset
                del staged[offset:]
            while chunk := stream.read(CHUNK_BYTES):
                self._take(self.state.delays.stage)
                allowed = chunk[: bytes_max - len(staged)]
                with self._reached() as state:
                    state._room_take(len(allowed), f"image {image_id}")
                    staged += allowed
                self._after(f"stage {image_id}")
                if len(allowed) < len(chunk):
                    raise image_oversized(bytes_max)
            with self._change(0.0):
                return len(staged)

    def image_publish(
        self, image_id: ImageId, *, format: ImageFormat, size_bytes: int, sha256: str
    ) -> ImageFound:
        """Verify the staged bytes and list the image."""
        with self._importing(image_id), self._change(self.state.delays.publish) as state:
            image = state._images.get(image_id)
            if image is not None:
                conflict = image_conflict(image, format, size_bytes, sha256)
                if conflict is not None:
                    raise conflict
                return image
            staged = state._staged.pop(image_id, None)
            if staged is None:
                raise nothing_staged(image_id)
            try:
                image = _verified(image_id, bytes(staged), format, size_bytes, sha256)
            except Exception:
                state.used_bytes -= len(staged)
                raise
            state._images[image_id] = image
            self._after(f"publish {image_id}")
            return image

    def ensure_image_absent(self, image_id: ImageId) -> None:
        """Forget the image and its staged bytes."""
        with self._importing(image_id), self._change(self.state.delays.remove) as state:
            clones = state._clones.get(image_id)
            if clones:
                raise image_used(image_id, sorted(clones))
            staged = state._staged.pop(image_id, None)
            state.used_bytes -= len(staged) if staged else 0
            image = state._images.pop(image_id, None)
            state.used_bytes -= image.digests.size_bytes if image else 0
            self._after(f"remove {image_id}")

    # -- volumes -------------------------------------------------------------------------------

    def ensure_volume(self, spec: VolumeSpec) -> VolumeFound:
        """List the volume unless it is there."""
        with self._change(self.state.delays.make) as state:
            found = state._volumes.get(spec.id)
            if found is not None:
                present = state._specs[spec.id]
                if present != spec:
                    raise made_differently(present, spec)
                return found
            found = self._volume_shape(state, spec)
            if state.faults.failed_makes > 0:
                state.faults.failed_makes -= 1
                raise failed(
                    "volume_failed",
                    f"The fake pool could not make volume {spec.id}.",
                    remedy="Nothing needs to be done: we try again.",
                    transient=True,
                )
            state._room_take(found.allocated_bytes, f"volume {spec.id}")
            state._volume_put(spec, found)
            self._after(f"make {spec.id}")
            return found

    def ensure_volume_absent(self, volume_id: VolumeId) -> None:
        """Forget the volume unless a guest holds it."""
        with self._change(self.state.delays.remove) as state:
            if state._holders.get(volume_id):
                raise volume_open(volume_id)
            state._volume_drop(volume_id)
            self._after(f"remove {volume_id}")

    def connect(self, volume_id: VolumeId, grant: Grant) -> DiskConnection:
        """Name a file that does not exist; a fenced epoch gets nothing."""
        with self._look() as state:
            found = state._volumes.get(volume_id)
            if found is None:
                raise volume_missing(volume_id)
            if grant.epoch <= state._fenced.get(volume_id, -1):
                raise grant_outdated(volume_id, grant.epoch)
            return FileDisk(path=f"/nonexistent/{volume_id}.{found.format}", format=found.format)

    def disconnect(self, volume_id: VolumeId, grant: Grant) -> None:
        """Do nothing: what a guest holds, `hold` and `release` of the state say."""

    def fence(self, volume_id: VolumeId, *, epoch: int) -> None:
        """Close the volume for this epoch, if the state was made to fence."""
        with self._change(0.0) as state:
            if not state.fences:
                raise fence_impossible(volume_id, epoch)
            state._fenced[volume_id] = max(epoch, state._fenced.get(volume_id, -1))
            state._holders.pop(volume_id, None)
            self._after(f"fence {volume_id}")

    def close(self) -> None:
        """Do nothing: the state stays."""

    # -- the ways in ---------------------------------------------------------------------------

    def _volume_shape(self, state: FakePoolState, spec: VolumeSpec) -> VolumeFound:
        """What this volume will be like, or why it cannot be."""
        refusal = size_refusal(spec)
        if refusal is not None:
            raise refusal
        parent = parent_of(spec)
        size_bytes, format, cost = spec.size_bytes, "raw", 0
        if parent is not None:
            image = state._images.get(parent)
            if image is None:
                raise image_missing(parent)
            size_bytes, format = clone_bytes(spec, image.virtual_bytes), "qcow2"
            cost = VOLUME_COST_BYTES
        elif isinstance(spec.source, SeedFiles):
            content = sum(len(text.encode()) for text in spec.source.files.values())
            cost = blocks_up(SEED_BYTES + content)
            size_bytes = max(cost, spec.size_bytes)
        return VolumeFound(
            id=spec.id, size_bytes=size_bytes, format=format, allocated_bytes=cost, parent=parent
        )

    @contextmanager
    def _look(self) -> Iterator[FakePoolState]:
        self._take(self.state.delays.look)
        with self._reached() as state:
            yield state

    @contextmanager
    def _change(self, seconds: float) -> Iterator[FakePoolState]:
        self._take(seconds)
        with self._reached() as state:
            if state.faults.refuse is not None:
                raise DriverFailed(state.faults.refuse)
            yield state
            if state.faults.lose_replies > 0:
                state.faults.lose_replies -= 1
                raise _silence(state)

    @contextmanager
    def _reached(self) -> Iterator[FakePoolState]:
        with self.state.lock:
            if self.state.faults.unreachable:
                raise _silence(self.state)
            yield self.state

    @contextmanager
    def _importing(self, image_id: ImageId) -> Iterator[None]:
        with self._reached() as state:
            if image_id in state._importing:
                raise importer_busy(image_id)
            state._importing.add(image_id)
        try:
            yield
        finally:
            with self.state.lock:
                self.state._importing.discard(image_id)

    def _take(self, seconds: float) -> None:
        if seconds > 0 and self.state.sleep is not None:
            self.state.sleep(seconds)


def _verified(
    image_id: ImageId, content: bytes, format: ImageFormat, size_bytes: int, sha256: str
) -> ImageFound:
    digests = Digests(
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
    )
    refusal = mismatch(digests, size_bytes, sha256)
    if refusal is not None:
        raise refusal
    head = content[:HEAD_BYTES]
    virtual_bytes = len(content)
    flaw = image_flaw(head, format=format, size_bytes=len(content))
    if flaw is None and format is ImageFormat.QCOW2:
        virtual_bytes = qcow2_virtual_bytes(head)
        flaw = virtual_flaw(virtual_bytes)
    if flaw is not None:
        raise image_broken(flaw)
    return ImageFound(
        id=image_id, format=format, digests=digests, virtual_bytes=blocks_up(virtual_bytes)
    )


def _silence(state: FakePoolState) -> EngineUnreachable:
    return unreachable(
        "volume_failed",
        f"The pool {state.name} does not answer.",
        remedy="Set `unreachable` of its faults to False.",
    )
