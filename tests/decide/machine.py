"""One instance, two hosts and a pool as a pure machine: facts, step, facts again, and so on.

What the reconciler, the host worker and the store do with a decision is retold here in a few
lines, so that Hypothesis can walk through thousands of histories.
"""

from collections.abc import Callable
from typing import Any, Final, assert_never

import msgspec

from stratus.decide.hostplan import (
    Action,
    AskShutdown,
    Halt,
    Remove,
    Reset,
    Start,
    absent_report,
    host_plan,
)
from stratus.decide.lifecycle import (
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
    observed_once_unwanted,
)
from stratus.decide.retry import retry_delay_ms
from stratus.model.host import GuestFound, GuestKnown, GuestReport, GuestWish
from stratus.model.ids import HostId, InstanceId
from stratus.model.instance import Desired, HaltCause, InstanceFacts, Observed
from stratus.model.problem import Problem
from stratus.model.units import SECOND_MS
from tests.decide.worlds import BAD_LUCK, HOST, NOW_MS, OTHER, instance

HOSTS: Final = (HOST, OTHER)
ROUND_MS: Final = 30 * SECOND_MS
FRESH: Final[dict[str, Any]] = {
    "parked": None,
    "failures": 0,
    "failure": None,
    "rounds": 0,
}


def guests_after(guests: list[GuestFound], action: Action) -> list[GuestFound]:
    """What a host that does as it is told shows after this action."""
    wish = action.wish
    key = (wish.instance_id, wish.generation)

    def changed(**values: object) -> list[GuestFound]:
        return [
            msgspec.structs.replace(guest, **values)
            if (guest.instance_id, guest.generation) == key
            else guest
            for guest in guests
        ]

    match action:
        case Start():
            others = [g for g in guests if (g.instance_id, g.generation) != key]
            return [
                *others,
                GuestFound(
                    name=f"{wish.instance_id}.{wish.generation}",
                    observed=Observed.RUNNING,
                    instance_id=wish.instance_id,
                    generation=wish.generation,
                    run=wish.run,
                    resets=wish.resets,
                ),
            ]
        case Reset():
            return changed(resets=wish.resets)
        case AskShutdown():
            return changed(observed=Observed.HALTED, halt_cause=HaltCause.GUEST)
        case Halt():
            return changed(observed=Observed.HALTED, halt_cause=HaltCause.ASKED)
        case Remove(generations=generations):
            return [
                guest
                for guest in guests
                if guest.instance_id != wish.instance_id or guest.generation not in generations
            ]
        case other:
            assert_never(other)


