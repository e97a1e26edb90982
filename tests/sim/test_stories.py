"""What the simulator once found, each told as the short story it came down to."""

from stratus.model.instance import Desired, HaltCause, InstanceCreate, Observed, OnHalt, Phase
from stratus.model.units import MINUTE_MS, SECOND_MS
from stratus.sim.mishaps import Calm
from stratus.sim.settling import settle
from stratus.sim.site import IMAGE
from tests.sim.small import Small


def create(small: Small, *, on_halt: OnHalt = OnHalt.KEEP) -> str:
    """Have one more instance, not waited for."""
    wish = InstanceCreate(
        project_id=small.cloud.site.project_id, image=IMAGE, type="t1.micro", on_halt=on_halt
    )
    (made,) = small.people.create(wish)
    return made.id


def test_a_start_wished_while_the_host_is_silent_is_kept_until_it_answers() -> None:
    small = Small(Calm())
    (instance_id,) = small.create(1)
    small.are(Phase.RUNNING, instance_id)
    small.wish(instance_id, Desired.STOPPED)
    small.are(Phase.STOPPED, instance_id)
    for place in small.cloud.outside.places.values():
        place.machine.faults.unreachable = True
    small.are(Phase.UNKNOWN, instance_id)
    small.wish(instance_id, Desired.RUNNING)
    for place in small.cloud.outside.places.values():
        place.machine.faults.unreachable = False
    small.are(Phase.RUNNING, instance_id)


def test_a_guest_on_its_way_up_is_not_taken_for_gone() -> None:
    # Deleted at every moment after a stop and a start: nothing may be left behind.
    for delay_ms in range(0, 900, 60):
        small = Small(Calm())
        (instance_id,) = small.create(1)
        small.people.stop(instance_id)
        small.cloud.run_for(3 * SECOND_MS)
        small.people.start(instance_id)
        small.cloud.run_for(delay_ms)
        small.people.delete(instance_id)
        settle(small.cloud, small.people, None)


def test_a_restored_store_does_not_stop_what_was_started_after_the_backup() -> None:
    small = Small(Calm())
    (instance_id,) = small.create(1)
    small.are(Phase.RUNNING, instance_id)
    small.wish(instance_id, Desired.STOPPED)
    backup = small.cloud.store.backup()
    small.are(Phase.STOPPED, instance_id)
    small.wish(instance_id, Desired.RUNNING)
    small.are(Phase.RUNNING, instance_id)
    small.cloud.store_restore(backup)
    settle(small.cloud, small.people, None)
    facts = small.people.show(instance_id)
    assert facts is not None
    assert (facts.observed, facts.run) == (Observed.RUNNING, 2)


def test_a_restored_store_finds_what_was_released_and_started_again_elsewhere() -> None:
    small = Small(Calm())
    (instance_id,) = small.create(1)
    small.are(Phase.RUNNING, instance_id)
    small.people.stop(instance_id, release=True)
    small.until(
        lambda: small.cloud.store.rows("SELECT 1 FROM instances WHERE host_id IS NULL") != []
    )
    backup = small.cloud.store.backup()
    small.wish(instance_id, Desired.RUNNING)
    small.are(Phase.RUNNING, instance_id)
    small.cloud.store_restore(backup)
    settle(small.cloud, small.people, None)
    small.are(Phase.RUNNING, instance_id)


def test_a_restored_store_does_not_delete_what_was_stopped_by_a_forgotten_wish() -> None:
    small = Small(Calm())
    instance_id = create(small, on_halt=OnHalt.DELETE)
    small.are(Phase.RUNNING, instance_id)
    backup = small.cloud.store.backup()
    small.wish(instance_id, Desired.STOPPED)
    small.are(Phase.STOPPED, instance_id)
    small.cloud.run_for(2 * MINUTE_MS)
    small.cloud.store_restore(backup)
    settle(small.cloud, small.people, None)
    facts = small.people.show(instance_id)
    assert facts is not None
    assert (facts.gone_ms, facts.observed) == (0, Observed.HALTED)


def test_the_policy_of_the_owner_still_ends_what_halts_by_itself() -> None:
    small = Small(Calm())
    instance_id = create(small, on_halt=OnHalt.DELETE)
    small.are(Phase.RUNNING, instance_id)
    ((uri, _, _),) = small.cloud.outside.alive
    place = small.cloud.outside.places[uri]
    small.cloud.outside.guest_ends(place, instance_id, HaltCause.GUEST)
    small.are(Phase.DELETED, instance_id)
