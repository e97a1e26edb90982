"""What do commands and reconcilers stand on? The store, the clock and chance, handed in."""

from collections.abc import Callable
from dataclasses import dataclass, field

from stratus.control.actors import ActorCache
from stratus.model.ids import CHANCE_BITS, id_make
from stratus.store.engine import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything that control needs from outside; the simulator makes its own."""

    store: Store
    now_ms: Callable[[], int]
    chance: Callable[[int], int]  # that many random bits
    actors: ActorCache = field(default_factory=ActorCache, compare=False)

    def id_new(self, kind: str) -> str:
        """Return a new id of this kind."""
        return id_make(kind, now_ms=self.now_ms(), chance=self.chance(CHANCE_BITS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a request came from; written into every event it causes."""

    request_id: str = ""
