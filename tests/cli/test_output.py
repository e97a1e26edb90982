"""Is what people read short, aligned and harmless?"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.cli.events import Frame, frames
from stratus.cli.images import name_from
from stratus.cli.output import age, cell, duration_text, log_text, printable, say_facts, say_rows
from stratus.cli.reach import TAIL_BYTES, fresh
from stratus.model.limits import NAME_PATTERN


def test_columns_are_aligned_and_nothing_trails(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", 1, None), ("long name", 22, "x")]
    columns = (("NAME", lambda r: r[0]), ("N", lambda r: r[1]), ("WHY", lambda r: r[2]))
    say_rows(rows, columns)
    assert capsys.readouterr().out == (
        "NAME        N    WHY\na           1    -\nlong name   22   x\n"
    )


def test_facts_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    say_facts((("id", "x"), ("address", None), ("pools", []), ("disabled", False)))
    assert capsys.readouterr().out == "id        x\ndisabled  no\n"


@given(st.text())
def test_a_cell_stays_on_its_line_and_commands_nothing(text: str) -> None:
    assert cell(text).isprintable()
    assert printable(text).isprintable()


@given(st.text(alphabet=st.sampled_from("ab\x1b[]0;?mHJK1\x07\x9b\r\n\x00")))
def test_a_console_log_may_colour_but_not_command(text: str) -> None:
    shown = log_text(text)
    rest = shown
    while "\x1b" in rest:
        at = rest.index("\x1b")
        end = rest.index("m", at)
        assert set(rest[at + 1 : end]) <= set("[0123456789;")
        rest = rest[:at] + rest[end + 1 :]
    assert all(char in "\t\n" or char >= " " for char in rest)
    assert "\x9b" not in shown


def test_ages_are_said_in_the_unit_that_matters() -> None:
    said = [duration_text(s) for s in (0, 59, 119, 120, 7200, 7199, 200_000)]
    assert said == ["0 s", "59 s", "119 s", "2 min", "2 h", "119 min", "2 d"]
    assert age("1970-01-01T00:00:01.000Z", now_ms=4000) == "3 s"
    assert age(None, now_ms=0) == "-"


@given(begun=st.binary(max_size=600), more=st.binary(max_size=300), lost=st.integers(0, 600))
def test_a_followed_log_repeats_nothing_and_skips_nothing(
    begun: bytes, more: bytes, lost: int
) -> None:
    whole = begun + more
    assert fresh(begun, whole) == more
    # A log that lost its beginning is recognised by its end, where enough of that is left.
    shorter = whole[min(lost, max(0, len(begun) - TAIL_BYTES)) :]
    tail = begun[-TAIL_BYTES:]
    if len(tail) == TAIL_BYTES and shorter.count(tail) == 1:
        assert fresh(begun, shorter) == more or shorter.startswith(begun)


def test_a_log_that_began_anew_is_printed_whole() -> None:
    assert fresh(b"x" * 1000, b"new boot") == b"new boot"


STREAM = (
    b'retry: 1000\n\n: alive\n\nid: 1-1\nevent: instance.created\ndata: {"a":\ndata: 1}\n\n'
    b"id: 1-2\r\ndata: two\r\n\r\ndata: unfinished\n"
)


@given(st.lists(st.integers(0, len(STREAM))))
def test_a_stream_is_read_the_same_however_it_is_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in itertools.pairwise(at)]
    found = [frame for frame in frames(parts) if frame.data]
    assert found == [
        Frame(id="1-1", event="instance.created", data='{"a":\n1}'),
        Frame(id="1-2", event="message", data="two"),
    ]


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("tiny.qcow2", "tiny"),
        ("Debian 12 (generic).img", "debian-12-generic"),
        ("x" * 100 + ".raw", "x" * 63),
        ("ubuntu-24.04.tar", "ubuntu-24-04-tar"),
    ],
)
def test_a_name_is_made_of_a_file_s(file_name: str, name: str) -> None:
    assert name_from(file_name) == name
    assert NAME_PATTERN.match(name)
