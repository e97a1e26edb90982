"""Does a volume driver keep its promises? Hand the checks a maker of drivers on one fresh pool.

    @pytest.mark.parametrize("check", CHECKS, ids=check_name)
    def test_my_pool_keeps_the_contract(check, tmp_path):
        check(lambda after=nothing_after: MyPool(tmp_path, after=after))

Each call of the maker is what a restarted worker does: a new driver on the same storage. The
driver calls `after` behind each of its effects; the crash checks raise there.
"""

import hashlib
import io
import itertools
import struct
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import BinaryIO, Final, Protocol

from stratus.drivers.failure import DriverFailed
from stratus.drivers.volume.contract import Grant, ImageFound, VolumeDriver, VolumeFound
from stratus.drivers.volume.effects import Hook, nothing_after
from stratus.drivers.volume.qcow2 import (
    EXTENSION,
    EXTENSION_DATA_FILE,
    FEATURE_CORRUPT,
    FEATURE_DATA_FILE,
    FEATURES,
    HEADER,
)
from stratus.model.ids import ImageId, InstanceId, VolumeId
from stratus.model.image import ImageFormat
from stratus.model.units import KIB, MIB
from stratus.model.volume import Blank, FileDisk, FromImage, SeedFiles, SwapArea, VolumeSpec

CUTS_MAX: Final = 100
THREADS: Final = 4
IMAGE: Final = ImageId("img-conformance")
VOLUME: Final = VolumeId("vol-conformance")
GRANT: Final = Grant(instance_id=InstanceId("ins-conformance"), epoch=1)
RAW_BYTES: Final = bytes(range(256)) * 1024  # 256 KiB
CLUSTER_BITS: Final = 16
CLUSTER: Final = 1 << CLUSTER_BITS


class MakePool(Protocol):
    """Opens the same storage each time, as another process would."""

    def __call__(self, *, after: Hook = nothing_after) -> VolumeDriver: ...


Check = Callable[[MakePool], None]


class Aborted(BaseException):
    """The process died here. No driver may catch it."""


# -- material --------------------------------------------------------------------------------------


