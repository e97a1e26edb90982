"""Does a host get exactly what its document says, and do guests without a line stay untouched?"""

from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.hostplan import (
    STOP_GRACE_MS,
    STOP_POLL_MS,
    Action,
    AskShutdown,
    Halt,
    HostPlan,
    Remove,
    Reset,
    Start,
    host_plan,
)
from stratus.model.host import GuestFound, GuestKnown, GuestWish
from stratus.model.ids import InstanceId
from stratus.model.instance import HaltCause, Observed
from tests.decide.machine import guests_after, stranger
from tests.decide.worlds import HOST, NOW_MS, found, known, wished

GOLDEN = Path(__file__).parent / "golden" / "host_plans.txt"
ROUNDS_MAX = 6
SMALL = st.integers(min_value=1, max_value=3)
ALIVE = (Observed.RUNNING, Observed.PAUSED)
Doomed = frozenset[tuple[InstanceId, int]]


def plan_of(
    wishes: list[GuestWish],
    guests: list[GuestFound],
    doomed: Doomed = frozenset(),
    *,
    now_ms: int = NOW_MS,
) -> HostPlan:
    return host_plan(HOST, wishes, guests, now_ms=now_ms, doomed=doomed)


def action_of(wish: GuestWish, *guests: GuestFound, now_ms: int = NOW_MS) -> Action | None:
    actions = plan_of([wish], list(guests), now_ms=now_ms).actions
    assert len(actions) <= 1
    return actions[0] if actions else None


# -- any host -------------------------------------------------------------------------------


@st.composite
def guests(draw: st.DrawFn) -> GuestFound:
    observed = draw(st.sampled_from((*ALIVE, Observed.HALTED)))
    causes = (HaltCause.GUEST, HaltCause.ASKED, HaltCause.CRASHED, HaltCause.LOST)
    return found(
        draw(SMALL),
        generation=draw(SMALL),
        observed=observed,
        run=draw(SMALL),
        resets=draw(SMALL),
        halt_cause=draw(st.sampled_from(causes)) if observed is Observed.HALTED else HaltCause.NONE,
    )


@st.composite
def lines(draw: st.DrawFn, number: int) -> GuestWish:
    present = draw(st.booleans())
    knowledge = GuestKnown(
        observed=draw(st.sampled_from(Observed)),
        generation=draw(SMALL),
        run=draw(SMALL),
        resets=draw(SMALL),
        halt_cause=draw(st.sampled_from(HaltCause)),
    )
    return wished(
        number,
        generation=draw(SMALL),
        present=present,
        gently=draw(st.booleans()),
        running=draw(st.booleans()),
        hold=draw(st.booleans()),
        run=draw(SMALL),
        resets=draw(SMALL),
        desired_ms=NOW_MS - draw(st.sampled_from((0, STOP_GRACE_MS, 10 * STOP_GRACE_MS))),
        disks_ready=draw(st.booleans()),
        retry_ms=draw(st.sampled_from((0, 0, NOW_MS + 1))),
        known=draw(st.sampled_from((None, knowledge))),
    )


@st.composite
def hosts(draw: st.DrawFn) -> tuple[list[GuestWish], list[GuestFound], Doomed]:
    """A document, an inventory and tombstones that need not agree at all."""
    wishes = [draw(lines(number)) for number in (1, 2, 3) if draw(st.booleans())]
    inventory = draw(
        st.lists(guests(), max_size=5, unique_by=lambda g: (g.instance_id, g.generation))
    )
    strangers = [stranger(number) for number in range(draw(st.integers(0, 2)))]
    pairs = st.tuples(SMALL.map(lambda n: InstanceId(f"ins-{n}")), SMALL)
    return wishes, inventory + strangers, draw(st.frozensets(pairs, max_size=3))


Host = tuple[list[GuestWish], list[GuestFound], Doomed]


def effect_of(actions: tuple[Action, ...], inventory: list[GuestFound]) -> list[GuestFound]:
    for action in actions:
        inventory = guests_after(inventory, action)
    return inventory


@given(hosts())
def test_a_guest_without_a_line_or_a_tombstone_is_left_exactly_as_it_is(host: Host) -> None:
    wishes, inventory, doomed = host
    after = effect_of(plan_of(wishes, inventory, doomed).actions, inventory)
    listed = {wish.instance_id for wish in wishes}
    for guest in inventory:
        if guest.instance_id is None or guest.instance_id not in listed:
            pair = (guest.instance_id, guest.generation)
            assert (guest in after) == (pair not in doomed)


