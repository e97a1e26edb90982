"""What do we know of images? Their rows in and out, and what a user's word for one means."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    Table,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql import ColumnElement

from stratus.model.ids import ImageId, ProjectId, id_is
from stratus.model.image import ImageFacts, ImageFormat, Visibility
from stratus.model.page import Page
from stratus.model.problem import Problem, refuse
from stratus.model.volume import Presence
from stratus.store.json import problem_text, problem_value
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import images, instances, volumes

IDENTIFIER_CHARS: Final = 27
AMBIGUOUS_SHOWN_MAX: Final = 10  # ids named in a refusal
PROBLEMS: Final = ("failure", "parked")

_NAMES: Final = ImageFacts.__struct_fields__
_FACTS: Final = select(*(images.c[name] for name in _NAMES))
_BY_ID: Final = _FACTS.where(images.c.id == bindparam("id"))
_BY_IDS: Final = _FACTS.where(images.c.id.in_(bindparam("ids", expanding=True)))
_LOCK: Final = _BY_ID.with_for_update()


def _facts(row: AnyRow) -> ImageFacts:
    values = dict(row._mapping)
    for name in PROBLEMS:
        values[name] = problem_value(values[name])
    values["format"] = ImageFormat(values["format"])
    values["visibility"] = Visibility(values["visibility"])
    values["presence"] = Presence(values["presence"])
    return ImageFacts(**values)


def _column_values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turn domain values into what the columns hold."""
    values: dict[str, Any] = {}
    for name, value in changes.items():
        assert name in images.c, f"images have no column {name}"
        if name in PROBLEMS:
            assert value is None or isinstance(value, Problem)
            values[name] = problem_text(value)
        else:
            values[name] = value.value if isinstance(value, Enum) else value
    return values


def image_create(connection: Connection, image: ImageFacts, **others: Any) -> None:  # noqa: ANN401  # column values
    """Insert this image; `others` are columns beyond the facts, as `pool_id`."""
    facts = {name: getattr(image, name) for name in _NAMES}
    connection.execute(images.insert(), _column_values(facts | others))


def image_by_id(connection: Connection, image_id: ImageId) -> ImageFacts | None:
    """Return the image with this id, gone ones included, or None."""
    row = connection.execute(_BY_ID, {"id": image_id}).one_or_none()
    return None if row is None else _facts(row)


def images_by_ids(connection: Connection, ids: Collection[ImageId]) -> dict[ImageId, ImageFacts]:
    """Return what is known of these, gone ones included; unknown ids are left out."""
    if not ids:
        return {}
    rows = connection.execute(_BY_IDS, {"ids": list(ids)})
    return {facts.id: facts for facts in map(_facts, rows)}


def image_lock(connection: Connection, image_id: ImageId) -> ImageFacts | None:
    """Hold the image's row until the transaction ends, and return it as it is now."""
    row = connection.execute(_LOCK, {"id": image_id}).one_or_none()
    return None if row is None else _facts(row)


def _visible(project_ids: Collection[ProjectId] | None) -> list[ColumnElement[bool]]:
    if project_ids is None:
        return []
    own = list(project_ids)
    return [or_(images.c.visibility == Visibility.PUBLIC.value, images.c.project_id.in_(own))]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meant:
    """The questions by which a word may mean an image."""

    by_id: Select[Any]
    by_identifier: Select[Any]
    by_name: Select[Any]


@cache
def _meant(*, everything: bool) -> _Meant:
    live = _FACTS.where(images.c.gone_ms == 0)
    if not everything:
        own = images.c.project_id.in_(bindparam("project_ids", expanding=True))
        live = live.where(or_(images.c.visibility == Visibility.PUBLIC.value, own))
    ref: BindParameter[str] = bindparam("ref")
    wanted = live.where(images.c.wanted)
    ready_first = (images.c.presence != Presence.READY.value).asc()
    return _Meant(
        by_id=live.where(images.c.id == ref),
        by_identifier=wanted.where(images.c.identifier == ref)
        .order_by(ready_first, images.c.id)
        .limit(1),
        by_name=wanted.where(images.c.name == ref).order_by(images.c.id).limit(AMBIGUOUS_SHOWN_MAX),
    )