class Machine:
    """The instance and everything that acts on it."""

    def __init__(self, facts: InstanceFacts | None = None) -> None:
        self.facts = facts or instance(volumes_ready=0)
        self.guests: dict[HostId, list[GuestFound]] = {host_id: [] for host_id in HOSTS}
        self.silent: set[HostId] = set()
        self.failing = 0  # starts that will fail
        self.retry_ms = 0
        self.avoid: HostId | None = None
        self.forbidden: Problem | None = None
        self.now_ms = NOW_MS
        self.steps: list[Step] = []

    # -- what is true -----------------------------------------------------------------------

    @property
    def running(self) -> list[GuestFound]:
        """Every guest that is switched on, anywhere."""
        return [
            guest
            for guests in self.guests.values()
            for guest in guests
            if guest.observed is not Observed.HALTED
        ]

    def wish(self) -> GuestWish:
        """The line that the instance has in its host's document."""
        facts = self.facts
        return GuestWish(
            instance_id=facts.id,
            generation=facts.generation,
            present=facts.desired is not Desired.ABSENT and not facts.release,
            gently=facts.desired is not Desired.ABSENT,
            running=facts.desired is Desired.RUNNING,
            hold=facts.parked is not None,
            run=facts.run,
            resets=facts.resets,
            desired_ms=facts.desired_ms,
            disks_ready=0 < facts.volumes_wanted <= facts.volumes_ready,
            failures=facts.failures,
            retry_ms=self.retry_ms,
            known=GuestKnown(
                observed=facts.observed,
                generation=facts.observed_generation,
                run=facts.observed_run,
                resets=facts.observed_resets,
                halt_cause=facts.halt_cause,
            ),
        )

    # -- who acts ---------------------------------------------------------------------------

    def reconcile(self) -> Step:
        """Take one step, as the reconciler does."""
        step = next_step(self.facts, now_ms=self.now_ms, forbidden=self.forbidden)
        self.steps.append(step)
        facts, now_ms = self.facts, self.now_ms
        match step:
            case Settled():
                unparked = msgspec.structs.replace(facts, parked=None)
                if isinstance(next_step(unparked, now_ms=now_ms), Settled):
                    self._set(parked=None)
            case Wait():
                pass
            case Place():
                self._place()
            case Adopt(generation=generation, run=run):
                self._set(generation=generation, run=max(facts.run, run))
            case AdoptStray(host_id=host_id, generation=generation):
                self._set(host_id=host_id, generation=generation, observed=Observed.UNKNOWN)
            case LetGo(avoid=avoid):
                self._unwanted(release=True, desired_ms=now_ms)
                if avoid:
                    self.avoid = facts.host_id
                    self._set(rounds=facts.rounds + 1)
                else:
                    self._set(desired=Desired.STOPPED)
            case Release():
                self._set(host_id=None, observed=Observed.ABSENT, parked=None)
                if facts.desired is Desired.RUNNING:
                    self._set(release=False, failures=0)
                    self.retry_ms = 0
            case Delete():
                self._unwanted(desired=Desired.ABSENT, desired_ms=now_ms, volumes_wanted=0)
            case StartAgain():
                self._set(run=facts.run + 1, rounds=facts.rounds + 1, desired_ms=now_ms)
            case Forget():
                self._set(gone_ms=now_ms, parked=None, waiting=None)
            case Park(problem=problem):
                self._set(parked=problem)
            case other:
                assert_never(other)
        return step

    def _place(self) -> None:
        free = [host_id for host_id in HOSTS if host_id not in self.silent]
        chosen = [host_id for host_id in free if host_id != self.avoid] or free
        if chosen:
            self._set(
                host_id=chosen[0],
                generation=self.facts.generation + 1,
                placed_ms=self.now_ms,
                failures=0,
                failure=None,
            )
            self.retry_ms = 0

    def look(self) -> int:
        """Let the host of the instance be looked at and do what is planned; count the actions."""
        host_id = self.facts.host_id
        if host_id is None:
            return 0
        silent = host_id in self.silent
        self._set(host_unreachable_ms=(self.facts.host_unreachable_ms or self.now_ms) * silent)
        if silent:
            return 0
        plan = host_plan(host_id, [self.wish()], self.guests[host_id], now_ms=self.now_ms)
        for report in plan.reports:
            self._observe(report)
        for action in plan.actions:
            self._act(host_id, action)
        return len(plan.actions)

    def _act(self, host_id: HostId, action: Action) -> None:
        if isinstance(action, Start) and self.failing:
            self.failing -= 1
            failures = self.facts.failures + 1
            self._set(failures=failures, failure=BAD_LUCK)
            self.retry_ms = self.now_ms + retry_delay_ms(failures)
            return
        self.guests[host_id] = guests_after(self.guests[host_id], action)
        if isinstance(action, Remove):
            self._observe(absent_report(host_id, action.wish))

    def _observe(self, report: GuestReport) -> None:
        facts = self.facts
        wanted = facts.desired is not Desired.ABSENT and not facts.release
        outdated = report.generation < facts.generation
        if outdated or (report.observed is Observed.ABSENT and report.present != wanted):
            return
        self._set(
            observed=report.observed,
            observed_generation=report.generation,
            observed_run=report.run,
            observed_resets=report.resets,
            halt_cause=report.halt_cause,
            failures=0,
            failure=None,
        )
        self.retry_ms = 0

    def disks(self) -> None:
        """Let the pool make one disk, or remove all that may go."""
        facts = self.facts
        if facts.desired is Desired.ABSENT:
            self._set(volumes_wanted=0, volumes_ready=0)
            if facts.host_id is None:
                self._set(volumes_left=0)
        elif facts.host_id is not None:
            self._set(volumes_ready=min(facts.volumes_wanted, facts.volumes_ready + 1))

    def calm_round(self) -> int:
        """Let everybody act once, undisturbed; return how many things were done."""
        self.now_ms += ROUND_MS
        self.disks()
        acted = self.look()
        return acted + (not isinstance(self.reconcile(), Settled))

    # -- what users ask and what fate does --------------------------------------------------

    def start(self) -> None:
        """As control.instances does for one that is stopped or was given up."""
        facts = self.facts
        if facts.desired is Desired.ABSENT:
            return
        used = facts.seen_here and facts.observed_run >= facts.run
        again = used or facts.desired is Desired.STOPPED
        if facts.desired is Desired.RUNNING and facts.parked is None and not facts.halted_by_itself:
            return
        self._fresh(
            desired=Desired.RUNNING,
            run=facts.run + again,
            release=facts.release and facts.host_id is not None,
        )

    def stop(self, *, release: bool = False) -> None:
        """As control.instances does."""
        if self.facts.desired is not Desired.ABSENT:
            self._fresh(desired=Desired.STOPPED)
            if release and not self.facts.release:
                self._unwanted(release=True)

    def delete(self) -> None:
        """As control.instances does."""
        if self.facts.desired is not Desired.ABSENT:
            self._unwanted(desired=Desired.ABSENT)
        self._fresh()

    def retry(self) -> None:
        """As control.instances does."""
        if self.facts.parked is not None:
            self._fresh()

    def reboot(self) -> None:
        """As control.instances does for one that runs."""
        if self.facts.desired is Desired.RUNNING:
            self._set(resets=self.facts.resets + 1)

    def guest_ends(self, cause: HaltCause) -> None:
        """Let every guest halt of itself, or be lost with its host."""
        for host_id, guests in self.guests.items():
            self.guests[host_id] = [
                guest
                if guest.observed is Observed.HALTED
                else msgspec.structs.replace(guest, observed=Observed.HALTED, halt_cause=cause)
                for guest in guests
            ]

    def guest_vanishes(self) -> None:
        """Let somebody remove every guest behind our back."""
        self.guests = {host_id: [] for host_id in HOSTS}

    def silence(self, host_id: HostId) -> None:
        """Let a host answer no more."""
        self.silent.add(host_id)

    def heal(self) -> None:
        """Let every host answer and every start succeed."""
        self.silent.clear()
        self.failing = 0

    def _fresh(self, **values: object) -> None:
        self._set(**FRESH, desired_ms=self.now_ms, **values)
        self.retry_ms = 0
        self.avoid = None

    def _unwanted(self, **values: object) -> None:
        self._set(observed=observed_once_unwanted(self.facts), **values)

    def _set(self, **values: object) -> None:
        self.facts = msgspec.structs.replace(self.facts, **values)


def stranger(number: int) -> GuestFound:
    """A guest that is not one of ours."""
    return GuestFound(name=f"stranger-{number}", observed=Observed.RUNNING)


Move = Callable[[Machine], object]
INSTANCE: Final = InstanceId("ins-1")
