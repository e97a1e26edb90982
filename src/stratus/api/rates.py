"""Who asks too often? Token buckets in a table of bounded size, for one event loop's thread."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

LEVEL_EMPTY: Final = 1.0  # one request costs one drop


class Buckets:
    """One bucket per key: `burst` drops when full, `rate` drops flow in per second.

    When the table is full the bucket untouched for longest is forgotten; it is the fullest.
    """

    def __init__(self, *, rate: float, burst: float, rows_max: int) -> None:
        assert rate > 0
        assert burst >= 1
        self._rate = rate
        self._burst = burst
        self._rows_max = rows_max
        self._rows: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def level(self, key: Hashable, *, now: float) -> float:
        """Return how many drops the bucket holds now."""
        row = self._rows.get(key)
        if row is None:
            return self._burst
        level, at = row
        return min(self._burst, level + (now - at) * self._rate)

    def take(self, key: Hashable, *, now: float) -> float:
        """Take one drop and return 0, or return the seconds until there is one."""
        level = self.level(key, now=now)
        if level < LEVEL_EMPTY:
            return (LEVEL_EMPTY - level) / self._rate
        self._keep(key, level - 1.0, now)
        return 0.0

    def give_back(self, key: Hashable, *, now: float) -> None:
        """Return a drop: what it was taken for turned out to be harmless."""
        self._keep(key, min(self._burst, self.level(key, now=now) + 1.0), now)

    def _keep(self, key: Hashable, level: float, now: float) -> None:
        self._rows[key] = (level, now)
        self._rows.move_to_end(key)
        if len(self._rows) > self._rows_max:
            self._rows.popitem(last=False)
