"""Do wishes come true on real workers and fake machines, and harm nobody when they cannot?"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection

from stratus.control.hosts import host_drain, host_enable, host_fence
from stratus.control.instances import (
    instance_delete,
    instance_retry,
    instance_start,
    instance_stop,
)
from stratus.control.reconcile import InstanceReconciler
from stratus.control.trust import policy_put
from stratus.control.world import World
from stratus.decide.lifecycle import ROUNDS_MAX, START_FAILURES_MAX, VOLUME_DEADLINE_MS
from stratus.model.host import GuestSpec
from stratus.model.instance import (
    Desired,
    HaltCause,
    Observed,
    OnHalt,
    Phase,
    Ranking,
    phase_of,
    reason_of,
)
from stratus.model.problem import Problem
from stratus.model.units import SECOND_MS
from stratus.store.engine import Store, T, store_open
from stratus.store.hints import Hints
from stratus.store.schema import hosts, leases, strays, volumes, work
from stratus.store.work import INSTANCE, work_wake
from tests.control.sites import ORIGIN
from tests.support import EVERYTHING, NOTHING, Cloud

HYPERVISORS_WORDS = "internal error: no such accelerator"
REFUSAL = Problem(code="guest_failed", detail=HYPERVISORS_WORDS, remedy="Look at the host.")


@pytest.fixture
def on_both(store: Store) -> Cloud:
    """A cloud on each engine in turn."""
    return Cloud(store)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A cloud in memory."""
    store = store_open("sqlite://")
    yield Cloud(store)
    store.close()


