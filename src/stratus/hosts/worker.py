"""Which hosts are ours, and do they match their documents? The loop of a host worker.

All state is touched by `turn` alone; looks and actions run elsewhere and drop what they
found into the inbox. So the simulator can call `turn` under virtual time, and a crash at any
point is healed by the next look.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Final

import msgspec
from sqlalchemy import Connection

from stratus.decide.hostplan import STOP_POLL_MS, Action, AskShutdown, HostPlan, host_plan
from stratus.decide.retry import retry_delay_ms
from stratus.drivers.failure import EngineUnreachable
from stratus.hosts.guests import Acted, GuestEffects, HostDrivers
from stratus.hosts.parts import Executor, Workshop
from stratus.model.host import GuestFound, GuestReport, HostCapacity, HostDesired
from stratus.model.ids import HostId, InstanceId
from stratus.model.instance import HaltCause
from stratus.model.problem import Problem
from stratus.model.units import MINUTE_MS, SECOND_MS
from stratus.store.events import EventDraft, event_append, event_append_many
from stratus.store.hosts import (
    HostDocument,
    LeasedHost,
    guests_observe,
    host_documents,
    host_forget,
    host_instances,
    host_seen,
    host_unreachable,
    hosts_lease,
    strays_replace,
    tombstones_for_gone,
    tombstones_fulfil,
)
from stratus.store.instances import waiting_wake
from stratus.store.leasing import (
    leases_end,
    leases_still_held,
    rows_due,
    rows_next_ms,
    rows_sleep,
    rows_wake,
)
from stratus.store.schema import hosts
from stratus.store.site import site_epoch
from stratus.store.work import INSTANCE, work_wake

LEASE_MS: Final = 30 * SECOND_MS
LEASE_RENEW_MS: Final = 5 * SECOND_MS
LOOK_AGAIN_MS: Final = 30 * SECOND_MS  # every host is looked at this often, hint or not
LOOKS_IN_TURN_MAX: Final = 256
ACTIONS_PER_HOST_MAX: Final = 8  # at the same time
SEEN_MS: Final = 1 * MINUTE_MS  # how old the time may be at which a host was last seen
CAPACITY_MS: Final = 5 * MINUTE_MS  # how old a host's capacity may be
UNREACHABLE_RETRIES_MAX: Final = 5  # after which the wait between looks grows no more
INBOX_TURN_MAX: Final = 4096
UNCOUNTED: Final = -1  # the poke count of a look that no row asked for


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a host brought: everything, or that it did not answer."""

    host: LeasedHost
    poked: int
    began: int  # the count of finished actions when the look began
    found: tuple[GuestFound, ...] = ()
    capacity: HostCapacity | None = None
    silent: Problem | None = None


