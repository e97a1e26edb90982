"""Rows for the tests of the store: as few words as possible, everything else filled in."""

import itertools
from typing import Any, Final

from sqlalchemy import Boolean, Connection, Float, Integer, LargeBinary, Table

from stratus.model.ids import ProjectId, UserId, id_make
from stratus.model.tenancy import ProjectFacts, Quota
from stratus.store import schema
from stratus.store.projects import project_create, project_show
from stratus.store.users import user_create

NOW_MS: Final = 1_800_000_000_000
_count: Final = itertools.count(1)


def id_new(kind: str) -> str:
    """Return an id that no other test row has, sorting after those before it."""
    return id_make(kind, now_ms=NOW_MS, chance=next(_count))


def row_insert(connection: Connection, table: Table, **given: Any) -> dict[str, Any]:  # noqa: ANN401
    """Insert a row with these values and something harmless in every other column."""
    row = dict(given)
    for column in table.c:
        if column.name in row or column.nullable or column.server_default is not None:
            continue
        if column.autoincrement is True:
            continue
        row[column.name] = _filler(column.type)
    connection.execute(table.insert(), row)
    return row


def _filler(kind: object) -> object:
    match kind:
        case Boolean():
            return False
        case Float():
            return 1.0
        case Integer():
            return 0
        case LargeBinary():
            return b""
        case _:
            return ""


def user_new(connection: Connection, name: str = "ada", *, admin: bool = True) -> UserId:
    """Make a user and return the id."""
    user_id = UserId(id_new("user"))
    user_create(connection, user_id=user_id, name=name, admin=admin, now_ms=NOW_MS)
    return user_id


def project_new(
    connection: Connection, name: str = "lab-7", quota: Quota | None = None
) -> ProjectId:
    """Make a project and return the id."""
    project_id = ProjectId(id_new("project"))
    project_create(
        connection, project_id=project_id, name=name, quota=quota or Quota(), now_ms=NOW_MS
    )
    return project_id


def project_shown(connection: Connection, project_id: ProjectId) -> ProjectFacts:
    """Return a project that is there."""
    found = project_show(connection, project_id)
    assert found is not None
    return found


def image_new(connection: Connection, project_id: str, user_id: str, **given: Any) -> str:  # noqa: ANN401
    """Insert an image row and return the id."""
    values = {
        "id": id_new("image"),
        "name": "tiny",
        "format": "raw",
        "visibility": "private",
        "wanted": True,
        "presence": "ready",
        "created_ms": NOW_MS,
        **given,
    }
    row_insert(connection, schema.images, project_id=project_id, user_id=user_id, **values)
    return str(values["id"])


def instance_new(connection: Connection, project_id: str, user_id: str, **given: Any) -> str:  # noqa: ANN401
    """Insert an instance row, and an image for it, and return the id."""
    values = {
        "id": id_new("instance"),
        "desired": "running",
        "observed": "unknown",
        "vcpus": 1,
        "memory_mib": 512,
        "nics": "[]",
        "context": "{}",
        "created_ms": NOW_MS,
        **given,
    }
    if "image_id" not in values:
        values["image_id"] = image_new(connection, project_id, user_id)
    row_insert(connection, schema.instances, project_id=project_id, user_id=user_id, **values)
    return str(values["id"])


def volume_new(connection: Connection, project_id: str, **given: Any) -> str:  # noqa: ANN401
    """Insert a volume row and return the id."""
    values = {
        "id": id_new("volume"),
        "kind": "root",
        "size_bytes": 1,
        "source": '{"type":"blank"}',
        "wanted": True,
        "presence": "ready",
        **given,
    }
    row_insert(connection, schema.volumes, project_id=project_id, **values)
    return str(values["id"])


def network_new(connection: Connection, name: str = "public") -> str:
    """Insert a network row and return the id."""
    network_id = id_new("network")
    row_insert(connection, schema.networks, id=network_id, name=name, **{"class": "public"})
    return network_id


def lease_new(connection: Connection, network_id: str, project_id: str, **given: Any) -> str:  # noqa: ANN401
    """Insert a lease row and return the id."""
    number = next(_count)
    values = {
        "id": id_new("address"),
        "instance_id": id_new("instance"),
        "mac": f"52:54:00:00:{number >> 8 & 255:02x}:{number & 255:02x}",
        "ipv4": f"10.0.{number >> 8 & 255}.{number & 255}",
        **given,
    }
    row_insert(connection, schema.leases, network_id=network_id, project_id=project_id, **values)
    return str(values["id"])
