"""What must be done on a host so that it matches its document? Pure: document and inventory in.

Absence commands nothing: a guest is removed only by a line that says so. Guests without a
line are strays, shown and left running.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from stratus.model.host import GuestFound, GuestReport, GuestWish
from stratus.model.ids import HostId, InstanceId
from stratus.model.instance import HaltCause, Observed
from stratus.model.units import SECOND_MS

STOP_GRACE_MS: Final = 60 * SECOND_MS  # between the power button and pulling the plug
STOP_POLL_MS: Final = 5 * SECOND_MS


class Start(msgspec.Struct, frozen=True):
    """Make the guest run in the wished run."""

    wish: GuestWish


class Reset(msgspec.Struct, frozen=True):
    """Restart the running guest."""

    wish: GuestWish


class AskShutdown(msgspec.Struct, frozen=True):
    """Press the power button."""

    wish: GuestWish


class Halt(msgspec.Struct, frozen=True):
    """Pull the plug."""

    wish: GuestWish


class Remove(msgspec.Struct, frozen=True):
    """Leave no trace of these placements on this host."""

    wish: GuestWish
    generations: tuple[int, ...]


Action = Start | Reset | AskShutdown | Halt | Remove


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one look at a host decided."""

    actions: tuple[Action, ...]
    reports: tuple[GuestReport, ...]
    strays: tuple[GuestFound, ...]
    wake_ms: int = 0  # look again at this time; 0 = no need


def host_plan(
    host_id: HostId,
    wishes: Sequence[GuestWish],
    found: Iterable[GuestFound],
    *,
    now_ms: int,
    doomed: frozenset[tuple[InstanceId, int]] = frozenset(),
) -> HostPlan:
    """Compare what should be with what is.

    `doomed` are tombstones of placements that were given up while the host was fenced.
    """
    by_instance, strangers = _ours_by_instance(found)
    actions: list[Action] = []
    reports: list[GuestReport] = []
    wakes: list[int] = []
    for wish in wishes:
        here = by_instance.pop(wish.instance_id, [])
        here = [guest for guest in here if not _is_doomed(guest, wish, doomed)]
        action, report, wake_ms = _guest_plan(host_id, wish, here, now_ms=now_ms)
        if action is not None:
            actions.append(action)
        if report is not None and _is_news(wish, report):
            reports.append(report)
        if wake_ms:
            wakes.append(wake_ms)
    actions.extend(_doomed_actions(doomed, wishes, now_ms=now_ms))
    strays = [g for guests in by_instance.values() for g in guests if not _listed(g, doomed)]
    return HostPlan(
        actions=tuple(actions),
        reports=tuple(reports),
        strays=tuple(strays + strangers),
        wake_ms=min(wakes, default=0),
    )


def _ours_by_instance(
    found: Iterable[GuestFound],
) -> tuple[dict[InstanceId, list[GuestFound]], list[GuestFound]]:
    ours: dict[InstanceId, list[GuestFound]] = {}
    strangers = []
    for guest in found:
        if guest.instance_id is None:
            strangers.append(guest)
        else:
            ours.setdefault(guest.instance_id, []).append(guest)
    return ours, strangers


def _listed(guest: GuestFound, doomed: frozenset[tuple[InstanceId, int]]) -> bool:
    return guest.instance_id is not None and (guest.instance_id, guest.generation) in doomed


def _is_doomed(
    guest: GuestFound, wish: GuestWish, doomed: frozenset[tuple[InstanceId, int]]
) -> bool:
    return guest.generation != wish.generation and _listed(guest, doomed)


def _doomed_actions(
    doomed: frozenset[tuple[InstanceId, int]], wishes: Sequence[GuestWish], *, now_ms: int
) -> list[Action]:
    current: Mapping[InstanceId, int] = {w.instance_id: w.generation for w in wishes if w.present}
    return [
        Remove(_tombstone(instance_id, generation, now_ms=now_ms), (generation,))
        for instance_id, generation in sorted(doomed)
        if current.get(instance_id) != generation
    ]


def _tombstone(instance_id: InstanceId, generation: int, *, now_ms: int) -> GuestWish:
    return GuestWish(
        instance_id=instance_id,
        generation=generation,
        present=False,
        running=False,
        run=0,
        resets=0,
        desired_ms=now_ms,
    )


def _is_news(wish: GuestWish, report: GuestReport) -> bool:
    known = wish.known
    if known is None or not known.fresh:
        return True
    return (
        known.observed,
        known.generation,
        known.run,
        known.resets,
        known.halt_cause,
    ) != (report.observed, report.generation, report.run, report.resets, report.halt_cause)


def guest_report(host_id: HostId, wish: GuestWish, guest: GuestFound) -> GuestReport:
    """Turn what was seen of a guest into the fact for its instance."""
    return GuestReport(
        host_id=host_id,
        instance_id=wish.instance_id,
        project_id=wish.project_id,
        name=wish.title,
        generation=guest.generation,
        observed=guest.observed,
        run=guest.run,
        resets=guest.resets,
        halt_cause=_halt_cause(wish, guest),
        accelerator=guest.accelerator,
    )


