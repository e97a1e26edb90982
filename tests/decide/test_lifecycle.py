"""Does every instance come nearer to its wish, with no way to get stuck and none to do harm?"""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratus.decide.lifecycle import (
    LOOK_AGAIN_MS,
    PENDING_DEADLINE_MS,
    RESTARTS_MAX,
    ROUNDS_MAX,
    START_DEADLINE_MS,
    START_FAILURES_MAX,
    STOP_DEADLINE_MS,
    VOLUME_DEADLINE_MS,
    Adopt,
    AdoptStray,
    Delete,
    Forget,
    LetGo,
    Park,
    Place,
    Release,
    Settled,
    StartAgain,
    Step,
    Wait,
    next_step,
)
from stratus.model.instance import (
    Desired,
    HaltCause,
    InstanceFacts,
    Observed,
    OnHalt,
    Phase,
    phase_of,
    reason_of,
)
from tests.decide.machine import Machine, Move
from tests.decide.worlds import (
    BAD_LUCK,
    FORBIDDEN,
    HOST,
    NOW_MS,
    OTHER,
    any_instances,
    instance,
    placed,
    seen,
)

CALM_ROUNDS_MAX = 40
STARTED = NOW_MS + VOLUME_DEADLINE_MS + START_DEADLINE_MS
ANY_STEP = st.sampled_from((None, FORBIDDEN))


def step_of(facts: InstanceFacts, *, now_ms: int = NOW_MS) -> Step:
    return next_step(facts, now_ms=now_ms)


# -- for any facts --------------------------------------------------------------------------


@given(any_instances(), ANY_STEP)
def test_whatever_is_neither_settled_nor_parked_is_looked_at_again_within_a_bounded_time(
    facts: InstanceFacts, forbidden: object
) -> None:
    step = next_step(facts, now_ms=NOW_MS, forbidden=forbidden)  # type: ignore[arg-type]
    reachable = msgspec.structs.replace(facts, host_unreachable_ms=0)
    if isinstance(step, Wait):
        assert NOW_MS < step.until_ms <= NOW_MS + LOOK_AGAIN_MS
    if isinstance(step, Settled) and facts.parked is None:
        assert phase_of(reachable) in (Phase.RUNNING, Phase.STOPPED, Phase.DELETED)


@given(any_instances(), ANY_STEP)
def test_nothing_is_placed_that_has_a_host_or_is_not_wished_to_run(
    facts: InstanceFacts, forbidden: object
) -> None:
    step = next_step(facts, now_ms=NOW_MS, forbidden=forbidden)  # type: ignore[arg-type]
    if isinstance(step, Place):
        assert facts.host_id is None
        assert facts.desired is Desired.RUNNING
        assert facts.parked is None
        assert forbidden is None
        assert facts.stray_host_id is None


@given(any_instances())
def test_a_silent_host_keeps_its_instance_unless_its_guest_is_known_to_be_gone(
    facts: InstanceFacts,
) -> None:
    silent = msgspec.structs.replace(facts, host_id=HOST, host_unreachable_ms=NOW_MS)
    step = step_of(silent)
    assert not isinstance(step, Place | Forget)
    seen_gone = silent.seen_here and silent.observed is Observed.ABSENT
    if isinstance(step, Release):
        assert seen_gone
    if isinstance(step, AdoptStray):  # a later placement proves that this one was given up
        assert seen_gone or silent.stray_generation > silent.generation


@given(any_instances(), ANY_STEP)
def test_one_that_was_given_up_is_neither_placed_nor_started_nor_given_up_again(
    facts: InstanceFacts, forbidden: object
) -> None:
    parked = msgspec.structs.replace(facts, parked=BAD_LUCK)
    step = next_step(parked, now_ms=NOW_MS, forbidden=forbidden)  # type: ignore[arg-type]
    assert not isinstance(step, Place | Park | StartAgain | Wait)


@given(any_instances())
def test_what_the_policy_forbids_is_not_started(facts: InstanceFacts) -> None:
    step = next_step(facts, now_ms=NOW_MS, forbidden=FORBIDDEN)
    assert not isinstance(step, Place | StartAgain)


@given(any_instances())
def test_nothing_is_forgotten_before_its_guest_and_its_disks_are_gone(
    facts: InstanceFacts,
) -> None:
    step = step_of(facts)
    if isinstance(step, Forget):
        assert facts.desired is Desired.ABSENT
        assert facts.host_id is None
        assert facts.volumes_left == 0
    if isinstance(step, Delete):
        assert facts.on_halt is OnHalt.DELETE
        assert facts.halted_by_itself


@given(any_instances())
def test_what_is_gone_needs_no_step(facts: InstanceFacts) -> None:
    assert step_of(msgspec.structs.replace(facts, gone_ms=NOW_MS)) == Settled()


