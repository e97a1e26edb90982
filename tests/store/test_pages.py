"""Do the pages of a list, put together, make the whole list?"""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select

from stratus.model.limits import PAGE_ROWS_MAX
from stratus.model.page import Page
from stratus.model.problem import Refused
from stratus.store.engine import Store
from stratus.store.pages import cursor_key, cursor_text, page_fetch, page_make, rows_bounded
from stratus.store.schema import site, work

LETTERS = st.characters(codec="ascii", exclude_characters="\0")
KEYS = st.lists(st.text(LETTERS, max_size=20), unique=True, max_size=30)
# The store is emptied by every example itself.
ONE_STORE = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def walk(store: Store, rows_max: int, fetch: Any) -> list[Any]:  # noqa: ANN401  # a local function
    found: list[Any] = []
    cursor = None
    for _ in range(1000):
        page: Page[Any] = store.read(lambda c, at=cursor: fetch(c, at))  # type: ignore[misc]  # mypy cannot infer it
        assert len(page.items) <= rows_max
        found += page.items
        if page.next is None:
            return found
        assert page.items, "a page that has a successor is not empty"
        cursor = page.next
    raise AssertionError("the list does not end")


@ONE_STORE
@given(keys=KEYS, rows_max=st.integers(1, 40))
def test_all_pages_are_the_whole_list_in_order(
    store: Store, keys: list[str], rows_max: int
) -> None:
    def fill(connection: Connection) -> None:
        connection.execute(delete(site))
        if keys:
            connection.execute(insert(site), [{"key": key, "value": "x"} for key in keys])

    store.write(fill)
    whole = store.read(lambda c: c.execute(select(site.c.key).order_by(site.c.key)).scalars().all())

    def fetch(connection: Connection, cursor: str | None) -> Page[str]:
        return page_fetch(
            connection,
            select(site.c.key),
            [site.c.key],
            cursor=cursor,
            rows_max=rows_max,
            make=lambda row: str(row.key),
        )

    assert walk(store, rows_max, fetch) == list(whole)
    assert sorted(whole) == sorted(keys)


@ONE_STORE
@given(
    rows=st.sets(st.tuples(st.integers(-3, 3), st.sampled_from("abcd")), max_size=25),
    rows_max=st.integers(1, 10),
)
def test_a_key_of_two_columns_pages_as_well(
    store: Store, rows: set[tuple[int, str]], rows_max: int
) -> None:
    def fill(connection: Connection) -> None:
        connection.execute(delete(work))
        for wake_ms, subject in rows:
            connection.execute(
                insert(work).values(kind=str(wake_ms), subject=subject, wake_ms=wake_ms)
            )

    store.write(fill)

    def fetch(connection: Connection, cursor: str | None) -> Page[tuple[int, str]]:
        return page_fetch(
            connection,
            select(work.c.wake_ms, work.c.subject),
            [work.c.wake_ms, work.c.subject],
            cursor=cursor,
            rows_max=rows_max,
            make=lambda row: (row.wake_ms, row.subject),
        )

    assert walk(store, rows_max, fetch) == sorted(rows)


@given(
    st.tuples(
        st.text(max_size=50).filter(lambda s: "\0" not in s), st.integers(-(2**63) + 1, 2**63 - 1)
    )
)
def test_a_cursor_comes_back_as_it_was(key: tuple[str, int]) -> None:
    text = cursor_text(key)
    assert text.isascii()
    assert not set(text) & set("+/=& ")
    assert cursor_key(text, [str, int]) == key


def test_a_foreign_cursor_is_refused() -> None:
    made = [
        base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
        for value in ([1], ["a", "b"], {"a": 1}, "a", [None], [True], [2**63], ["\0"], [["a"]])
    ]
    for text in (*made, "", "!", "é", "a", "x" * 600, "W10"):
        for kinds in ([str], [int]):
            if (text, kinds) in ((made[0], [int]),):
                continue
            with pytest.raises(Refused) as caught:
                cursor_key(text, kinds)
            assert caught.value.problem.context["field"] == "cursor"


@given(st.text())
def test_no_text_breaks_the_reader_of_cursors(text: str) -> None:
    try:
        key = cursor_key(text, [str])
    except Refused:
        return
    assert isinstance(key[0], str)


def test_a_page_is_never_longer_than_the_maximum() -> None:
    assert rows_bounded(10**9) == PAGE_ROWS_MAX
    assert rows_bounded(-5) == 1
    page = page_make(list(range(PAGE_ROWS_MAX + 1)), rows_max=10**9, key_of=lambda item: (item,))
    assert len(page.items) == PAGE_ROWS_MAX
    assert page.next is not None
    assert page_make([1, 2], rows_max=2, key_of=lambda item: (item,)).next is None