@given(hosts())
def test_an_empty_document_commands_nothing(host: Host) -> None:
    _, inventory, _ = host
    plan = plan_of([], inventory)
    assert plan.actions == ()
    assert sorted(plan.strays, key=repr) == sorted(inventory, key=repr)


@given(hosts())
def test_only_a_line_that_says_so_removes_a_guest(host: Host) -> None:
    wishes, inventory, doomed = host
    present = {wish.instance_id: wish for wish in wishes if wish.present}
    for action in plan_of(wishes, inventory, doomed).actions:
        if not isinstance(action, Remove):
            continue
        for generation in action.generations:
            pair = (action.wish.instance_id, generation)
            line = present.get(action.wish.instance_id)
            assert pair in doomed or line is None
            assert line is None or line.generation != generation


@given(hosts())
def test_strays_are_shown_exactly_once_and_tombstones_are_no_strays(host: Host) -> None:
    wishes, inventory, doomed = host
    listed = {wish.instance_id for wish in wishes}
    expected = [
        guest
        for guest in inventory
        if guest.instance_id is None
        or (guest.instance_id not in listed and (guest.instance_id, guest.generation) not in doomed)
    ]
    shown = plan_of(wishes, inventory, doomed).strays
    assert sorted(shown, key=repr) == sorted(expected, key=repr)


@given(hosts())
def test_a_guest_on_hold_is_neither_started_nor_stopped(host: Host) -> None:
    wishes, inventory, doomed = host
    held = [msgspec.structs.replace(wish, present=True, hold=True) for wish in wishes]
    actions = plan_of(held, inventory, doomed).actions
    assert all(isinstance(action, Remove) for action in actions)


@given(hosts())
def test_a_tombstone_leaves_nothing_of_its_instance_and_everything_of_the_others(
    host: Host,
) -> None:
    wishes, inventory, _ = host
    wishes = [
        msgspec.structs.replace(wish, present=False, gently=False, retry_ms=0)
        if wish.instance_id == "ins-1"
        else msgspec.structs.replace(wish, hold=True, present=True)
        for wish in wishes
    ]
    if "ins-1" not in {wish.instance_id for wish in wishes}:
        wishes.append(wished(1, present=False))
    after = effect_of(plan_of(wishes, inventory).actions, inventory)
    assert after == [guest for guest in inventory if guest.instance_id != "ins-1"]


@given(hosts())
def test_a_guest_that_halted_in_its_run_is_not_started_again_in_it(host: Host) -> None:
    wishes, inventory, doomed = host
    halted = {
        (guest.instance_id, guest.generation): guest.run
        for guest in inventory
        if guest.observed is Observed.HALTED
    }
    for action in plan_of(wishes, inventory, doomed).actions:
        if isinstance(action, Start):
            wish = action.wish
            if (wish.instance_id, wish.generation) in doomed:
                continue
            assert halted.get((wish.instance_id, wish.generation), 0) < wish.run


@given(hosts())
def test_nothing_is_started_beside_another_guest_of_the_same_instance(host: Host) -> None:
    wishes, inventory, _ = host
    for action in plan_of(wishes, inventory).actions:
        if isinstance(action, Start):
            wish = action.wish
            others = [g for g in inventory if g.instance_id == wish.instance_id]
            assert wish.disks_ready
            assert wish.retry_ms <= NOW_MS
            assert all(guest.observed is Observed.HALTED for guest in others) or any(
                guest.generation == wish.generation for guest in others
            )


@given(hosts())
def test_doomed_placements_are_removed_and_no_other_of_the_instance(host: Host) -> None:
    wishes, inventory, doomed = host
    wishes = [msgspec.structs.replace(wish, present=True, hold=True) for wish in wishes]
    kept = {(wish.instance_id, wish.generation) for wish in wishes}
    after = effect_of(plan_of(wishes, inventory, doomed).actions, inventory)
    assert after == [
        guest
        for guest in inventory
        if guest.instance_id is None
        or (guest.instance_id, guest.generation) not in doomed
        or (guest.instance_id, guest.generation) in kept
    ]


def known_absent(wish: GuestWish) -> GuestKnown:
    return GuestKnown(
        observed=Observed.ABSENT,
        generation=wish.generation,
        run=0,
        resets=0,
        halt_cause=HaltCause.NONE,
    )