class HostWorker:
    """Owns a set of hosts for as long as it renews its leases."""

    def __init__(
        self,
        shop: Workshop,
        *,
        owner: str,
        connect: Callable[[LeasedHost], HostDrivers],
        effects: GuestEffects,
        executor: Executor,
        hosts_max: int = 10_000,
    ) -> None:
        self._shop = shop
        self._owner = owner
        self._connect = connect
        self._effects = effects
        self._executor = executor
        self._hosts_max = hosts_max
        self._inbox: SimpleQueue[Looked | Acted] = SimpleQueue()
        self._mine: dict[HostId, LeasedHost] = {}
        self._drivers: dict[HostId, HostDrivers] = {}
        self._leaving: list[tuple[HostId, HostDrivers]] = []  # to be closed when nothing uses them
        self._looking: set[HostId] = set()
        self._acting: dict[HostId, set[InstanceId]] = defaultdict(set)
        self._finished = 0
        self._finished_at: dict[HostId, dict[InstanceId, int]] = defaultdict(dict)
        self._silences: dict[HostId, int] = {}
        self._capacity_ms: dict[HostId, int] = {}
        self._pokes: SimpleQueue[HostId] = SimpleQueue()
        self._lease_ms = 0
        self._stray_free: set[HostId] = set()  # written down as having none
        self._seen_ms: dict[HostId, int] = {}  # when it was last written down as seen
        # Until when a guest is left alone, and whether because it was asked to shut down.
        self._rests: dict[HostId, dict[InstanceId, tuple[int, bool]]] = defaultdict(dict)
        self._turned_ms = -1

    def turn(self) -> int:
        """Do everything that can be done now; return how many things that was."""
        now_ms = self._shop.now_ms()
        self._lease(now_ms)
        looked, acted = self._collect()
        self._close_unused()
        self._apply(looked, acted)
        begun = self._look(now_ms)
        self._turned_ms = now_ms
        return len(looked) + len(acted) + begun

    def next_ms(self) -> int:
        """Return when `turn` has something to do at the latest, unless woken before."""
        renew_ms = self._lease_ms + LEASE_RENEW_MS
        # What was due at the last turn is being looked at: the result will come with a hint.
        after_ms = self._turned_ms
        due_ms = self._shop.store.read(
            lambda c: rows_next_ms(c, hosts, self._owner, after_ms=after_ms)
        )
        return renew_ms if due_ms is None else min(renew_ms, due_ms)

    @property
    def busy(self) -> bool:
        """Something is under way whose result will come to the inbox."""
        return bool(self._looking) or any(self._acting.values()) or not self._inbox.empty()

    def poke(self, host_id: HostId) -> None:
        """Look at this host soon; callable from any thread."""
        self._pokes.put(host_id)
        self._shop.store.hints.send("hosts")

    def stop(self) -> None:
        """Give the leases back and let go of the hosts; guests run on."""
        self._shop.store.write(lambda c: leases_end(c, hosts, self._owner))
        for drivers in (*self._drivers.values(), *(drivers for _, drivers in self._leaving)):
            drivers.close()
        self._drivers.clear()
        self._leaving.clear()

    def drivers_of(self, host_id: HostId) -> HostDrivers | None:
        """Return the open connection to a host of ours, if there is one."""
        return self._drivers.get(host_id)

    # -- leases -----------------------------------------------------------------------------

    def _lease(self, now_ms: int) -> None:
        if self._lease_ms and now_ms < self._lease_ms + LEASE_RENEW_MS:
            return
        leased = self._shop.store.write(
            lambda c: hosts_lease(
                c, self._owner, now_ms=now_ms, lease_ms=LEASE_MS, hosts_max=self._hosts_max
            )
        )
        self._lease_ms = now_ms
        mine = {host.id: host for host in leased}
        for host_id, host in self._mine.items():
            new = mine.get(host_id)
            if new is None or (new.uri, new.accelerator_wanted) != (
                host.uri,
                host.accelerator_wanted,
            ):
                self._disconnect(host_id)
            if new is None or new.token != host.token:
                self._stray_free.discard(host_id)  # another worker may have seen some meanwhile
        self._mine = mine

    def _holds(self, host: LeasedHost) -> bool:
        mine = self._mine.get(host.id)
        return mine is not None and mine.token == host.token and self._shop.now_ms() < mine.until_ms

    def _disconnect(self, host_id: HostId) -> None:
        self._capacity_ms.pop(host_id, None)
        drivers = self._drivers.pop(host_id, None)
        if drivers is not None:
            self._leaving.append((host_id, drivers))

    def _close_unused(self) -> None:
        """Close what was disconnected, once no look and no action can be using it any more."""
        kept = []
        for host_id, drivers in self._leaving:
            if host_id in self._looking or self._acting.get(host_id):
                kept.append((host_id, drivers))
            else:
                drivers.close()
        self._leaving = kept

    # -- looking ----------------------------------------------------------------------------

    def _look(self, now_ms: int) -> int:
        """Begin a look at every host that is due; return how many."""
        due = dict(
            self._shop.store.read(
                lambda c: rows_due(c, hosts, self._owner, now_ms=now_ms, rows_max=LOOKS_IN_TURN_MAX)
            )
        )
        for host_id in self._poked():
            due.setdefault(host_id, UNCOUNTED)
        begun = 0
        for subject, poked in due.items():
            host = self._mine.get(HostId(subject))
            if host is None or host.id in self._looking:
                continue
            self._looking.add(host.id)
            begun += 1
            fresh = now_ms - self._capacity_ms.get(host.id, -CAPACITY_MS) < CAPACITY_MS
            self._executor.submit(self._look_task(host, poked, with_capacity=not fresh))
        return begun

    def _poked(self) -> set[HostId]:
        poked: set[HostId] = set()
        try:
            while len(poked) < LOOKS_IN_TURN_MAX:
                poked.add(self._pokes.get_nowait())
        except Empty:
            pass
        return poked

    def _look_task(
        self, host: LeasedHost, poked: int, *, with_capacity: bool
    ) -> Callable[[], None]:
        began = self._finished

        def look() -> None:
            try:
                drivers = self._drivers.get(host.id)
                if drivers is None:
                    drivers = self._connect(host)
                    self._drivers[host.id] = drivers
                    drivers.hypervisor.watch(lambda: self.poke(host.id))
                capacity = drivers.hypervisor.capacity() if with_capacity else None
                found = tuple(drivers.hypervisor.inventory())
                looked = Looked(host=host, poked=poked, began=began, found=found, capacity=capacity)
            except EngineUnreachable as error:
                looked = Looked(host=host, poked=poked, began=began, silent=error.problem)
            except Exception as error:  # the loop must learn of it, whatever it is
                problem = self._shop.bug(error, f"looking at host {host.name}")
                looked = Looked(host=host, poked=poked, began=began, silent=problem)
            self._inbox.put(looked)
            self._shop.store.hints.send("hosts")

        return look

    # -- what came back ---------------------------------------------------------------------

    def _collect(self) -> tuple[list[Looked], list[Acted]]:
        looked: list[Looked] = []
        acted: list[Acted] = []
        try:
            while len(looked) + len(acted) < INBOX_TURN_MAX:
                message = self._inbox.get_nowait()
                if isinstance(message, Looked):
                    self._looking.discard(message.host.id)
                    looked.append(message)
                else:
                    self._acting[message.host.id].discard(message.instance_id)
                    self._finished += 1
                    self._finished_at[message.host.id][message.instance_id] = self._finished
                    acted.append(message)
        except Empty:
            pass
        return looked, acted

    def _apply(self, looked: Sequence[Looked], acted: Sequence[Acted]) -> None:
        """Plan what was looked at, begin the actions, write down all facts in one go."""
        if not looked and not acted:
            return
        now_ms = self._shop.now_ms()
        answered = [look for look in looked if look.silent is None and self._holds(look.host)]
        documents = (
            self._shop.store.read(lambda c: host_documents(c, [look.host.id for look in answered]))
            if answered
            else {}
        )
        plans = {
            look.host.id: self._plan(look, documents[look.host.id], now_ms) for look in answered
        }
        tokens: dict[str, int] = {message.host.id: message.host.token for message in acted}
        tokens |= {look.host.id: look.host.token for look in looked}
        self._shop.store.write(
            lambda c: self._write(c, looked, acted, plans, tokens=tokens, now_ms=now_ms)
        )
        for look in looked:
            self._after_look(look, now_ms)
        for look in answered:
            self._act(look.host, plans[look.host.id], documents[look.host.id])
        for message in acted:
            if message.silent is not None:
                self._disconnect(message.host.id)
            self._rest(message, now_ms)
            # A look costs much the same after one action as after half of what may be under way.
            if len(self._acting[message.host.id]) <= ACTIONS_PER_HOST_MAX // 2:
                self._pokes.put(message.host.id)
        self._shop.store.hints.send("work")
        self._shop.store.hints.send("events")

    def _after_look(self, look: Looked, now_ms: int) -> None:
        if look.silent is not None:
            self._silences[look.host.id] = self._silences.get(look.host.id, 0) + 1
            self._disconnect(look.host.id)
            return
        self._silences.pop(look.host.id, None)
        self._seen_ms[look.host.id] = self._seen_at(look.host.id, now_ms)
        if look.capacity is not None:
            self._capacity_ms[look.host.id] = now_ms
        mine = self._mine.get(look.host.id)
        if mine is not None and mine.token == look.host.token and mine.unreachable_ms:
            self._mine[look.host.id] = msgspec.structs.replace(mine, unreachable_ms=0)

    def _seen_at(self, host_id: HostId, now_ms: int) -> int:
        """Return the time that stands in the store, once this look is written."""
        written_ms = self._seen_ms.get(host_id, -SEEN_MS)
        return now_ms if now_ms - written_ms >= SEEN_MS else written_ms

    def _plan(self, look: Looked, document: HostDocument, now_ms: int) -> HostPlan:
        """Plan around the guests that something happened to since the look began."""
        host_id = look.host.id
        finished = self._finished_at[host_id]
        moving = self._acting[host_id] | {i for i, at in finished.items() if at > look.began}
        self._finished_at[host_id] = {i: at for i, at in finished.items() if at > look.began}
        return host_plan(
            host_id,
            [wish for wish in document.wishes if wish.instance_id not in moving],
            [guest for guest in look.found if guest.instance_id not in moving],
            now_ms=now_ms,
            doomed=frozenset(d for d in document.doomed if d[0] not in moving),
        )

    # -- acting -----------------------------------------------------------------------------

    def _act(self, host: LeasedHost, plan: HostPlan, document: HostDocument) -> None:
        drivers = self._drivers.get(host.id)
        if drivers is None:
            return
        acting = self._acting[host.id]
        rests = self._rests[host.id]
        for action in plan.actions:
            if len(acting) >= ACTIONS_PER_HOST_MAX:
                break  # the rest comes with the look that follows the first to finish
            if action.wish.instance_id in acting:
                continue
            until_ms, asked = rests.get(action.wish.instance_id, (0, False))
            # One that was asked to shut down may be started or removed as soon as it is off.
            resting = isinstance(action, AskShutdown) or not asked
            if resting and self._shop.now_ms() < until_ms:
                continue
            acting.add(action.wish.instance_id)
            self._executor.submit(self._act_task(host, drivers, action, document.doomed))

    def _rest(self, message: Acted, now_ms: int) -> None:
        """Leave a guest alone for a while that was asked to shut down, or refused to change."""
        if message.failures:
            rest_ms = retry_delay_ms(message.failures)
        elif message.asked:
            rest_ms = STOP_POLL_MS
        else:
            self._rests[message.host.id].pop(message.instance_id, None)
            return
        self._rests[message.host.id][message.instance_id] = (now_ms + rest_ms, message.asked)

    def _act_task(
        self,
        host: LeasedHost,
        drivers: HostDrivers,
        action: Action,
        doomed: frozenset[tuple[InstanceId, int]],
    ) -> Callable[[], None]:
        def act() -> None:
            # A worker whose lease lapsed stops before its next effect.
            if self._holds(host):
                acted = self._effects.perform(host, drivers, action, doomed)
            else:
                acted = Acted(host=host, instance_id=action.wish.instance_id)
            self._inbox.put(acted)
            self._shop.store.hints.send("hosts")

        return act

    # -- writing ----------------------------------------------------------------------------

    def _write(
        self,
        connection: Connection,
        looked: Sequence[Looked],
        acted: Sequence[Acted],
        plans: Mapping[HostId, HostPlan],
        *,
        tokens: Mapping[str, int],
        now_ms: int,
    ) -> None:
        held = {
            (host_id, tokens[host_id]) for host_id in leases_still_held(connection, hosts, tokens)
        }
        reports: list[tuple[GuestReport, int]] = []
        sleeps: list[tuple[str, int, int]] = []
        epoch = site_epoch(connection)
        for look in looked:
            if (look.host.id, look.host.token) not in held:
                continue
            if look.host.desired is HostDesired.ABSENT and self._forgotten(
                connection, look.host, now_ms=now_ms
            ):
                continue
            if look.silent is not None:
                self._write_silence(connection, look, look.silent, now_ms=now_ms)
                sleeps.append((look.host.id, look.poked, now_ms + self._silence_ms(look.host.id)))
                continue
            plan = plans.get(look.host.id)
            if plan is None:
                continue
            reports.extend((report, 0) for report in plan.reports)
            wake_ms = self._write_look(connection, look, plan, now_ms=now_ms, epoch=epoch)
            sleeps.append((look.host.id, look.poked, wake_ms))
        for message in acted:
            if (message.host.id, message.host.token) not in held:
                continue
            if message.report is not None:
                reports.append((message.report, message.failures))
            tombstones_fulfil(connection, message.host.id, message.removed)
        self._write_reports(connection, reports, now_ms=now_ms)
        rows_sleep(connection, hosts, [sleep for sleep in sleeps if sleep[1] != UNCOUNTED])
        for host_id, poked, wake_ms in sleeps:
            # Such a look ends no sleep that was planned before, but it may shorten it.
            if poked == UNCOUNTED and wake_ms < now_ms + LOOK_AGAIN_MS:
                rows_wake(connection, hosts, [host_id], wake_ms=wake_ms)

    def _forgotten(self, connection: Connection, host: LeasedHost, *, now_ms: int) -> bool:
        """Close the record of a host that is not wanted, unless instances still have it."""
        if host_instances(connection, host.id):
            return False
        host_forget(connection, host.id, now_ms=now_ms)
        self._event(connection, "host.gone", host, now_ms)
        return True

    def _silence_ms(self, host_id: HostId) -> int:
        count = min(UNREACHABLE_RETRIES_MAX, self._silences.get(host_id, 0) + 1)
        return min(LOOK_AGAIN_MS, retry_delay_ms(count))

    def _write_silence(
        self, connection: Connection, look: Looked, problem: Problem, *, now_ms: int
    ) -> None:
        if host_unreachable(connection, look.host.id, now_ms=now_ms, problem=problem):
            self._event(connection, "host.unreachable", look.host, now_ms, detail=problem.detail)
            work_wake(
                connection, INSTANCE, host_instances(connection, look.host.id), wake_ms=now_ms
            )

    def _write_look(
        self,
        connection: Connection,
        look: Looked,
        plan: HostPlan,
        *,
        now_ms: int,
        epoch: int,
    ) -> int:
        """Write what the look showed of the host itself; return when to look again."""
        host = look.host
        news = (
            host.unreachable_ms != 0
            or host.inventory_epoch != epoch
            or look.capacity is not None
            or self._silences.get(host.id, 0) > 0
        )
        if news or self._seen_at(host.id, now_ms) == now_ms:
            host_seen(connection, host.id, now_ms=now_ms, epoch=epoch, capacity=look.capacity)
        if news:
            if host.unreachable_ms or self._silences.get(host.id, 0):
                self._event(connection, "host.reachable", host, now_ms)
                work_wake(connection, INSTANCE, host_instances(connection, host.id), wake_ms=now_ms)
            waiting_wake(connection, now_ms=now_ms)
        if plan.strays or host.id not in self._stray_free:
            fresh = self._write_strays(connection, host, plan.strays, now_ms=now_ms)
            # Somebody may take a stray for what it is: the guest of a forgotten placement.
            ours = [g.instance_id for g in (plan.strays if news else fresh) if g.instance_id]
            work_wake(connection, INSTANCE, ours, wake_ms=now_ms)
        return min(plan.wake_ms or now_ms + LOOK_AGAIN_MS, now_ms + LOOK_AGAIN_MS)

    def _write_strays(
        self,
        connection: Connection,
        host: LeasedHost,
        strays: Sequence[GuestFound],
        *,
        now_ms: int,
    ) -> Sequence[GuestFound]:
        """Write down who is here without a wish; return those seen for the first time."""
        fresh = strays_replace(connection, host.id, strays, now_ms=now_ms)
        for guest in fresh:
            self._event(connection, "host.stray_seen", host, now_ms, guest=guest.name)
        if strays:
            self._stray_free.discard(host.id)
            tombstones_for_gone(connection, host.id, strays, now_ms=now_ms)
        else:
            self._stray_free.add(host.id)
        return fresh

    def _write_reports(
        self,
        connection: Connection,
        reports: Iterable[tuple[GuestReport, int]],
        *,
        now_ms: int,
    ) -> None:
        # The last word on each guest counts: facts replace facts.
        last = {
            (report.instance_id, bool(failures)): (report, failures) for report, failures in reports
        }
        if not last:
            return
        retries = {
            report.instance_id: now_ms + retry_delay_ms(failures)
            for report, failures in last.values()
            if failures
        }
        final = [report for report, _ in last.values()]
        guests_observe(connection, final, now_ms=now_ms, retry_ms=retries)
        event_append_many(connection, [_guest_event(report) for report in final], now_ms=now_ms)
        work_wake(connection, INSTANCE, [report.instance_id for report in final], wake_ms=now_ms)

    def _event(
        self, connection: Connection, kind: str, host: LeasedHost, now_ms: int, **data: str
    ) -> None:
        event_append(
            connection,
            now_ms=now_ms,
            kind=kind,
            subject=host.id,
            project_id=None,
            actor="host worker",
            request_id="",
            data={"host": host.name, **data},
        )


def _guest_event(report: GuestReport) -> EventDraft:
    """Say what was seen of a guest, in the words of the log."""
    data: dict[str, str] = {"name": report.name}
    if report.failure is not None:
        kind = "instance.failed"
        data |= {"reason": report.failure.code, "detail": report.failure.detail}
    else:
        kind = f"instance.{report.observed.value}"
        if report.halt_cause is not HaltCause.NONE:
            data["cause"] = report.halt_cause.value
        if report.accelerator:
            data["accelerator"] = report.accelerator
    return EventDraft(
        kind=kind,
        subject=report.instance_id,
        project_id=report.project_id,
        actor="host worker",
        data=data,
    )
