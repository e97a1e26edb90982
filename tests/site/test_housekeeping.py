"""Is what nobody needs thrown away, and nothing else?"""

import io

import pytest

from stratus.control.world import World
from stratus.drivers.uploads import UploadStore
from stratus.model.ids import ImageId
from stratus.site.housekeeping import PERIOD_MS, Housekeeper
from stratus.store.engine import store_open

UNKNOWN = ImageId("img-0000000000000000")


@pytest.fixture
def uploads(tmp_path_factory: pytest.TempPathFactory) -> UploadStore:
    return UploadStore(tmp_path_factory.mktemp("uploads"), free_bytes_min=0)


def test_an_upload_that_the_store_does_not_know_is_kept(uploads: UploadStore) -> None:
    uploads.append(UNKNOWN, 0, [b"bytes"])
    clock = [PERIOD_MS]
    world = World(store=store_open("sqlite://"), now_ms=lambda: clock[0], chance=lambda _bits: 0)
    keeper = Housekeeper(world, lambda: uploads)
    assert keeper.turn() == 0
    assert uploads.ids() == [UNKNOWN]
    assert keeper.next_ms() == 2 * PERIOD_MS
    with uploads.open(UNKNOWN) as stream:
        assert isinstance(stream, io.IOBase)
        assert stream.read() == b"bytes"