@pytest.mark.parametrize(
    "facts",
    [
        seen(Observed.RUNNING),
        seen(Observed.PAUSED),
        seen(Observed.HALTED, halt_cause=HaltCause.GUEST),
        seen(Observed.HALTED, halt_cause=HaltCause.CRASHED),
        seen(Observed.HALTED, desired=Desired.STOPPED),
        seen(Observed.ABSENT, desired=Desired.STOPPED),
        instance(desired=Desired.STOPPED),
        instance(desired=Desired.STOPPED, release=True),
        instance(desired=Desired.ABSENT, gone_ms=NOW_MS),
    ],
)
def test_a_settled_instance_needs_no_step_however_long_it_lasts(facts: InstanceFacts) -> None:
    for later_ms in (0, 1, STOP_DEADLINE_MS, 365 * PENDING_DEADLINE_MS):
        assert step_of(facts, now_ms=NOW_MS + later_ms) == Settled()


# -- step by step ---------------------------------------------------------------------------


def test_a_new_instance_is_placed_then_waited_for() -> None:
    assert step_of(instance()) == Place()
    assert step_of(placed(volumes_ready=1)) == Wait(NOW_MS + LOOK_AGAIN_MS)
    assert step_of(placed()) == Wait(NOW_MS + LOOK_AGAIN_MS)
    assert reason_of(placed(volumes_ready=1)) == "preparing_disks"
    assert reason_of(placed()) == "starting_guest"


@pytest.mark.parametrize(
    ("facts", "deadline_ms", "what"),
    [
        (instance(), NOW_MS + PENDING_DEADLINE_MS, "Waiting for room"),
        (placed(volumes_ready=0), NOW_MS + VOLUME_DEADLINE_MS, "Preparing its disks"),
        (placed(), STARTED, "Starting it"),
        (seen(Observed.RUNNING, desired=Desired.STOPPED), NOW_MS + STOP_DEADLINE_MS, "Stopping it"),
        (seen(Observed.RUNNING, desired=Desired.ABSENT), NOW_MS + STOP_DEADLINE_MS, "Removing it"),
        (instance(desired=Desired.ABSENT), NOW_MS + VOLUME_DEADLINE_MS, "Removing its disks"),
        (seen(Observed.RUNNING, release=True), NOW_MS + STOP_DEADLINE_MS, "Moving it"),
    ],
)
def test_what_takes_longer_than_its_deadline_is_given_up_and_says_what_it_was(
    facts: InstanceFacts, deadline_ms: int, what: str
) -> None:
    assert not isinstance(step_of(facts, now_ms=deadline_ms - 1), Park)
    step = step_of(facts, now_ms=deadline_ms)
    assert isinstance(step, Park)
    assert step.problem.code == "deadline_passed"
    assert step.problem.detail.startswith(f"{what} took longer")


def test_a_silent_host_lets_no_deadline_pass() -> None:
    for facts in (placed(), placed(desired=Desired.STOPPED), placed(desired=Desired.ABSENT)):
        silent = msgspec.structs.replace(facts, host_unreachable_ms=NOW_MS)
        later_ms = NOW_MS + 100 * PENDING_DEADLINE_MS
        assert step_of(silent, now_ms=later_ms) == Wait(later_ms + LOOK_AGAIN_MS)


def test_a_host_on_which_it_will_not_start_is_left_until_no_more_hosts_are_tried() -> None:
    failing = placed(failures=START_FAILURES_MAX, failure=BAD_LUCK)
    assert isinstance(step_of(placed(failures=START_FAILURES_MAX - 1, failure=BAD_LUCK)), Wait)
    assert step_of(failing) == LetGo(avoid=True)
    last = msgspec.structs.replace(failing, rounds=ROUNDS_MAX - 1)
    assert step_of(last) == Park(BAD_LUCK)


@pytest.mark.parametrize(
    ("on_halt", "step"),
    [(OnHalt.KEEP, Settled()), (OnHalt.RELEASE, LetGo(avoid=False)), (OnHalt.DELETE, Delete())],
)
@pytest.mark.parametrize("cause", [HaltCause.GUEST, HaltCause.CRASHED])
def test_a_guest_that_halts_gets_what_its_owner_wished_for_then(
    on_halt: OnHalt, step: Step, cause: HaltCause
) -> None:
    facts = seen(Observed.HALTED, halt_cause=cause, on_halt=on_halt)
    assert step_of(facts) == step


def test_a_guest_lost_with_its_host_is_started_again_but_not_for_ever() -> None:
    lost = seen(Observed.HALTED, halt_cause=HaltCause.LOST)
    assert step_of(lost) == StartAgain()
    assert step_of(msgspec.structs.replace(lost, rounds=RESTARTS_MAX)) == Settled()
    assert next_step(lost, now_ms=NOW_MS, forbidden=FORBIDDEN) == Park(FORBIDDEN)


def test_a_guest_that_vanished_is_started_again_and_in_the_end_given_up() -> None:
    vanished = seen(Observed.ABSENT)
    assert step_of(vanished) == StartAgain()
    step = step_of(msgspec.structs.replace(vanished, rounds=RESTARTS_MAX))
    assert isinstance(step, Park)
    assert step.problem.code == "guest_failed"


