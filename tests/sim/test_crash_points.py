"""Does every cut heal? The process ends before or after each commit and each effect in turn."""

import pytest

from stratus.sim.mishaps import Always, Cut, Mishap
from tests.sim.small import Small

SHARES = 4  # so that a failure names its neighbourhood, and others still run


def told(fate: Cut | Always) -> Small:
    """Tell the whole story under this fate; safety is checked after every event of it."""
    small = Small(fate)
    small.tell()
    return small


@pytest.fixture(scope="module")
def calm() -> tuple[int, dict[str, object]]:
    """How many cuts the story has, and how it ends when nothing goes wrong."""
    fate = Cut()
    small = told(fate)
    return fate.count, small.end()


@pytest.mark.parametrize("share", range(SHARES))
def test_any_cut_heals(share: int, calm: tuple[int, dict[str, object]]) -> None:
    count, end = calm
    for cut in range(share, count, SHARES):
        fate = Cut(cut)
        small = told(fate)
        assert fate.struck, f"cut {cut} was never reached"
        assert small.end() == end, f"after cut {cut}: {fate.struck}"


@pytest.mark.parametrize("mishap", [Mishap.TWICE])
def test_every_step_may_be_done_twice(mishap: Mishap, calm: tuple[int, dict[str, object]]) -> None:
    _, end = calm
    assert told(Always(mishap)).end() == end
