"""What happened, as far as the caller may know it? Pages of the event log, and who sees which."""

from collections.abc import Callable

from stratus.control.world import World
from stratus.decide.access import Verb, access_decide
from stratus.model.event import Event
from stratus.model.ids import ProjectId
from stratus.model.page import Page
from stratus.model.problem import Refused
from stratus.model.tenancy import Actor
from stratus.store.events import event_cursor_last, event_history, event_page


def events_visible(
    actor: Actor, *, project_id: ProjectId | None = None
) -> frozenset[ProjectId] | None:
    """Return the projects whose events the caller sees; None stands for everything.

    Who sees every project also sees what belongs to none, as hosts and users.
    """
    if project_id is not None:
        if (problem := access_decide(actor, Verb.EVENT_READ, project_id=project_id)) is not None:
            raise Refused(problem)
        return frozenset((project_id,))
    if access_decide(actor, Verb.AUDIT_READ) is None:
        return None
    own = frozenset(actor.roles)
    for mine in own:
        if (problem := access_decide(actor, Verb.EVENT_READ, project_id=mine)) is not None:
            raise Refused(problem)
    return own


def event_filter(
    visible: frozenset[ProjectId] | None, *, subject: str | None = None
) -> Callable[[Event], bool]:
    """Return the test that lets pass what `events_page` with the same arguments returns."""

    def mine(event: Event) -> bool:
        if subject is not None and event.subject != subject:
            return False
        return visible is None or event.project_id in visible

    return mine


def events_page(
    world: World,
    visible: frozenset[ProjectId] | None,
    *,
    after: str,
    rows_max: int,
    subject: str | None = None,
) -> Page[Event]:
    """Return what happened after the cursor in these projects, oldest first."""
    return world.store.read(
        lambda connection: event_page(
            connection, after=after, rows_max=rows_max, project_ids=visible, subject=subject
        )
    )


def events_newest(world: World) -> str:
    """Return the cursor of the newest event."""
    return world.store.read(event_cursor_last)


def events_order(cursor: str) -> tuple[int, ...]:
    """Return the place of a cursor that the store gave out: later events come after."""
    return tuple(map(int, cursor.split("-")))


def events_of(world: World, subject: str, *, rows_max: int) -> tuple[Event, ...]:
    """Return the last things that happened to this thing, which the caller may see."""
    return world.store.read(
        lambda connection: event_history(connection, subject, rows_max=rows_max)
    )
