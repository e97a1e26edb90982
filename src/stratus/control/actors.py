"""Who was this token a moment ago? A small memory, so that most requests need no query."""

import threading
from collections import OrderedDict
from typing import Final

import msgspec

from stratus.model.tenancy import Actor
from stratus.model.units import SECOND_MS

ACTORS_MAX: Final = 4096
FRESH_MS: Final = 3 * SECOND_MS  # how late another replica's revocation is noticed here


class _Entry(msgspec.Struct, frozen=True):
    actor: Actor
    until_ms: int


class ActorCache:
    """The actors of the tokens seen lately, by digest of the token; never the token itself.

    Whoever changes rights in this process calls `forget` after the commit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._age = 0

    @property
    def age(self) -> int:
        """A mark to take before reading the store, for `keep`."""
        return self._age

    def find(self, digest: bytes, *, now_ms: int) -> Actor | None:
        """Return the actor, unless it is unknown here or was read too long ago."""
        entry = self._entries.get(digest)
        return entry.actor if entry is not None and now_ms < entry.until_ms else None

    def keep(self, digest: bytes, actor: Actor, *, age: int, now_ms: int, expires_ms: int) -> None:
        """Remember for a moment what the store said, unless rights changed since `age`."""
        with self._lock:
            if age != self._age:
                return
            self._entries[digest] = _Entry(actor, min(now_ms + FRESH_MS, expires_ms))
            self._entries.move_to_end(digest)
            if len(self._entries) > ACTORS_MAX:
                self._entries.popitem(last=False)

    def forget(self) -> None:
        """Have everybody read anew: somebody's rights changed."""
        with self._lock:
            self._age += 1
            self._entries.clear()
