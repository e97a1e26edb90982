"""Is what the user asked for done? Pure: the goal and the present facts decide."""

from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never

import msgspec

from stratus.model.instance import Desired, InstanceFacts, Observed, Phase, phase_of
from stratus.model.operation import OperationStatus
from stratus.model.problem import Problem


class Goal(StrEnum):
    """What must hold of every subject."""

    RUNNING = "running"
    STOPPED = "stopped"
    ABSENT = "absent"
    RESET = "reset"


class InstanceGoal(msgspec.Struct, frozen=True, kw_only=True):
    """The goal with the counters of the wish, so that a later wish is told from this one."""

    goal: Goal
    run: int = 0
    resets: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The sum over all subjects."""

    status: OperationStatus
    subjects_done: int
    problem: Problem | None = None


def goal_status(goal: InstanceGoal, facts: InstanceFacts) -> OperationStatus:
    """Tell how far one instance has come towards the goal."""
    status = _reached(goal, facts)
    if status is OperationStatus.RUNNING and facts.parked is not None:
        return OperationStatus.FAILED
    return status


def _reached(goal: InstanceGoal, facts: InstanceFacts) -> OperationStatus:
    running, done = OperationStatus.RUNNING, OperationStatus.DONE
    phase = phase_of(facts)
    match goal.goal:
        case Goal.ABSENT:
            return done if facts.gone_ms else running
        case Goal.STOPPED:
            if facts.desired is not Desired.STOPPED:
                return OperationStatus.SUPERSEDED
            if facts.release and facts.host_id is not None:
                return running
            return done if phase is Phase.STOPPED else running
        case Goal.RUNNING:
            if facts.seen_here and facts.observed_run >= goal.run:
                up = facts.observed in (Observed.RUNNING, Observed.PAUSED, Observed.HALTED)
                if up:
                    return done
            if facts.desired is not Desired.RUNNING or facts.run > goal.run:
                return OperationStatus.SUPERSEDED
            return running
        case Goal.RESET:
            if facts.observed_resets >= goal.resets:
                return done
            # A guest that powered itself off is not restarted any more.
            if facts.desired is not Desired.RUNNING or facts.halted_by_itself:
                return OperationStatus.SUPERSEDED
            return running
        case other:
            assert_never(other)


def operation_verdict(goal: InstanceGoal, subjects: Sequence[InstanceFacts]) -> Verdict:
    """Sum up: failed before running before superseded before done."""
    statuses = [goal_status(goal, facts) for facts in subjects]
    done = statuses.count(OperationStatus.DONE)
    problem = None
    for worst in (
        OperationStatus.FAILED,
        OperationStatus.RUNNING,
        OperationStatus.SUPERSEDED,
        OperationStatus.DONE,
    ):
        if worst in statuses:
            if worst is OperationStatus.FAILED:
                problem = next((facts.parked for facts in subjects if facts.parked), None)
            return Verdict(status=worst, subjects_done=done, problem=problem)
    return Verdict(status=OperationStatus.DONE, subjects_done=0)
