"""How does this process read the event log for everybody who waits in it?"""

from collections.abc import Sequence

from stratus.control.events import events_newest, events_page
from stratus.control.world import World
from stratus.model.event import Event


class StoreLog:
    """The whole event log, for the reader of this process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def newest(self) -> str:
        """Return the cursor of the newest event."""
        return events_newest(self._world)

    def after(self, cursor: str, rows_max: int) -> Sequence[Event]:
        """Return the events after this one, oldest first."""
        return events_page(self._world, None, after=cursor, rows_max=rows_max).items
