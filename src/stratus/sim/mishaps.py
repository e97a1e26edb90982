"""What goes wrong at this point? A fate decides: calm, drawn from the swarm, or one chosen cut."""

import random
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

import msgspec


class Point(StrEnum):
    """Where something can go wrong on the way between a process and the rest of the world."""

    READ = "read"
    COMMIT = "commit"
    LOOK = "look"  # a driver call that changes nothing
    EFFECT = "effect"  # a driver call that changes the outside


class Mishap(StrEnum):
    """What goes wrong there."""

    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    STALL = "stall"  # the process stands still right here, beyond its leases
    LOST = "lost"  # the effect happens, its answer never comes
    LATE = "late"  # the asker gives up, and the effect happens afterwards
    TWICE = "twice"  # the request arrives twice


class Fate(Protocol):
    """Decides over every point, in the order in which they are reached."""

    def at(self, point: Point, what: str) -> Mishap | None:
        """Return what goes wrong here, if anything does."""
        ...


class Calm:
    """Nothing ever goes wrong."""

    def at(self, _point: Point, _what: str) -> Mishap | None:
        """Let it pass."""
        return None


# What can go wrong where, with the weight it has among the points of that sort.
AT_POINTS: Final[Mapping[Point, tuple[Mishap, ...]]] = {
    Point.READ: (Mishap.STALL,),
    Point.COMMIT: (Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER, Mishap.STALL),
    Point.LOOK: (Mishap.CRASH_BEFORE, Mishap.STALL, Mishap.LOST),
    Point.EFFECT: tuple(Mishap),
}
RATE_MAX: Final = 0.02  # of the points of a sort that a mishap of the mix strikes at most
RARE: Final[Mapping[Mishap, float]] = {
    # Each costs everything else its time, so that others would hardly be met.
    Mishap.STALL: 0.15,
    Mishap.CRASH_BEFORE: 0.2,
    Mishap.CRASH_AFTER: 0.2,
}
RARE_AT: Final[Mapping[Point, float]] = {Point.READ: 0.05, Point.COMMIT: 0.25}


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """The share of the swarm that one seed has: how often each mishap strikes at each point."""

    rates: dict[tuple[Point, Mishap], float] = {}

    @property
    def disorder(self) -> bool:
        """Whether an effect can come after its sender lost the right to it.

        No check beforehand can exclude that; then the lock that QEMU holds on a disk must.
        """
        return any(
            rate > 0
            for (point, mishap), rate in self.rates.items()
            if mishap is Mishap.LATE or (mishap is Mishap.STALL and point is not Point.COMMIT)
        )


def mix_draw(chance: random.Random) -> Mix:
    """Draw which mishaps a seed has, and how often."""
    rates: dict[tuple[Point, Mishap], float] = {}
    for mishap in Mishap:
        if chance.random() < 0.5:
            continue
        rate = RATE_MAX * chance.random() * RARE.get(mishap, 1.0)
        for point, possible in AT_POINTS.items():
            if mishap in possible:
                rates[point, mishap] = rate * RARE_AT.get(point, 1.0)
    return Mix(rates=rates)


class Swarm:
    """Strikes at random, as the mix of the seed says, until it is told to rest."""

    def __init__(self, mix: Mix, chance: random.Random, seen: Counter[str]) -> None:
        self._chance = chance
        self._seen = seen
        self.resting = False
        self._by_point = {
            point: [
                (mishap, mix.rates[point, mishap])
                for mishap in possible
                if mix.rates.get((point, mishap), 0) > 0
            ]
            for point, possible in AT_POINTS.items()
        }

    def at(self, point: Point, _what: str) -> Mishap | None:
        """Strike, or let it pass."""
        rates = self._by_point[point]
        if self.resting or not rates:
            return None
        drawn = self._chance.random()
        for mishap, rate in rates:
            if drawn < rate:
                self._seen[f"{mishap}_{point}"] += 1
                return mishap
            drawn -= rate
        return None


class Cut:
    """Ends the process at one chosen point, counted from the begin; the same run again counts them.

    Every commit and every effect is two cuts: right before and right after.
    """

    def __init__(self, cut: int | None = None) -> None:
        self._cut = cut
        self.count = 0
        self.struck = ""

    def at(self, point: Point, what: str) -> Mishap | None:
        """Count the point, and end the process where it is the one."""
        if point not in (Point.COMMIT, Point.EFFECT):
            return None
        before, self.count = self.count, self.count + 2
        if self._cut is None or not before <= self._cut < self.count:
            return None
        mishap = Mishap.CRASH_BEFORE if self._cut == before else Mishap.CRASH_AFTER
        self.struck = f"{mishap} {what}"
        return mishap


class Always:
    """The same mishap at every effect."""

    def __init__(self, mishap: Mishap) -> None:
        self._mishap = mishap

    def at(self, point: Point, _what: str) -> Mishap | None:
        """Strike at effects."""
        return self._mishap if point is Point.EFFECT else None
