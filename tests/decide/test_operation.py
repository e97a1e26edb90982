"""Does an operation say the truth about what was asked, whatever happened since?"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.operation import Goal, InstanceGoal, goal_status, operation_verdict
from stratus.model.instance import Desired, HaltCause, InstanceFacts, Observed
from stratus.model.operation import OperationStatus
from tests.decide.worlds import BAD_LUCK, NOW_MS, any_instances, instance, placed, seen

RUN = InstanceGoal(goal=Goal.RUNNING, run=1)
STOP = InstanceGoal(goal=Goal.STOPPED)
DELETE = InstanceGoal(goal=Goal.ABSENT)
RESET = InstanceGoal(goal=Goal.RESET, resets=1)
GOALS = st.sampled_from((RUN, STOP, DELETE, RESET))
RUNNING, DONE = OperationStatus.RUNNING, OperationStatus.DONE
FAILED, SUPERSEDED = OperationStatus.FAILED, OperationStatus.SUPERSEDED


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (instance(), RUNNING),
        (placed(), RUNNING),
        (seen(Observed.RUNNING), DONE),
        (seen(Observed.HALTED, halt_cause=HaltCause.GUEST), DONE),  # it did run
        (seen(Observed.RUNNING, run=2, observed_run=2), DONE),  # and again since
        (seen(Observed.ABSENT), RUNNING),
        (placed(parked=BAD_LUCK), FAILED),
        (placed(desired=Desired.STOPPED), SUPERSEDED),
        (placed(run=2), SUPERSEDED),
        (instance(desired=Desired.ABSENT, parked=BAD_LUCK), SUPERSEDED),
    ],
)
def test_a_start_is_done_once_its_run_was_seen(
    facts: InstanceFacts, status: OperationStatus
) -> None:
    assert goal_status(RUN, facts) is status


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (seen(Observed.RUNNING, desired=Desired.STOPPED), RUNNING),
        (seen(Observed.HALTED, desired=Desired.STOPPED), DONE),
        (seen(Observed.HALTED, desired=Desired.STOPPED, release=True), RUNNING),
        (instance(desired=Desired.STOPPED, release=True), DONE),
        (seen(Observed.HALTED, desired=Desired.STOPPED, host_unreachable_ms=NOW_MS), RUNNING),
        (seen(Observed.RUNNING, desired=Desired.STOPPED, parked=BAD_LUCK), FAILED),
        (seen(Observed.RUNNING), SUPERSEDED),
        (instance(desired=Desired.ABSENT, gone_ms=NOW_MS), SUPERSEDED),
    ],
)
def test_a_stop_is_done_once_the_guest_is_off_and_its_place_given_back_where_wished(
    facts: InstanceFacts, status: OperationStatus
) -> None:
    assert goal_status(STOP, facts) is status


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (seen(Observed.RUNNING, resets=1), RUNNING),
        (seen(Observed.RUNNING, resets=1, observed_resets=1), DONE),
        (seen(Observed.RUNNING, resets=2, observed_resets=2), DONE),
        (seen(Observed.RUNNING, resets=1, desired=Desired.STOPPED), SUPERSEDED),
        (seen(Observed.HALTED, resets=1, halt_cause=HaltCause.GUEST), SUPERSEDED),
    ],
)
def test_a_reboot_is_done_once_counted_and_over_once_the_guest_is_off(
    facts: InstanceFacts, status: OperationStatus
) -> None:
    assert goal_status(RESET, facts) is status


def test_a_deletion_is_done_only_when_nothing_is_left() -> None:
    facts = instance(desired=Desired.ABSENT)
    assert goal_status(DELETE, facts) is RUNNING
    assert goal_status(DELETE, msgspec.structs.replace(facts, parked=BAD_LUCK)) is FAILED
    assert goal_status(DELETE, msgspec.structs.replace(facts, gone_ms=NOW_MS)) is DONE


def test_one_that_failed_speaks_for_all_and_the_others_are_counted() -> None:
    verdict = operation_verdict(RUN, [seen(Observed.RUNNING), placed(parked=BAD_LUCK), placed()])
    assert (verdict.status, verdict.subjects_done, verdict.problem) == (FAILED, 1, BAD_LUCK)


@given(GOALS, st.lists(any_instances(), max_size=4))
def test_all_is_done_if_and_only_if_each_is(
    goal: InstanceGoal, subjects: list[InstanceFacts]
) -> None:
    verdict = operation_verdict(goal, subjects)
    statuses = [goal_status(goal, facts) for facts in subjects]
    assert verdict.subjects_done == statuses.count(DONE)
    assert (verdict.status is DONE) == (verdict.subjects_done == len(subjects))
    assert (verdict.problem is not None) == (FAILED in statuses)


@given(GOALS, st.lists(any_instances(), max_size=4))
def test_the_order_of_the_subjects_changes_no_verdict(
    goal: InstanceGoal, subjects: list[InstanceFacts]
) -> None:
    one, other = operation_verdict(goal, subjects), operation_verdict(goal, subjects[::-1])
    assert (one.status, one.subjects_done) == (other.status, other.subjects_done)
