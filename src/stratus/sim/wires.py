"""How does a driver look to one process? The same calls over a wire on which mishaps wait."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.model.problem import Problem
from stratus.sim.broken import Crash
from stratus.sim.mishaps import Mishap, Point

CHANGES: Final = frozenset(
    (
        "ensure_running",
        "ensure_reset",
        "shutdown_ask",
        "ensure_halted",
        "ensure_absent",
        "ensure_network",
        "ensure_port",
        "ensure_port_absent",
        "ensure_volume",
        "ensure_volume_absent",
        "ensure_image_absent",
        "image_stage",
        "image_publish",
    )
)
LOOKS: Final = frozenset(("inventory", "capacity", "connect", "probe", "image_bytes_staged"))
ONCE: Final = frozenset(("image_stage",))  # its stream can be read only once
LATE_MS_MAX: Final = 20_000

Judge = Callable[[str, str, tuple[Any, ...], dict[str, Any]], None]


class Wire:
    """One driver as one process holds it."""

    def __init__(
        self,
        *,
        where: str,
        open_driver: Callable[[], Any],
        judge: Judge,
        meet: Callable[[Point, str], Mishap | None],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._where = where
        self._open = open_driver
        self._driver = open_driver()
        self._judge = judge
        self._meet = meet
        self._later = later

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # stands in for any driver
        member = getattr(self._driver, name)
        if name in CHANGES:
            return partial(self._change, name)
        if name in LOOKS:
            return partial(self._look, name, member)
        return member

    def _look(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401  # passes anything on
        mishap = self._meet(Point.LOOK, f"{name} {self._where}")
        if mishap is Mishap.CRASH_BEFORE:
            raise Crash
        if mishap is Mishap.LOST:
            raise silence()
        return method(*args, **options)

    def _change(self, name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # passes anything on
        mishap = self._meet(Point.EFFECT, f"{name} {self._where}")
        if name in ONCE and mishap in (Mishap.LATE, Mishap.TWICE):
            mishap = None
        effect = partial(self._effect, self._driver, name, args, options)
        match mishap:
            case Mishap.CRASH_BEFORE:
                raise Crash
            case Mishap.LATE:
                self._later(partial(self._afterwards, name, args, options))
                raise silence()
            case Mishap.TWICE:
                effect()
        result = effect()
        if mishap is Mishap.CRASH_AFTER:
            raise Crash
        if mishap is Mishap.LOST:
            raise silence()
        return result

    def _effect(
        self,
        driver: Any,  # noqa: ANN401  # any driver
        name: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:  # noqa: ANN401  # passes anything on
        self._judge(self._where, name, args, options)
        return getattr(driver, name)(*args, **options)

    def _afterwards(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Let the request arrive although nobody waits for its answer any more."""
        with suppress(DriverFailed, EngineUnreachable):
            self._effect(self._open(), name, args, options)


def silence() -> EngineUnreachable:
    """What is known when an answer does not come: nothing."""
    return EngineUnreachable(
        Problem(
            code="host_unreachable",
            detail="The answer was lost on the way.",
            remedy="Nothing is needed: we look again.",
        )
    )
