"""What was asked for, and what happened: operations, events, and the stream of events."""

from typing import Final

from stratus.api.endpoint import Call, Endpoint, Follow, NoBody, Reply, Stream, endpoint
from stratus.api.queries import EventQuery, PageQuery, WaitQuery
from stratus.api.refs import project_ref
from stratus.control.events import event_filter, events_newest, events_page, events_visible
from stratus.control.operations import operation_page, operation_show
from stratus.model.ids import OperationId
from stratus.model.operation import OperationStatus
from stratus.wire.v1 import EventView, OperationView, Page, event_view, operation_view

TAG: Final = "history"
BEGIN: Final = "0-0"


@endpoint(
    "GET",
    "/v1/operations",
    tag=TAG,
    title="List operations",
    query=PageQuery,
    answer=Page[OperationView],
)
def operation_list(call: Call[NoBody, PageQuery]) -> Reply:
    """What was asked for in the caller's projects, oldest first."""
    query = call.query
    page = operation_page(call.world, call.actor, cursor=query.cursor, rows_max=query.limit)
    return Reply(value=Page(items=[operation_view(o) for o in page.items], next=page.next))


@endpoint(
    "GET",
    "/v1/operations/{operation}",
    tag=TAG,
    title="Show an operation",
    query=WaitQuery,
    answer=OperationView,
)
def operation_get(call: Call[NoBody, WaitQuery]) -> Reply:
    """Whether it has come true; with `wait` as soon as nothing more comes of it."""
    id_ = OperationId(call.params["operation"])

    def shown() -> Reply:
        return Reply(value=operation_view(operation_show(call.world, call.actor, id_)))

    facts = operation_show(call.world, call.actor, id_)
    if not call.query.wait or facts.status is not OperationStatus.RUNNING:
        return Reply(value=operation_view(facts))

    def again() -> Reply | None:
        now = operation_show(call.world, call.actor, id_)
        if now.status is OperationStatus.RUNNING:
            return None
        return Reply(value=operation_view(now))

    follow = Follow(subjects=facts.subjects, again=again, late=shown)
    return Reply(value=operation_view(facts), follow=follow)


@endpoint(
    "GET",
    "/v1/events",
    tag=TAG,
    title="List or follow events",
    query=EventQuery,
    answer=Page[EventView],
    also=("text/event-stream",),
)
def event_list(call: Call[NoBody, EventQuery]) -> Reply:
    """What happened in the caller's projects, oldest first; administrators and auditors see
    everything. Asked for `text/event-stream` it goes on with what happens from now on, or
    after the event named by `Last-Event-ID` or `after`."""
    query = call.query
    project_id = project_ref(call, query.project) if query.project else None
    visible = events_visible(call.actor, project_id=project_id)
    world, subject = call.world, query.subject
    if call.stream:
        after = call.last_event_id or query.after
        # Also refuses a cursor that nobody gave out, before the stream begins.
        if after:
            events_page(world, visible, after=after, rows_max=1)
        return Reply(
            stream=Stream(
                after=after or events_newest(world),
                mine=event_filter(visible, subject=subject),
                page=lambda cursor, rows_max: (
                    events_page(
                        world, visible, after=cursor, rows_max=rows_max, subject=subject
                    ).items
                ),
            )
        )
    page = events_page(
        world,
        visible,
        after=query.cursor or query.after or BEGIN,
        rows_max=query.limit,
        subject=subject,
    )
    following = page.next if len(page.items) == query.limit else None
    return Reply(value=Page(items=[event_view(event) for event in page.items], next=following))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (operation_list, operation_get, event_list)