class Interrupted:
    """A store where something happens before the next write, as if another process did it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.dialect = store.dialect
        self.hints: Hints = store.hints
        self.before_write: list[Callable[[], object]] = []  # one for each write, in turn

    def read(self, function: Callable[[Connection], T]) -> T:
        """As the store does."""
        return self._store.read(function)

    def write(self, function: Callable[[Connection], T]) -> T:
        """Let the interruption happen, then do as the store does."""
        if self.before_write:
            self.before_write.pop(0)()
        return self._store.write(function)

    def close(self) -> None:
        """Leave it to whoever opened the store."""


def nothing() -> None:
    """Interrupt nothing."""


def interrupted(cloud: Cloud, *before_write: Callable[[], object]) -> InstanceReconciler:
    """A reconciler that is interrupted before its writes: it claims, then it applies."""
    store = Interrupted(cloud.world.store)
    store.before_write = list(before_write)
    chance = cloud.world.chance
    return InstanceReconciler(World(store=store, now_ms=cloud.clock, chance=chance))


def row(cloud: Cloud, instance_id: str) -> Any:  # noqa: ANN401  # a row
    return next(row for row in cloud.rows(work) if row.subject == instance_id)


# -- the plain life -------------------------------------------------------------------------


def test_an_instance_runs_is_stopped_started_and_deleted(on_both: Cloud) -> None:
    machine = on_both.host()
    instance_id = on_both.run(volatile_gib=1)
    facts = on_both.show(instance_id)
    assert (phase_of(facts), facts.host_name, facts.accelerator) == (
        Phase.RUNNING,
        "node1",
        "fake",
    )
    (guest,) = machine.running()
    assert [disk.kind for disk in guest.disks] == ["root", "volatile", "swap", "seed"]
    assert [disk.read_only for disk in guest.disks] == [False, False, False, True]
    assert guest.nics[0].nic == facts.nics[0]
    instance_stop(on_both.world, on_both.admin, instance_id, origin=ORIGIN)
    on_both.settle()
    assert on_both.phase(instance_id) is Phase.STOPPED
    assert machine.running() == []
    instance_start(on_both.world, on_both.admin, instance_id, origin=ORIGIN)
    on_both.settle()
    assert on_both.phase(instance_id) is Phase.RUNNING
    instance_delete(on_both.world, on_both.admin, instance_id, origin=ORIGIN)
    on_both.settle()
    assert on_both.phase(instance_id) is Phase.DELETED
    assert on_both.storage.volume_ids() == []
    assert machine.ports[on_both.network.spec.id] == {}
    assert all(lease.released_ms for lease in on_both.rows(leases))
    assert on_both.rows(work) == []


def test_nothing_is_done_to_a_settled_instance(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    before = cloud.show(instance_id)
    cloud.after(90)
    assert cloud.show(instance_id) == before
    assert machine.starts == 1
    assert cloud.rows(work) == []


def test_a_deaf_guest_loses_its_power_after_the_grace(cloud: Cloud) -> None:
    machine = cloud.host()
    machine.faults.ignores_shutdown = True
    instance_id = cloud.run()
    instance_stop(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(59)
    assert cloud.phase(instance_id) is Phase.STOPPING
    cloud.after(2)
    assert cloud.phase(instance_id) is Phase.STOPPED
    assert cloud.show(instance_id).halt_cause is HaltCause.ASKED


# -- room -----------------------------------------------------------------------------------


def test_a_request_without_room_waits_with_the_reason_and_goes_on_when_there_is(
    on_both: Cloud,
) -> None:
    on_both.host(cpus=1)
    first = on_both.run()
    second = on_both.run()
    facts = on_both.show(second)
    assert (phase_of(facts), reason_of(facts)) == (Phase.PENDING, "no_room_now")
    assert facts.waiting is not None
    assert facts.waiting.detail == "1 host: 1 lacking 1 free vCPUs."
    instance_delete(on_both.world, on_both.admin, first, origin=ORIGIN)
    on_both.settle()
    assert on_both.phase(second) is Phase.RUNNING
    assert on_both.show(second).waiting is None
    assert len(on_both.events("instance.waiting")) == 2  # each once: nobody had looked at the host


def test_a_new_host_is_taken_up_and_fills_with_what_waits(cloud: Cloud) -> None:
    cloud.create(count=3)
    cloud.settle()
    cloud.host(cpus=2)
    cloud.after(6)
    assert len(cloud.machines["fake:///node1"].running()) == 2


def test_a_batch_is_spread_or_packed_as_asked(cloud: Cloud) -> None:
    machines = [cloud.host("n1", cpus=4), cloud.host("n2", cpus=4)]
    cloud.settle()
    cloud.create(count=2)
    cloud.settle()
    assert [len(machine.running()) for machine in machines] == [1, 1]
    cloud.create(count=3, ranking=Ranking.PACK)
    cloud.settle()
    assert sorted(len(machine.running()) for machine in machines) == [1, 4]


def test_a_drained_host_keeps_what_it_runs_and_gets_nothing_new(cloud: Cloud) -> None:
    machine = cloud.host()
    first = cloud.run()
    host_drain(cloud.world, cloud.admin, "node1", origin=ORIGIN)
    second = cloud.run()
    assert [cloud.phase(first), cloud.phase(second)] == [Phase.RUNNING, Phase.PENDING]
    waiting = cloud.show(second).waiting
    assert waiting is not None
    assert waiting.detail == "1 host: 1 in maintenance."
    machine.reboot()
    cloud.after(2)  # the networks went with the boot: the first start finds out
    assert cloud.phase(first) is Phase.RUNNING
    host_enable(cloud.world, cloud.admin, "node1", origin=ORIGIN)
    cloud.settle()
    assert cloud.phase(second) is Phase.RUNNING


# -- what guests and hosts do ---------------------------------------------------------------


def test_a_guest_that_powers_itself_off_shows_as_stopped_and_stays_so(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    machine.guest_halts(instance_id)
    cloud.after(40)
    facts = cloud.show(instance_id)
    assert (phase_of(facts), reason_of(facts)) == (Phase.STOPPED, "guest_halted")
    assert facts.host_id is not None
    assert machine.starts == 1
    instance_start(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.settle()
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_a_guest_that_panics_says_so(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    machine.guest_crashes(instance_id)
    cloud.settle()
    assert reason_of(cloud.show(instance_id)) == "guest_crashed"


@pytest.mark.parametrize(
    ("on_halt", "phase", "disks"),
    [(OnHalt.RELEASE, Phase.STOPPED, 3), (OnHalt.DELETE, Phase.DELETED, 0)],
)
def test_the_owners_policy_decides_what_becomes_of_a_guest_that_halts(
    cloud: Cloud, on_halt: OnHalt, phase: Phase, disks: int
) -> None:
    machine = cloud.host()
    instance_id = cloud.run(on_halt=on_halt)
    machine.guest_halts(instance_id)
    cloud.settle()
    assert cloud.phase(instance_id) is phase
    assert cloud.show(instance_id).host_id is None
    assert len(cloud.storage.volume_ids()) == disks
    assert cloud.host_facts("node1").instances == 0


def test_the_guests_of_a_host_that_restarted_are_started_again(cloud: Cloud) -> None:
    machine = cloud.host()
    runs, stopped = cloud.run(), cloud.run()
    instance_stop(cloud.world, cloud.admin, stopped, origin=ORIGIN)
    cloud.settle()
    machine.reboot()
    cloud.after(2)  # the networks went with the boot: the first start finds out
    assert [cloud.phase(runs), cloud.phase(stopped)] == [Phase.RUNNING, Phase.STOPPED]
    assert cloud.show(runs).run == 2
    assert [guest.instance_id for guest in machine.running()] == [runs]


def test_a_restart_of_the_host_starts_nothing_that_the_policy_forbids_by_now(
    cloud: Cloud,
) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    policy_put(cloud.world, cloud.admin, NOTHING, origin=ORIGIN)
    machine.reboot()
    cloud.after(2)  # the networks went with the boot: the first start finds out
    assert (cloud.phase(instance_id), machine.running()) == (Phase.FAILED, [])
    assert reason_of(cloud.show(instance_id)) == "policy_forbids"
    policy_put(cloud.world, cloud.admin, EVERYTHING, origin=ORIGIN)
    instance_retry(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(2)
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_a_guest_that_was_removed_by_hand_is_made_again(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    machine._guests.clear()  # as `virsh undefine` does, behind everybody's back
    machine._writers.clear()
    machine.memory_used_mib = 0
    cloud.after(31)
    assert (cloud.phase(instance_id), len(machine.running())) == (Phase.RUNNING, 1)
    assert cloud.show(instance_id).run == 2


# -- trouble --------------------------------------------------------------------------------


def test_a_start_that_fails_once_is_tried_again(cloud: Cloud) -> None:
    machine = cloud.host()
    machine.faults.failed_starts = 1
    instance_id = cloud.run()
    facts = cloud.show(instance_id)
    assert (phase_of(facts), reason_of(facts)) == (Phase.STARTING, "guest_failed")
    cloud.after(2)
    facts = cloud.show(instance_id)
    assert (phase_of(facts), facts.failures, facts.failure) == (Phase.RUNNING, 0, None)


def test_an_instance_that_will_not_start_on_one_host_moves_to_another(on_both: Cloud) -> None:
    bad, good = on_both.host("bad"), on_both.host("good", memory_gib=32)
    bad.faults.failed_starts = START_FAILURES_MAX
    # Spread prefers the host with the larger share of free memory; equal shares, more CPUs win.
    instance_id = on_both.run(ranking=Ranking.SPREAD)
    assert on_both.show(instance_id).host_name == "bad"
    on_both.after(10)
    facts = on_both.show(instance_id)
    assert (phase_of(facts), facts.host_name, facts.generation) == (Phase.RUNNING, "good", 2)
    assert (bad.running(), len(good.running())) == ([], 1)
    assert on_both.events("instance.given_up_here")[0].data["host"] == "bad"


def test_one_that_starts_nowhere_is_given_up_with_the_hypervisors_words(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    instance_stop(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.settle()
    machine.faults.failed_starts = 1000
    instance_start(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(60)
    facts = cloud.show(instance_id)
    assert phase_of(facts) is Phase.FAILED
    assert facts.parked is not None
    assert facts.parked.detail == "The guest ended as soon as it began."
    assert facts.rounds == ROUNDS_MAX - 1
    tries = 1000 - machine.faults.failed_starts
    assert tries == ROUNDS_MAX * START_FAILURES_MAX
    cloud.after(60)
    assert 1000 - machine.faults.failed_starts == tries
    machine.faults.failed_starts = 0
    instance_retry(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.settle()
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_disks_that_cannot_be_made_are_tried_again_and_in_the_end_given_up(cloud: Cloud) -> None:
    cloud.host()
    cloud.storage.faults.no_space = True
    instance_id = cloud.run()
    facts = cloud.show(instance_id)
    assert (phase_of(facts), reason_of(facts)) == (Phase.STARTING, "no_space")
    assert all("No room" in row.failure for row in cloud.rows(volumes))
    cloud.clock.ms += VOLUME_DEADLINE_MS
    cloud.settle()
    assert reason_of(cloud.show(instance_id)) == "deadline_passed"
    cloud.storage.faults.no_space = False
    instance_retry(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(130)
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_an_instance_that_came_up_after_it_was_given_up_is_given_up_no_more(cloud: Cloud) -> None:
    machine = cloud.host()
    machine.faults.refuse = REFUSAL
    instance_id = cloud.run()
    cloud.clock.ms += 2 * VOLUME_DEADLINE_MS
    cloud.reconciler.turn()
    assert cloud.phase(instance_id) is Phase.FAILED
    machine.faults.refuse = None
    # The guest of an attempt whose answer was lost comes up by itself.
    facts = cloud.show(instance_id)
    cloud.world.store.write(lambda c: work_wake(c, INSTANCE, [instance_id], wake_ms=0))
    drivers = cloud.hosts.drivers_of(cloud.host_id("node1"))
    assert drivers is not None
    drivers.hypervisor.ensure_running(
        GuestSpec(
            instance_id=instance_id,
            generation=facts.generation,
            run=facts.run,
            resets=0,
            title="late",
            vcpus=1,
            memory_mib=512,
            disks=(),
        )
    )
    cloud.settle()
    facts = cloud.show(instance_id)
    assert (phase_of(facts), facts.parked) == (Phase.RUNNING, None)


def test_an_unreachable_host_makes_its_instances_unknown_and_moves_nothing(cloud: Cloud) -> None:
    machine, other = cloud.host("n1", cpus=1), cloud.host("n2", cpus=1)
    one, two = cloud.run(), cloud.run()
    gone = one if cloud.show(one).host_name == "n1" else two
    machine.faults.unreachable = True
    since_ms = cloud.clock.ms
    cloud.after(120)
    facts = cloud.show(gone)
    assert (phase_of(facts), reason_of(facts)) == (Phase.UNKNOWN, "host_unreachable")
    assert since_ms < facts.host_unreachable_ms <= since_ms + 31 * SECOND_MS
    assert (facts.generation, len(other.running())) == (1, 1)
    instance_stop(cloud.world, cloud.admin, gone, origin=ORIGIN)
    cloud.settle()
    assert cloud.phase(gone) is Phase.UNKNOWN
    machine.faults.unreachable = False
    cloud.after(31)
    assert cloud.phase(gone) is Phase.STOPPED
    assert len(cloud.events("host.unreachable")) == 1
    assert len(cloud.events("host.reachable")) == 1


def test_a_fenced_host_loses_its_instances_and_has_their_guests_removed_on_return(
    cloud: Cloud,
) -> None:
    dead, other = cloud.host("dead"), cloud.host("other", cpus=1)
    cloud.settle()
    instance_id = cloud.run()
    assert cloud.show(instance_id).host_name == "dead"
    dead.faults.unreachable = True
    cloud.after(35)
    host_fence(cloud.world, cloud.admin, "dead", confirm=True, origin=ORIGIN)
    cloud.settle()
    assert (cloud.phase(instance_id), len(other.running())) == (Phase.RUNNING, 1)
    assert len(dead.running()) == 1  # as far as anybody can know it does not run
    dead.faults.unreachable = False
    cloud.after(31)
    assert (dead.running(), len(other.running())) == ([], 1)
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_strays_are_shown_once_and_left_running(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.settle()
    machine.add_stranger("somebody")
    cloud.after(70)
    assert [(stray.name, stray.instance_id) for stray in cloud.rows(strays)] == [("somebody", "")]
    assert len(cloud.events("host.stray_seen")) == 1
    drivers = cloud.hosts.drivers_of(cloud.host_id("node1"))
    assert drivers is not None
    assert [guest.name for guest in drivers.hypervisor.inventory()] == ["somebody"]


# -- several at once ------------------------------------------------------------------------


def test_work_that_is_poked_while_somebody_looks_is_looked_at_again(on_both: Cloud) -> None:
    on_both.host()
    on_both.settle()
    (made,) = on_both.create()
    instance_id = made.id

    def stop() -> None:
        instance_stop(on_both.world, on_both.admin, instance_id, origin=ORIGIN)

    assert interrupted(on_both, nothing, stop).turn() == 1
    # Nothing was decided on what is no longer so, and the row is due.
    facts = on_both.show(instance_id)
    assert (facts.host_id, facts.desired) == (None, Desired.STOPPED)
    assert row(on_both, instance_id).wake_ms <= on_both.clock.ms
    on_both.settle()
    assert on_both.phase(instance_id) is Phase.STOPPED
    assert on_both.rows(work) == []


def test_a_poke_without_a_change_is_not_lost_either(on_both: Cloud) -> None:
    on_both.host()
    instance_id = on_both.run()

    def poke() -> None:
        on_both.world.store.write(
            lambda c: work_wake(c, INSTANCE, [instance_id], wake_ms=on_both.clock.ms)
        )

    poke()
    assert interrupted(on_both, nothing, poke).turn() == 1
    assert row(on_both, instance_id).lease_until_ms == 0
    assert on_both.reconciler.turn() == 1
    assert on_both.rows(work) == []


def test_two_reconcilers_do_not_place_on_the_same_room(on_both: Cloud) -> None:
    machine = on_both.host(cpus=1)
    on_both.settle()
    on_both.create(count=2)
    first = next(entry.subject for entry in on_both.rows(work))
    other = InstanceReconciler(on_both.world)

    def hold_back() -> None:
        """Let the second instance be seen by the second reconciler alone."""
        on_both.world.store.write(
            lambda c: c.execute(work.update().where(work.c.subject != first).values(wake_ms=0))
        )

    on_both.world.store.write(
        lambda c: c.execute(
            work.update().where(work.c.subject != first).values(wake_ms=on_both.clock.ms + 9)
        )
    )

    def second() -> None:
        hold_back()
        assert other.turn() == 1

    assert interrupted(on_both, nothing, second).turn() == 1
    (host,) = on_both.rows(hosts)
    assert on_both.host_facts("node1").vcpus_used == 1
    assert host.placements == 1
    on_both.settle()
    assert len(machine.running()) == 1


def test_a_reconciler_that_took_too_long_writes_nothing(on_both: Cloud) -> None:
    on_both.host()
    on_both.settle()
    (made,) = on_both.create()

    def another_is_faster() -> None:
        on_both.clock.ms += 31 * SECOND_MS
        assert InstanceReconciler(on_both.world).turn() == 1

    interrupted(on_both, nothing, another_is_faster).turn()
    facts = on_both.show(made.id)
    assert facts.generation == 1
    assert len(on_both.events("instance.placed")) == 1


def test_several_reconcilers_at_once_place_everything_once(store: Store) -> None:
    cloud = Cloud(store)
    for number in range(3):
        cloud.host(f"n{number}", cpus=3)
    cloud.settle()
    cloud.create(count=9)
    reconcilers = [InstanceReconciler(cloud.world) for _ in range(3)]
    errors: list[Exception] = []

    def turn(reconciler: InstanceReconciler) -> None:
        try:
            for _ in range(4):
                reconciler.turn()
        except Exception as error:  # for the assertion below
            errors.append(error)

    threads = [threading.Thread(target=turn, args=(each,)) for each in reconcilers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    cloud.settle()
    assert [len(machine.running()) for machine in cloud.machines.values()] == [3, 3, 3]
    assert all(guest.generation == 1 for m in cloud.machines.values() for guest in m.running())


def test_a_guest_that_was_placed_before_a_restore_is_adopted(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    guest = machine._guests.pop((instance_id, 1))
    guest.run, guest.observed = 4, Observed.RUNNING
    guest.spec = type(guest.spec)(
        **{name: getattr(guest.spec, name) for name in guest.spec.__struct_fields__}
        | {"generation": 3}
    )
    machine._guests[(instance_id, 3)] = guest
    cloud.after(31)
    facts = cloud.show(instance_id)
    assert (phase_of(facts), facts.generation, facts.run) == (Phase.RUNNING, 3, 4)
    assert machine.starts == 1


def test_what_the_pool_said_of_a_disk_reaches_the_instance(cloud: Cloud) -> None:
    cloud.host()
    cloud.storage.faults.no_space = True
    instance_id = cloud.run()
    shown = cloud.show(instance_id)
    assert shown.failure is not None
    assert shown.failure.code == reason_of(shown) == "no_space"
    cloud.storage.faults.no_space = False
    cloud.after(300)
    assert cloud.phase(instance_id) is Phase.RUNNING
