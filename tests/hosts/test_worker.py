"""Does a host worker look, plan, act and report, and stop when its hosts are no longer its own?"""

from collections.abc import Iterator

import pytest

from stratus.control.hosts import HostWish, host_add, host_drain, host_fence, host_remove, host_show
from stratus.control.instances import instance_delete, instance_stop
from stratus.decide.hostplan import STOP_POLL_MS
from stratus.hosts.worker import ACTIONS_PER_HOST_MAX, LEASE_MS, SEEN_MS
from stratus.model.instance import Observed, Phase
from stratus.model.problem import Problem
from stratus.model.units import SECOND_MS
from stratus.store.engine import store_open
from stratus.store.schema import hosts, instances, tombstones
from tests.control.sites import ORIGIN, refused
from tests.support import AtOnce, Cloud, OnDemand

REFUSAL = Problem(code="host_refused", detail="libvirt said no.", remedy="Look at the host.")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A cloud in memory."""
    store = store_open("sqlite://")
    yield Cloud(store)
    store.close()


class Counting(AtOnce):
    """Runs every task at once, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, task: object) -> None:
        """Count and run it."""
        self.count += 1
        task()  # type: ignore[operator]  # a task


def lease_of(cloud: Cloud) -> tuple[str, int]:
    (row,) = cloud.rows(hosts)
    return row.lease_owner, row.lease_token


def test_a_host_is_leased_looked_at_and_shown_with_what_it_has(cloud: Cloud) -> None:
    cloud.host(cpus=12, memory_gib=24)
    cloud.settle()
    facts = cloud.host_facts("node1")
    assert facts.capacity is not None
    assert (facts.capacity.cpus, facts.capacity.memory_mib) == (12, 24 * 1024)
    assert facts.seen_ms == cloud.clock.ms
    assert lease_of(cloud) == ("worker", 1)


def test_a_host_that_answers_is_never_seen_longer_ago_than_fencing_asks_for(cloud: Cloud) -> None:
    cloud.host()
    cloud.settle()
    host_drain(cloud.world, cloud.admin, "node1", origin=ORIGIN)
    for _ in range(8):
        cloud.after(30)
        age_ms = cloud.clock.ms - cloud.host_facts("node1").seen_ms
        assert age_ms < SEEN_MS + 31 * SECOND_MS
        with refused("conflict", "answers"):
            host_fence(cloud.world, cloud.admin, "node1", confirm=True, origin=ORIGIN)


def test_while_a_look_is_under_way_the_worker_does_not_spin(cloud: Cloud) -> None:
    cloud.host()
    later = OnDemand()
    worker = cloud.host_worker("slow", later)
    assert worker.turn() == 1
    assert worker.busy
    assert worker.turn() == 0
    assert worker.next_ms() > cloud.clock.ms
    later.run()
    assert worker.turn() == 1