@given(hosts())
def test_a_host_that_did_as_it_was_told_needs_nothing_more(host: Host) -> None:
    wishes, inventory, doomed = host
    wishes = [msgspec.structs.replace(wish, retry_ms=0) for wish in wishes]
    for _ in range(ROUNDS_MAX):
        plan = plan_of(wishes, inventory, doomed)
        # Tombstones are confirmed by the worker, which then strikes them out.
        doomed = frozenset()
        if not plan.actions:
            return
        inventory = effect_of(plan.actions, inventory)
        gone = {action.wish.instance_id for action in plan.actions if isinstance(action, Remove)}
        wishes = [
            msgspec.structs.replace(wish, known=known_absent(wish))
            if wish.instance_id in gone and not wish.present
            else wish
            for wish in wishes
        ]
    raise AssertionError(f"never done: {plan.actions}")


@given(hosts(), st.randoms())
def test_the_order_in_which_a_host_lists_its_guests_changes_nothing(
    host: Host, random: Random
) -> None:
    wishes, inventory, doomed = host
    shuffled = list(inventory)
    random.shuffle(shuffled)
    one, other = plan_of(wishes, inventory, doomed), plan_of(wishes, shuffled, doomed)
    assert one.actions == other.actions
    assert one.wake_ms == other.wake_ms


@given(hosts())
def test_what_the_store_knows_already_is_not_reported_again(host: Host) -> None:
    wishes, inventory, doomed = host
    first = plan_of(wishes, inventory, doomed)
    said = {report.instance_id: report for report in first.reports}
    informed = [
        msgspec.structs.replace(
            wish,
            known=GuestKnown(
                observed=said[wish.instance_id].observed,
                generation=said[wish.instance_id].generation,
                run=said[wish.instance_id].run,
                resets=said[wish.instance_id].resets,
                halt_cause=said[wish.instance_id].halt_cause,
            ),
        )
        for wish in wishes
        if wish.instance_id in said
    ]
    assert plan_of(informed, inventory, doomed).reports == ()


# -- one guest ------------------------------------------------------------------------------


def test_a_guest_is_started_once_its_disks_are_ready() -> None:
    assert action_of(wished(disks_ready=False)) is None
    assert action_of(wished()) == Start(wished())
    assert action_of(wished(), found()) is None


def test_a_guest_that_is_off_is_started_only_in_a_later_run() -> None:
    off = found(observed=Observed.HALTED, halt_cause=HaltCause.GUEST)
    assert action_of(wished(), off) is None
    assert action_of(wished(run=2), off) == Start(wished(run=2))
    assert action_of(wished(run=2, running=False), off) is None


def test_a_start_that_failed_is_not_repeated_before_its_time() -> None:
    wish = wished(retry_ms=NOW_MS + 4000)
    plan = plan_of([wish], [])
    assert (plan.actions, plan.wake_ms) == ((), NOW_MS + 4000)
    assert action_of(wish, now_ms=NOW_MS + 4000) == Start(wish)


def test_a_stop_presses_the_button_until_the_grace_is_over_then_pulls_the_plug() -> None:
    wish = wished(running=False)
    plan = plan_of([wish], [found()])
    assert (plan.actions, plan.wake_ms) == ((AskShutdown(wish),), NOW_MS + STOP_POLL_MS)
    last = plan_of([wish], [found()], now_ms=NOW_MS + STOP_GRACE_MS - 1)
    assert (last.actions, last.wake_ms) == ((AskShutdown(wish),), NOW_MS + STOP_GRACE_MS)
    assert action_of(wish, found(), now_ms=NOW_MS + STOP_GRACE_MS) == Halt(wish)


def test_a_plug_that_could_not_be_pulled_is_not_pulled_again_before_its_time() -> None:
    over_ms = NOW_MS + STOP_GRACE_MS
    wish = wished(running=False, retry_ms=over_ms + 2000)
    plan = plan_of([wish], [found()], now_ms=over_ms)
    assert (plan.actions, plan.wake_ms) == ((), over_ms + 2000)


def test_a_guest_that_gives_its_place_back_may_shut_down_first() -> None:
    wish = wished(present=False, gently=True, running=False)
    assert action_of(wish, found()) == AskShutdown(wish)
    assert action_of(wish, found(), now_ms=NOW_MS + STOP_GRACE_MS) == Remove(wish, (1,))
    halted = found(observed=Observed.HALTED)
    assert action_of(wish, halted) == Remove(wish, (1,))


def test_a_deleted_guest_is_not_asked() -> None:
    wish = wished(present=False, running=False)
    assert action_of(wish, found()) == Remove(wish, (1,))


def test_a_guest_stopped_and_started_again_goes_down_before_it_comes_up() -> None:
    wish = wished(run=2)
    assert action_of(wish, found()) == AskShutdown(wish)
    assert action_of(wish, found(observed=Observed.HALTED)) == Start(wish)


