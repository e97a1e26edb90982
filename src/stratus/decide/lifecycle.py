"""What is the next step towards what the user wants of an instance? Pure.

One function serves the first try, every retry, recovery after a crash and shutdown alike.
"""

from typing import Final, assert_never

import msgspec

from stratus.decide.retry import retry_delay_ms
from stratus.model.ids import HostId
from stratus.model.instance import Desired, HaltCause, InstanceFacts, Observed, OnHalt
from stratus.model.problem import Problem
from stratus.model.units import DAY_MS, MINUTE_MS, SECOND_MS

START_FAILURES_MAX: Final = 3  # on one host, before another one is tried
ROUNDS_MAX: Final = 3  # hosts tried for one run, before the instance is parked
VOLUME_DEADLINE_MS: Final = 30 * MINUTE_MS  # for the disks of a placed instance
START_DEADLINE_MS: Final = 15 * MINUTE_MS  # for a guest whose disks are ready
STOP_DEADLINE_MS: Final = 15 * MINUTE_MS
PENDING_DEADLINE_MS: Final = 7 * DAY_MS  # for a request that fits nowhere
LOOK_AGAIN_MS: Final = 30 * SECOND_MS  # in case a hint was lost
RESTARTS_MAX: Final = 5  # after losses of the host, within one wish of the user


class Settled(msgspec.Struct, frozen=True):
    """Wish and facts agree: nothing to do until something changes."""


class Wait(msgspec.Struct, frozen=True):
    """Somebody else must act first; look again by this time at the latest."""

    until_ms: int


class Place(msgspec.Struct, frozen=True):
    """Find a host for it."""


class Adopt(msgspec.Struct, frozen=True):
    """The host shows this instance under another placement: take the guest's word for it."""

    generation: int
    run: int


class AdoptStray(msgspec.Struct, frozen=True):
    """Another host shows its guest and the host on record has none: that host has it."""

    host_id: HostId
    generation: int


class LetGo(msgspec.Struct, frozen=True):
    """Have the host remove the guest but keep the disks, to start elsewhere or rest unplaced."""

    avoid: bool  # do not choose the same host next


class Release(msgspec.Struct, frozen=True):
    """The guest is gone from its host: give the placement back."""


class Delete(msgspec.Struct, frozen=True):
    """The guest halted and its owner wished it deleted then."""


class StartAgain(msgspec.Struct, frozen=True):
    """The host restarted underneath a guest that should run."""


class Forget(msgspec.Struct, frozen=True):
    """Nothing is left of it: free addresses and names, close the record."""


class Park(msgspec.Struct, frozen=True):
    """Stop trying, say why, until somebody asks to retry."""

    problem: Problem


Step = (
    Settled
    | Wait
    | Place
    | Adopt
    | AdoptStray
    | LetGo
    | Release
    | Delete
    | StartAgain
    | Forget
    | Park
)


def next_step(facts: InstanceFacts, *, now_ms: int, forbidden: Problem | None = None) -> Step:
    """Return the one step that brings the instance nearer to its wish.

    `forbidden` is why the site's trust policy does not let it start now, if so.
    """
    if facts.gone_ms:
        return Settled()
    if _is_elsewhere(facts):
        assert facts.stray_host_id is not None
        return AdoptStray(facts.stray_host_id, facts.stray_generation)
    if facts.host_id is not None and _adoptable(facts):
        return Adopt(facts.observed_generation, facts.observed_run)
    match facts.desired:
        case Desired.ABSENT:
            return _towards_absent(facts, now_ms=now_ms)
        case Desired.STOPPED:
            return _towards_stopped(facts, now_ms=now_ms)
        case Desired.RUNNING:
            return _towards_running(facts, now_ms=now_ms, forbidden=forbidden)
        case other:
            assert_never(other)


def _is_elsewhere(facts: InstanceFacts) -> bool:
    """The guest that another host shows is the one that counts."""
    if facts.stray_host_id in (None, facts.host_id):
        return False
    if facts.host_id is None or _guest_absent(facts):
        return True
    # A later placement is made only once the earlier one was given up.
    is_later = facts.stray_generation > max(facts.generation, facts.observed_generation)
    is_off_here = facts.seen_here and facts.observed is Observed.HALTED
    return is_later and (facts.stray_alive or is_off_here)


def _adoptable(facts: InstanceFacts) -> bool:
    # A guest newer than the record: the store was restored from a backup.
    seen = (facts.observed_generation, facts.observed_run)
    newer = seen > (facts.generation, facts.run)
    return newer and facts.observed not in (Observed.UNKNOWN, Observed.ABSENT)


def _guest_absent(facts: InstanceFacts) -> bool:
    return facts.seen_here and facts.observed is Observed.ABSENT


def observed_once_unwanted(facts: InstanceFacts) -> Observed:
    """Return what may still be believed of the guest when it begins to be wished gone.

    That it was not there does not count: it may be on its way up since. Only a host that was
    told to remove it can say that it is gone.
    """
    wanted = facts.desired is not Desired.ABSENT and not facts.release
    return Observed.UNKNOWN if wanted and facts.observed is Observed.ABSENT else facts.observed


