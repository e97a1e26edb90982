"""Do bytes that users send pile up safely, piece by piece?"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stratus.drivers.failure import DriverFailed
from stratus.drivers.uploads import UploadStore
from stratus.drivers.volume.conformance import refused
from stratus.model.ids import ImageId

IMAGE = ImageId("img-1")


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads", free_bytes_min=0)


def test_pieces_join_across_stores(store: UploadStore) -> None:
    assert store.size(IMAGE) == 0
    assert store.append(IMAGE, 0, [b"abc", b"def"]) == 6
    again = UploadStore(store.directory, free_bytes_min=0)
    assert again.size(IMAGE) == 6
    assert again.append(IMAGE, 6, [b"ghi"]) == 9
    with again.open(IMAGE) as file:
        file.seek(3)
        assert file.read() == b"defghi"
    assert again.ids() == [IMAGE]
    for _ in range(2):
        again.remove(IMAGE)
    assert again.ids() == []
    refused("image_not_ready", lambda: again.open(IMAGE))


@pytest.mark.parametrize("offset", [0, 5, 7])
def test_a_piece_must_begin_where_the_last_ended(store: UploadStore, offset: int) -> None:
    store.append(IMAGE, 0, [b"abcdef"])
    failure = refused("conflict", lambda: store.append(IMAGE, offset, [b"x"]))
    assert failure.problem.context == {"bytes_now": 6}
    assert store.size(IMAGE) == 6


def test_nothing_beyond_the_limit_stays(store: UploadStore) -> None:
    refused("body_too_large", lambda: store.append(IMAGE, 0, [b"abc", b"def"], bytes_max=5))
    assert store.size(IMAGE) == 5
    other = ImageId("img-2")
    assert store.append(other, 0, [b"abcde"], bytes_max=5) == 5


def test_a_broken_connection_keeps_what_came(store: UploadStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(DriverFailed):
        store.append(IMAGE, 0, chunks())
    assert store.append(IMAGE, 3, [b"def"]) == 6


def test_a_second_writer_is_told_to_wait(store: UploadStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        other = UploadStore(store.directory, free_bytes_min=0)
        assert refused("in_use", lambda: other.append(IMAGE, 3, [b"x"])).transient
        yield b"def"

    assert store.append(IMAGE, 0, chunks()) == 6


def test_of_many_writers_at_one_place_one_wins(store: UploadStore) -> None:
    outcomes: list[str] = []

    def write(number: int) -> None:
        try:
            store.append(IMAGE, 0, [bytes([number]) * 1000])
            outcomes.append("stored")
        except DriverFailed as failure:
            outcomes.append(failure.problem.code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("stored") == 1
    assert set(outcomes) <= {"stored", "conflict", "in_use"}
    with store.open(IMAGE) as file:
        assert len(set(file.read())) == 1


def test_a_reserve_is_kept_free(tmp_path: Path) -> None:
    greedy = UploadStore(tmp_path / "uploads", free_bytes_min=1 << 60)
    refused("no_space", lambda: greedy.append(IMAGE, 0, [b"x"]))


def test_uploads_are_private_and_ids_are_no_paths(store: UploadStore) -> None:
    store.append(IMAGE, 0, [b"x"])
    assert store.directory.stat().st_mode & 0o777 == 0o700
    path = store.directory / f"{IMAGE}.part"
    assert path.stat().st_mode & 0o777 == 0o600
    for name in ("../x", "", "a/b"):
        with pytest.raises(AssertionError):
            store.append(ImageId(name), 0, [b"x"])
    assert list(store.directory.iterdir()) == [path]
