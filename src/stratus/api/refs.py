"""Which thing does the caller mean, by id or by name? For parameters that name another thing."""

from typing import Any

from stratus.api.endpoint import Call
from stratus.decide.access import Verb, access_decide, unknown
from stratus.model.ids import HostId, ProjectId
from stratus.model.problem import Refused
from stratus.store.hosts_admin import host_by_ref
from stratus.store.projects import project_by_id, project_by_name


def project_ref(call: Call[Any, Any], ref: str) -> ProjectId:
    """Return the project that the caller means and may see; a hidden one is unknown."""

    def find(connection: Any) -> ProjectId | None:  # noqa: ANN401  # SQL stays in the store
        found = project_by_id(connection, ProjectId(ref)) or project_by_name(connection, ref)
        return None if found is None or found.gone_ms else found.id

    project_id = call.world.store.read(find)
    if project_id is None:
        raise Refused(unknown("project", ref))
    problem = access_decide(call.actor, Verb.PROJECT_READ, project_id=project_id, ref=ref)
    if problem is not None:
        raise Refused(problem)
    return project_id


def host_ref(call: Call[Any, Any], ref: str) -> HostId:
    """Return the host that the caller means; who may not see hosts learns nothing from it."""
    host = call.world.store.read(lambda connection: host_by_ref(connection, ref))
    if host is not None:
        return host.id
    if access_decide(call.actor, Verb.HOST_READ) is None:
        raise Refused(unknown("host", ref))
    return HostId(ref)
