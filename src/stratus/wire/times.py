"""How do we write a moment? RFC 3339 in UTC with milliseconds, milliseconds since 1970 inside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
SECONDS_KEPT_MAX: Final = 8192


def time_text(ms: int) -> str:
    """Write a moment as `2026-11-22T19:00:00.123Z`."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second_text(seconds)}.{rest:03d}Z"


# Lists mention the same few seconds over and over.
@lru_cache(maxsize=SECONDS_KEPT_MAX)
def _second_text(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def time_text_or_none(ms: int) -> str | None:
    """Write a moment, or nothing where the store says 0 for "never"."""
    return time_text(ms) if ms else None


def time_ms(text: str) -> int:
    """Read a moment that any RFC 3339 writer wrote; ValueError where it is none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} does not say its time zone")
    return (moment - EPOCH) // MILLISECOND