def qcow2_make(
    virtual_bytes: int,
    *,
    backing: bytes = b"",
    crypt: int = 0,
    features: int = 0,
    extension: int = 0,
) -> bytes:
    """Return an empty qcow2 image, version 3, of four clusters; the rest makes it unfit."""
    header = HEADER.pack(
        b"QFI\xfb",
        3,
        512 if backing else 0,
        len(backing),
        CLUSTER_BITS,
        virtual_bytes,
        crypt,
        -(-virtual_bytes // (CLUSTER * CLUSTER // 8)),
        3 * CLUSTER,
        CLUSTER,
        1,
        0,
        0,
    ) + FEATURES.pack(features, 0, 0, 4, HEADER.size + FEATURES.size)
    if extension:
        header += EXTENSION.pack(extension, 8) + b"/etc/pwd"
    first = header.ljust(512, b"\0") + backing
    refcount_table = struct.pack(">Q", 2 * CLUSTER)
    refcount_block = struct.pack(">4H", 1, 1, 1, 1)
    parts = (first, refcount_table, refcount_block, b"")
    return b"".join(part.ljust(CLUSTER, b"\0") for part in parts)


# What must be refused: (name, declared format, bytes).
UNFIT_IMAGES: Final[tuple[tuple[str, ImageFormat, bytes], ...]] = (
    ("empty", ImageFormat.RAW, b""),
    ("qcow2 said to be raw", ImageFormat.RAW, qcow2_make(1 * MIB)),
    ("gzip said to be raw", ImageFormat.RAW, b"\x1f\x8b\x08" + bytes(600)),
    ("raw said to be qcow2", ImageFormat.QCOW2, RAW_BYTES),
    ("cut off", ImageFormat.QCOW2, qcow2_make(1 * MIB)[:60]),
    ("backing file", ImageFormat.QCOW2, qcow2_make(1 * MIB, backing=b"/etc/passwd")),
    ("data file", ImageFormat.QCOW2, qcow2_make(1 * MIB, features=FEATURE_DATA_FILE)),
    ("data file name", ImageFormat.QCOW2, qcow2_make(1 * MIB, extension=EXTENSION_DATA_FILE)),
    ("encrypted", ImageFormat.QCOW2, qcow2_make(1 * MIB, crypt=2)),
    ("corrupt", ImageFormat.QCOW2, qcow2_make(1 * MIB, features=FEATURE_CORRUPT)),
    ("endless", ImageFormat.QCOW2, qcow2_make(1 << 52)),
)


def sha256_of(content: bytes) -> str:
    """The digest as a publisher would announce it."""
    return hashlib.sha256(content).hexdigest()


def image_put(
    driver: VolumeDriver,
    content: bytes = RAW_BYTES,
    *,
    image_id: ImageId = IMAGE,
    format: ImageFormat = ImageFormat.RAW,
) -> ImageFound:
    """Import an image whole."""
    driver.image_stage(image_id, io.BytesIO(content), offset=0, bytes_max=len(content))
    return driver.image_publish(
        image_id, format=format, size_bytes=len(content), sha256=sha256_of(content)
    )


def refused(code: str, act: Callable[[], object]) -> DriverFailed:
    """Demand that the act is refused with this code and a remedy."""
    failure: DriverFailed | None = None
    try:
        act()
    except DriverFailed as error:
        failure = error
    assert failure is not None, f"it was not refused; {code} was expected"
    assert failure.problem.code == code, failure.problem
    assert failure.problem.remedy
    return failure


def volumes_of(driver: VolumeDriver) -> dict[VolumeId, VolumeFound]:
    """The inventory's volumes by id."""
    return {found.id: found for found in driver.inventory()[0]}


def images_of(driver: VolumeDriver) -> dict[ImageId, ImageFound]:
    """The inventory's images by id."""
    return {found.id: found for found in driver.inventory()[1]}


def specs_of_all_sources(name: str) -> list[VolumeSpec]:
    """One volume of each kind of content; IMAGE must be there."""
    seed = SeedFiles("cidata", {"meta-data": "{}", "openstack/latest/user_data": "#!/bin/sh\n"})
    return [
        VolumeSpec(id=VolumeId(f"vol-{name}-root"), source=FromImage(IMAGE), size_bytes=1 * MIB),
        VolumeSpec(id=VolumeId(f"vol-{name}-blank"), source=Blank(), size_bytes=8 * MIB),
        VolumeSpec(id=VolumeId(f"vol-{name}-swap"), source=SwapArea(), size_bytes=1 * MIB),
        VolumeSpec(id=VolumeId(f"vol-{name}-seed"), source=seed),
    ]


# -- volumes ---------------------------------------------------------------------------------------


def check_the_probe_tells_sane_facts(make: MakePool) -> None:
    """A new pool says what it can do and has room."""
    facts = make().probe()
    assert facts.fence in ("local", "server", "cluster")
    assert 0 < facts.free_bytes <= facts.total_bytes
    assert facts.name


def check_a_new_pool_is_empty(make: MakePool) -> None:
    """Nothing is there that nobody made."""
    volumes, images = make().inventory()
    assert not volumes
    assert not images


def check_every_step_may_be_repeated(make: MakePool) -> None:
    """Making and removing twice, by drivers that know nothing of each other, changes nothing."""
    image_put(make())
    for spec in specs_of_all_sources("twice"):
        first = make().ensure_volume(spec)
        assert first.id == spec.id
        assert first.size_bytes >= spec.size_bytes
        assert first.size_bytes % 4096 == 0
        assert make().ensure_volume(spec) == first
        assert volumes_of(make())[spec.id] == first
        for _ in range(2):
            make().ensure_volume_absent(spec.id)
            assert spec.id not in volumes_of(make())


def check_another_spec_is_a_conflict(make: MakePool) -> None:
    """A volume never changes underneath its user."""
    driver = make()
    made = driver.ensure_volume(VolumeSpec(id=VOLUME, source=Blank(), size_bytes=8 * MIB))
    for other in (
        VolumeSpec(id=VOLUME, source=Blank(), size_bytes=16 * MIB),
        VolumeSpec(id=VOLUME, source=SwapArea(), size_bytes=8 * MIB),
    ):
        refused("conflict", partial(driver.ensure_volume, other))
    assert volumes_of(driver)[VOLUME] == made


def check_a_clone_is_at_least_as_large_as_its_image(make: MakePool) -> None:
    """Growing works, shrinking does not happen, and the parent is on record."""
    driver = make()
    image = image_put(driver)
    for number, wanted in enumerate((0, 4096, 8 * MIB)):
        volume_id = VolumeId(f"vol-clone{number}")
        spec = VolumeSpec(id=volume_id, source=FromImage(IMAGE), size_bytes=wanted)
        made = driver.ensure_volume(spec)
        assert made.size_bytes == max(image.virtual_bytes, wanted)
        assert made.parent == IMAGE


def check_clones_of_qcow2_show_its_virtual_size(make: MakePool) -> None:
    """What counts is the disk that a guest sees, not the file."""
    driver = make()
    image = image_put(driver, qcow2_make(16 * MIB), format=ImageFormat.QCOW2)
    assert image.virtual_bytes == 16 * MIB
    made = driver.ensure_volume(VolumeSpec(id=VOLUME, source=FromImage(IMAGE)))
    assert (made.size_bytes, made.format) == (16 * MIB, "qcow2")


def check_a_clone_needs_its_image(make: MakePool) -> None:
    """Without the image there is a refusal that passes, and no volume."""
    driver = make()
    spec = VolumeSpec(id=VOLUME, source=FromImage(IMAGE))
    assert refused("image_not_ready", lambda: driver.ensure_volume(spec)).transient
    assert not volumes_of(driver)
    image_put(driver)
    driver.ensure_volume(spec)


def check_impossible_sizes_are_refused(make: MakePool) -> None:
    """Odd sizes and empty disks leave nothing behind."""
    driver = make()
    for spec in (
        VolumeSpec(id=VOLUME, source=Blank(), size_bytes=0),
        VolumeSpec(id=VOLUME, source=Blank(), size_bytes=4097),
        VolumeSpec(id=VOLUME, source=SwapArea(), size_bytes=4096),
    ):
        refused("volume_failed", partial(driver.ensure_volume, spec))
    assert not volumes_of(driver)


def check_a_blank_volume_takes_no_space(make: MakePool) -> None:
    """Space is taken when a guest writes."""
    spec = VolumeSpec(id=VOLUME, source=Blank(), size_bytes=1024 * MIB)
    assert make().ensure_volume(spec).allocated_bytes < 1 * MIB


def check_making_a_clone_takes_the_same_steps_for_any_image(make: MakePool) -> None:
    """The effects of cloning are the same for a small and a large image."""
    small, large = ImageId("img-small"), ImageId("img-large")
    image_put(make(), bytes(64 * KIB), image_id=small)
    image_put(make(), b"x" * (16 * MIB), image_id=large)
    counts = []
    for number, image_id in enumerate((small, large)):
        steps: list[str] = []
        driver = make(after=steps.append)
        steps.clear()
        spec = VolumeSpec(id=VolumeId(f"vol-steps{number}"), source=FromImage(image_id))
        driver.ensure_volume(spec)
        counts.append(len(steps))
    assert counts[0] == counts[1]


def check_threads_share_one_volume(make: MakePool) -> None:
    """However many ask at once, one volume is made and all see it."""
    driver = make()
    image_put(driver)
    spec = VolumeSpec(id=VOLUME, source=FromImage(IMAGE))
    found: list[VolumeFound] = []
    threads = [
        threading.Thread(target=lambda: found.append(make().ensure_volume(spec)))
        for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == THREADS
    assert len({one.id for one in found}) == len(volumes_of(driver)) == 1


# -- connections -----------------------------------------------------------------------------------


def check_only_what_exists_can_be_opened(make: MakePool) -> None:
    """Connecting names the volume's own format; ending a grant twice is fine."""
    driver = make()
    refused("volume_failed", lambda: driver.connect(VOLUME, GRANT))
    made = driver.ensure_volume(VolumeSpec(id=VOLUME, source=Blank(), size_bytes=8 * MIB))
    disk = driver.connect(VOLUME, GRANT)
    assert disk == make().connect(VOLUME, GRANT)
    if isinstance(disk, FileDisk):
        assert disk.format == made.format
    for _ in range(2):
        driver.disconnect(VOLUME, GRANT)


def check_a_fence_holds_or_is_refused(make: MakePool) -> None:
    """A pool that cannot fence says so; one that can lets the old epoch in no more."""
    driver = make()
    driver.ensure_volume(VolumeSpec(id=VOLUME, source=Blank(), size_bytes=8 * MIB))
    if driver.probe().fence == "local":
        refused("volume_failed", lambda: driver.fence(VOLUME, epoch=1))
        return
    for _ in range(2):
        driver.fence(VOLUME, epoch=1)
    refused("conflict", lambda: make().connect(VOLUME, GRANT))
    make().connect(VOLUME, Grant(instance_id=GRANT.instance_id, epoch=2))


# -- images ----------------------------------------------------------------------------------------


def check_an_import_goes_on_where_it_stopped(make: MakePool) -> None:
    """Another worker finds the bytes that are there and adds the rest."""
    half = len(RAW_BYTES) // 2
    assert make().image_bytes_staged(IMAGE) == 0
    make().image_stage(IMAGE, io.BytesIO(RAW_BYTES[:half]), offset=0, bytes_max=MIB)
    assert make().image_bytes_staged(IMAGE) == half
    assert not images_of(make())
    rest = io.BytesIO(RAW_BYTES[half:])
    assert make().image_stage(IMAGE, rest, offset=half, bytes_max=MIB) == len(RAW_BYTES)
    found = make().image_publish(
        IMAGE, format=ImageFormat.RAW, size_bytes=len(RAW_BYTES), sha256=sha256_of(RAW_BYTES)
    )
    assert found.digests.size_bytes == found.virtual_bytes == len(RAW_BYTES)
    assert found.digests.sha1 == hashlib.sha1(RAW_BYTES, usedforsecurity=False).hexdigest()
    assert images_of(make()) == {IMAGE: found}
    assert make().image_bytes_staged(IMAGE) == 0


def check_publishing_again_changes_nothing(make: MakePool) -> None:
    """The same digests get the same answer, others are a conflict."""
    found = image_put(make())
    digest = sha256_of(RAW_BYTES)
    for size_bytes, sha256 in ((0, ""), (len(RAW_BYTES), digest)):
        again = make().image_publish(
            IMAGE, format=ImageFormat.RAW, size_bytes=size_bytes, sha256=sha256
        )
        assert again == found
    refused(
        "conflict",
        lambda: make().image_publish(
            IMAGE, format=ImageFormat.RAW, size_bytes=0, sha256=sha256_of(b"other")
        ),
    )
    assert images_of(make()) == {IMAGE: found}


def check_nothing_can_not_be_published(make: MakePool) -> None:
    """Publishing before the first byte came is refused, for now."""
    publish = partial(make().image_publish, IMAGE, format=ImageFormat.RAW)
    assert refused("image_not_ready", partial(publish, size_bytes=0, sha256="")).transient


def check_staging_may_begin_anew_but_leaves_no_gap(make: MakePool) -> None:
    """An offset inside what is there drops the rest; one behind it is refused."""
    driver = make()
    driver.image_stage(IMAGE, io.BytesIO(bytes(1000)), offset=0, bytes_max=MIB)
    failure = refused(
        "conflict",
        lambda: driver.image_stage(IMAGE, io.BytesIO(b"x"), offset=1001, bytes_max=MIB),
    )
    assert failure.problem.context["bytes_staged"] == 1000
    assert driver.image_stage(IMAGE, io.BytesIO(b"x"), offset=10, bytes_max=MIB) == 11
    assert driver.image_bytes_staged(IMAGE) == 11
    assert driver.image_stage(IMAGE, io.BytesIO(RAW_BYTES), offset=0, bytes_max=MIB) == len(
        RAW_BYTES
    )
    driver.image_publish(IMAGE, format=ImageFormat.RAW, size_bytes=0, sha256=sha256_of(RAW_BYTES))


def check_a_stream_without_end_is_cut(make: MakePool) -> None:
    """Not one byte beyond the limit stays; exactly the limit is fine."""
    driver = make()
    refused(
        "body_too_large",
        lambda: driver.image_stage(IMAGE, io.BytesIO(bytes(1001)), offset=0, bytes_max=1000),
    )
    assert driver.image_bytes_staged(IMAGE) <= 1000
    assert driver.image_stage(IMAGE, io.BytesIO(bytes(1000)), offset=0, bytes_max=1000) == 1000


class _Breaking(io.RawIOBase):
    """A stream that gives some bytes and then fails, like a connection that is cut."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int = -1, /) -> bytes:
        piece = self._content.read(size)
        if not piece:
            raise ConnectionResetError("cut")
        return piece


def check_a_broken_stream_keeps_what_came(make: MakePool) -> None:
    """The stream's own error comes through, and the bytes before it count."""
    driver = make()
    stream: BinaryIO = _Breaking(RAW_BYTES)  # type: ignore[assignment]  # read() is all it needs
    try:
        driver.image_stage(IMAGE, stream, offset=0, bytes_max=MIB)
    except (ConnectionResetError, DriverFailed):
        pass
    else:
        raise AssertionError("the stream's error was swallowed")
    assert make().image_bytes_staged(IMAGE) == len(RAW_BYTES)


def check_wrong_digests_remove_the_bytes(make: MakePool) -> None:
    """Neither size nor checksum may differ by anything."""
    for size_bytes, sha256 in ((0, sha256_of(b"other")), (len(RAW_BYTES) - 1, "")):
        driver = make()
        driver.image_stage(IMAGE, io.BytesIO(RAW_BYTES), offset=0, bytes_max=MIB)
        publish = partial(driver.image_publish, IMAGE, format=ImageFormat.RAW)
        refused("checksum_mismatch", partial(publish, size_bytes=size_bytes, sha256=sha256))
        assert make().image_bytes_staged(IMAGE) == 0
        assert not images_of(make())


def check_unfit_images_are_refused(make: MakePool) -> None:
    """Images that are not what they claim, or that need other files, are never published."""
    for name, format, content in UNFIT_IMAGES:
        driver = make()
        driver.image_stage(IMAGE, io.BytesIO(content), offset=0, bytes_max=MIB)
        publish = partial(driver.image_publish, IMAGE, size_bytes=0, sha256="")
        refused("image_broken", partial(publish, format=format))
        assert make().image_bytes_staged(IMAGE) == 0, name
        assert not images_of(make()), name


def check_an_image_with_clones_stays(make: MakePool) -> None:
    """The image goes once its last clone is gone, and may go twice."""
    driver = make()
    image_put(driver)
    driver.ensure_volume(VolumeSpec(id=VOLUME, source=FromImage(IMAGE)))
    refused("in_use", lambda: make().ensure_image_absent(IMAGE))
    assert IMAGE in images_of(driver)
    driver.ensure_volume_absent(VOLUME)
    for _ in range(2):
        make().ensure_image_absent(IMAGE)
        assert not images_of(make())


def check_removing_an_image_removes_staged_bytes(make: MakePool) -> None:
    """An import that nobody wants any more leaves nothing."""
    make().image_stage(IMAGE, io.BytesIO(RAW_BYTES), offset=0, bytes_max=MIB)
    make().ensure_image_absent(IMAGE)
    assert make().image_bytes_staged(IMAGE) == 0


class _Nosy(io.BytesIO):
    """A stream that looks around while it is read."""

    def __init__(self, content: bytes, look: Callable[[], None]) -> None:
        super().__init__(content)
        self._look = look

    def read(self, size: int | None = -1, /) -> bytes:
        self._look()
        return super().read(size)


def check_one_import_at_a_time(make: MakePool) -> None:
    """Whoever comes second is told to come back, and disturbs nothing."""

    def second() -> None:
        stream = io.BytesIO(b"intruder")
        stage = partial(make().image_stage, IMAGE, stream, offset=0, bytes_max=MIB)
        assert refused("in_use", stage).transient
        assert refused("in_use", partial(make().ensure_image_absent, IMAGE)).transient

    make().image_stage(IMAGE, _Nosy(RAW_BYTES, second), offset=0, bytes_max=MIB)
    make().image_publish(IMAGE, format=ImageFormat.RAW, size_bytes=0, sha256=sha256_of(RAW_BYTES))


# -- crashes ---------------------------------------------------------------------------------------


class _Cut:
    """Lets that many effects pass and ends the process after the next."""

    def __init__(self, effects: int) -> None:
        self.left = effects
        self.fired = False

    def __call__(self, effect: str) -> None:
        if self.left == 0 and not self.fired:
            self.fired = True
            raise Aborted(effect)
        self.left -= 1


def crash_after_every_effect(make: MakePool, act: Callable[[MakePool, Hook, str], None]) -> None:
    """Abort the act after each of its effects, and let it succeed in another worker.

    `act` gets the hook for the driver under test and a name of its own for each cut, and is
    called again after the crash: by a worker that starts then, and by one that was there all
    along and so has tidied up nothing.
    """
    standing = make()

    def reuse(*, after: Hook = nothing_after) -> VolumeDriver:
        assert after is nothing_after
        return standing

    for cut, (again, mark) in itertools.product(range(CUTS_MAX), ((make, "n"), (reuse, "s"))):
        crash, name = _Cut(cut), f"c{cut}{mark}"
        try:
            act(make, crash, name)
        except Aborted:
            assert crash.fired
        again().inventory()
        act(again, nothing_after, name)
        if not crash.fired:
            return
    raise AssertionError(f"more than {CUTS_MAX} effects")


def check_a_crash_while_making_volumes_heals(make: MakePool) -> None:
    """After every effect of making a volume, repeating it ends the same."""
    image_put(make())
    for kind in range(len(specs_of_all_sources(""))):

        def act(make: MakePool, after: Hook, name: str, kind: int = kind) -> None:
            spec = specs_of_all_sources(name)[kind]
            found = make(after=after).ensure_volume(spec)
            assert volumes_of(make())[spec.id] == found

        crash_after_every_effect(make, act)


def check_a_crash_while_removing_volumes_heals(make: MakePool) -> None:
    """After every effect of removing a volume, repeating it leaves nothing."""
    image_put(make())
    for kind in range(len(specs_of_all_sources(""))):

        def act(make: MakePool, after: Hook, name: str, kind: int = kind) -> None:
            spec = specs_of_all_sources(name)[kind]
            if after is not nothing_after:
                make().ensure_volume(spec)
            make(after=after).ensure_volume_absent(spec.id)
            assert not volumes_of(make())
            make().ensure_volume(spec)  # nothing of the old one is in the way
            make().ensure_volume_absent(spec.id)

        crash_after_every_effect(make, act)


def check_a_crash_while_importing_heals(make: MakePool) -> None:
    """After every effect of an import, going on from what is there ends the same."""

    def act(make: MakePool, after: Hook, name: str) -> None:
        driver, image_id = make(after=after), ImageId(f"img-{name}")
        if image_id not in images_of(driver):
            present = driver.image_bytes_staged(image_id)
            assert present in (0, len(RAW_BYTES))
            rest = io.BytesIO(RAW_BYTES[present:])
            driver.image_stage(image_id, rest, offset=present, bytes_max=MIB)
        found = driver.image_publish(
            image_id, format=ImageFormat.RAW, size_bytes=0, sha256=sha256_of(RAW_BYTES)
        )
        assert images_of(driver)[image_id] == found
        assert driver.image_bytes_staged(image_id) == 0

    crash_after_every_effect(make, act)


def check_a_crash_while_publishing_loses_no_byte(make: MakePool) -> None:
    """After every effect of publishing, the image is there or can be published without a fetch."""

    def act(make: MakePool, after: Hook, name: str) -> None:
        image_id = ImageId(f"img-{name}")
        if after is not nothing_after:
            make().image_stage(image_id, io.BytesIO(RAW_BYTES), offset=0, bytes_max=MIB)
        found = make(after=after).image_publish(
            image_id, format=ImageFormat.RAW, size_bytes=0, sha256=sha256_of(RAW_BYTES)
        )
        assert images_of(make())[image_id] == found
        assert make().image_bytes_staged(image_id) == 0

    crash_after_every_effect(make, act)


def check_a_crash_while_removing_images_heals(make: MakePool) -> None:
    """After every effect of removing an image, repeating it leaves nothing."""

    def act(make: MakePool, after: Hook, name: str) -> None:
        image_id = ImageId(f"img-{name}")
        if after is not nothing_after:
            image_put(make(), image_id=image_id)
        make(after=after).ensure_image_absent(image_id)
        assert not images_of(make())
        assert make().image_bytes_staged(image_id) == 0

    crash_after_every_effect(make, act)
    assert not images_of(make())


def check_name(check: Check) -> str:
    """The check's promise, for test reports."""
    return check.__name__.removeprefix("check_")


def _checks() -> Iterable[Check]:
    return (
        value
        for name, value in globals().items()
        if name.startswith("check_") and name != "check_name"
    )


CHECKS: Final[tuple[Check, ...]] = tuple(_checks())
