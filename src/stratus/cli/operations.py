"""Has what was asked for come true? List and show operations."""

from typing import Annotated

from cyclopts import Parameter

from stratus.cli.client import client_open, decode, part
from stratus.cli.listing import Columns, list_say, one_say
from stratus.cli.options import Limit
from stratus.cli.output import HUMAN, Format, Progress, note
from stratus.cli.trouble import Exit, Trouble
from stratus.cli.waiting import Patience, moment_over, poll_seconds
from stratus.model.operation import OperationStatus
from stratus.wire.v1 import OperationView


def ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List what was asked for lately.

    $ stratus operation ls
    """
    columns: Columns[OperationView] = (
        ("ID", lambda view: view.id),
        ("KIND", lambda view: view.kind),
        ("OUTCOME", _outcome),
        ("SUBJECTS", _subjects),
        ("ASKED", lambda view: view.created_at),
    )
    list_say(
        client_open(note),
        "/v1/operations",
        OperationView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        limit=limit,
        empty="Nothing was asked for.",
    )


def show(
    operation: Annotated[str, Parameter(help="The id of the operation.")],
    /,
    *,
    wait: Annotated[bool, Parameter(help="Wait until it is done.")] = False,
    timeout: Annotated[
        float, Parameter(help="With --wait: at most this many seconds; 0 waits without end.")
    ] = 0.0,
    output: Format = HUMAN,
) -> None:
    """Show whether a request has come true.

    $ stratus operation show opn-01j8x0a2b3c4d5e6 --wait
    """
    client = client_open(note)
    deadline = Patience(timeout=timeout).deadline()
    progress = Progress()
    path = f"/v1/operations/{part(operation)}"
    answer = client.call("GET", path)
    view = decode(answer.body, OperationView)
    try:
        while wait and not view.done:
            progress.show(f"{view.kind}: {_outcome(view)}")
            if moment_over(deadline):
                raise Trouble(
                    Exit.TIMEOUT,
                    f"Operation {view.id} is not done yet.",
                    remedy=f"The request goes on; look later: stratus operation show {view.id}",
                )
            seconds = poll_seconds(deadline)
            answer = client.call("GET", path, query={"wait": seconds or None}, wait_seconds=seconds)
            view = decode(answer.body, OperationView)
    finally:
        progress.end()
    one_say(answer, OperationView, _facts, id_of=lambda one: one.id, output=output)
    if wait and view.failed is not None:
        raise Trouble(
            Exit.FAILED, view.failed.detail, remedy=view.failed.remedy, code=view.failed.code
        )


def _outcome(view: OperationView) -> str:
    match view.status:
        case OperationStatus.RUNNING:
            return f"under way, {view.subjects_done} of {len(view.subjects)} done"
        case OperationStatus.SUPERSEDED:
            return "replaced by a later wish"
        case OperationStatus.DONE | OperationStatus.FAILED:
            return view.status.value


def _subjects(view: OperationView) -> str:
    more = f" and {len(view.subjects) - 2} more" if len(view.subjects) > 2 else ""
    return ", ".join(view.subjects[:2]) + more


def _facts(view: OperationView) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [
        ("id", view.id),
        ("kind", view.kind),
        ("outcome", _outcome(view)),
        ("asked", view.created_at),
        ("subjects", view.subjects),
    ]
    if view.failed is not None:
        found += [("failed", view.failed.detail), ("try", view.failed.remedy)]
    return found
