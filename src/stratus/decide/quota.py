"""Does this request stay within the project's quota? Every ceiling it would break is named."""

from typing import Final

import msgspec

from stratus.model.problem import Problem
from stratus.model.tenancy import Quota, Usage

UNLIMITED: Final = -1

# How each ceiling reads in a sentence: "... would use 40 of 32 vCPUs."
WORDS: Final = {
    "instances": "instances",
    "vcpus": "vCPUs",
    "memory_mib": "MiB of memory",
    "volumes": "volumes",
    "volume_gib": "GiB of volumes",
    "addresses": "addresses",
}
assert tuple(WORDS) == Quota.__struct_fields__ == Usage.__struct_fields__


class Excess(msgspec.Struct, frozen=True):
    """One ceiling that would be broken."""

    what: str
    would_use: int
    limit: int


def usage_sum(one: Usage, other: Usage) -> Usage:
    """Add two usages."""
    return Usage(**{what: getattr(one, what) + getattr(other, what) for what in WORDS})


def quota_excess(quota: Quota, usage: Usage, wanted: Usage) -> tuple[Excess, ...]:
    """List the ceilings that granting `wanted` would break; what it does not ask for is free.

    A project that is over a ceiling already (because the ceiling was lowered) may go on with
    requests that do not touch it.
    """
    broken = []
    for what in WORDS:
        asked: int = getattr(wanted, what)
        limit: int = getattr(quota, what)
        would_use: int = getattr(usage, what) + asked
        if asked > 0 and limit != UNLIMITED and would_use > limit:
            broken.append(Excess(what, would_use, limit))
    return tuple(broken)


def quota_decide(quota: Quota, usage: Usage, wanted: Usage, *, project_name: str) -> Problem | None:
    """Say which ceilings this request would break, with numbers, or None where it fits."""
    broken = quota_excess(quota, usage, wanted)
    if not broken:
        return None
    parts = [f"{excess.would_use} of {excess.limit} {WORDS[excess.what]}" for excess in broken]
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return Problem(
        code="quota_exceeded",
        detail=f"Project {project_name} would use {listed}.",
        remedy="Stop and release or delete something of the project, or ask your administrator"
        " for more quota.",
        context={
            "ceilings": {
                excess.what: {
                    "limit": excess.limit,
                    "used": getattr(usage, excess.what),
                    "wanted": getattr(wanted, excess.what),
                }
                for excess in broken
            }
        },
    )
