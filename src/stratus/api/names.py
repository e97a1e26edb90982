"""What are the things called that an answer mentions by id? Looked up together, kept briefly."""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from stratus.control.world import World
from stratus.model.host import HostFacts
from stratus.model.image import ImageFacts
from stratus.model.instance import InstanceFacts
from stratus.store.names import image_names_find, names_find
from stratus.wire.v1 import ImageName, Names

V = TypeVar("V")

KEPT_SECONDS: Final = 3.0  # a new name is shown everywhere after this time
KEPT_ROWS_MAX: Final = 20_000


class _Shelf(Generic[V]):
    """What is known of one kind, until it is too old or too much."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[float, V]] = {}
        self._lock = threading.Lock()

    def split(self, ids: Collection[str], now: float) -> tuple[dict[str, V], list[str]]:
        """Return what is known of these, and which must be looked up."""
        known: dict[str, V] = {}
        missing: list[str] = []
        for id_ in ids:
            row = self._rows.get(id_)
            if row is None or row[0] < now:
                missing.append(id_)
            else:
                known[id_] = row[1]
        return known, missing

    def keep(self, found: Mapping[str, V], now: float) -> None:
        """Remember these for a while."""
        with self._lock:
            if len(self._rows) + len(found) > KEPT_ROWS_MAX:
                self._rows.clear()
            for id_, value in found.items():
                self._rows[id_] = (now + KEPT_SECONDS, value)


class NameBook:
    """The names that answers of this process show beside ids."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._images: _Shelf[ImageName] = _Shelf()
        self._others: dict[str, _Shelf[str]] = {
            table: _Shelf() for table in ("projects", "users", "networks", "pools")
        }

    def of_instances(self, facts: Iterable[InstanceFacts]) -> Names:
        """Return the names that these instances need."""
        rows = list(facts)
        return self._names(
            projects={row.project_id for row in rows},
            users={row.user_id for row in rows},
            networks={nic.network_id for row in rows for nic in row.nics},
            images={row.image_id for row in rows},
        )

    def of_images(self, facts: Iterable[ImageFacts]) -> Names:
        """Return the names that these images need."""
        return self._names(projects={row.project_id for row in facts})

    def of_hosts(self, facts: Iterable[HostFacts]) -> Names:
        """Return the names that these hosts need."""
        return self._names(pools={pool for row in facts for pool in row.pools})

    def of_projects(self, ids: Iterable[str]) -> Names:
        """Return the names of these projects."""
        return self._names(projects=set(ids))

    def _names(self, *, images: Collection[str] = (), **wanted: Collection[str]) -> Names:
        now = time.monotonic()
        known: dict[str, dict[str, Any]] = {}
        missing: dict[str, list[str]] = {}
        for table, ids in wanted.items():
            known[table], lacking = self._others[table].split(ids, now)
            if lacking:
                missing[table] = lacking
        known["images"], images_missing = self._images.split(images, now)
        if missing or images_missing:

            def found_in(connection: Any) -> None:  # noqa: ANN401  # SQL stays in the store
                for table, lacking in missing.items():
                    found = names_find(connection, table, lacking)
                    self._others[table].keep(found, now)
                    known[table].update(found)
                called = {
                    id_: ImageName(id=id_, name=image.name, identifier=image.identifier)
                    for id_, image in image_names_find(connection, images_missing).items()
                }
                self._images.keep(called, now)
                known["images"].update(called)

            self._world.store.read(found_in)
        return Names(
            projects=known.get("projects", {}),
            users=known.get("users", {}),
            images=known["images"],
            networks=known.get("networks", {}),
            pools=known.get("pools", {}),
        )
