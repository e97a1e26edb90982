"""How does a user look after instances? List, show, stop, start, reboot, rename, delete."""

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter

from stratus.cli.client import LIST_ROWS_MAX, Client, Rows, client_open, decode, part
from stratus.cli.names import instance_find
from stratus.cli.options import (
    AllProjects,
    InstanceRef,
    InstanceRefs,
    Limit,
    MoreRefs,
    ProjectOption,
)
from stratus.cli.output import (
    HUMAN,
    Format,
    Progress,
    age,
    list_json,
    note,
    say,
    say_facts,
    say_json,
    say_rows,
)
from stratus.cli.waiting import (
    PATIENT,
    Outcome,
    Patience,
    Seen,
    Watched,
    failed,
    follow,
    seen_of,
    why,
)
from stratus.model.instance import Desired, Phase
from stratus.model.units import MIB, size_text
from stratus.wire.v1 import InstanceChange, InstanceChanged, InstanceStop, InstanceView, NicView


def ps(
    *,
    project: ProjectOption = "",
    all_projects: AllProjects = False,
    host: Annotated[str, Parameter(help="Only those on this host.")] = "",
    phase: Annotated[
        Phase | None, Parameter(metavar="PHASE", help="Only those in this phase: running, ...")
    ] = None,
    limit: Limit = 0,
    output: Format = HUMAN,
) -> None:
    """List instances.

    Instances that wait or failed say why in the column REASON; `stratus show` says it in full.

    $ stratus ps
    $ stratus ps -q --phase stopped
    """
    client = client_open(note)
    chosen = "" if all_projects else project or client.place.project
    rows = client.rows(
        "/v1/instances",
        query={"project": chosen, "all_projects": all_projects, "host": host},
        rows_max=0 if phase else limit,
    )
    if phase:
        chosen_rows = [raw for raw in rows.items if decode(raw, InstanceView).phase == phase]
        rows = Rows(items=chosen_rows[: limit or None], next=rows.next)
    if output.json:
        say_json(list_json(rows.items, rows.next))
    else:
        views = [decode(raw, InstanceView) for raw in rows.items]
        if output.quiet:
            for view in views:
                say(view.id)
        else:
            instances_say(views, projects=all_projects)
    if rows.next is not None and not limit:
        note(f"Only the first {LIST_ROWS_MAX} were looked at; --host or --project narrow it.")


def instances_say(views: Sequence[InstanceView], *, projects: bool = False) -> None:
    """Print instances as a table."""
    now_ms = time.time_ns() // 1_000_000
    columns: list[tuple[str, Callable[[InstanceView], object]]] = [
        ("ID", lambda view: view.id),
        ("NAME", lambda view: view.name),
        ("PHASE", lambda view: view.phase),
        ("ADDRESS", lambda view: view.address or view.address6),
        ("TYPE", lambda view: view.type),
        ("IMAGE", lambda view: view.image.name),
        ("HOST", lambda view: view.host),
        ("AGE", lambda view: age(view.created_at, now_ms=now_ms)),
    ]
    if projects:
        columns.insert(2, ("PROJECT", lambda view: view.project.name))
    if any(view.reason for view in views):
        columns.append(("REASON", lambda view: view.reason.replace("_", " ")))
    say_rows(views, columns, empty="There are no instances; stratus run IMAGE starts one.")


def show(ref: InstanceRef, /, *, project: ProjectOption = "", output: Format = HUMAN) -> None:
    """Show one instance with all that is known of it.

    $ stratus show web
    $ stratus show web --json
    """
    client = client_open(note)
    view = instance_find(client, ref, project=project)
    if output.quiet:
        say(view.id)
        return
    answer = client.call("GET", f"/v1/instances/{part(view.id)}")
    if output.json:
        say_json(answer.body)
        return
    instance_say(decode(answer.body, InstanceView))


def instance_say(view: InstanceView) -> None:
    """Print one instance, a fact per line."""
    disks = f"{view.disks_ready} of {view.disks_wanted} ready" if view.disks_wanted else ""
    memory = size_text(view.memory_mib * MIB)
    identifier = f", {view.image.identifier}" if view.image.identifier else ""
    say_facts(
        (
            ("id", view.id),
            ("name", view.name),
            ("phase", f"{view.phase} ({view.reason})" if view.reason else view.phase),
            ("wish", view.desired),
            ("project", view.project.name),
            ("user", view.user.name),
            ("image", f"{view.image.name} ({view.image.id}{identifier})"),
            ("type", f"{view.type}: {view.vcpus} vCPU, {memory} memory"),
            ("swap", size_text(view.swap_mib * MIB) if view.swap_mib else ""),
            ("root disk", f"{view.root_gib} GiB" if view.root_gib else ""),
            ("volatile disk", f"{view.volatile_gib} GiB" if view.volatile_gib else ""),
            ("address", view.address),
            ("address6", view.address6),
            *((f"network {nic.network}", _nic_text(nic)) for nic in view.nics),
            ("host", view.host),
            ("accelerator", view.accelerator),
            ("on halt", view.on_halt),
            ("disks", disks),
            ("created", view.created_at),
            ("wished", view.desired_at),
            ("placed", view.placed_at),
            ("observed", view.observed_at),
            ("host silent since", view.host_unreachable_since),
            ("failed starts", view.failures or ""),
        )
    )
    for label, problem in (
        ("given up", view.parked),
        ("waits", view.waiting if view.phase is Phase.PENDING else None),
        ("last failure", view.failure if view.failure != view.parked else None),
    ):
        if problem is not None:
            say_facts(((label, problem.detail), (" " * (len(label) - 3) + "try", problem.remedy)))