def _halt_cause(wish: GuestWish, guest: GuestFound) -> HaltCause:
    """Say why a guest is off; nobody knows where a restored store may have forgotten a wish."""
    known = wish.known
    if guest.halt_cause is not HaltCause.GUEST or known is None:
        return guest.halt_cause
    if not known.fresh:
        return HaltCause.NONE
    same = (known.generation, known.run) == (guest.generation, guest.run)
    if same and known.observed is Observed.HALTED:
        return known.halt_cause
    return guest.halt_cause


def absent_report(host_id: HostId, wish: GuestWish) -> GuestReport:
    """Say that the host has no guest of this placement."""
    known = wish.known
    ran_here = known is not None and known.generation == wish.generation
    return GuestReport(
        host_id=host_id,
        instance_id=wish.instance_id,
        project_id=wish.project_id,
        name=wish.title,
        generation=wish.generation,
        observed=Observed.ABSENT,
        run=known.run if known is not None and ran_here else 0,
        resets=known.resets if known is not None else 0,
        halt_cause=HaltCause.NONE,
        present=wish.present,
    )


_Decided = tuple[Action | None, GuestReport | None, int]


def _guest_plan(
    host_id: HostId, wish: GuestWish, here: Sequence[GuestFound], *, now_ms: int
) -> _Decided:
    """Decide for one line of the document: an action, a report, a time to look again."""
    newest = max(here, key=_rank_newest, default=None)
    if newest is not None and _is_newer(wish, newest) and (wish.present or wish.gently):
        # The store was restored and knows less than the guest does: report, touch nothing.
        return None, guest_report(host_id, wish, newest), 0
    if not wish.present:
        return _remove(host_id, wish, here, now_ms=now_ms)
    exact = next((guest for guest in here if guest.generation == wish.generation), None)
    if exact is None and here:
        # The guest knows of another placement here than the store does: report, touch nothing.
        best = max(here, key=lambda g: (g.observed is Observed.RUNNING, g.generation))
        return None, guest_report(host_id, wish, best), 0
    if exact is None:
        if wish.running and not wish.hold:
            if _ran_here(wish):
                return None, _vanished_report(host_id, wish), 0
            return _start(wish, None, now_ms=now_ms)
        return None, absent_report(host_id, wish), 0
    if exact.observed is Observed.HALTED:
        if wish.running and not wish.hold and exact.run < wish.run:
            return _start(wish, None, now_ms=now_ms)
        return None, guest_report(host_id, wish, exact), 0
    return _alive_plan(host_id, wish, exact, now_ms=now_ms)


def _rank_newest(guest: GuestFound) -> tuple[int, int]:
    return guest.generation, guest.run


def _is_newer(wish: GuestWish, guest: GuestFound) -> bool:
    """The guest was begun by a wish that is later than the one on record."""
    return (guest.generation, guest.run) > (wish.generation, wish.run)


def _ran_here(wish: GuestWish) -> bool:
    """The store has seen the wished run of this placement: it is not for us to begin it again."""
    known = wish.known
    return (
        known is not None
        and known.observed is not Observed.UNKNOWN
        and known.generation == wish.generation
        and known.run >= wish.run
    )


def _vanished_report(host_id: HostId, wish: GuestWish) -> GuestReport | None:
    # A guest that had halted stays what it was: off, in this run.
    if wish.known is not None and wish.known.observed is Observed.HALTED:
        return None
    return absent_report(host_id, wish)


def _remove(
    host_id: HostId, wish: GuestWish, here: Sequence[GuestFound], *, now_ms: int
) -> _Decided:
    if not here and _known_removed(wish):
        return None, absent_report(host_id, wish), 0
    if now_ms < wish.retry_ms:
        return None, None, wish.retry_ms
    alive = [
        guest
        for guest in here
        if guest.generation == wish.generation and guest.observed is not Observed.HALTED
    ]
    end_ms = wish.desired_ms + STOP_GRACE_MS
    if wish.gently and alive and now_ms < end_ms:
        report = guest_report(host_id, wish, alive[0])
        return AskShutdown(wish), report, min(end_ms, now_ms + STOP_POLL_MS)
    generations = tuple(sorted({guest.generation for guest in here}))
    return Remove(wish, generations), None, 0


def _known_removed(wish: GuestWish) -> bool:
    known = wish.known
    return (
        known is not None
        and known.observed is Observed.ABSENT
        and known.generation == wish.generation
    )


def _start(wish: GuestWish, report: GuestReport | None, *, now_ms: int) -> _Decided:
    if not wish.disks_ready:
        return None, report, 0
    if now_ms < wish.retry_ms:
        return None, report, wish.retry_ms
    return Start(wish), report, 0


def _alive_plan(host_id: HostId, wish: GuestWish, guest: GuestFound, *, now_ms: int) -> _Decided:
    report = guest_report(host_id, wish, guest)
    if wish.hold:
        return None, report, 0
    if wish.running and guest.run >= wish.run:
        if guest.resets < wish.resets:
            if now_ms < wish.retry_ms:
                return None, report, wish.retry_ms
            return Reset(wish), report, 0
        return None, report, 0
    # Stopped, or stopped and started again before it had gone down: it goes down first.
    end_ms = wish.desired_ms + STOP_GRACE_MS
    if now_ms < wish.retry_ms:
        return None, report, wish.retry_ms
    if now_ms >= end_ms:
        return Halt(wish), report, 0
    return AskShutdown(wish), report, min(end_ms, now_ms + STOP_POLL_MS)