def image_by_ref(
    connection: Connection, ref: str, *, project_ids: Collection[ProjectId] | None
) -> ImageFacts | None:
    """Return the one image that these projects may see and mean by this word, or None.

    An id names an image as long as it is not gone, even one that is being deleted. Several
    images with one identifier hold the same bytes, so any will do; a ready one is preferred.
    A name that fits several images is refused. `project_ids` None sees everything.
    """
    asked: dict[str, Any] = {"ref": ref}
    if project_ids is not None:
        asked["project_ids"] = list(project_ids)
    meant = _meant(everything=project_ids is None)
    if id_is("image", ref):
        row = connection.execute(meant.by_id, asked).one_or_none()
        return None if row is None else _facts(row)
    if len(ref) == IDENTIFIER_CHARS:
        row = connection.execute(meant.by_identifier, asked).one_or_none()
        if row is not None:
            return _facts(row)
    rows = connection.execute(meant.by_name, asked).all()
    if len(rows) > 1:
        ids = [row.id for row in rows]
        raise refuse(
            "name_ambiguous",
            f"The name {ref} fits {len(ids)} images: {', '.join(ids)}.",
            remedy="Use the id of the image that you mean.",
            ids=ids,
        )
    return _facts(rows[0]) if rows else None


def image_list(
    connection: Connection,
    *,
    project_ids: Collection[ProjectId] | None,
    rows_max: int,
    cursor: str | None = None,
    name: str | None = None,
) -> Page[ImageFacts]:
    """Return live images that these projects may see, oldest first; None sees everything."""
    query = _FACTS.where(images.c.gone_ms == 0, *_visible(project_ids))
    if name is not None:
        query = query.where(images.c.name == name)
    return page_fetch(
        connection, query, [images.c.id], cursor=cursor, rows_max=rows_max, make=_facts
    )


def image_said(connection: Connection, image_id: ImageId) -> tuple[int, str]:
    """Return the size and SHA-256 that were said of the bytes beforehand; 0 and "" where not."""
    row = connection.execute(
        select(images.c.said_bytes, images.c.said_sha256).where(images.c.id == image_id)
    ).one()
    return row.said_bytes, row.said_sha256


class ImageUses(msgspec.Struct, frozen=True, kw_only=True):
    """What still needs an image."""

    instances: int
    volumes: int  # clones, which stand on its bytes


def image_uses(connection: Connection, image_id: ImageId) -> ImageUses:
    """Count what still needs this image, also what is on its way out."""

    def count(table: Table) -> int:
        live = (table.c.image_id == image_id) & (table.c.gone_ms == 0)
        found = connection.execute(select(func.count()).select_from(table).where(live))
        return int(found.scalar_one())

    return ImageUses(instances=count(instances), volumes=count(volumes))


def image_names_in(connection: Connection, project_id: ProjectId, name: str) -> list[ImageId]:
    """Return the images of this project that bear the name and are wanted."""
    rows = connection.execute(
        select(images.c.id)
        .where(
            images.c.project_id == project_id,
            images.c.name == name,
            images.c.gone_ms == 0,
            images.c.wanted,
        )
        .order_by(images.c.id)
        .limit(AMBIGUOUS_SHOWN_MAX)
    )
    return list(rows.scalars())


def image_count(connection: Connection, project_id: ProjectId) -> int:
    """Count the live images of this project."""
    live = (images.c.project_id == project_id) & (images.c.gone_ms == 0)
    found = connection.execute(select(func.count()).select_from(images).where(live))
    return int(found.scalar_one())


def image_update(
    connection: Connection,
    image_id: ImageId,
    *,
    version: int | None,
    changes: Mapping[str, Any],
) -> bool:
    """Change these columns and raise the version; False when the row is not as it was read.

    Values are the domain's own (enums, Problem or None). `version` None changes whatever
    is there: for callers that hold the row.
    """
    assert not {"id", "version"} & set(changes)
    statement = update(images).where(images.c.id == image_id)
    if version is not None:
        statement = statement.where(images.c.version == version)
    values = _column_values(changes)
    done = connection.execute(statement.values(version=images.c.version + 1, **values))
    return done.rowcount == 1