def test_a_place_is_given_back_only_when_the_guest_is_seen_to_be_gone() -> None:
    for desired in Desired:
        going = placed(desired=desired, release=True)
        assert isinstance(step_of(going), Wait)
        gone = msgspec.structs.replace(going, observed=Observed.ABSENT, observed_generation=1)
        assert step_of(gone) == Release()


def test_a_guest_newer_than_its_record_is_taken_at_its_word() -> None:
    assert step_of(placed(observed=Observed.RUNNING, observed_generation=3, observed_run=2)) == (
        Adopt(3, 2)
    )
    assert step_of(seen(Observed.HALTED, observed_run=2)) == Adopt(1, 2)
    assert not isinstance(step_of(placed(observed_generation=3)), Adopt)


def test_a_guest_seen_elsewhere_is_followed_when_there_is_none_here_or_only_an_older_one() -> None:
    elsewhere = {"stray_host_id": OTHER, "stray_generation": 4}
    assert step_of(instance(**elsewhere)) == AdoptStray(OTHER, 4)
    assert step_of(seen(Observed.ABSENT, **elsewhere)) == AdoptStray(OTHER, 4)
    assert step_of(seen(Observed.HALTED, **elsewhere)) == AdoptStray(OTHER, 4)
    assert step_of(seen(Observed.RUNNING, **elsewhere, stray_alive=True)) == AdoptStray(OTHER, 4)
    for facts in (placed(**elsewhere), seen(Observed.RUNNING, **elsewhere)):
        assert not isinstance(step_of(facts), AdoptStray)
    older = seen(Observed.RUNNING, **elsewhere, stray_alive=True, generation=5)
    assert not isinstance(step_of(older), AdoptStray)


# -- walks ----------------------------------------------------------------------------------


def fail_starts(machine: Machine) -> None:
    machine.failing += 2


def minute(machine: Machine) -> None:
    machine.now_ms += 60_000


MOVES: dict[str, Move] = {
    "start": Machine.start,
    "stop": Machine.stop,
    "stop and release": lambda machine: machine.stop(release=True),
    "delete": Machine.delete,
    "retry": Machine.retry,
    "reboot": Machine.reboot,
    "reconcile": Machine.reconcile,
    "look": Machine.look,
    "disks": Machine.disks,
    "a calm round": Machine.calm_round,
    "the guest powers off": lambda machine: machine.guest_ends(HaltCause.GUEST),
    "the guest panics": lambda machine: machine.guest_ends(HaltCause.CRASHED),
    "the host reboots": lambda machine: machine.guest_ends(HaltCause.LOST),
    "the guest vanishes": Machine.guest_vanishes,
    "starts fail": fail_starts,
    "one host is silent": lambda machine: machine.silence(HOST),
    "the other is silent": lambda machine: machine.silence(OTHER),
    "all is well": Machine.heal,
    "a minute": minute,
}
WALKS = st.lists(st.sampled_from([name for name in MOVES if name != "delete"]), max_size=25)


def settles(machine: Machine) -> None:
    """Demand that with cooperative hosts the wish comes true, or is given up, and stays so."""
    for _ in range(CALM_ROUNDS_MAX):
        if not machine.calm_round():
            break
    else:
        raise AssertionError(f"never settles: {machine.facts}, {machine.steps[-5:]}")
    assert machine.calm_round() == 0
    facts = machine.facts
    phase = phase_of(facts)
    assert phase in (Phase.RUNNING, Phase.STOPPED, Phase.DELETED, Phase.FAILED)
    if phase is not Phase.FAILED:
        assert facts.parked is None
    assert len(machine.running) == (phase is Phase.RUNNING)


@settings(max_examples=200, deadline=None)
@given(WALKS, st.sampled_from(OnHalt))
def test_whatever_happened_the_wish_settles_once_everybody_cooperates(
    walk: list[str], on_halt: OnHalt
) -> None:
    machine = Machine(instance(volumes_ready=0, on_halt=on_halt))
    for name in walk:
        MOVES[name](machine)
        assert len(machine.running) <= 1, "the instance runs twice"
    machine.heal()
    settles(machine)
    machine.retry()
    settles(machine)
    assert phase_of(machine.facts) is not Phase.FAILED


@settings(max_examples=60, deadline=None)
@given(WALKS, WALKS)
def test_whatever_happened_a_deletion_leaves_nothing(walk: list[str], later: list[str]) -> None:
    machine = Machine()
    for name in [*walk, "delete", *later]:
        MOVES[name](machine)
        assert len(machine.running) <= 1, "the instance runs twice"
    machine.heal()
    machine.retry()
    settles(machine)
    assert phase_of(machine.facts) is Phase.DELETED
    assert machine.guests == {HOST: [], OTHER: []}
    assert machine.facts.volumes_left == 0
