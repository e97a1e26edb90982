"""Virtual machines: make, see, change and remove them."""

from collections.abc import Callable
from typing import Any, Final

from stratus.api.endpoint import Call, Endpoint, Follow, NoBody, NoQuery, Reply, endpoint
from stratus.api.pools import Lane
from stratus.api.queries import ConsoleQuery, InstanceCreateQuery, InstanceQuery, WaitQuery
from stratus.api.refs import host_ref, project_ref
from stratus.control.events import events_of
from stratus.control.instances import (
    instance_delete,
    instance_page,
    instance_reboot,
    instance_release,
    instance_rename,
    instance_retry,
    instance_show,
    instance_start,
    instance_stop,
    instances_create,
    instances_explain,
)
from stratus.control.operations import operation_show
from stratus.model.ids import InstanceId, OperationId, ProjectId
from stratus.model.instance import InstanceFacts, Phase, phase_of
from stratus.model.limits import PAGE_ROWS_MAX
from stratus.model.operation import OperationStatus
from stratus.wire.v1 import (
    EventView,
    ExplanationView,
    InstanceChange,
    InstanceChanged,
    InstanceCreateBody,
    InstancesMade,
    InstanceStop,
    InstanceView,
    Page,
    event_view,
    explanation_view,
    instance_changed,
    instance_create,
    instance_view,
)

TAG: Final = "instances"
SETTLED: Final = frozenset((Phase.RUNNING, Phase.STOPPED, Phase.DELETED, Phase.FAILED))
REFUSALS: Final = ("conflict", "quota_exceeded", "never_fits", "policy_forbids")


def _id(call: Call[Any, Any]) -> InstanceId:
    return InstanceId(call.params["instance"])


def _shown(call: Call[Any, Any], facts: InstanceFacts) -> Reply:
    names = call.services.names.of_instances((facts,))
    return Reply(value=instance_view(facts, names), version=facts.version)


@endpoint(
    "GET",
    "/v1/instances",
    tag=TAG,
    title="List instances",
    answer=Page[InstanceView],
    query=InstanceQuery,
)
def instance_list(call: Call[NoBody, InstanceQuery]) -> Reply:
    """Live instances of one project, of the caller's projects, or of all (administrators and
    auditors), oldest first."""
    query = call.query
    page = instance_page(
        call.world,
        call.actor,
        project_id=project_ref(call, query.project) if query.project else None,
        all_projects=query.all_projects,
        host_id=host_ref(call, query.host) if query.host else None,
        name=query.name,
        cursor=query.cursor,
        rows_max=query.limit,
    )
    names = call.services.names.of_instances(page.items)
    items = [instance_view(facts, names) for facts in page.items]
    return Reply(value=Page(items=items, next=page.next))


@endpoint(
    "POST",
    "/v1/instances",
    tag=TAG,
    title="Make instances",
    body=InstanceCreateBody,
    query=InstanceCreateQuery,
    answer=InstancesMade,
    status=202,
    others=((200, ExplanationView),),
    codes=(*REFUSALS, "addresses_exhausted", "image_not_ready"),
)
def instances_make(call: Call[InstanceCreateBody, InstanceCreateQuery]) -> Reply:
    """Wishes for `count` instances, all of them or none; addresses are theirs at once. With
    `dry_run` nothing is made: the answer explains what would become of it."""
    body = call.body
    wish = instance_create(body, project_id=ProjectId(body.project))
    if call.query.dry_run:
        said = instances_explain(call.world, call.actor, wish, origin=call.origin)
        explained = explanation_view(
            fits=said.fits,
            count=said.count,
            placed=said.placed,
            hosts=said.hosts,
            rules=said.rules,
            problem=said.problem,
        )
        return Reply(value=explained, status=200)
    operation, made = instances_create(call.world, call.actor, wish, origin=call.origin)
    ids = tuple(facts.id for facts in made)

    def shown(all_: tuple[InstanceFacts, ...]) -> Reply:
        names = call.services.names.of_instances(all_)
        items = [instance_view(facts, names) for facts in all_]
        value = InstancesMade(operation=operation, items=items)
        return Reply(value=value, operation=operation)

    def again() -> Reply | None:
        if not _done(call, operation):
            return None
        return shown(tuple(instance_show(call.world, call.actor, id_) for id_ in ids))

    return _followed(shown(tuple(made)), ids, again)


@endpoint(
    "GET",
    "/v1/instances/{instance}",
    tag=TAG,
    title="Show an instance",
    query=WaitQuery,
    answer=InstanceView,
)
def instance_get(call: Call[NoBody, WaitQuery]) -> Reply:
    """One instance; with `wait` as soon as it is running, stopped, failed or deleted."""
    facts = instance_show(call.world, call.actor, _id(call))
    reply = _shown(call, facts)
    if not call.query.wait or phase_of(facts) in SETTLED:
        return reply

    def again() -> Reply | None:
        now = instance_show(call.world, call.actor, facts.id)
        return _shown(call, now) if phase_of(now) in SETTLED else None

    return _followed(reply, (facts.id,), again, late=lambda: _shown(call, _seen(call, facts)))


@endpoint(
    "PATCH",
    "/v1/instances/{instance}",
    tag=TAG,
    title="Rename an instance",
    body=InstanceChange,
    answer=InstanceChanged,
    matched=True,
    codes=("conflict",),
)
def instance_change(call: Call[InstanceChange, NoQuery]) -> Reply:
    """Gives it another name here; what the guest calls itself is the guest's affair."""
    operation, facts = instance_rename(
        call.world,
        call.actor,
        _id(call),
        name=call.body.name,
        version=call.version,
        origin=call.origin,
    )
    return _changed(call, operation, facts)


