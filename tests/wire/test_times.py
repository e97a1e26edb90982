"""Are moments written and read without losing a millisecond?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.wire.times import time_ms, time_text, time_text_or_none

YEAR_9999_MS = 253_402_300_799_999


def test_a_moment_is_rfc_3339_in_utc_with_milliseconds() -> None:
    assert time_text(1_795_374_000_123) == "2026-11-22T19:00:00.123Z"
    assert time_text(0) == "1970-01-01T00:00:00.000Z"


@given(st.integers(min_value=0, max_value=YEAR_9999_MS))
def test_every_moment_comes_back(ms: int) -> None:
    assert time_ms(time_text(ms)) == ms


def test_other_ways_of_writing_are_read() -> None:
    assert time_ms("2026-11-22T20:00:00.123+01:00") == 1_795_374_000_123
    assert time_ms("2026-11-22T19:00:00Z") == 1_795_374_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-22", "2026-11-22T19:00:00"])
def test_a_moment_without_a_zone_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        time_ms(text)


def test_never_is_not_1970() -> None:
    assert time_text_or_none(0) is None
