"""What do the workers of hosts and pools stand on? Handed in, so that a simulator can make it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from stratus.model.problem import Problem
from stratus.store.engine import Store

BUG_REMEDY: Final = "Report it with the log of the control plane; it is tried again by itself."


class Executor(Protocol):
    """Runs tasks elsewhere, some at a time, in any order."""

    def submit(self, task: Callable[[], None]) -> None:
        """Run the task soon; it reports its own end and never raises."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """The store and the clock."""

    store: Store
    now_ms: Callable[[], int]

    def bug(self, error: Exception, doing: str) -> Problem:
        """Log a fault of ours with its traceback and return what the user may know of it."""
        structlog.get_logger("hosts").error("bug", doing=doing, exc_info=error)
        return Problem(
            code="bug", detail=f"A fault of ours while {doing}: {error!r}", remedy=BUG_REMEDY
        )