def test_a_reboot_is_counted_so_that_it_happens_once() -> None:
    wish = wished(resets=2)
    assert action_of(wish, found(resets=1)) == Reset(wish)
    assert action_of(wish, found(resets=2)) is None


def test_a_guest_of_another_placement_is_reported_and_not_touched() -> None:
    plan = plan_of([wished()], [found(generation=3, run=2)])
    assert plan.actions == ()
    assert [(report.generation, report.run) for report in plan.reports] == [(3, 2)]


def test_a_guest_that_vanished_is_reported_and_not_started_behind_controls_back() -> None:
    wish = wished(known=known(found()))
    plan = plan_of([wish], [])
    assert plan.actions == ()
    assert [(report.observed, report.run) for report in plan.reports] == [(Observed.ABSENT, 1)]
    told = msgspec.structs.replace(plan.reports[0])
    wish = wished(known=known(found(observed=told.observed)), disks_ready=False)
    assert plan_of([wish], []).reports == ()


def test_a_guest_that_had_powered_itself_off_is_not_started_because_it_vanished() -> None:
    off = found(observed=Observed.HALTED, halt_cause=HaltCause.GUEST)
    plan = plan_of([wished(known=known(off))], [])
    assert (plan.actions, plan.reports) == ((), ())
    again = wished(run=2, known=known(off))
    assert action_of(again) == Start(again)


def test_tombstones_wait_for_no_inventory() -> None:
    doomed = frozenset({(InstanceId("ins-1"), 2), (InstanceId("ins-2"), 1)})
    actions = plan_of([wished(2)], [found(2)], doomed).actions
    assert [(a.wish.instance_id, a.generations) for a in actions if isinstance(a, Remove)] == [
        ("ins-1", (2,))
    ]


# -- golden ---------------------------------------------------------------------------------

OFF = found(observed=Observed.HALTED, halt_cause=HaltCause.GUEST)
GONE = frozenset({(InstanceId("ins-7"), 1)})
IMAGINED: dict[str, Host] = {
    "a quiet host": ([wished(known=known(found()))], [found()], frozenset()),
    "a fresh host": ([wished(1), wished(2, disks_ready=False)], [], frozenset()),
    "a host after a reboot": (
        [wished(1), wished(2, running=False)],
        [
            found(1, observed=Observed.HALTED, halt_cause=HaltCause.LOST),
            found(2, observed=Observed.HALTED, halt_cause=HaltCause.LOST),
        ],
        frozenset(),
    ),
    "a host of a restored store": ([wished(1)], [found(1, generation=4), found(2)], frozenset()),
    "a fenced host that came back": ([], [found(7), found(7, generation=2)], GONE),
    "a busy evening": (
        [
            wished(1, running=False),
            wished(2, present=False),
            wished(3, resets=1),
            wished(4, run=2),
            wished(5, hold=True),
            wished(6, retry_ms=NOW_MS + 8000),
            wished(8, present=False, gently=True),
        ],
        [found(1), found(2), found(3), found(4), found(8), stranger(1)],
        frozenset(),
    ),
    "a guest that powered itself off": ([wished(known=known(found()))], [OFF], frozenset()),
    "a host whose guest was removed by hand": ([wished(known=known(found()))], [], frozenset()),
}


def printed(name: str, host: Host) -> str:
    plan = plan_of(*host)
    rows = [name]
    for action in plan.actions:
        more = f" {list(action.generations)}" if isinstance(action, Remove) else ""
        guest = f"{action.wish.instance_id}.{action.wish.generation}"
        rows.append(f"  do     {type(action).__name__} {guest} run {action.wish.run}{more}")
    for report in plan.reports:
        cause = f" ({report.halt_cause})" if report.halt_cause else ""
        guest = f"{report.instance_id}.{report.generation}"
        rows.append(f"  report {guest} {report.observed} run {report.run}{cause}")
    rows.extend(f"  stray  {guest.name} {guest.observed}" for guest in plan.strays)
    if plan.wake_ms:
        rows.append(f"  again  in {(plan.wake_ms - NOW_MS) / 1000:g} s")
    return "\n".join(rows) + "\n"


def test_the_plans_for_imaginary_hosts_are_those_that_were_reviewed() -> None:
    text = "\n".join(printed(name, host) for name, host in IMAGINED.items())
    if not GOLDEN.exists():
        GOLDEN.write_text(text)
        pytest.fail(f"{GOLDEN} was missing; review what was written")
    assert text == GOLDEN.read_text(), f"remove {GOLDEN} and run again, then review the difference"