def test_the_power_button_is_pressed_once_in_a_while_and_not_all_the_time(cloud: Cloud) -> None:
    machine = cloud.host()
    machine.faults.ignores_shutdown = True
    executor = Counting()
    cloud.hosts = cloud.host_worker("worker", executor)
    instance_id = cloud.run()
    instance_stop(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.settle()
    before = executor.count
    cloud.after(STOP_POLL_MS * 4 // SECOND_MS)
    # For each poll a look, a press, and looks at what became of it.
    assert executor.count - before <= 4 * 4 + 1


def test_a_refusal_is_waited_out_and_not_repeated_at_once(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.settle()
    machine.faults.refuse = REFUSAL
    instance_id = cloud.run()
    facts = cloud.show(instance_id)
    assert (facts.failures, facts.failure) == (1, REFUSAL)
    cloud.after(1)
    assert cloud.show(instance_id).failures == 2
    machine.faults.refuse = None
    cloud.after(2)
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_a_guest_that_will_not_be_removed_is_tried_again_in_peace(cloud: Cloud) -> None:
    machine = cloud.host("dead")
    instance_id = cloud.run()
    machine.faults.unreachable = True
    cloud.after(35)
    host_fence(cloud.world, cloud.admin, "dead", confirm=True, origin=ORIGIN)
    machine.faults.unreachable = False
    machine.faults.refuse = REFUSAL
    cloud.after(31)
    assert len(machine.running()) == 1
    assert len(cloud.rows(tombstones)) == 1
    machine.faults.refuse = None
    cloud.after(31)
    assert (machine.running(), cloud.rows(tombstones)) == ([], [])
    assert cloud.phase(instance_id) is Phase.PENDING


def test_a_lost_answer_does_no_harm(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.settle()
    for lost in range(1, 5):
        machine.faults.lose_replies = lost
        instance_id = cloud.run()
        cloud.after(40)
        assert cloud.phase(instance_id) is Phase.RUNNING
        assert len(machine.running()) == lost
    assert machine.starts == 4
    machine.faults.lose_replies = 3
    instance_delete(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(40)
    assert cloud.phase(instance_id) is Phase.DELETED
    assert len(machine.running()) == 3


def test_a_worker_that_restarts_takes_up_running_guests_without_touching_them(
    cloud: Cloud,
) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    before = cloud.show(instance_id)
    cloud.hosts.stop()
    cloud.hosts = cloud.host_worker("worker-2")
    cloud.after(40)
    assert lease_of(cloud)[0] == "worker-2"
    assert (machine.starts, cloud.show(instance_id)) == (1, before)


def test_a_dead_workers_hosts_go_to_another_only_when_its_lease_has_ended(cloud: Cloud) -> None:
    cloud.host()
    cloud.settle()
    token = lease_of(cloud)[1]
    second = cloud.host_worker("second")
    cloud.clock.ms += LEASE_MS - 1
    second.turn()
    assert lease_of(cloud) == ("worker", token)
    cloud.clock.ms += 6 * SECOND_MS
    second.turn()
    assert lease_of(cloud) == ("second", token + 1)


def test_a_worker_whose_lease_lapsed_writes_nothing_and_acts_no_more(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.settle()
    cloud.hosts.stop()
    later = OnDemand()
    slow = cloud.host_worker("slow", later)
    slow.turn()
    later.run()
    slow.turn()
    (made,) = cloud.create()
    cloud.hosts = slow
    cloud.settle()
    while later.run():  # up to the action that is about to start the guest
        slow.turn()
        if slow.busy and cloud.show(made.id).volumes_ready == 3:
            break
    assert machine.starts == 0
    cloud.clock.ms += LEASE_MS + 1
    instance_stop(cloud.world, cloud.admin, made.id, origin=ORIGIN)
    cloud.hosts = cloud.host_worker("second")
    cloud.settle()
    assert cloud.phase(made.id) is Phase.STOPPED
    before = (cloud.rows(instances), lease_of(cloud))
    assert later.run()
    slow.turn()
    assert machine.starts == 0
    assert (cloud.rows(instances), lease_of(cloud)) == before


def test_what_an_old_look_saw_is_not_written_by_a_worker_that_lost_the_host(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    cloud.hosts.stop()
    later = OnDemand()
    slow = cloud.host_worker("slow", later)
    slow.turn()
    machine.guest_halts(instance_id)
    later.run()  # it sees the guest off, and tells nobody before its lease ends
    cloud.clock.ms += LEASE_MS + 1
    cloud.hosts = cloud.host_worker("second")
    machine.faults.unreachable = True
    cloud.settle()
    slow.turn()
    assert cloud.show(instance_id).observed is Observed.RUNNING


def test_only_some_actions_are_under_way_on_one_host(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.settle()
    cloud.hosts.stop()
    later = OnDemand()
    cloud.hosts = cloud.host_worker("slow", later)
    cloud.create(count=ACTIONS_PER_HOST_MAX + 4)
    most = 0
    for _ in range(30):
        cloud.settle()
        most = max(most, len(later.tasks))
        later.run()
    assert most == ACTIONS_PER_HOST_MAX + 1  # and a look beside them
    assert len(machine.running()) == ACTIONS_PER_HOST_MAX + 4


def test_a_fault_of_ours_at_one_guest_does_not_stop_the_others(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.settle()
    bad, good = cloud.create(count=2)
    cloud.reconciler.turn()
    cloud.pools.turn()
    cloud.world.store.write(
        lambda c: c.execute(
            instances.update()
            .where(instances.c.id == bad.id)
            .values(nics='[{"network_id":"net-nosuch","mac":"52:54:00:00:00:01"}]')
        )
    )
    cloud.settle()
    assert [guest.instance_id for guest in machine.running()] == [good.id]
    failure = cloud.show(bad.id).failure
    assert failure is not None
    assert failure.code == "bug"


def test_a_removed_host_is_forgotten_and_its_name_is_free_again(cloud: Cloud) -> None:
    cloud.host()
    cloud.settle()
    host_remove(cloud.world, cloud.admin, "node1", origin=ORIGIN)
    cloud.after(40)
    with refused("not_found"):
        host_show(cloud.world, cloud.admin, "node1")
    assert len(cloud.events("host.gone")) == 1
    host_add(cloud.world, cloud.admin, HostWish(name="node1", uri="fake:///node1"), origin=ORIGIN)
    cloud.after(6)
    assert cloud.host_facts("node1").capacity is not None


def test_a_removed_host_that_never_answers_is_forgotten_too(cloud: Cloud) -> None:
    machine = cloud.host()
    machine.faults.unreachable = True
    cloud.settle()
    host_remove(cloud.world, cloud.admin, "node1", origin=ORIGIN)
    cloud.after(40)
    with refused("not_found"):
        host_show(cloud.world, cloud.admin, "node1")


def test_a_worker_that_stops_gives_its_hosts_back_and_leaves_guests_running(cloud: Cloud) -> None:
    machine = cloud.host()
    cloud.run()
    cloud.hosts.stop()
    assert lease_of(cloud)[0] == ""
    assert len(machine.running()) == 1
    assert machine._watchers == []
