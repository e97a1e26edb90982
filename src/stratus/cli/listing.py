"""How are lists and single things printed? The same way for every noun."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from stratus.cli.client import Client, Query, decode
from stratus.cli.output import Format, list_json, note, say, say_facts, say_json, say_rows
from stratus.cli.transport import Answer

T = TypeVar("T")
Columns = Sequence[tuple[str, Callable[[T], object]]]
Facts = Callable[[T], Sequence[tuple[str, object]]]


def list_say(
    client: Client,
    path: str,
    type_: type[T],
    columns: Columns[T],
    *,
    id_of: Callable[[T], str],
    output: Format,
    query: Query | None = None,
    limit: int = 0,
    empty: str = "",
    paged: bool = True,
) -> None:
    """Fetch a list and print it as a table, as ids, or as one JSON document."""
    rows = client.rows(path, query=query, rows_max=limit, paged=paged)
    if output.json:
        say_json(list_json(rows.items, rows.next))
    else:
        things = [decode(raw, type_) for raw in rows.items]
        if output.quiet:
            for thing in things:
                say(id_of(thing))
        else:
            say_rows(things, columns, empty=empty)
    if rows.next is not None and not limit:
        note(f"Only the first {len(rows.items)} are listed; there are more.")


def one_say(
    answer: Answer,
    type_: type[T],
    facts: Facts[T],
    *,
    id_of: Callable[[T], str],
    output: Format,
) -> None:
    """Print one thing: a fact per line, its id, or as the API wrote it."""
    if output.json:
        say_json(answer.body)
        return
    thing = decode(answer.body, type_)
    if output.quiet:
        say(id_of(thing))
    else:
        say_facts(facts(thing))


def removed_say(names: Sequence[str], output: Format, *, done: str = "removed") -> None:
    """Tell that things are gone; data only for who wants ids."""
    for name in names:
        if output.quiet:
            say(name)
        else:
            note(f"{name} {done}.")
