"""What is thrown away because nobody needs it any more? A little at a time, every minute."""

from collections.abc import Callable, Collection
from typing import Final, Protocol

from stratus.control.images import uploads_unneeded
from stratus.control.world import World
from stratus.model.ids import ImageId
from stratus.model.units import DAY_MS, MINUTE_MS
from stratus.store.tokens import tokens_prune

PERIOD_MS: Final = MINUTE_MS
TOKENS_KEPT_MS: Final = 7 * DAY_MS  # after they expired, so that their owner can be told why


class Uploads(Protocol):
    """Where uploaded bytes wait to be imported."""

    def ids(self) -> Collection[ImageId]:
        """Name every upload of which there are bytes."""
        ...

    def remove(self, image_id: ImageId) -> None:
        """Leave no bytes of this upload."""
        ...


class Housekeeper:
    """Turns once a period; what it misses today it finds tomorrow."""

    def __init__(self, world: World, uploads: Callable[[], Uploads]) -> None:
        self._world = world
        self._uploads = uploads
        self._next_ms = 0

    def turn(self) -> int:
        """Throw away what is due; 0, since there is never more to do at once."""
        now_ms = self._world.now_ms()
        if now_ms < self._next_ms:
            return 0
        self._next_ms = now_ms + PERIOD_MS
        self._world.store.write(lambda c: tokens_prune(c, before_ms=now_ms - TOKENS_KEPT_MS))
        uploads = self._uploads()
        waiting = uploads.ids()
        if waiting:
            for image_id in uploads_unneeded(self._world, waiting):
                uploads.remove(image_id)
        return 0

    def next_ms(self) -> int:
        """Return when it turns next."""
        return self._next_ms
