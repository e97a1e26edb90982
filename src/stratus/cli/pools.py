"""Where are disks and images kept? List, show and add pools."""

from typing import Annotated

from cyclopts import Parameter

from stratus.cli.client import client_open, part
from stratus.cli.listing import Columns, list_say, one_say
from stratus.cli.options import Limit, Reference
from stratus.cli.output import HUMAN, Format, note
from stratus.model.units import size_text
from stratus.wire.v1 import PoolCreate, PoolView


def ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List pools.

    $ stratus pool ls
    """
    columns: Columns[PoolView] = (
        ("NAME", lambda view: view.name),
        ("DRIVER", lambda view: view.driver),
        ("FREE", lambda view: size_text(view.free_bytes) if view.total_bytes else ""),
        ("SIZE", lambda view: size_text(view.total_bytes) if view.total_bytes else ""),
        ("ANSWERS", lambda view: view.unreachable_since is None),
        ("LOCATION", lambda view: view.location),
    )
    list_say(
        client_open(note),
        "/v1/pools",
        PoolView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        limit=limit,
        empty="There are no pools; stratus pool add NAME LOCATION adds one.",
    )


def show(pool: Reference, /, *, output: Format = HUMAN) -> None:
    """Show one pool with its room.

    $ stratus pool show default
    """
    answer = client_open(note).call("GET", f"/v1/pools/{part(pool)}")
    one_say(answer, PoolView, _facts, id_of=lambda view: view.id, output=output)


def add(
    name: Annotated[str, Parameter(help="Its name.")],
    location: Annotated[str, Parameter(help="Where it is; for driver files a directory.")],
    /,
    *,
    driver: Annotated[str, Parameter(help="How disks are kept there.")] = "files",
    output: Format = HUMAN,
) -> None:
    """Add a pool.

    $ stratus pool add shared /srv/stratus/pool
    """
    body = PoolCreate(name=name, location=location, driver=driver)
    answer = client_open(note).call("POST", "/v1/pools", body=body)
    one_say(answer, PoolView, _facts, id_of=lambda view: view.id, output=output)


def _facts(view: PoolView) -> list[tuple[str, object]]:
    room = f"{size_text(view.free_bytes)} of {size_text(view.total_bytes)}"
    found: list[tuple[str, object]] = [
        ("id", view.id),
        ("name", view.name),
        ("driver", view.driver),
        ("location", view.location),
        ("free", room if view.total_bytes else ""),
        ("seen", view.seen_at),
        ("unreachable since", view.unreachable_since),
        ("created", view.created_at),
    ]
    if view.failure is not None:
        found += [("last failure", view.failure.detail), ("try", view.failure.remedy)]
    return found
