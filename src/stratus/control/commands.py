"""What do all commands have in common? Rights, versions, events, and waking those who act."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

from stratus.control.world import Origin, World
from stratus.decide.access import Verb, access_decide
from stratus.model.ids import ProjectId
from stratus.model.problem import Refused
from stratus.model.tenancy import Actor
from stratus.store.events import event_append
from stratus.store.guard import stale_refused

T = TypeVar("T")


def allow(actor: Actor, verb: Verb, *, project_id: ProjectId | None = None, ref: str = "") -> None:
    """Refuse what the actor may not do."""
    problem = access_decide(actor, verb, project_id=project_id, ref=ref)
    if problem is not None:
        raise Refused(problem)


def version_check(noun: str, ref: str, *, found: int, wanted: int | None) -> None:
    """Refuse a change of what is no longer as the caller read it; None changes whatever is there.

    The caller holds the row.
    """
    if wanted is not None and found != wanted:
        raise stale_refused(noun, ref, exists=True)


def commit(world: World, function: Callable[[Connection], T], *topics: str) -> T:
    """Run the change, then wake the roles that act on it and whoever follows events."""
    result = world.store.write(function)
    for topic in (*topics, "events"):
        world.store.hints.send(topic)
    return result


def note(
    connection: Connection,
    world: World,
    actor: Actor,
    origin: Origin,
    kind: str,
    subject: str,
    *,
    project_id: ProjectId | None = None,
    **data: Any,  # noqa: ANN401  # becomes JSON
) -> None:
    """Write down, in the transaction of the change, who did what."""
    event_append(
        connection,
        now_ms=world.now_ms(),
        kind=kind,
        subject=subject,
        project_id=project_id,
        actor=actor.name,
        request_id=origin.request_id,
        data=data,
    )