@endpoint(
    "DELETE",
    "/v1/instances/{instance}",
    tag=TAG,
    title="Delete an instance",
    query=WaitQuery,
    answer=InstanceChanged,
    status=202,
    matched=True,
)
def instance_remove(call: Call[NoBody, WaitQuery]) -> Reply:
    """Wishes it gone, its disks and addresses with it."""
    return _act(call, instance_delete)


@endpoint(
    "POST",
    "/v1/instances/{instance}/start",
    tag=TAG,
    title="Start an instance",
    query=WaitQuery,
    answer=InstanceChanged,
    status=202,
    matched=True,
    codes=(*REFUSALS, "image_not_ready"),
)
def instance_start_(call: Call[NoBody, WaitQuery]) -> Reply:
    """Wishes it running; one that runs already is left alone."""
    return _act(call, instance_start)


@endpoint(
    "POST",
    "/v1/instances/{instance}/stop",
    tag=TAG,
    title="Stop an instance",
    body=InstanceStop,
    query=WaitQuery,
    answer=InstanceChanged,
    status=202,
    matched=True,
    codes=("conflict",),
)
def instance_stop_(call: Call[InstanceStop, WaitQuery]) -> Reply:
    """Presses its power button, and pulls the plug after a grace. Disks and addresses stay."""
    operation, facts = instance_stop(
        call.world,
        call.actor,
        _id(call),
        release=call.body.release,
        version=call.version,
        origin=call.origin,
    )
    return _changed(call, operation, facts)


@endpoint(
    "POST",
    "/v1/instances/{instance}/reboot",
    tag=TAG,
    title="Reboot an instance",
    query=WaitQuery,
    answer=InstanceChanged,
    status=202,
    matched=True,
    codes=("conflict",),
)
def instance_reboot_(call: Call[NoBody, WaitQuery]) -> Reply:
    """Restarts the running guest, in place."""
    return _act(call, instance_reboot)


@endpoint(
    "POST",
    "/v1/instances/{instance}/release",
    tag=TAG,
    title="Release an instance's place",
    query=WaitQuery,
    answer=InstanceChanged,
    status=202,
    matched=True,
    codes=("conflict",),
)
def instance_release_(call: Call[NoBody, WaitQuery]) -> Reply:
    """Gives a stopped instance's place on its host back; disks and addresses stay."""
    return _act(call, instance_release)


@endpoint(
    "POST",
    "/v1/instances/{instance}/retry",
    tag=TAG,
    title="Retry a failed instance",
    query=WaitQuery,
    answer=InstanceChanged,
    status=202,
    matched=True,
    codes=("conflict",),
)
def instance_retry_(call: Call[NoBody, WaitQuery]) -> Reply:
    """Tries again what was given up."""
    return _act(call, instance_retry)


@endpoint(
    "GET",
    "/v1/instances/{instance}/console",
    tag=TAG,
    title="Read an instance's console",
    query=ConsoleQuery,
    media="text/plain",
    lane=Lane.SLOW,
    codes=("host_unreachable",),
)
def instance_console(call: Call[NoBody, ConsoleQuery]) -> Reply:
    """The end of what the guest printed on its serial console."""
    facts = instance_show(call.world, call.actor, _id(call))
    text = call.services.console(facts, call.query.bytes)
    return Reply(text=text[-call.query.bytes :])


@endpoint(
    "GET",
    "/v1/instances/{instance}/events",
    tag=TAG,
    title="List an instance's events",
    answer=Page[EventView],
)
def instance_events(call: Call[NoBody, NoQuery]) -> Reply:
    """The last things that happened to it, oldest first."""
    facts = instance_show(call.world, call.actor, _id(call))
    events = events_of(call.world, facts.id, rows_max=PAGE_ROWS_MAX)
    return Reply(value=Page(items=[event_view(event) for event in events]))


# --- what they have in common ---


Act = Callable[..., tuple[OperationId, InstanceFacts]]


def _act(call: Call[NoBody, WaitQuery], act: Act) -> Reply:
    operation, facts = act(
        call.world, call.actor, _id(call), version=call.version, origin=call.origin
    )
    return _changed(call, operation, facts)


def _changed(call: Call[Any, Any], operation: OperationId, facts: InstanceFacts) -> Reply:
    def shown(now: InstanceFacts) -> Reply:
        names = call.services.names.of_instances((now,))
        value = instance_changed(now, names, operation=operation)
        return Reply(value=value, version=now.version, operation=operation)

    def again() -> Reply | None:
        return shown(_seen(call, facts)) if _done(call, operation) else None

    return _followed(shown(facts), (facts.id,), again, late=lambda: shown(_seen(call, facts)))


def _done(call: Call[Any, Any], operation: OperationId) -> bool:
    found = operation_show(call.world, call.actor, operation)
    return found.status is not OperationStatus.RUNNING


def _seen(call: Call[Any, Any], facts: InstanceFacts) -> InstanceFacts:
    return instance_show(call.world, call.actor, facts.id)


def _followed(
    reply: Reply,
    subjects: tuple[str, ...],
    again: Callable[[], Reply | None],
    late: Callable[[], Reply] | None = None,
) -> Reply:
    follow = Follow(subjects=subjects, again=again, late=late)
    return Reply(
        value=reply.value,
        version=reply.version,
        operation=reply.operation,
        follow=follow,
    )


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    instance_list,
    instances_make,
    instance_get,
    instance_change,
    instance_remove,
    instance_start_,
    instance_stop_,
    instance_reboot_,
    instance_release_,
    instance_retry_,
    instance_console,
    instance_events,
)
