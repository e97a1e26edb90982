"""Where does a stream go on: with what was told here, or by reading the store?"""

from collections.abc import Sequence

import pytest

from stratus.api.pools import Pools
from stratus.api.rates import Buckets
from stratus.api.settings import ApiSettings
from stratus.api.watch import RECENT_EVENTS_MAX, Told, Watch, frame_of
from stratus.model.event import Event
from stratus.store.hints import Hints


class NoLog:
    """A log that nobody reads."""

    def newest(self) -> str:
        """Return the beginning."""
        return "0-0"

    def after(self, cursor: str, rows_max: int) -> Sequence[Event]:
        """Return nothing."""
        del cursor, rows_max
        return ()


@pytest.fixture
def watch() -> Watch:
    """The reader of a process, before it reads."""
    settings = ApiSettings()
    pools = Pools(settings, read_threads=1)
    return Watch(NoLog(), Hints(), settings=settings, pools=pools)


def event(number: int) -> Event:
    return Event(cursor=f"0-{number}", at_ms=0, kind="test.told", subject="x")


def tell(watch: Watch, *numbers: int) -> None:
    events = [event(number) for number in numbers]
    watch.told(events[-1].cursor, [(each, frame_of(each)) for each in events])


def numbers(told: Sequence[Told] | None) -> list[int] | None:
    return None if told is None else [each.place[1] for each in told]


def test_before_anything_was_read_the_store_knows(watch: Watch) -> None:
    assert watch.recent_after("0-5") is None
    assert watch.later("0-5") == "0-5"


def test_a_stream_that_keeps_up_gets_what_is_new(watch: Watch) -> None:
    watch.told("0-5", ())
    tell(watch, 6, 7, 9)
    assert numbers(watch.recent_after("0-5")) == [6, 7, 9]
    assert numbers(watch.recent_after("0-7")) == [9]
    assert numbers(watch.recent_after("0-9")) == []


def test_a_stream_that_fell_behind_reads_the_store(watch: Watch) -> None:
    watch.told("0-5", ())
    tell(watch, 6, 7)
    assert watch.recent_after("0-4") is None


def test_a_stream_that_read_the_store_ahead_of_us_gets_nothing_twice(watch: Watch) -> None:
    watch.told("0-5", ())
    assert numbers(watch.recent_after("0-9")) == []
    assert watch.later("0-9") == "0-9"
    tell(watch, *range(6, 13))
    assert numbers(watch.recent_after("0-9")) == [10, 11, 12]
    assert watch.later("0-9") == "0-12"


def test_places_are_compared_as_numbers(watch: Watch) -> None:
    watch.told("0-9", ())
    tell(watch, 10, 11)
    assert numbers(watch.recent_after("0-9")) == [10, 11]


def test_what_was_pushed_out_of_memory_is_read_from_the_store(watch: Watch) -> None:
    watch.told("0-0", ())
    tell(watch, *range(1, RECENT_EVENTS_MAX + 3))
    assert watch.recent_after("0-1") is None
    assert len(watch.recent_after("0-2") or ()) == RECENT_EVENTS_MAX


def test_an_event_is_one_message_whatever_it_holds() -> None:
    odd = Event(cursor="0-1", at_ms=0, kind="a.b", subject="s", data={"text": "a\nb\r\n\ndata: x"})
    frame = frame_of(odd)
    assert frame.count(b"\n") == 4
    assert frame.endswith(b"\n\n")


def test_a_bucket_fills_again_and_forgets_whom_it_has_not_seen() -> None:
    buckets = Buckets(rate=2, burst=2, rows_max=2)
    assert [buckets.take("a", now=0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert buckets.take("a", now=0.5) == 0.0
    buckets.take("b", now=0.5)
    buckets.take("c", now=0.5)
    assert len(buckets) == 2
    assert buckets.level("a", now=0.5) == 2
    buckets.give_back("c", now=0.5)
    assert buckets.level("c", now=0.5) == 2
