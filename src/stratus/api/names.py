"""What are the things called that an answer mentions by id? Looked up together, kept briefly."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stratus.control.world import World
from stratus.model.host import HostFacts
from stratus.model.ids import PREFIXES
from stratus.model.image import ImageFacts
from stratus.model.instance import InstanceFacts
from stratus.store.names import image_names_find, names_find
from stratus.wire.v1 import ImageName, Names

KEPT_SECONDS: Final = 3.0  # a new name is shown everywhere after this time
KEPT_ROWS_MAX: Final = 20_000
TABLES: Final = {
    PREFIXES["project"]: "projects",
    PREFIXES["user"]: "users",
    PREFIXES["network"]: "networks",
    PREFIXES["pool"]: "pools",
    PREFIXES["image"]: "images",
}


class _Shelves:
    """All names that are known, and until when. Threads share it: entries only come and change."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.known: dict[str, dict[str, Any]] = {table: {} for table in TABLES.values()}
        self.names = Names(**self.known)


class NameBook:
    """The names that answers of this process show beside ids."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._shelves = _Shelves()

    def of_instances(self, facts: Iterable[InstanceFacts]) -> Names:
        """Return the names that these instances need."""
        wanted: set[str] = set()
        for row in facts:
            wanted.add(row.project_id)
            wanted.add(row.user_id)
            wanted.add(row.image_id)
            for nic in row.nics:
                wanted.add(nic.network_id)
        return self._names(wanted)

    def of_images(self, facts: Iterable[ImageFacts]) -> Names:
        """Return the names that these images need."""
        return self._names({row.project_id for row in facts})

    def of_hosts(self, facts: Iterable[HostFacts]) -> Names:
        """Return the names that these hosts need."""
        return self._names({pool for row in facts for pool in row.pools})

    def of_projects(self, ids: Iterable[str]) -> Names:
        """Return the names of these projects."""
        return self._names(set(ids))

    def _names(self, wanted: set[str]) -> Names:
        shelves = self._shelves
        now = time.monotonic()
        until = shelves.until
        missing = [id_ for id_ in wanted if until.get(id_, 0.0) < now]
        if not missing:
            return shelves.names
        if len(until) + len(missing) > KEPT_ROWS_MAX:
            # Whoever reads the old ones meanwhile keeps them.
            shelves = self._shelves = _Shelves()
            missing = list(wanted)
        by_table: dict[str, list[str]] = {}
        for id_ in missing:
            if (table := TABLES.get(id_.partition("-")[0])) is not None:
                by_table.setdefault(table, []).append(id_)
        for table, found in self._find(by_table).items():
            shelves.known[table].update(found)
        for id_ in missing:
            shelves.until[id_] = now + KEPT_SECONDS
        return shelves.names

    def _find(self, by_table: Mapping[str, list[str]]) -> dict[str, Mapping[str, Any]]:
        def find(connection: Any) -> dict[str, Mapping[str, Any]]:  # noqa: ANN401  # SQL's own
            found: dict[str, Mapping[str, Any]] = {}
            for table, ids in by_table.items():
                if table == "images":
                    found[table] = {
                        id_: ImageName(id=id_, name=image.name, identifier=image.identifier)
                        for id_, image in image_names_find(connection, ids).items()
                    }
                else:
                    found[table] = names_find(connection, table, ids)
            return found

        return self._world.store.read(find)
