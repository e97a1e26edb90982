"""How much may a project have? Show and set its ceilings."""

from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec import UNSET

from stratus.cli.client import client_open, part
from stratus.cli.listing import one_say
from stratus.cli.output import HUMAN, Format, note, say, say_json, say_rows
from stratus.cli.projects import RESOURCES, project_facts
from stratus.cli.start import project_wanted
from stratus.cli.trouble import Exit, Trouble
from stratus.wire.v1 import ProjectChange, ProjectView, QuotaBody

ProjectRef = Annotated[str, Parameter(help="The project; without it your default.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What to set; -1 means no ceiling."""

    instances: Annotated[int | None, Parameter(metavar="N", help="Instances; -1: any.")] = None
    vcpus: Annotated[int | None, Parameter(metavar="N", help="vCPUs; -1: any.")] = None
    memory_mib: Annotated[int | None, Parameter(metavar="MIB", help="Memory; -1: any.")] = None
    volumes: Annotated[int | None, Parameter(metavar="N", help="Volumes; -1: any.")] = None
    volume_gib: Annotated[int | None, Parameter(metavar="GIB", help="Disk space; -1: any.")] = None
    addresses: Annotated[int | None, Parameter(metavar="N", help="Addresses; -1: any.")] = None


NONE_SAID: Final = Ceilings()


def show(project: ProjectRef = "", /, *, output: Format = HUMAN) -> None:
    """Show a project's ceilings and how much of them is used.

    $ stratus quota show
    $ stratus quota show lab
    """
    client = client_open(note)
    answer = client.call("GET", f"/v1/projects/{part(project_wanted(client, project))}")
    if output.json:
        say_json(answer.body)
        return
    view = client.get(f"/v1/projects/{part(project_wanted(client, project))}", ProjectView)
    if output.quiet:
        say(view.id)
        return
    say_rows(
        RESOURCES,
        (
            ("RESOURCE", lambda name: name.replace("_", " ")),
            ("USED", lambda name: getattr(view.usage, name)),
            ("CEILING", lambda name: _ceiling(getattr(view.quota, name))),
        ),
    )


def set_(
    project: Annotated[str, Parameter(help="The project: id or name.")],
    /,
    *,
    ceilings: Ceilings = NONE_SAID,
    output: Format = HUMAN,
) -> None:
    """Set a project's ceilings.

    What is not given stays. For administrators.

    $ stratus quota set lab --vcpus 200 --memory-mib 409600
    """
    said = {name: value for name in RESOURCES if (value := getattr(ceilings, name)) is not None}
    if not said:
        raise Trouble(
            Exit.USAGE,
            "No ceiling is given.",
            remedy=f"stratus quota set {project} --instances 50",
        )
    quota = QuotaBody(**{name: said.get(name, UNSET) for name in RESOURCES})
    answer = client_open(note).call(
        "PATCH", f"/v1/projects/{part(project)}", body=ProjectChange(quota=quota)
    )
    one_say(answer, ProjectView, project_facts, id_of=lambda view: view.id, output=output)


def _ceiling(value: int) -> str:
    return "none" if value < 0 else str(value)