def _nic_text(nic: NicView) -> str:
    return " ".join(text for text in (nic.mac, nic.ipv4, nic.ipv6) if text)


def stop(
    ref: InstanceRefs,
    /,
    *more: MoreRefs,
    release: Annotated[
        bool, Parameter(help="Give the host's room back while it is stopped.")
    ] = False,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Stop instances: ask the guest, then power off.

    The disks stay. Without --release the room on the host stays reserved as well.

    $ stratus stop web
    $ stratus stop web db --release --no-wait
    """
    _change(
        (ref, *more),
        "stop",
        InstanceStop(release=release),
        goal="stopped",
        settled=lambda view: view.phase is Phase.STOPPED,
        project=project,
        patience=patience,
        output=output,
    )


def start(
    ref: InstanceRefs,
    /,
    *more: MoreRefs,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Start stopped instances.

    $ stratus start web
    """
    _change(
        (ref, *more),
        "start",
        None,
        goal="running",
        settled=_running,
        project=project,
        patience=patience,
        output=output,
    )


def reboot(
    ref: InstanceRefs,
    /,
    *more: MoreRefs,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Reboot running instances.

    $ stratus reboot web
    """
    _change(
        (ref, *more),
        "reboot",
        None,
        goal="running again",
        settled=_running,
        project=project,
        patience=patience,
        output=output,
    )


def retry(
    ref: InstanceRefs,
    /,
    *more: MoreRefs,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Try again what had failed for good.

    After several failures the cloud leaves an instance alone; this makes it try anew.

    $ stratus retry web
    """
    _change(
        (ref, *more),
        "retry",
        None,
        goal="as wished",
        settled=_as_wished,
        project=project,
        patience=patience,
        output=output,
    )


def rm(
    ref: InstanceRefs,
    /,
    *more: MoreRefs,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Delete instances with their disks.

    $ stratus rm web
    $ stratus rm $(stratus ps -q --phase stopped)
    """
    _change(
        (ref, *more),
        "delete",
        None,
        goal="deleted",
        settled=lambda view: view.phase is Phase.DELETED,
        project=project,
        patience=patience,
        output=output,
    )


def rename(
    ref: InstanceRef,
    name: Annotated[str, Parameter(help="The new name: lower-case letters, digits, hyphens.")],
    /,
    *,
    project: ProjectOption = "",
    output: Format = HUMAN,
) -> None:
    """Give an instance another name.

    The guest keeps the host name that it took at its first boot.

    $ stratus rename web www
    """
    client = client_open(note)
    view = instance_find(client, ref, project=project)
    answer = client.call("PATCH", f"/v1/instances/{part(view.id)}", body=InstanceChange(name=name))
    if output.json:
        say_json(answer.body)
    elif output.quiet:
        say(view.id)
    else:
        instances_say([decode(answer.body, InstanceView)])


def _running(view: InstanceView) -> bool:
    return view.phase in (Phase.RUNNING, Phase.FAILED)


def _as_wished(view: InstanceView) -> bool:
    match view.desired:
        case Desired.RUNNING:
            return _running(view)
        case Desired.STOPPED:
            return view.phase is Phase.STOPPED
        case Desired.ABSENT:
            return view.phase is Phase.DELETED


def _change(
    refs: Sequence[str],
    verb: str,
    body: msgspec.Struct | None,
    *,
    goal: str,
    settled: Callable[[InstanceView], bool],
    project: str,
    patience: Patience,
    output: Format,
) -> None:
    """Ask for the change of every instance first, then wait for all of them."""
    client = client_open(note)
    found = {view.id: view for view in (instance_find(client, r, project=project) for r in refs)}
    deadline = patience.deadline()
    asked = [
        Watched(operation=operation, instances=[seen], goal=goal, settled=settled)
        for operation, seen in (_ask(client, view_id, verb, body) for view_id in found)
    ]
    outcomes = [Outcome(instances=watched.instances, failures=[]) for watched in asked]
    if not patience.no_wait:
        progress = Progress()
        outcomes = [follow(client, w, deadline=deadline, progress=progress) for w in asked]
    outcome = Outcome(
        instances=[seen for one in outcomes for seen in one.instances],
        failures=[failure for one in outcomes for failure in one.failures],
    )
    _say(outcome, output, verb=verb)
    if (trouble := failed(outcome, goal)) is not None:
        raise trouble


def _ask(
    client: Client, instance_id: str, verb: str, body: msgspec.Struct | None
) -> tuple[str, Seen]:
    path = f"/v1/instances/{part(instance_id)}"
    if verb == "delete":
        answer = client.call("DELETE", path)
    else:
        answer = client.call("POST", f"{path}/{verb}", body=body)
    return decode(answer.body, InstanceChanged).operation, seen_of(answer.body)


def _say(outcome: Outcome, output: Format, *, verb: str) -> None:
    views = [seen.view for seen in outcome.instances]
    if output.quiet:
        for view in views:
            say(view.id)
    elif output.json:
        if len(views) == 1:
            say_json(outcome.instances[0].raw)
        else:
            say_json(list_json([msgspec.Raw(seen.raw) for seen in outcome.instances], None))
    elif verb == "delete":
        for view in views:
            note(f"{view.name} ({view.id}): {why(view)}")
    else:
        instances_say(views)
