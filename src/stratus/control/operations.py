"""What became of what was asked? Operations are read here; whether they are done is computed."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from stratus.control.world import World
from stratus.decide.access import Verb, access_decide, unknown
from stratus.decide.operation import InstanceGoal, operation_verdict
from stratus.model.ids import InstanceId, OperationId, ProjectId
from stratus.model.instance import InstanceFacts
from stratus.model.operation import OperationFacts
from stratus.model.page import Page
from stratus.model.problem import Refused
from stratus.model.tenancy import Actor
from stratus.store.instances import instances_by_ids
from stratus.store.operations import OperationRow, operation_find, operation_list


def operation_show(world: World, actor: Actor, operation_id: OperationId) -> OperationFacts:
    """Return one operation with what has become of it."""

    def show(connection: Connection) -> OperationFacts:
        row = operation_find(connection, operation_id)
        if row is None:
            raise Refused(unknown("operation", operation_id))
        assert row.project_id is not None
        refusal = access_decide(
            actor, Verb.OPERATION_READ, project_id=row.project_id, ref=operation_id
        )
        if refusal is not None:
            hidden = refusal.code == "not_found"
            raise Refused(unknown("operation", operation_id) if hidden else refusal)
        return _facts(connection, [row])[0]

    return world.store.read(show)


def operation_page(
    world: World, actor: Actor, *, cursor: str | None, rows_max: int
) -> Page[OperationFacts]:
    """Return a page of the operations of the actor's projects, oldest first."""
    refusal = access_decide(actor, Verb.SELF_READ)
    if refusal is not None:
        raise Refused(refusal)

    def page(connection: Connection) -> Page[OperationFacts]:
        rows = operation_list(
            connection, project_ids=sorted(actor.roles), rows_max=rows_max, cursor=cursor
        )
        return Page(items=tuple(_facts(connection, rows.items)), next=rows.next)

    return world.store.read(page)


def _facts(connection: Connection, rows: Sequence[OperationRow]) -> list[OperationFacts]:
    ids = {InstanceId(subject) for row in rows for subject in row.subjects}
    found = instances_by_ids(connection, ids)
    return [_one(row, found) for row in rows]


def _one(row: OperationRow, found: dict[InstanceId, InstanceFacts]) -> OperationFacts:
    goal = msgspec.convert(row.goal, InstanceGoal)
    subjects = [found[InstanceId(i)] for i in row.subjects if InstanceId(i) in found]
    verdict = operation_verdict(goal, subjects)
    return OperationFacts(
        id=row.id,
        kind=row.kind,
        project_id=row.project_id or ProjectId(""),
        user_id=row.user_id,
        created_ms=row.created_ms,
        subjects=row.subjects,
        status=verdict.status,
        subjects_done=verdict.subjects_done,
        problem=verdict.problem,
    )
