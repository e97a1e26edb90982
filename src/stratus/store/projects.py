"""Who owns things, who belongs to it, and how much does it use? Use is summed, never counted on."""

from collections.abc import Collection
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    not_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from stratus.model.ids import ProjectId, UserId
from stratus.model.page import Page
from stratus.model.problem import refuse
from stratus.model.tenancy import ProjectFacts, Quota, Role, Usage
from stratus.model.units import GIB
from stratus.store.guard import stale_refused
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import images, instances, leases, memberships, projects, users, volumes
from stratus.store.upsert import upsert


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One project without its use, which takes a sum."""

    id: ProjectId
    name: str
    quota: Quota
    created_ms: int
    gone_ms: int
    version: int


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One user in one project."""

    project_id: ProjectId
    user_id: UserId
    user_name: str
    role: Role


_QUOTAS: Final = tuple(f"quota_{what}" for what in Quota.__struct_fields__)
_ROWS: Final = select(
    projects.c.id,
    projects.c.name,
    *(projects.c[name] for name in _QUOTAS),
    projects.c.created_ms,
    projects.c.gone_ms,
    projects.c.version,
)
_BY_ID: Final = _ROWS.where(projects.c.id == bindparam("id"))
_LOCK: Final = _BY_ID.with_for_update()
_BY_NAME: Final = _ROWS.where(projects.c.name == bindparam("name"), projects.c.gone_ms == 0)

_ONE_OF: Final[BindParameter[Any]] = bindparam("project_ids", expanding=True)

