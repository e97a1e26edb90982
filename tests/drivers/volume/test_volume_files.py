"""Does a directory keep the contract of a pool, on file systems with and without reflink?"""

import io
import itertools
import os
import signal
import stat
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pycdlib
import pytest

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.volume.conformance import (
    CHECKS,
    GRANT,
    IMAGE,
    RAW_BYTES,
    Aborted,
    Check,
    check_name,
    image_put,
    images_of,
    qcow2_make,
    refused,
    sha256_of,
    specs_of_all_sources,
    volumes_of,
)
from stratus.drivers.volume.effects import Hook, nothing_after
from stratus.drivers.volume.files import FilesPool
from stratus.model.ids import ImageId, VolumeId
from stratus.model.image import ImageFormat
from stratus.model.units import MIB
from stratus.model.volume import Blank, FileDisk, FromImage, SeedFiles, SwapArea, VolumeSpec

NUMBERS = itertools.count()
KILLS_MAX = 30
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
BLANK = VolumeSpec(id=VolumeId("vol-blank"), source=Blank(), size_bytes=8 * MIB)
CLONE = VolumeSpec(id=VolumeId("vol-clone"), source=FromImage(IMAGE), size_bytes=1 * MIB)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool and bring back what it said."""
    return subprocess.run(
        [str(one) for one in arguments], capture_output=True, text=True, timeout=60, check=False
    )


def pool_open(directory: Path, *, after: Hook = nothing_after) -> FilesPool:
    return FilesPool(directory, after=after, free_bytes_min=0)


def conform(check: Check, directory: Path) -> None:
    def make(*, after: Hook = nothing_after) -> FilesPool:
        return pool_open(directory, after=after)

    check(make)


def path_of(pool: FilesPool, volume_id: VolumeId) -> Path:
    disk = pool.connect(volume_id, GRANT)
    assert isinstance(disk, FileDisk)
    return Path(disk.path)


def qemu_io(path: Path, format: str, *commands: str) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    done = run("qemu-io", "-f", format, *arguments, path)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout, done.stdout
    return done.stdout


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_files_keep_the_contract(check: Check, tmp_path: Path) -> None:
    conform(check, tmp_path / "pool")


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_files_with_reflink_keep_the_contract(check: Check, reflink_directory: Path) -> None:
    directory = reflink_directory / f"pool{next(NUMBERS)}"
    conform(check, directory)
    assert pool_open(directory).probe().reflink


@needs_root
def test_an_ordinary_user_can_have_a_pool() -> None:
    """Without root, files made read-only are really so; the pool must still find its way."""
    with tempfile.TemporaryDirectory() as base:
        os.chown(base, NOBODY, NOBODY)

        def act() -> None:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            for check in CHECKS:
                if any(word in check.__name__ for word in ("image", "import", "publish", "stag")):
                    conform(check, Path(base) / check.__name__)

        assert not killed(act)


# -- real QEMU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", list(ImageFormat))
def test_writing_in_a_clone_leaves_the_image_alone(tmp_path: Path, format: ImageFormat) -> None:
    clone_written(pool_open(tmp_path / "pool"), format)


@pytest.mark.parametrize("format", list(ImageFormat))
def test_writing_in_a_reflink_leaves_the_image_alone(
    reflink_directory: Path, format: ImageFormat
) -> None:
    pool = pool_open(reflink_directory / f"pool{next(NUMBERS)}")
    clone_written(pool, format)
    if format is ImageFormat.RAW:
        assert volumes_of(pool)[CLONE.id].format == "raw"


def clone_written(pool: FilesPool, format: ImageFormat) -> None:
    content = RAW_BYTES if format is ImageFormat.RAW else qcow2_make(1 * MIB)
    image = image_put(pool, content, format=format)
    made = pool.ensure_volume(CLONE)
    base = pool.directory / "images" / f"{IMAGE}.{format.value}"
    clone = path_of(pool, CLONE.id)
    same = run("qemu-img", "compare", "-f", format.value, "-F", made.format, base, clone)
    assert "Images are identical" in same.stdout
    qemu_io(clone, made.format, "write -P 0xAB 0 64k", "write -P 0xCD 1000k 24k")
    qemu_io(clone, made.format, "read -P 0xAB 0 64k", "read -P 0xCD 1000k 24k")
    assert base.read_bytes() == content
    assert sha256_of(base.read_bytes()) == image.digests.sha256
    # What a guest wrote is still there when the wish is repeated.
    pool.ensure_volume(CLONE)
    qemu_io(clone, made.format, "read -P 0xAB 0 64k")


@contextmanager
def held_by_qemu(path: Path, format: str, *, read_only: bool) -> Iterator[None]:
    """Let a qemu-io process have the file open, as a guest would."""
    options = ["-r"] if read_only else []
    process = subprocess.Popen(
        ["qemu-io", *options, "-f", format, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"length\n")
        process.stdin.flush()
        assert process.stdout.readline()
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=10)


@pytest.mark.parametrize("read_only", [False, True], ids=["writing", "reading"])
@pytest.mark.parametrize("spec", [BLANK, CLONE], ids=["raw", "qcow2"])
def test_a_volume_open_in_qemu_is_not_deleted(
    tmp_path: Path, spec: VolumeSpec, read_only: bool
) -> None:
    pool = pool_open(tmp_path / "pool")
    image_put(pool)
    made = pool.ensure_volume(spec)
    with held_by_qemu(path_of(pool, spec.id), made.format, read_only=read_only):
        assert refused("in_use", lambda: pool.ensure_volume_absent(spec.id)).transient
        assert volumes_of(pool)[spec.id] == made
    pool.ensure_volume_absent(spec.id)
    assert spec.id not in volumes_of(pool)


def test_a_leaking_image_is_accepted_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    damaged = bytearray(qcow2_make(1 * MIB))
    damaged[3 * 65536 : 3 * 65536 + 8] = (0x8000_0000_FFFF_0000).to_bytes(8, "big")
    stage_and = lambda: image_put(pool, bytes(damaged), format=ImageFormat.QCOW2)  # noqa: E731
    assert "qemu-img" in refused("image_broken", stage_and).problem.detail
    leaking = bytearray(qcow2_make(1 * MIB) + bytes(65536))
    leaking[2 * 65536 + 9] = 1  # the fifth cluster counts as used, by nobody
    assert image_put(pool, bytes(leaking), format=ImageFormat.QCOW2).virtual_bytes == 1 * MIB


def test_cloning_with_reflink_shares_the_space(reflink_directory: Path) -> None:
    pool = pool_open(reflink_directory / f"pool{next(NUMBERS)}")
    image_put(pool, os.urandom(MIB) * 16)
    before = pool.probe().free_bytes
    for number in range(4):
        pool.ensure_volume(VolumeSpec(id=VolumeId(f"vol-{number}"), source=FromImage(IMAGE)))
    os.sync()
    assert before - pool.probe().free_bytes < 8 * MIB


# -- content ---------------------------------------------------------------------------------------


def blkid(path: Path) -> dict[str, str]:
    said = run("blkid", "-p", "-o", "export", path).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def test_a_swap_area_is_one(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    pool.ensure_volume(VolumeSpec(id=BLANK.id, source=SwapArea(), size_bytes=1 * MIB))
    path = path_of(pool, BLANK.id)
    assert path.stat().st_size == 1 * MIB
    shown = blkid(path)
    assert (shown["TYPE"], shown["LABEL"]) == ("swap", "swap")


def test_a_seed_medium_reads_back_under_all_its_names(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    files = {
        "meta-data": '{"instance-id": "ins-1"}',
        "user-data": "#!/bin/sh\necho grüße\n",
        "openstack/latest/meta_data.json": "{}",
        "openstack/latest/user_data": "",
    }
    pool.ensure_volume(VolumeSpec(id=BLANK.id, source=SeedFiles("cidata", files)))
    path = path_of(pool, BLANK.id)
    assert (blkid(path)["TYPE"], blkid(path)["LABEL"]) == ("iso9660", "cidata")
    medium = pycdlib.PyCdlib()
    medium.open(str(path))
    for name, text in files.items():
        for tree in ("joliet_path", "rr_path"):
            out = io.BytesIO()
            medium.get_file_from_iso_fp(out, **{tree: f"/{name}"})
            assert out.getvalue().decode() == text
    medium.close()


@needs_root
def test_nobody_else_may_read_what_users_store(tmp_path: Path) -> None:
    pool = FilesPool(tmp_path / "pool", owner=(64055, 107), free_bytes_min=0)
    image_put(pool)
    for spec in specs_of_all_sources("mode"):
        pool.ensure_volume(spec)
        facts = path_of(pool, spec.id).stat()
        assert stat.S_IMODE(facts.st_mode) == 0o600
        assert (facts.st_uid, facts.st_gid) == (64055, 107)
    for directory, mode in (
        (".", 0o711),
        ("images", 0o711),
        ("volumes", 0o711),
        ("staging", 0o700),
        ("work", 0o700),
    ):
        assert stat.S_IMODE((pool.directory / directory).stat().st_mode) == mode
    assert stat.S_IMODE((pool.directory / f"images/{IMAGE}.raw").stat().st_mode) == 0o444
    for record in pool.directory.glob("*/*.json"):
        assert stat.S_IMODE(record.stat().st_mode) == 0o600


def test_a_raw_image_of_odd_length_keeps_its_digest_and_gets_whole_blocks(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    image = image_put(pool, b"example image\n")
    assert image.digests.sha1 == "2f8a3551483cefda38b23be3e599223646456880"
    assert image.virtual_bytes == 4096
    assert pool.ensure_volume(VolumeSpec(id=CLONE.id, source=FromImage(IMAGE))).size_bytes == 4096


# -- trouble ---------------------------------------------------------------------------------------


def test_a_full_file_system_refuses_and_nothing_is_half_done(tiny_directory: Path) -> None:
    pool = pool_open(tiny_directory / "pool")
    image_put(pool)
    made: list[VolumeId] = []
    seed = SeedFiles("cidata", {"user-data": "x" * 60_000})
    failure: DriverFailed | None = None
    for number in range(100):
        sources = (FromImage(IMAGE), seed)
        spec = VolumeSpec(id=VolumeId(f"vol-{number}"), source=sources[number % 2])
        try:
            pool.ensure_volume(spec)
        except DriverFailed as error:
            failure = error
            break
        made.append(spec.id)
    assert failure is not None
    assert failure.problem.code == "no_space"
    assert sorted(volumes_of(pool)) == sorted(made)
    assert not list((pool.directory / "work").iterdir())
    for volume_id in made:
        pool.ensure_volume_absent(volume_id)
    pool.ensure_volume(CLONE)


def test_an_import_into_a_full_file_system_goes_on_when_there_is_room(
    tiny_directory: Path,
) -> None:
    pool = pool_open(tiny_directory / "pool")
    ballast = tiny_directory / "ballast"
    ballast.write_bytes(bytes(2 * MIB))
    content = os.urandom(3 * MIB)
    refused(
        "no_space",
        lambda: pool.image_stage(IMAGE, io.BytesIO(content), offset=0, bytes_max=8 * MIB),
    )
    present = pool.image_bytes_staged(IMAGE)
    assert 0 < present < len(content)
    ballast.unlink()
    pool.image_stage(IMAGE, io.BytesIO(content[present:]), offset=present, bytes_max=8 * MIB)
    pool.image_publish(
        IMAGE, format=ImageFormat.RAW, size_bytes=len(content), sha256=sha256_of(content)
    )


def test_a_reserve_is_kept_free(tiny_directory: Path) -> None:
    pool = FilesPool(tiny_directory / "pool", free_bytes_min=64 * MIB)
    assert "reserve" in refused("no_space", lambda: pool.ensure_volume(BLANK)).problem.detail
    refused("no_space", lambda: image_put(pool))
    assert pool.probe().free_bytes == 0


def test_a_pool_that_went_away_concludes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "pool"
    pool = pool_open(directory)
    pool.ensure_volume(BLANK)
    directory.rename(tmp_path / "away")
    directory.mkdir()  # as an unmounted mount point
    for act in (
        pool.inventory,
        pool.probe,
        lambda: pool.ensure_volume(BLANK),
        lambda: pool.ensure_volume_absent(BLANK.id),
        lambda: pool.image_bytes_staged(IMAGE),
        lambda: FilesPool(directory, create=False),
    ):
        with pytest.raises(EngineUnreachable):
            act()
    assert not list(directory.iterdir())
    directory.rmdir()
    (tmp_path / "away").rename(directory)
    assert BLANK.id in volumes_of(pool)


def test_lost_data_is_never_replaced_by_zeros(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    pool.ensure_volume(BLANK)
    path_of(pool, BLANK.id).unlink()
    assert not volumes_of(pool)
    refused("volume_failed", lambda: pool.ensure_volume(BLANK))
    refused("volume_failed", lambda: pool.connect(BLANK.id, GRANT))
    pool.ensure_volume_absent(BLANK.id)
    pool.ensure_volume(BLANK)


def test_a_damaged_record_stops_the_inventory(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    pool.ensure_volume(BLANK)
    record = pool.directory / "volumes" / f"{BLANK.id}.json"
    record.write_bytes(b"{")
    refused("volume_failed", pool.inventory)
    assert str(record) in refused("volume_failed", pool.inventory).problem.detail


def test_an_id_is_never_a_path(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    for name in ("../evil", "", "a/b", ".hidden", "vol-1\n"):
        with pytest.raises(AssertionError):
            pool.ensure_volume_absent(VolumeId(name))


def test_what_a_crash_left_is_collected_and_work_in_progress_is_not(tmp_path: Path) -> None:
    directory = tmp_path / "pool"
    pool = pool_open(directory)
    pool.ensure_volume(BLANK)
    pool.image_stage(IMAGE, io.BytesIO(RAW_BYTES), offset=0, bytes_max=MIB)
    for name in ("work/vol-gone.0a", "volumes/vol-gone.raw", "images/img-gone.qcow2"):
        (directory / name).write_bytes(b"garbage")
    (directory / "work/vol-busy.0b").write_bytes(b"somebody writes this")
    with pool._place.held("vol-busy"):
        again = pool_open(directory)
    left = {str(path.relative_to(directory)) for path in directory.glob("*/*")}
    assert left == {
        "work/vol-busy.0b",
        f"volumes/{BLANK.id}.raw",
        f"volumes/{BLANK.id}.json",
        f"staging/{IMAGE}.part",
    }
    assert again.image_bytes_staged(IMAGE) == len(RAW_BYTES)
    pool_open(directory)
    assert not (directory / "work/vol-busy.0b").exists()


def test_what_a_crash_left_of_an_id_goes_when_the_id_is_used_again(tmp_path: Path) -> None:
    directory = tmp_path / "pool"
    pool = pool_open(directory)
    for name in (f"work/{BLANK.id}.0a", f"volumes/{BLANK.id}.qcow2", f"volumes/{BLANK.id}.raw"):
        (directory / name).write_bytes(b"garbage")
    pool.ensure_volume(BLANK)
    assert not path_of(pool, BLANK.id).read_bytes().strip(b"\0")
    image_put(pool)
    assert {path.name for path in directory.glob("*/*")} == {
        *(f"{BLANK.id}.raw", f"{BLANK.id}.json"),
        *(f"{IMAGE}.raw", f"{IMAGE}.json"),
    }


def test_a_lost_image_is_seen_and_can_be_imported_again(tmp_path: Path) -> None:
    pool = pool_open(tmp_path / "pool")
    image = image_put(pool)
    (pool.directory / f"images/{IMAGE}.raw").unlink()
    assert not images_of(pool)
    refused("image_not_ready", lambda: pool.ensure_volume(CLONE))
    assert image_put(pool) == image
    pool.ensure_volume(CLONE)


@pytest.mark.parametrize("cut", range(5))
def test_a_crash_while_making_the_pool_heals(tmp_path: Path, cut: int) -> None:
    left = [cut]

    def crash(effect: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Aborted(effect)

    try:
        pool_open(tmp_path / "pool", after=crash)
    except Aborted:
        pass
    else:
        assert cut == 4, "the pool is made with four effects"
    pool_open(tmp_path / "pool").ensure_volume(BLANK)


# -- kill -9 ---------------------------------------------------------------------------------------


def kill_after(effects: int) -> Hook:
    """Let so many effects pass, and let the process end itself behind the next."""
    left = [effects]

    def kill(_effect: str) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    return kill


def killed(act: Callable[[], None]) -> bool:
    """Run the act in a child; tell whether it was killed, and demand that it did not fail."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:  # the child must not return into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    "standing",
    [
        pytest.param(False, id="restarted", marks=pytest.mark.slow),
        pytest.param(True, id="standing"),
    ],
)
def test_kill_9_anywhere_leaves_only_garbage_that_goes(tmp_path: Path, standing: bool) -> None:
    """A worker that starts afterwards tidies up, and so does one that was there all along."""
    directory = tmp_path / "pool"
    other = ImageId("img-other")
    survivor = pool_open(directory)
    image_put(survivor)

    def life(pool: FilesPool) -> None:
        if other not in images_of(pool):
            present = pool.image_bytes_staged(other)
            rest = io.BytesIO(RAW_BYTES[present:])
            pool.image_stage(other, rest, offset=present, bytes_max=MIB)
        pool.image_publish(other, format=ImageFormat.RAW, size_bytes=0, sha256="")
        pool.ensure_volume(CLONE)
        pool.ensure_volume_absent(CLONE.id)
        pool.ensure_image_absent(other)

    for kills in range(KILLS_MAX):
        after = kill_after(kills)
        was_killed = killed(lambda after=after: life(pool_open(directory, after=after)))
        survivor.inventory()
        life(survivor if standing else pool_open(directory))
        left = {path.name for path in directory.glob("*/*")}
        assert left == {f"{IMAGE}.raw", f"{IMAGE}.json"}, f"after {kills} effects"
        if not was_killed:
            return
    raise AssertionError("more effects than expected")


def test_an_image_cannot_go_while_a_clone_is_made(tmp_path: Path) -> None:
    outcomes: list[str] = []
    remover: list[threading.Thread] = []

    def remove() -> None:
        try:
            pool_open(tmp_path / "pool").ensure_image_absent(IMAGE)
        except DriverFailed as failure:
            outcomes.append(failure.problem.code)

    def meddle(effect: str) -> None:
        if effect.startswith("write ") and not remover:
            remover.append(threading.Thread(target=remove))
            remover[0].start()
            remover[0].join(timeout=0.2)

    image_put(pool_open(tmp_path / "pool"))
    pool_open(tmp_path / "pool", after=meddle).ensure_volume(CLONE)
    remover[0].join(timeout=10)
    assert outcomes == ["in_use"]
    assert IMAGE in images_of(pool_open(tmp_path / "pool"))
