"""Do we try again soon at first, then more patiently, and never forever?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.retry import RETRY_FIRST_MS, RETRY_LONGEST_MS, retry_delay_ms

FAILURES = st.integers(min_value=1, max_value=10_000)


@given(FAILURES)
def test_more_failures_never_mean_a_shorter_wait(failures: int) -> None:
    assert retry_delay_ms(failures) <= retry_delay_ms(failures + 1)


@given(FAILURES)
def test_every_wait_is_between_the_first_and_the_longest(failures: int) -> None:
    assert RETRY_FIRST_MS <= retry_delay_ms(failures) <= RETRY_LONGEST_MS


def test_the_waits_double_until_the_longest() -> None:
    assert [retry_delay_ms(n) // 1000 for n in range(1, 10)] == [1, 2, 4, 8, 16, 32, 64, 120, 120]


def test_without_a_failure_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(AssertionError):
        retry_delay_ms(0)