# A stopped instance that gave its host back uses neither processors nor memory.
_ON_A_HOST: Final = not_(
    and_(instances.c.desired == "stopped", instances.c.release, instances.c.host_id.is_(None))
)
_INSTANCES_USED: Final = (
    select(
        instances.c.project_id,
        func.count().label("instances"),
        func.sum(case((_ON_A_HOST, instances.c.vcpus), else_=0)).label("vcpus"),
        func.sum(case((_ON_A_HOST, instances.c.memory_mib), else_=0)).label("memory_mib"),
    )
    .where(instances.c.gone_ms == 0, instances.c.project_id.in_(_ONE_OF))
    .group_by(instances.c.project_id)
)
_VOLUMES_USED: Final = (
    select(
        volumes.c.project_id,
        func.count().label("volumes"),
        func.sum((volumes.c.size_bytes + (GIB - 1)) // GIB).label("volume_gib"),
    )
    .where(
        volumes.c.gone_ms == 0,
        volumes.c.wanted,
        volumes.c.kind != "seed",
        volumes.c.project_id.in_(_ONE_OF),
    )
    .group_by(volumes.c.project_id)
)
_ADDRESSES_USED: Final = (
    select(leases.c.project_id, func.count().label("addresses"))
    .where(leases.c.released_ms == 0, leases.c.project_id.in_(_ONE_OF))
    .group_by(leases.c.project_id)
)
_SUMS: Final = (
    (_INSTANCES_USED, ("instances", "vcpus", "memory_mib")),
    (_VOLUMES_USED, ("volumes", "volume_gib")),
    (_ADDRESSES_USED, ("addresses",)),
)


def _row(row: AnyRow) -> ProjectRow:
    found = row._mapping
    quota = {what: found[name] for what, name in zip(Quota.__struct_fields__, _QUOTAS, strict=True)}
    return ProjectRow(
        id=row.id,
        name=row.name,
        quota=Quota(**quota),
        created_ms=row.created_ms,
        gone_ms=row.gone_ms,
        version=row.version,
    )


def _quota_values(quota: Quota) -> dict[str, Any]:
    return {f"quota_{what}": getattr(quota, what) for what in Quota.__struct_fields__}


def project_create(
    connection: Connection, *, project_id: ProjectId, name: str, quota: Quota, now_ms: int
) -> ProjectRow:
    """Add a project, or refuse a name that is taken."""
    values = {
        "id": project_id,
        "name": name,
        "created_ms": now_ms,
        "gone_ms": 0,
        "version": 1,
        **_quota_values(quota),
    }
    insert = upsert(connection, projects).on_conflict_do_nothing(index_elements=["name"])
    if connection.execute(insert, values).rowcount != 1:
        raise _name_taken(name)
    return ProjectRow(
        id=project_id, name=name, quota=quota, created_ms=now_ms, gone_ms=0, version=1
    )


def _name_taken(name: str) -> Exception:
    return refuse(
        "name_taken",
        f"There is, or was, a project {name}.",
        remedy="Choose another name.",
        name=name,
    )


def project_by_id(connection: Connection, project_id: ProjectId) -> ProjectRow | None:
    """Return the project with this id, or None."""
    row = connection.execute(_BY_ID, {"id": project_id}).one_or_none()
    return None if row is None else _row(row)


def project_by_name(connection: Connection, name: str) -> ProjectRow | None:
    """Return the live project of this name, or None."""
    row = connection.execute(_BY_NAME, {"name": name}).one_or_none()
    return None if row is None else _row(row)


def project_lock(connection: Connection, project_id: ProjectId) -> ProjectRow | None:
    """Hold the project until the transaction ends: sums made now stay true until then."""
    row = connection.execute(_LOCK, {"id": project_id}).one_or_none()
    return None if row is None else _row(row)


def project_usage(
    connection: Connection, project_id: ProjectId, *, ceilings: Quota | None = None
) -> Usage:
    """Sum what the project uses.

    With `ceilings` only what they limit is summed, the rest stays 0: a project without a
    ceiling pays nothing for the sum.
    """
    return _usages(connection, [project_id], ceilings)[project_id]


def _usages(
    connection: Connection, project_ids: Collection[ProjectId], ceilings: Quota | None = None
) -> dict[ProjectId, Usage]:
    summed: dict[ProjectId, dict[str, int]] = {project_id: {} for project_id in project_ids}
    for query, names in _SUMS:
        if ceilings is not None and all(getattr(ceilings, name) < 0 for name in names):
            continue
        for row in connection.execute(query, {"project_ids": list(project_ids)}):
            for name in names:
                summed[row.project_id][name] = int(row._mapping[name])
    return {project_id: Usage(**sums) for project_id, sums in summed.items()}


def project_show(connection: Connection, project_id: ProjectId) -> ProjectFacts | None:
    """Return the live project with its present use, or None."""
    found = project_by_id(connection, project_id)
    if found is None or found.gone_ms:
        return None
    return _shown(found, project_usage(connection, project_id))


def _shown(row: ProjectRow, usage: Usage) -> ProjectFacts:
    return ProjectFacts(
        id=row.id,
        name=row.name,
        quota=row.quota,
        usage=usage,
        created_ms=row.created_ms,
        version=row.version,
    )


def project_list(
    connection: Connection,
    *,
    project_ids: Collection[ProjectId] | None,
    rows_max: int,
    cursor: str | None = None,
) -> Page[ProjectFacts]:
    """Return live projects with their use, by name; `project_ids` None means all."""
    query = _ROWS.where(projects.c.gone_ms == 0)
    if project_ids is not None:
        query = query.where(projects.c.id.in_(list(project_ids)))
    page = page_fetch(
        connection, query, [projects.c.name], cursor=cursor, rows_max=rows_max, make=_row
    )
    usages = _usages(connection, [row.id for row in page.items]) if page.items else {}
    return Page(items=tuple(_shown(row, usages[row.id]) for row in page.items), next=page.next)


def project_things(connection: Connection, project_id: ProjectId) -> dict[str, int]:
    """Count what the project still has in any form, also what is on its way out."""
    live = {
        "instances": (instances, instances.c.gone_ms == 0),
        "volumes": (volumes, volumes.c.gone_ms == 0),
        "images": (images, images.c.gone_ms == 0),
        "addresses": (leases, leases.c.released_ms == 0),
    }
    return {
        what: int(
            connection.execute(
                select(func.count())
                .select_from(table)
                .where(table.c.project_id == project_id, condition)
            ).scalar_one()
        )
        for what, (table, condition) in live.items()
    }


def project_update(
    connection: Connection,
    project_id: ProjectId,
    *,
    version: int | None,
    name: str | None = None,
    quota: Quota | None = None,
    gone_ms: int | None = None,
) -> ProjectRow:
    """Change what is given; refuse when the project is no longer as the caller read it.

    `version` None changes whatever is there. A project that is gone keeps its name.
    """
    changes: dict[str, Any] = {} if quota is None else _quota_values(quota)
    if name is not None:
        changes["name"] = name
    if gone_ms is not None:
        changes["gone_ms"] = gone_ms
    statement = update(projects).where(projects.c.id == project_id)
    if version is not None:
        statement = statement.where(projects.c.version == version)
    try:
        done = connection.execute(statement.values(version=projects.c.version + 1, **changes))
    except IntegrityError as error:
        raise _name_taken(name or project_id) from error
    after = project_by_id(connection, project_id)
    if done.rowcount != 1 or after is None:
        raise stale_refused("project", project_id, exists=after is not None)
    return after


_ROLES: Final = (
    select(memberships.c.project_id, memberships.c.role)
    .select_from(memberships.join(projects, projects.c.id == memberships.c.project_id))
    .where(memberships.c.user_id == bindparam("user_id"), projects.c.gone_ms == 0)
)


def member_roles(connection: Connection, user_id: UserId) -> dict[ProjectId, Role]:
    """Return the user's role in each live project that they belong to."""
    rows = connection.execute(_ROLES, {"user_id": user_id})
    return {row.project_id: Role(row.role) for row in rows}


def member_role(connection: Connection, project_id: ProjectId, user_id: UserId) -> Role | None:
    """Return the user's role in this project, or None."""
    text = connection.execute(
        select(memberships.c.role).where(
            memberships.c.project_id == project_id, memberships.c.user_id == user_id
        )
    ).scalar_one_or_none()
    return None if text is None else Role(text)


def member_ensure(
    connection: Connection, project_id: ProjectId, user_id: UserId, role: Role
) -> None:
    """Leave the user in the project with exactly this role."""
    insert = upsert(connection, memberships)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["project_id", "user_id"], set_={"role": insert.excluded.role}
        ),
        {"project_id": project_id, "user_id": user_id, "role": role.value},
    )


def member_remove(connection: Connection, project_id: ProjectId, user_id: UserId) -> bool:
    """Take the user out of the project; tell whether they were in it."""
    where = and_(memberships.c.project_id == project_id, memberships.c.user_id == user_id)
    return connection.execute(delete(memberships).where(where)).rowcount == 1


def member_list(
    connection: Connection, project_id: ProjectId, *, rows_max: int, cursor: str | None = None
) -> Page[Member]:
    """Return who belongs to the project, by name."""
    query = (
        select(
            memberships.c.project_id,
            memberships.c.user_id,
            memberships.c.role,
            users.c.name,
        )
        .select_from(memberships.join(users, users.c.id == memberships.c.user_id))
        .where(memberships.c.project_id == project_id)
    )
    return page_fetch(
        connection, query, [users.c.name], cursor=cursor, rows_max=rows_max, make=_member
    )


def _member(row: AnyRow) -> Member:
    return Member(
        project_id=row.project_id,
        user_id=row.user_id,
        user_name=row.name,
        role=Role(row.role),
    )
