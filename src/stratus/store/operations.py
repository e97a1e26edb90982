"""What did users ask for? The goal and its subjects; whether it is reached is computed."""

from collections.abc import Collection
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, select

from stratus.model.ids import OperationId, ProjectId, UserId
from stratus.model.page import Page
from stratus.store.json import json_text, json_value
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import operations


class OperationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One request that takes time: of these subjects this must come to hold."""

    id: OperationId
    kind: str
    user_id: UserId
    subjects: tuple[str, ...]
    goal: dict[str, Any]
    created_ms: int
    project_id: ProjectId | None = None


_ROWS: Final = select(*(operations.c[name] for name in OperationRow.__struct_fields__))
_BY_ID: Final = _ROWS.where(operations.c.id == bindparam("id"))


def _row(row: AnyRow) -> OperationRow:
    return OperationRow(
        id=row.id,
        kind=row.kind,
        user_id=row.user_id,
        subjects=json_value(tuple[str, ...], row.subjects),
        goal=json_value(dict[str, Any], row.goal),
        created_ms=row.created_ms,
        project_id=row.project_id or None,
    )


def operation_create(connection: Connection, operation: OperationRow) -> None:
    """Write down what was asked for."""
    values = msgspec.structs.asdict(operation) | {
        "project_id": operation.project_id or "",
        "subjects": json_text(operation.subjects),
        "goal": json_text(operation.goal),
    }
    connection.execute(operations.insert(), values)


def operation_find(connection: Connection, operation_id: OperationId) -> OperationRow | None:
    """Return the operation with this id, or None."""
    row = connection.execute(_BY_ID, {"id": operation_id}).one_or_none()
    return None if row is None else _row(row)


def operation_list(
    connection: Connection,
    *,
    project_ids: Collection[ProjectId] | None,
    rows_max: int,
    user_id: UserId | None = None,
    cursor: str | None = None,
) -> Page[OperationRow]:
    """Return operations in the order they were asked for; None as a filter lets all pass."""
    query = _ROWS
    if project_ids is not None:
        query = query.where(operations.c.project_id.in_(list(project_ids)))
    if user_id is not None:
        query = query.where(operations.c.user_id == user_id)
    return page_fetch(
        connection, query, [operations.c.id], cursor=cursor, rows_max=rows_max, make=_row
    )
