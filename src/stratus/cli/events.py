"""What happened, and what happens now? The event log, replayed and followed."""

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from stratus.cli.client import Client, client_open, decode
from stratus.cli.options import ProjectOption
from stratus.cli.output import HUMAN, Format, list_json, note, printable, say, say_json
from stratus.cli.transport import Cut, Slow, Unreachable
from stratus.cli.trouble import Trouble, exit_of
from stratus.wire.problem import ProblemBody
from stratus.wire.v1 import EventView

IDLE_SECONDS: Final = 60.0  # the cloud says every 15 s that it lives
PAUSE_SECONDS_FIRST: Final = 0.5
PAUSE_SECONDS_MAX: Final = 10.0
SILENCE_SECONDS_MAX: Final = 300.0  # then the cloud is given up
FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
DATA_CHARS_MAX: Final = 200


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message of an event stream."""

    id: str
    event: str
    data: str


def events(
    subject: Annotated[
        str, Parameter(help="Only about this thing, by its id; without it everything.")
    ] = "",
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], help="Go on printing what happens.")
    ] = False,
    after: Annotated[
        str, Parameter(metavar="CURSOR", help="Only what came after this event.")
    ] = "",
    project: ProjectOption = "",
    limit: Annotated[int, Parameter(help="Print at most so many; 0 prints all.")] = 0,
    output: Format = HUMAN,
) -> None:
    """Print what happened, and with -f what happens.

    With --json -f every event is one line of JSON; without -f all are one document. A broken
    connection is taken up again where it broke: no event is lost, none comes twice.

    $ stratus events -f
    $ stratus events ins-01j8x0a2b3c4d5e6 --json
    """
    client = client_open(note)
    query = {"subject": subject, "project": project, "after": after}
    if follow:
        _follow(client, query, output)
        return
    if output.json:
        rows = client.rows("/v1/events", query=query, rows_max=limit)
        say_json(list_json(rows.items, rows.next))
        return
    left = limit
    for page in client.pages("/v1/events", query=query):
        for raw in page.items:
            _say(decode(raw, EventView), output)
            left -= 1
            if left == 0:
                return


def _follow(client: Client, query: dict[str, str], output: Format) -> None:
    cursor = query.pop("after")
    pause = PAUSE_SECONDS_FIRST
    silent_since = time.monotonic()
    try:
        while True:
            headers = {"Accept": "text/event-stream"}
            if cursor:
                headers["Last-Event-ID"] = cursor
            try:
                parts = client.stream(
                    "/v1/events", query=query, headers=headers, idle_seconds=IDLE_SECONDS
                )
                for frame in frames(parts):
                    silent_since, pause = time.monotonic(), PAUSE_SECONDS_FIRST
                    cursor = _frame(frame, output) or cursor
            except (Unreachable, Cut, Slow) as error:
                if cursor == "" and isinstance(error, Unreachable):
                    raise client.unanswered(error) from error
                if time.monotonic() - silent_since > SILENCE_SECONDS_MAX:
                    raise client.unanswered(error) from error
                note(f"The event stream broke ({error}); taking it up again.")
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
    except KeyboardInterrupt:
        return  # this is how following ends


def frames(parts: Iterable[bytes]) -> Iterator[Frame]:
    """Read the messages of an event stream from its bytes, however they are cut."""
    rest = b""
    fields: dict[str, list[str]] = {}
    for data in parts:
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > FRAME_BYTES_MAX:
            raise Cut("a message of the event stream is too large")
        for line in lines:
            text = line.removesuffix(b"\r").decode(errors="replace")
            if not text:
                if fields:
                    yield Frame(
                        id="".join(fields.get("id", [])[-1:]),
                        event="".join(fields.get("event", ["message"])[-1:]),
                        data="\n".join(fields.get("data", [])),
                    )
                fields = {}
            elif not text.startswith(":"):
                name, _, value = text.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))


def _frame(frame: Frame, output: Format) -> str:
    """Print one message; return its cursor."""
    if not frame.data:
        return ""
    if frame.event == "problem":
        said = decode(frame.data.encode(), ProblemBody)
        raise Trouble(
            exit_of(said.code, said.status),
            said.detail,
            remedy=said.remedy,
            code=said.code,
            request_id=said.request_id,
        )
    if output.json:
        say_json(frame.data.encode())
    else:
        _say(decode(frame.data.encode(), EventView), output)
    return frame.id


def _say(event: EventView, output: Format) -> None:
    if output.quiet:
        say(event.cursor)
        return
    facts = " ".join(f"{key}={_value(value)}" for key, value in event.data.items())
    who = f" by {event.actor}" if event.actor else ""
    line = f"{event.at}  {event.kind:<24} {event.subject}{who}  {facts[:DATA_CHARS_MAX]}"
    say(printable(line.rstrip()))


def _value(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
