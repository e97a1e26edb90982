"""Which thing does the user mean? By id, unique beginning of an id, or name."""

import re
from collections.abc import Sequence
from typing import Final

from stratus.cli.client import Client, part
from stratus.cli.trouble import Exit, Trouble
from stratus.model.ids import PREFIXES, id_is
from stratus.model.limits import NAME_PATTERN
from stratus.wire.v1 import InstanceView

CANDIDATES_MAX: Final = 10
ID_BEGINNING: Final = re.compile(rf"^{PREFIXES['instance']}-[0-9a-z]{{1,16}}$")


def instance_find(client: Client, reference: str, *, project: str = "") -> InstanceView:
    """Return the one instance that is meant; a Trouble where it is none or several."""
    if id_is("instance", reference):
        return client.get(f"/v1/instances/{part(reference)}", InstanceView)
    query = {"project": project or client.place.project}
    found: list[InstanceView] = []
    if NAME_PATTERN.match(reference):
        found = client.items("/v1/instances", InstanceView, query={**query, "name": reference})
    if not found and ID_BEGINNING.match(reference):
        everything = client.items("/v1/instances", InstanceView, query=query)
        found = [view for view in everything if view.id.startswith(reference)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(
            "instance", reference, [f"{view.id} ({view.name}, {view.phase})" for view in found]
        )
    where = f" in project {query['project']}" if query["project"] else ""
    raise Trouble(
        Exit.NOT_FOUND,
        f"There is no instance {reference}{where}, or you may not see it.",
        remedy="stratus ps lists the instances of your project (another one: --project NAME).",
        code="not_found",
    )


def ambiguous(noun: str, reference: str, candidates: Sequence[str]) -> Trouble:
    """Say that a reference fits several things, and which."""
    listed = ", ".join(candidates[:CANDIDATES_MAX])
    more = f" and {len(candidates) - CANDIDATES_MAX} more" if candidates[CANDIDATES_MAX:] else ""
    return Trouble(
        Exit.CONFLICT,
        f"{reference} fits {len(candidates)} {noun}s: {listed}{more}.",
        remedy="Name the one you mean by its id.",
        code="name_ambiguous",
    )
