"""Has it come true yet? Follows an operation, an image or a host, and says what it waits for."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from stratus.cli.client import Client, decode, part
from stratus.cli.output import Progress
from stratus.cli.trouble import Exit, Trouble
from stratus.model.instance import Phase
from stratus.model.limits import WAIT_SECONDS_MAX
from stratus.model.operation import OperationStatus
from stratus.wire.v1 import InstanceView, OperationView, ProblemView

POLL_SECONDS: Final = 1
LOOK_ROWS_MAX: Final = 20  # instances looked at between two questions about the operation


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Patience:
    """Whether and how long to wait until the wish has come true."""

    no_wait: Annotated[bool, Parameter(help="Return once the request is accepted.")] = False
    timeout: Annotated[
        float, Parameter(help="Wait at most this many seconds; 0 waits without end.")
    ] = 0.0

    def deadline(self) -> float | None:
        """The monotonic time at which the patience is over."""
        return time.monotonic() + self.timeout if self.timeout > 0 else None


PATIENT: Final = Patience()


def moment_over(deadline: float | None) -> bool:
    """Tell whether the patience is over."""
    return deadline is not None and time.monotonic() >= deadline


def poll_seconds(deadline: float | None) -> int:
    """How long one question to the cloud may wait: short, so that progress stays live."""
    if deadline is None:
        return POLL_SECONDS
    left = deadline - time.monotonic()
    return max(0, min(POLL_SECONDS, WAIT_SECONDS_MAX, int(left)))


def pause(deadline: float | None) -> None:
    """Rest between two questions where the cloud itself does not hold the answer back."""
    left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
    time.sleep(max(0.05, min(POLL_SECONDS / 2, left)))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An instance as last seen, and the same in the API's own JSON."""

    view: InstanceView
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class Watched:
    """An operation to follow, with the instances it is about, and what is wished of them."""

    operation: str
    instances: list[Seen]
    goal: str  # in a word, such as running
    settled: Callable[[InstanceView], bool]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far it came: the instances as last seen, and what went wrong with which."""

    instances: list[Seen]
    failures: list[tuple[str, ProblemView]]


def seen_of(raw: bytes | msgspec.Raw) -> Seen:
    """Read an instance as the API wrote it."""
    return Seen(view=decode(raw, InstanceView), raw=bytes(raw))


def follow(
    client: Client, watched: Watched, *, deadline: float | None, progress: Progress
) -> Outcome:
    """Wait until the operation is done; Trouble when patience is over or the user has enough."""
    found = {seen.view.id: seen for seen in watched.instances}
    try:
        while True:
            operation = operation_show(client, watched.operation, deadline)
            _look(client, found, watched, everything=operation.done)
            if operation.done:
                break
            progress.show(_progress(found, watched))
            if moment_over(deadline):
                raise _impatient(found, watched)
            if poll_seconds(deadline) == 0:
                pause(deadline)
    except KeyboardInterrupt:
        progress.end()
        raise Trouble(
            Exit.INTERRUPTED,
            f"Stopped watching; the request goes on (operation {watched.operation}).",
            remedy=f"Look later: stratus operation show {watched.operation}",
        ) from None
    finally:
        progress.end()
    views = [seen.view for seen in found.values()]
    if operation.status is OperationStatus.SUPERSEDED and _open(found, watched):
        view = _open(found, watched)[0]
        raise Trouble(
            Exit.CONFLICT,
            f"{view.name or view.id} is {why(view)}: a later wish replaced this one.",
            remedy=f"See who asked for it: stratus events {view.id}",
            code="conflict",
        )
    failures = [(view.name or view.id, view.parked) for view in views if view.parked]
    if operation.failed is not None and not failures:
        failures = [(views[0].name if len(views) == 1 else "It", operation.failed)]
    return Outcome(instances=list(found.values()), failures=failures)


def operation_show(client: Client, operation: str, deadline: float | None) -> OperationView:
    """Return the operation, after the cloud has waited a moment for it to be done."""
    seconds = poll_seconds(deadline)
    answer = client.call(
        "GET",
        f"/v1/operations/{part(operation)}",
        query={"wait": seconds or None},
        wait_seconds=seconds,
    )
    return decode(answer.body, OperationView)


def failed(outcome: Outcome, goal: str) -> Trouble | None:
    """Say which wishes did not come true, if any."""
    if not outcome.failures:
        return None
    name, problem = outcome.failures[0]
    more = len(outcome.failures) - 1
    others = f" ({more} more failed.)" if more else ""
    return Trouble(
        Exit.FAILED,
        f"{name} is not {goal}: {problem.detail}{others}",
        remedy=problem.remedy,
        code=problem.code,
    )


def why(view: InstanceView) -> str:
    """Say in a few words what an instance is at, and what it waits for."""
    problem = view.parked or view.waiting or (view.failure if view.phase != "running" else None)
    if problem is not None:
        return f"{view.phase}: {problem.detail}"
    return f"{view.phase} ({view.reason.replace('_', ' ')})" if view.reason else str(view.phase)


def _look(client: Client, found: dict[str, Seen], watched: Watched, *, everything: bool) -> None:
    """Look again at what has not settled: at the end at all of it, before at a few."""
    open_ = _open(found, watched)
    for view in open_ if everything else open_[:LOOK_ROWS_MAX]:
        try:
            seen = seen_of(client.call("GET", f"/v1/instances/{part(view.id)}").body)
        except Trouble as trouble:
            if trouble.exit is not Exit.NOT_FOUND:
                raise
            gone = msgspec.structs.replace(view, phase=Phase.DELETED, reason="")
            seen = Seen(view=gone, raw=msgspec.json.encode(gone))
        found[view.id] = seen
        if not everything and not watched.settled(seen.view):
            return  # the first open one is enough for the progress line


def _open(found: dict[str, Seen], watched: Watched) -> list[InstanceView]:
    return [seen.view for seen in found.values() if not watched.settled(seen.view)]


def _progress(found: dict[str, Seen], watched: Watched) -> str:
    open_ = _open(found, watched)
    text = f"{open_[0].name or open_[0].id}: {why(open_[0])}" if open_ else "settling"
    if len(found) > 1:
        text = f"{len(found) - len(open_)} of {len(found)} {watched.goal}; {text}"
    return text


def _impatient(found: dict[str, Seen], watched: Watched) -> Trouble:
    open_ = _open(found, watched)
    if open_:
        name = open_[0].name or open_[0].id
        more = f" (and {len(open_) - 1} more)" if len(open_) > 1 else ""
        return Trouble(
            Exit.TIMEOUT,
            f"{name}{more} is not {watched.goal} yet: {why(open_[0])}",
            remedy=f"The request goes on; look later: stratus show {name}",
        )
    return Trouble(
        Exit.TIMEOUT,
        f"Operation {watched.operation} is not done yet.",
        remedy=f"The request goes on; look later: stratus operation show {watched.operation}",
    )
