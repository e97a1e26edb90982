"""What are these called? Names for ids, a few at a time, gone things included."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import BindParameter, Connection, Table, bindparam, select

from stratus.store.schema import images, networks, pools, projects, users

_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)


def _named(table: Table) -> Any:  # noqa: ANN401  # a select of two columns
    return select(table.c.id, table.c.name).where(table.c.id.in_(_IDS))


_QUERIES: Final = {table.name: _named(table) for table in (networks, pools, projects, users)}
_IMAGES: Final = select(images.c.id, images.c.name, images.c.identifier).where(
    images.c.id.in_(_IDS)
)


class ImageCalled(msgspec.Struct, frozen=True):
    """What an image is called: its name, and its identifier where its bytes are known."""

    name: str
    identifier: str


def names_find(connection: Connection, table: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the names of these ids of this table; unknown ids are left out."""
    if not ids:
        return {}
    rows = connection.execute(_QUERIES[table], {"ids": list(ids)}).all()
    return {row.id: row.name for row in rows}


def image_names_find(connection: Connection, ids: Collection[str]) -> Mapping[str, ImageCalled]:
    """Return what these images are called; unknown ids are left out."""
    if not ids:
        return {}
    rows = connection.execute(_IMAGES, {"ids": list(ids)}).all()
    return {row.id: ImageCalled(row.name, row.identifier) for row in rows}
