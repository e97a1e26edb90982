"""How does the command line talk? Data on stdout; progress, notes and errors on stderr."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import msgspec
from cyclopts import Parameter

from stratus.cli.trouble import Trouble
from stratus.wire.times import time_ms

T = TypeVar("T")

GAP: Final = "   "
NOTHING: Final = "-"
LINE_CHARS_MAX: Final = 2000
REFRESH_SECONDS: Final = 0.2
COLOURS: Final = {
    "running": "32",
    "ready": "32",
    "enabled": "32",
    "failed": "31",
    "unreachable": "31",
    "unknown": "31",
    "pending": "33",
    "starting": "33",
    "stopping": "33",
    "deleting": "33",
    "waiting": "33",
    "fetching": "33",
    "draining": "33",
}
# Escape sequences of colour pass; what moves cursors, sets titles or pastes does not.
CONTROL: Final = re.compile(
    r"\x1b\[[0-9;]*m"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Format:
    """In which form the data goes to stdout."""

    json: Annotated[bool, Parameter(help="Print the API's own JSON, one document.")] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="Print ids only.")] = False


HUMAN: Final = Format()


def say(text: str = "") -> None:
    """Print one line of data."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Tell people something that is not data."""
    sys.stdout.flush()
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def say_json(data: bytes) -> None:
    """Print one JSON document as the API wrote it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data.strip() + b"\n")
    sys.stdout.buffer.flush()


def report(trouble: Trouble) -> None:
    """Say what went wrong, the remedy, and the request id for whoever has to look it up."""
    note(f"stratus: {trouble.detail}")
    note(f"  try: {trouble.remedy}")
    if trouble.request_id:
        note(f"  request: {trouble.request_id}")


def say_rows(
    rows: Sequence[T],
    columns: Sequence[tuple[str, Callable[[T], object]]],
    *,
    empty: str = "",
) -> None:
    """Print a table: one line per row, columns aligned, nothing around them."""
    if not rows:
        if empty:
            note(empty)
        return
    cells = [[cell(of(row)) for _, of in columns] for row in rows]
    heads = [head for head, _ in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    colour = colour_wanted()
    say(_line(heads, widths, "1" if colour else ""))
    for row in cells:
        say(_line(row, widths, "", colour=colour))


def _line(texts: Sequence[str], widths: Sequence[int], style: str, *, colour: bool = False) -> str:
    padded = [
        f"\x1b[{COLOURS[text]}m{text}\x1b[0m" + " " * (width - len(text))
        if colour and text in COLOURS
        else text.ljust(width)
        for text, width in zip(texts, widths, strict=True)
    ]
    line = GAP.join(padded).rstrip()
    return f"\x1b[{style}m{line}\x1b[0m" if style else line


def say_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print one thing, a fact per line; facts without a value are left out."""
    told = [(name, cell(value)) for name, value in facts if value not in (None, "", (), [])]
    width = max((len(name) for name, _ in told), default=0)
    colour = colour_wanted()
    for name, value in told:
        label = name.ljust(width)
        say((f"\x1b[2m{label}\x1b[0m" if colour else label) + "  " + value)


def cell(value: object) -> str:
    """Write a value so that it stays in its place and cannot command the terminal."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return printable(", ".join(map(str, value))) or NOTHING
    return printable(str(value))


def printable(text: str) -> str:
    """Replace what a terminal would obey; the text may come from somebody else."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def log_text(text: str) -> str:
    """Let a guest's console keep its colours, and nothing else that commands a terminal."""
    return CONTROL.sub(
        lambda found: found[0] if found[0].startswith("\x1b[") and found[0][-1] == "m" else "",
        text.replace("\r\n", "\n"),
    )


def age(moment: str | None, *, now_ms: int) -> str:
    """Say how long ago something was, in the one unit that matters."""
    if moment is None:
        return NOTHING
    return duration_text(max(0, now_ms - time_ms(moment)) / 1000)


def duration_text(seconds: float) -> str:
    """Say a length of time as a person would: `12 s`, `3 min`, `5 h`, `9 d`."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"


def colour_wanted() -> bool:
    """Colour is for people at a terminal who have not asked for none."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


class Progress:
    """Keeps people informed on stderr: one live line at a terminal, else a line per change."""

    def __init__(self, *, wanted: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._live = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._sparse = wanted and not self._live
        self._shown = ""
        self._told = ""
        self._drawn_at = -1.0

    def show(self, text: str, *, key: str | None = None) -> None:
        """Show the present state; `key` names it where the text changes all the time."""
        name = key or text
        if self._live:
            if name != self._told or self._clock() - self._drawn_at >= REFRESH_SECONDS:
                self._draw(f"{text}  {duration_text(self._clock() - self._began)}")
        elif self._sparse and name != self._told:
            note(text)
        self._told = name

    def end(self) -> None:
        """Take the live line away, so that what follows starts on a clean one."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = ""

    def _draw(self, line: str) -> None:
        try:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            width = 80
        line = printable(line)[: max(20, width - 1)]
        sys.stderr.write("\r" + line + "\x1b[K")
        sys.stderr.flush()
        self._shown = line
        self._drawn_at = self._clock()


def list_json(items: Iterable[msgspec.Raw], next_: str | None) -> bytes:
    """Write several parts of a list as one, each thing as the API wrote it."""
    return msgspec.json.encode({"items": list(items), "next": next_})
