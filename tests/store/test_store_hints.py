"""Do wake-ups arrive, here and in other processes, and does nobody wait for ever?"""

import threading
import time
from collections.abc import Callable

import pytest

from stratus.store.engine import Store
from stratus.store.hints import Hints

PATIENCE_SECONDS = 20.0


def test_a_hint_that_was_sent_before_the_wait_is_not_missed(store: Store) -> None:
    seen = store.hints.seen("work")
    store.hints.send("work")
    started = time.monotonic()
    assert store.hints.wait("work", seen, PATIENCE_SECONDS) != seen
    assert time.monotonic() - started < PATIENCE_SECONDS / 2


def test_a_waiter_wakes_for_its_own_topic_only() -> None:
    hints = Hints()
    woken = threading.Event()

    def wait() -> None:
        hints.wait("work", 0, PATIENCE_SECONDS)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    hints.send("pools")
    assert not woken.wait(0.05)
    hints.send("work")
    assert woken.wait(PATIENCE_SECONDS)
    thread.join()


def test_the_time_of_a_wait_is_bounded() -> None:
    hints = Hints()
    assert hints.wait("work", 0, 0.01) == 0


def test_closing_lets_go_of_those_who_wait() -> None:
    hints = Hints()
    thread = threading.Thread(target=hints.wait, args=("work", 0, PATIENCE_SECONDS))
    thread.start()
    hints.close()
    thread.join(PATIENCE_SECONDS / 2)
    assert not thread.is_alive()
    assert hints.wait("work", 0, PATIENCE_SECONDS) == 0


@pytest.mark.postgres
def test_a_hint_reaches_the_other_replicas_but_does_not_come_back(
    postgres_url: str, store_make: Callable[..., Store]
) -> None:
    one, other = store_make(postgres_url), store_make(postgres_url)
    # Until both listen, hints may be lost: that is what pollers are for.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while other.hints.seen("work") == 0 and time.monotonic() < deadline:
        one.hints.send("work")
        other.hints.wait("work", 0, 0.1)
    assert other.hints.seen("work") > 0
    sent = one.hints.seen("work")
    for _ in range(100):
        one.hints.send("events")
    assert other.hints.wait("events", 0, PATIENCE_SECONDS) >= 1
    time.sleep(0.1)
    assert 1 <= other.hints.seen("events") < 100, "many hints travel as few"
    assert (one.hints.seen("work"), one.hints.seen("events")) == (sent, 100)
