"""Does a pool worker make what is wished, remove what is not, and stop when the pool is not its?"""

from collections.abc import Iterator

import pytest

from stratus.control.instances import instance_delete
from stratus.hosts.pools import LEASE_MS, VOLUMES_TASK_MAX
from stratus.model.instance import Phase
from stratus.model.volume import Presence
from stratus.store.engine import store_open
from stratus.store.schema import pools, volumes
from tests.control.sites import ORIGIN
from tests.support import Cloud, OnDemand


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A cloud in memory with one host."""
    store = store_open("sqlite://")
    made = Cloud(store)
    made.host()
    made.settle()
    yield made
    store.close()


def presences(cloud: Cloud) -> list[str]:
    return [row.presence for row in cloud.rows(volumes)]


def test_a_pool_is_probed_and_shown_with_its_room(cloud: Cloud) -> None:
    (row,) = cloud.rows(pools)
    assert '"clones_are_instant":true' in row.facts
    assert (row.seen_ms, row.unreachable_ms) == (cloud.clock.ms, 0)


def test_disks_are_made_only_once_their_instance_has_a_place(cloud: Cloud) -> None:
    cloud.create(type="m1.xlarge", count=5)  # four CPUs each: the fifth waits
    cloud.settle()
    assert sorted(set(presences(cloud))) == ["ready", "unknown"]
    assert presences(cloud).count("unknown") == 3
    assert cloud.storage.makes == 12


def test_a_disk_that_failed_is_tried_again_after_its_wait_and_others_go_on(cloud: Cloud) -> None:
    cloud.storage.faults.failed_makes = 1
    instance_id = cloud.run()
    assert sorted(presences(cloud)) == ["ready", "ready", "unknown"]
    assert cloud.storage.makes == 2
    (late,) = [row for row in cloud.rows(volumes) if row.failures]
    assert "could not make volume" in late.failure
    cloud.after(2)
    assert cloud.phase(instance_id) is Phase.RUNNING
    assert all(row.failures == 0 and not row.failure for row in cloud.rows(volumes))


def test_a_lost_answer_makes_no_second_disk(cloud: Cloud) -> None:
    cloud.storage.faults.lose_replies = 2
    instance_id = cloud.run()
    cloud.after(5)
    assert cloud.phase(instance_id) is Phase.RUNNING
    assert cloud.storage.makes == 3


def test_a_full_pool_says_so_and_goes_on_when_there_is_room(cloud: Cloud) -> None:
    cloud.storage.faults.no_space = True
    instance_id = cloud.run()
    assert cloud.phase(instance_id) is Phase.STARTING
    assert all('"no_space"' in row.failure for row in cloud.rows(volumes))
    cloud.storage.faults.no_space = False
    cloud.after(2)
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_a_silent_pool_is_marked_with_the_time_and_taken_up_again(cloud: Cloud) -> None:
    cloud.storage.faults.unreachable = True
    cloud.after(31)
    (row,) = cloud.rows(pools)
    assert row.unreachable_ms > 0
    assert len(cloud.events("pool.unreachable")) == 1
    instance_id = cloud.run()
    assert cloud.phase(instance_id) is Phase.STARTING
    cloud.storage.faults.unreachable = False
    cloud.after(61)
    (row,) = cloud.rows(pools)
    assert row.unreachable_ms == 0
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_disks_are_removed_only_when_no_guest_can_hold_them(cloud: Cloud) -> None:
    machine = cloud.machines["fake:///node1"]
    instance_id = cloud.run()
    machine.faults.unreachable = True
    instance_delete(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(40)
    assert len(cloud.storage.volume_ids()) == 3
    machine.faults.unreachable = False
    cloud.after(40)
    assert (cloud.storage.volume_ids(), machine.running()) == ([], [])
    assert cloud.phase(instance_id) is Phase.DELETED


def test_a_disk_that_somebody_holds_is_removed_when_let_go(cloud: Cloud) -> None:
    instance_id = cloud.run()
    held = cloud.storage.volume_ids()[0]
    cloud.storage.hold(held, "a backup")
    instance_delete(cloud.world, cloud.admin, instance_id, origin=ORIGIN)
    cloud.after(3)
    assert cloud.storage.volume_ids() == [held]
    assert cloud.phase(instance_id) is Phase.DELETING
    cloud.storage.release(held, "a backup")
    cloud.after(10)
    assert cloud.storage.volume_ids() == []
    assert cloud.phase(instance_id) is Phase.DELETED


def test_many_disks_are_made_in_several_tasks_at_once(cloud: Cloud) -> None:
    cloud.pools.stop()
    later = OnDemand()
    cloud.pools = cloud.pool_worker("slow", later)
    cloud.pools.turn()
    later.run()
    cloud.create(count=12)
    cloud.settle()
    assert len(later.tasks) == -(-12 * 3 // VOLUMES_TASK_MAX)
    later.run()
    cloud.settle()
    assert set(presences(cloud)) == {Presence.READY.value}


def test_a_worker_whose_lease_lapsed_makes_nothing_and_writes_nothing(cloud: Cloud) -> None:
    cloud.pools.stop()
    later = OnDemand()
    slow = cloud.pool_worker("slow", later)
    cloud.pools = slow
    slow.turn()
    later.run()
    cloud.create()
    cloud.settle()
    assert later.tasks
    cloud.clock.ms += LEASE_MS + 1
    cloud.pools = cloud.pool_worker("second")
    cloud.storage.faults.failed_makes = 3
    cloud.pools.turn()
    cloud.pools.turn()
    cloud.pools.turn()
    before = cloud.rows(volumes)
    later.run()
    assert cloud.storage.makes == 0
    slow.turn()
    assert cloud.rows(volumes) == before
    (row,) = cloud.rows(pools)
    assert row.lease_owner == "second"
    cloud.after(3)
    assert set(presences(cloud)) == {Presence.READY.value}


def test_a_disk_wished_away_while_it_is_made_does_not_stay(cloud: Cloud) -> None:
    cloud.pools.stop()
    later = OnDemand()
    cloud.pools = cloud.pool_worker("slow", later)
    cloud.pools.turn()
    later.run()
    (made,) = cloud.create()
    cloud.settle()
    instance_delete(cloud.world, cloud.admin, made.id, origin=ORIGIN)
    for _ in range(10):
        later.run()
        cloud.settle()
    assert cloud.storage.makes == 3
    assert cloud.storage.volume_ids() == []
    assert cloud.phase(made.id) is Phase.DELETED
