"""Which sizes can instances have? List, show, define and remove instance types."""

from typing import Annotated

from cyclopts import Parameter

from stratus.cli.client import client_open, part
from stratus.cli.listing import Columns, list_say, one_say, removed_say
from stratus.cli.options import Limit
from stratus.cli.output import HUMAN, Format, note
from stratus.model.units import GIB, MIB, size_text
from stratus.wire.v1 import TypeCreate, TypeView

TypeRef = Annotated[str, Parameter(help="The name of the type.")]


def ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List instance types.

    $ stratus type ls
    """
    columns: Columns[TypeView] = (
        ("NAME", lambda view: view.name),
        ("VCPUS", lambda view: view.vcpus),
        ("MEMORY", lambda view: size_text(view.memory_mib * MIB)),
        ("SWAP", lambda view: _size(view.swap_mib * MIB)),
        ("ROOT DISK", lambda view: _size(view.root_gib * GIB) or "as the image"),
    )
    list_say(
        client_open(note),
        "/v1/types",
        TypeView,
        columns,
        id_of=lambda view: view.name,
        output=output,
        limit=limit,
        paged=False,
    )


def show(name: TypeRef, /, *, output: Format = HUMAN) -> None:
    """Show one instance type.

    $ stratus type show m1.small
    """
    answer = client_open(note).call("GET", f"/v1/types/{part(name)}")
    one_say(answer, TypeView, _facts, id_of=lambda view: view.name, output=output)


def add(
    name: TypeRef,
    /,
    *,
    vcpus: Annotated[int, Parameter(help="How many virtual CPUs.")],
    memory: Annotated[int, Parameter(metavar="MIB", help="How much memory.")],
    swap: Annotated[int, Parameter(metavar="MIB", help="A swap disk of this size.")] = 0,
    root: Annotated[
        int, Parameter(metavar="GIB", help="Grow the root disk to this; 0: as the image.")
    ] = 0,
    output: Format = HUMAN,
) -> None:
    """Define an instance type.

    $ stratus type add gpu.large --vcpus 8 --memory 32768 --root 40
    """
    body = TypeCreate(name=name, vcpus=vcpus, memory_mib=memory, swap_mib=swap, root_gib=root)
    answer = client_open(note).call("POST", "/v1/types", body=body)
    one_say(answer, TypeView, _facts, id_of=lambda view: view.name, output=output)


def rm(name: TypeRef, /, *more: TypeRef, output: Format = HUMAN) -> None:
    """Remove instance types; instances keep their size.

    $ stratus type rm gpu.large
    """
    client = client_open(note)
    for one in (name, *more):
        client.call("DELETE", f"/v1/types/{part(one)}")
        removed_say([one], output)


def _facts(view: TypeView) -> list[tuple[str, object]]:
    return [
        ("name", view.name),
        ("vcpus", view.vcpus),
        ("memory", size_text(view.memory_mib * MIB)),
        ("swap", _size(view.swap_mib * MIB)),
        ("root disk", _size(view.root_gib * GIB) or "as the image"),
    ]


def _size(size_bytes: int) -> str:
    return size_text(size_bytes) if size_bytes else ""
