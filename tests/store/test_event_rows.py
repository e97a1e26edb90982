"""Is every event read once and in order, however late its transaction commits?"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from stratus.model.event import Event
from stratus.model.ids import ProjectId
from stratus.model.problem import Refused
from stratus.store.engine import Store, store_open
from stratus.store.events import (
    CURSOR_BEGIN,
    EventDraft,
    event_append,
    event_append_many,
    event_cursor_last,
    event_history,
    event_page,
)
from tests.store.worlds import NOW_MS


def append(connection: Connection, subject: str, kind: str = "thing.made") -> None:
    event_append(connection, now_ms=NOW_MS, kind=kind, subject=subject)


def all_events(store: Store, *, rows_max: int = 1000) -> list[Event]:
    found: list[Event] = []
    cursor = CURSOR_BEGIN
    while True:
        page = store.read(lambda c, at=cursor: event_page(c, after=at, rows_max=rows_max))  # type: ignore[misc]  # mypy cannot infer it
        assert page.next is not None
        if not page.items:
            assert page.next == cursor
            return found
        found += page.items
        cursor = page.next


def test_an_event_comes_back_as_it_was_written(store: Store) -> None:
    store.write(
        lambda c: event_append(
            c,
            now_ms=NOW_MS,
            kind="instance.created",
            subject="ins-1",
            project_id=ProjectId("prj-1"),
            actor="ada",
            request_id="req-1",
            data={"count": 2, "names": ["ä"]},
        )
    )
    (event,) = all_events(store)
    assert event == Event(
        cursor=event.cursor,
        at_ms=NOW_MS,
        kind="instance.created",
        subject="ins-1",
        project_id=ProjectId("prj-1"),
        actor="ada",
        request_id="req-1",
        data={"count": 2, "names": ["ä"]},
    )
    store.write(lambda c: append(c, "ins-2"))
    assert all_events(store)[1].project_id is None


def test_many_at_once_keep_their_order(store: Store) -> None:
    drafts = [EventDraft(kind="a.b", subject=str(number)) for number in range(50)]
    store.write(lambda c: event_append_many(c, drafts, now_ms=NOW_MS))
    store.write(lambda c: event_append_many(c, [], now_ms=NOW_MS))
    found = all_events(store, rows_max=7)
    assert [event.subject for event in found] == [str(number) for number in range(50)]
    assert len({event.cursor for event in found}) == 50


def test_filters_let_pass_what_they_name(store: Store) -> None:
    def fill(c: Connection) -> None:
        for project in ("prj-1", "prj-2", None):
            for kind in ("a.b", "c.d"):
                event_append(c, now_ms=NOW_MS, kind=kind, subject=f"{project}", project_id=project)

    store.write(fill)

    def count(
        project_ids: list[ProjectId] | None = None,
        subject: str | None = None,
        kinds: list[str] | None = None,
    ) -> int:
        return len(
            store.read(
                lambda c: event_page(
                    c,
                    after=CURSOR_BEGIN,
                    rows_max=9,
                    project_ids=project_ids,
                    subject=subject,
                    kinds=kinds,
                )
            ).items
        )

    assert count() == 6
    assert count(project_ids=[ProjectId("prj-1")]) == 2
    assert count(project_ids=[]) == 0
    assert count(subject="prj-2", kinds=["c.d"]) == 1
    assert count(kinds=["a.b", "c.d"]) == 6


def test_the_last_cursor_is_followed_by_new_events_only(store: Store) -> None:
    assert store.read(event_cursor_last) == CURSOR_BEGIN
    store.write(lambda c: append(c, "old"))
    last = store.read(event_cursor_last)
    assert store.read(lambda c: event_page(c, after=last, rows_max=9)).items == ()
    store.write(lambda c: append(c, "new"))
    page = store.read(lambda c: event_page(c, after=last, rows_max=9))
    assert [event.subject for event in page.items] == ["new"]


def test_the_history_of_a_thing_is_its_last_events(store: Store) -> None:
    for number in range(5):
        store.write(lambda c, kind=f"a.{number}": append(c, "ins-1", kind))  # type: ignore[misc]  # mypy cannot infer it
        store.write(lambda c: append(c, "ins-2"))
    found = store.read(lambda c: event_history(c, "ins-1", rows_max=3))
    assert [event.kind for event in found] == ["a.2", "a.3", "a.4"]


def test_a_foreign_cursor_is_refused(store: Store) -> None:
    for cursor in ("", "1", "-1-2", "1-2-3", "a-b", "٣-٣", "9" * 19 + "-0", " 1-1", "1-1\n"):
        with pytest.raises(Refused):
            store.read(lambda c, at=cursor: event_page(c, after=at, rows_max=9))  # type: ignore[misc]  # mypy cannot infer it


@given(st.text())
def test_no_text_breaks_the_reader_of_cursors(text: str) -> None:
    store = MEMORY
    try:
        store.read(lambda c: event_page(c, after=text, rows_max=1))
    except Refused:
        return


MEMORY = store_open("sqlite://")


def test_no_reader_misses_an_event_of_concurrent_writers(store: Store) -> None:
    """Writers dawdle between number and commit; a reader that follows must see every one."""
    writers, each = 6, 25
    done = threading.Event()

    def write(number: int) -> None:
        chance = random.Random(number)
        for step in range(each):

            def function(c: Connection, step: int = step) -> None:
                append(c, f"{number}-{step}")
                if store.dialect == "postgresql":
                    time.sleep(chance.random() * 0.01)
                append(c, f"{number}-{step}+")

            store.write(function)

    def follow() -> list[str]:
        seen: list[str] = []
        cursor = CURSOR_BEGIN
        while True:
            last_look = done.is_set()
            page = store.read(lambda c, at=cursor: event_page(c, after=at, rows_max=3))  # type: ignore[misc]  # mypy cannot infer it
            seen += [event.subject for event in page.items]
            assert page.next is not None
            cursor = page.next
            if last_look and not page.items:
                return seen

    with ThreadPoolExecutor(writers + 2) as pool:
        followers = [pool.submit(follow) for _ in range(2)]
        list(pool.map(write, range(writers)))
        done.set()
        wanted = [
            f"{number}-{step}{end}"
            for number in range(writers)
            for step in range(each)
            for end in ("", "+")
        ]
        for follower in followers:
            seen = follower.result(timeout=60)
            assert sorted(seen) == sorted(wanted)
            # Of one writer everything comes in the order in which it happened.
            for number in range(writers):
                own = [one for one in seen if one.startswith(f"{number}-")]
                assert own == [one for one in wanted if one.startswith(f"{number}-")]


@pytest.mark.postgres
def test_a_late_commit_with_a_smaller_number_is_not_skipped(postgres_url: str) -> None:
    store = store_open(postgres_url)
    numbered, may_commit = threading.Event(), threading.Event()

    def late(c: Connection) -> None:
        append(c, "late")
        numbered.set()
        may_commit.wait(10)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.write, late)
        numbered.wait(10)
        store.write(lambda c: append(c, "early"))
        # "early" has the greater number and is committed, but may not be shown yet.
        assert all_events(store) == []
        assert store.read(event_cursor_last) == CURSOR_BEGIN
        assert len(store.read(lambda c: event_history(c, "early", rows_max=9))) == 1
        may_commit.set()
        waiting.result(10)
    assert [event.subject for event in all_events(store)] == ["late", "early"]
    store.close()
