"""May this guest be started for this wish? One rule for every hypervisor driver."""

from stratus.model.host import GuestFound, GuestSpec
from stratus.model.instance import Observed
from stratus.model.problem import Problem


def run_conflict(spec: GuestSpec, found: GuestFound | None) -> Problem | None:
    """Say why a guest found so must not be started for this spec; None when it may be."""
    if found is None or (found.run < spec.run and found.observed is Observed.HALTED):
        return None
    if found.run == spec.run and found.observed is not Observed.HALTED:
        return None
    if found.run > spec.run:
        return Problem(
            code="conflict",
            detail=f"Run {found.run} of {found.name} was begun; run {spec.run} is over.",
            remedy="Nothing needs to be done: the wish was outdated.",
        )
    if found.run == spec.run:
        return Problem(
            code="conflict",
            detail=f"{found.name} has halted in run {spec.run} ({found.halt_cause or 'unknown'}).",
            remedy="Start the instance again.",
        )
    return Problem(
        code="conflict",
        detail=f"{found.name} still runs in run {found.run}.",
        remedy="Nothing needs to be done: it is started again as soon as it is off.",
    )
