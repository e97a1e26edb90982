"""Who shares what? Projects, their members, and the default project of this command line."""

import os
from typing import Annotated

import msgspec
from cyclopts import Parameter

from stratus.cli.client import client_open, part
from stratus.cli.listing import Columns, list_say, one_say, removed_say
from stratus.cli.options import AllProjects, Limit, Reference
from stratus.cli.output import HUMAN, Format, note, say
from stratus.cli.settings import settings_path, settings_read, settings_write
from stratus.cli.trouble import Exit, Trouble
from stratus.model.tenancy import Role
from stratus.wire.v1 import MemberPut, MemberView, ProjectCreate, ProjectView

UserName = Annotated[str, Parameter(help="The user: id or name.")]
RESOURCES = ("instances", "vcpus", "memory_mib", "volumes", "volume_gib", "addresses")


def ls(*, all_projects: AllProjects = False, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List projects.

    The star marks the default of this command line.

    $ stratus project ls
    """
    client = client_open(note)
    mine = client.place.project
    columns: Columns[ProjectView] = (
        ("NAME", lambda view: view.name + (" *" if mine in (view.name, view.id) else "")),
        ("ID", lambda view: view.id),
        ("INSTANCES", lambda view: _of(view, "instances")),
        ("VCPUS", lambda view: _of(view, "vcpus")),
        ("MEMORY MIB", lambda view: _of(view, "memory_mib")),
    )
    list_say(
        client,
        "/v1/projects",
        ProjectView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        query={"all_projects": all_projects},
        limit=limit,
        empty="You belong to no project; ask an administrator or an owner to add you.",
    )


def show(project: Reference, /, *, output: Format = HUMAN) -> None:
    """Show one project with its quota and use.

    $ stratus project show lab
    """
    answer = client_open(note).call("GET", f"/v1/projects/{part(project)}")
    one_say(answer, ProjectView, project_facts, id_of=lambda view: view.id, output=output)


def create(
    name: Annotated[str, Parameter(help="Lower-case letters, digits, hyphens.")],
    /,
    *,
    owner: Annotated[str, Parameter(metavar="USER", help="Who adds its members.")] = "",
    output: Format = HUMAN,
) -> None:
    """Create a project.

    $ stratus project create lab --owner anna
    """
    body = ProjectCreate(name=name, owner=owner or None)
    answer = client_open(note).call("POST", "/v1/projects", body=body)
    one_say(answer, ProjectView, project_facts, id_of=lambda view: view.id, output=output)


def rm(project: Reference, /, *more: Reference, output: Format = HUMAN) -> None:
    """Remove projects that hold nothing any more.

    $ stratus project rm lab
    """
    client = client_open(note)
    for one in (project, *more):
        client.call("DELETE", f"/v1/projects/{part(one)}")
        removed_say([one], output)


def use(project: Reference, /, *, output: Format = HUMAN) -> None:
    """Make a project the default of this command line.

    $ stratus project use lab
    """
    client = client_open(note)
    view = client.get(f"/v1/projects/{part(project)}", ProjectView)
    path = settings_path(os.environ)
    settings = settings_read(path)
    profile = settings.profiles.get(client.place.profile)
    if profile is None:
        raise Trouble(
            Exit.USAGE,
            f"This login comes from {client.place.source}, which is not changed from here.",
            remedy=f"export STRATUS_PROJECT={view.name}",
        )
    profile.project = view.name
    settings_write(path, settings)
    if output.json or output.quiet:
        say(msgspec.json.encode(view).decode() if output.json else view.id)
    else:
        note(f"Commands now act in project {view.name}.")


def members(project: Reference, /, *, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List who belongs to a project.

    $ stratus project members lab
    """
    columns: Columns[MemberView] = (
        ("USER", lambda view: view.user.name),
        ("ROLE", lambda view: view.role),
        ("ID", lambda view: view.user.id),
    )
    list_say(
        client_open(note),
        f"/v1/projects/{part(project)}/members",
        MemberView,
        columns,
        id_of=lambda view: view.user.id,
        output=output,
        limit=limit,
        empty=f"{project} has no members.",
    )


def member_add(
    project: Reference,
    user: UserName,
    /,
    *,
    role: Annotated[
        Role, Parameter(help="reader sees, member runs instances, owner adds members.")
    ] = Role.MEMBER,
    output: Format = HUMAN,
) -> None:
    """Let a user into a project, in a role.

    Also changes the role of who belongs to it already.

    $ stratus project member-add lab anna --role owner
    """
    answer = client_open(note).call(
        "PUT", f"/v1/projects/{part(project)}/members/{part(user)}", body=MemberPut(role=role)
    )
    if answer.body:
        one_say(
            answer,
            MemberView,
            lambda view: [("user", view.user.name), ("role", view.role)],
            id_of=lambda view: view.user.id,
            output=output,
        )
    else:
        removed_say([user], output, done=f"is {role} of {project}")


def member_rm(
    project: Reference, user: UserName, /, *more: UserName, output: Format = HUMAN
) -> None:
    """Take users out of a project.

    $ stratus project member-rm lab anna
    """
    client = client_open(note)
    for one in (user, *more):
        client.call("DELETE", f"/v1/projects/{part(project)}/members/{part(one)}")
        removed_say([one], output, done=f"taken out of {project}")


def project_facts(view: ProjectView) -> list[tuple[str, object]]:
    """Say what there is to know of a project."""
    return [
        ("id", view.id),
        ("name", view.name),
        *((name.replace("_", " "), _of(view, name)) for name in RESOURCES),
        ("created", view.created_at),
    ]


def _of(view: ProjectView, name: str) -> str:
    ceiling = getattr(view.quota, name)
    return f"{getattr(view.usage, name)} of {'any' if ceiling < 0 else ceiling}"