def _parked_or_wait(facts: InstanceFacts, *, now_ms: int, deadline_ms: int, what: str) -> Step:
    """Wait for the host, unless the deadline has passed while it answered all the time."""
    if facts.parked is not None:
        return Settled()
    if facts.host_unreachable_ms:
        return Wait(now_ms + LOOK_AGAIN_MS)
    if now_ms >= deadline_ms:
        return Park(_too_late(what, facts.failure))
    return Wait(min(deadline_ms, now_ms + LOOK_AGAIN_MS))


def _too_late(what: str, failure: Problem | None) -> Problem:
    said = f" The last answer was: {failure.detail}" if failure is not None else ""
    return Problem(
        code="deadline_passed",
        detail=f"{what} took longer than its deadline.{said}",
        remedy="Look at the host with `stratus host show`, then ask again with `stratus retry`.",
    )


def _towards_absent(facts: InstanceFacts, *, now_ms: int) -> Step:
    if facts.host_id is not None:
        if _guest_absent(facts):
            return Release()
        deadline_ms = facts.desired_ms + STOP_DEADLINE_MS
        return _parked_or_wait(facts, now_ms=now_ms, deadline_ms=deadline_ms, what="Removing it")
    if facts.volumes_left:
        deadline_ms = facts.desired_ms + VOLUME_DEADLINE_MS
        return _parked_or_wait(
            facts, now_ms=now_ms, deadline_ms=deadline_ms, what="Removing its disks"
        )
    return Forget()


def _towards_stopped(facts: InstanceFacts, *, now_ms: int) -> Step:
    if facts.host_id is None:
        return Settled()
    if facts.release:
        if _guest_absent(facts):
            return Release()
    elif facts.seen_here and facts.observed in (Observed.HALTED, Observed.ABSENT):
        return Settled()
    deadline_ms = facts.desired_ms + STOP_DEADLINE_MS
    return _parked_or_wait(facts, now_ms=now_ms, deadline_ms=deadline_ms, what="Stopping it")


def _towards_running(facts: InstanceFacts, *, now_ms: int, forbidden: Problem | None) -> Step:
    if facts.host_id is not None and facts.release:
        if _guest_absent(facts):
            return Release()
        deadline_ms = facts.desired_ms + STOP_DEADLINE_MS
        return _parked_or_wait(facts, now_ms=now_ms, deadline_ms=deadline_ms, what="Moving it")
    if facts.seen_here and facts.observed_run >= facts.run:
        if facts.observed in (Observed.RUNNING, Observed.PAUSED):
            return Settled()
        if facts.observed is Observed.HALTED:
            return _after_halt(facts, forbidden=forbidden)
        if facts.observed is Observed.ABSENT:
            return _after_loss(facts, forbidden=forbidden)
    if facts.parked is not None:
        return Settled()
    if forbidden is not None:
        return Park(forbidden)
    if facts.host_id is None:
        if now_ms >= facts.desired_ms + PENDING_DEADLINE_MS:
            return Park(_too_late("Waiting for room", facts.waiting))
        return Place()
    return _towards_started(facts, now_ms=now_ms)


def _after_loss(facts: InstanceFacts, *, forbidden: Problem | None) -> Step:
    """The guest went down through no will of anybody: it is started again, as often as is sane."""
    if facts.parked is not None:
        return Settled()
    if forbidden is not None:
        return Park(forbidden)
    if facts.rounds >= RESTARTS_MAX:
        return Park(_LOST_TOO_OFTEN)
    return StartAgain()


def _after_halt(facts: InstanceFacts, *, forbidden: Problem | None) -> Step:
    if facts.halt_cause is HaltCause.LOST and facts.rounds < RESTARTS_MAX:
        return _after_loss(facts, forbidden=forbidden)
    if facts.halt_cause in (HaltCause.NONE, HaltCause.ASKED):
        return Settled()  # it may have been wished off, before the store was restored
    match facts.on_halt:
        case OnHalt.KEEP:
            return Settled()
        case OnHalt.RELEASE:
            return LetGo(avoid=False)
        case OnHalt.DELETE:
            return Delete()
        case other:
            assert_never(other)


def _towards_started(facts: InstanceFacts, *, now_ms: int) -> Step:
    if facts.host_unreachable_ms:
        # Nothing is started elsewhere without a fence: its guest may well be running.
        return Wait(now_ms + LOOK_AGAIN_MS)
    since_ms = max(facts.placed_ms, facts.desired_ms)
    if facts.volumes_ready < facts.volumes_wanted:
        deadline_ms = since_ms + VOLUME_DEADLINE_MS
        return _parked_or_wait(
            facts, now_ms=now_ms, deadline_ms=deadline_ms, what="Preparing its disks"
        )
    if facts.failures >= START_FAILURES_MAX:
        assert facts.failure is not None
        if facts.rounds + 1 >= ROUNDS_MAX:
            return Park(facts.failure)
        return LetGo(avoid=True)
    deadline_ms = since_ms + VOLUME_DEADLINE_MS + START_DEADLINE_MS
    return _parked_or_wait(facts, now_ms=now_ms, deadline_ms=deadline_ms, what="Starting it")


_LOST_TOO_OFTEN: Final = Problem(
    code="guest_failed",
    detail=f"The guest vanished from its host {RESTARTS_MAX} times.",
    remedy="Look at the host with `stratus host show`, then ask again with `stratus retry`.",
)


def retry_at_ms(failures: int, *, now_ms: int) -> int:
    """Return when a host may try again after this many failures in a row."""
    return now_ms + retry_delay_ms(failures)
