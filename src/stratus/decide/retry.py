"""When do we try again after a failure? Soon at first, then ever more patiently, never forever."""

from typing import Final

from stratus.model.units import MINUTE_MS, SECOND_MS

RETRY_FIRST_MS: Final = 1 * SECOND_MS
RETRY_LONGEST_MS: Final = 2 * MINUTE_MS


def retry_delay_ms(failures: int) -> int:
    """Return how long to wait after this many failures in a row: 1, 2, 4 … s, at most 2 min."""
    assert failures >= 1
    return min(RETRY_LONGEST_MS, RETRY_FIRST_MS << min(failures - 1, 20))
