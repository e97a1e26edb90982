"""Do wishes for instances become rows whole or not at all, and changes what they should?"""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from stratus.control.hosts import HostWish, host_add
from stratus.control.instances import (
    instance_delete,
    instance_page,
    instance_reboot,
    instance_release,
    instance_rename,
    instance_retry,
    instance_show,
    instance_start,
    instance_stop,
    instances_create,
    instances_explain,
)
from stratus.control.tenancy import projects_change
from stratus.control.trust import policy_put
from stratus.model.ids import InstanceId, ProjectId
from stratus.model.image import Visibility
from stratus.model.instance import Desired, OnHalt, Phase, phase_of, reason_of
from stratus.model.tenancy import Quota, Role
from stratus.store.engine import Store, store_open
from stratus.store.schema import instances, leases, operations, volumes, work
from tests.control.sites import ORIGIN, refused
from tests.support import EVERYTHING, NO_CEILING, NOTHING, Cloud

ASKS = (instance_start, instance_stop, instance_reboot, instance_release, instance_delete)
Ask = Callable[..., object]
# Well formed, but nobody's: another test's ids never look like this.
NOBODYS = InstanceId("ins-0000000000000000")


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


def ask(cloud: Cloud, what: Ask, instance_id: InstanceId, **more: object) -> None:
    cloud.clock.ms += 1
    what(cloud.world, cloud.admin, instance_id, origin=ORIGIN, **more)


def counts(cloud: Cloud) -> tuple[int, ...]:
    return tuple(len(cloud.rows(table)) for table in (instances, volumes, leases, operations))


def quota(cloud: Cloud, given: Quota) -> None:
    projects_change(cloud.world, cloud.admin, str(cloud.project_id), quota=given, origin=ORIGIN)


# -- creating -------------------------------------------------------------------------------


def test_one_wish_makes_an_instance_with_disks_an_address_and_work(on_both: Cloud) -> None:
    (made,) = on_both.create(name="web", volatile_gib=2)
    assert (made.name, made.desired, made.run, phase_of(made)) == (
        "web",
        Desired.RUNNING,
        1,
        Phase.PENDING,
    )
    assert made.nics[0].ipv4 == "10.9.0.2"
    kinds = [row.kind for row in sorted(on_both.rows(volumes), key=lambda row: row.position)]
    assert kinds == ["root", "volatile", "swap", "seed"]
    assert [(row.ipv4, row.instance_id) for row in on_both.rows(leases)] == [("10.9.0.2", made.id)]
    assert [row.subject for row in on_both.rows(work)] == [made.id]
    (event,) = on_both.events("instance.created")
    assert (event.subject, event.request_id) == (made.id, ORIGIN.request_id)


def test_many_get_names_and_addresses_of_their_own(on_both: Cloud) -> None:
    made = on_both.create(name="web", count=3)
    assert [facts.name for facts in made] == ["web-1", "web-2", "web-3"]
    assert len({facts.nics[0].ipv4 for facts in made}) == 3
    assert len({facts.nics[0].mac for facts in made}) == 3
    assert len(on_both.rows(operations)) == 1
    (unnamed,) = on_both.create()
    assert unnamed.name == unnamed.id


def test_a_request_beyond_the_quota_makes_nothing_at_all(on_both: Cloud) -> None:
    quota(on_both, Quota(instances=4))
    on_both.create(count=2)
    before = counts(on_both)
    with refused("quota_exceeded", "5 of 4 instances"):
        on_both.create(count=3)
    assert counts(on_both) == before
    assert len(on_both.create(count=2)) == 2


@pytest.mark.parametrize(
    ("ceiling", "words"),
    [
        (Quota(vcpus=1), "2 of 1 vCPUs"),
        (Quota(memory_mib=1000), "1024 of 1000 MiB"),
        (Quota(volumes=5), "6 of 5 volumes"),
        (Quota(volume_gib=7), "8 of 7 GiB"),
        (Quota(addresses=1), "2 of 1 addresses"),
    ],
)
def test_every_ceiling_holds(cloud: Cloud, ceiling: Quota, words: str) -> None:
    quota(cloud, ceiling)
    with refused("quota_exceeded", words):
        cloud.create(count=2, volatile_gib=2, swap_mib=1000)
    assert counts(cloud) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("more", "code", "field"),
    [
        ({"type": "x9.huge"}, "invalid_field", "type"),
        ({"network": "moon"}, "invalid_field", "network"),
        ({"image": "nosuch"}, "not_found", None),
        ({"project_id": "nosuch"}, "not_found", None),
        ({"count": 0}, "invalid_field", "count"),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    cloud: Cloud, more: dict[str, object], code: str, field: str | None
) -> None:
    with refused(code, field=field):
        cloud.create(**more)
    assert counts(cloud) == (0, 0, 0, 0)


def test_an_image_of_another_project_is_answered_like_one_that_is_not_there(cloud: Cloud) -> None:
    private = cloud.image("secret", visibility=Visibility.PRIVATE)
    other = cloud.project("other", NO_CEILING)
    with refused("not_found") as hidden:
        cloud.create(project_id=other, image=str(private))
    with refused("not_found") as missing:
        cloud.create(project_id=other, image="img-0000000000000000")
    told = hidden.problem.detail.replace(str(private), "img-0000000000000000")
    assert told == missing.problem.detail


def test_what_the_policy_forbids_is_refused_when_asked_for(cloud: Cloud) -> None:
    policy_put(cloud.world, cloud.admin, NOTHING, origin=ORIGIN)
    with refused("policy_forbids"):
        cloud.create()
    assert counts(cloud) == (0, 0, 0, 0)


def test_what_no_host_can_ever_hold_is_refused_at_once(cloud: Cloud) -> None:
    (waiting,) = cloud.create(type="m1.xlarge")
    assert phase_of(waiting) is Phase.PENDING  # a site without hosts may get one
    cloud.host(cpus=2, memory_gib=4)
    cloud.settle()
    with refused("never_fits", "1 host"):
        cloud.create(type="m1.xlarge")


def test_addresses_run_out_with_their_number_and_come_back_with_a_deletion() -> None:
    cloud = Cloud(store_open("sqlite://"), ipv4_cidr="10.9.0.0/29")
    made = cloud.create(count=5)
    with refused("addresses_exhausted", "0 free addresses, not 1"):
        cloud.create()
    ask(cloud, instance_delete, made[2].id)
    cloud.settle()
    with refused("addresses_exhausted", "1 free addresses, not 2"):
        cloud.create(count=2)
    (again,) = cloud.create()
    assert again.nics[0].ipv4 == made[2].nics[0].ipv4


def test_an_explanation_makes_nothing(cloud: Cloud) -> None:
    cloud.host(cpus=2)
    cloud.settle()
    said = instances_explain(cloud.world, cloud.admin, cloud.wish(count=3), origin=ORIGIN)
    assert (said.fits, said.placed, said.count, said.hosts) == (False, 2, 3, ("node1",))
    assert said.problem is not None
    assert said.problem.code == "no_room_now"
    assert said.rules == ()
    assert counts(cloud) == (0, 0, 0, 0)
    quota(cloud, Quota(instances=0))
    said = instances_explain(cloud.world, cloud.admin, cloud.wish(), origin=ORIGIN)
    assert said.problem is not None
    assert said.problem.code == "quota_exceeded"


# -- looking --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ASKS)
def test_another_projects_instance_is_answered_like_one_that_is_not_there(
    cloud: Cloud, what: Ask
) -> None:
    (made,) = cloud.create()
    cloud.project("other")
    ana = cloud.user("ana", Role.OWNER, on="other")
    with refused("not_found") as hidden:
        what(cloud.world, ana, made.id, origin=ORIGIN)
    with refused("not_found") as missing:
        what(cloud.world, ana, NOBODYS, origin=ORIGIN)
    assert msgspec.to_builtins(hidden.problem) == {
        key: value.replace(NOBODYS, made.id) if isinstance(value, str) else value
        for key, value in msgspec.to_builtins(missing.problem).items()
    }
    with refused("not_found"):
        instance_show(cloud.world, ana, made.id)
    page = instance_page(cloud.world, ana, project_id=None, all_projects=False, rows_max=10)
    assert page.items == ()


def test_a_reader_looks_and_changes_nothing(cloud: Cloud) -> None:
    (made,) = cloud.create()
    ana = cloud.user("ana", Role.READER)
    assert instance_show(cloud.world, ana, made.id).id == made.id
    with refused("forbidden"):
        cloud.create(ana)
    for what in ASKS:
        with refused("forbidden"):
            what(cloud.world, ana, made.id, origin=ORIGIN)


def test_pages_follow_one_another_and_narrow_down(on_both: Cloud) -> None:
    on_both.host()
    made = [on_both.create(name=f"n{number}")[0] for number in range(5)]
    on_both.settle()
    seen, cursor = [], None
    while True:
        page = instance_page(
            on_both.world,
            on_both.admin,
            project_id=on_both.project_id,
            all_projects=False,
            cursor=cursor,
            rows_max=2,
        )
        seen += page.items
        cursor = page.next
        if cursor is None:
            break
    assert [facts.id for facts in seen] == [facts.id for facts in made]
    for narrow, expected in (
        ({"name": "n3"}, [made[3].id]),
        ({"host_id": on_both.host_id("node1")}, [facts.id for facts in made]),
        ({"host_id": "hst-nosuch"}, []),
    ):
        page = instance_page(
            on_both.world,
            on_both.admin,
            project_id=None,
            all_projects=True,
            rows_max=9,
            **narrow,  # type: ignore[arg-type]  # as named
        )
        assert [facts.id for facts in page.items] == expected


# -- changing -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ASKS)
def test_a_change_of_what_has_changed_is_refused(cloud: Cloud, what: Ask) -> None:
    cloud.host()
    instance_id = cloud.run()
    with refused("stale", "at version"):
        ask(cloud, what, instance_id, version=1)
    assert cloud.phase(instance_id) is Phase.RUNNING


def test_a_change_of_what_was_read_is_taken(on_both: Cloud) -> None:
    (made,) = on_both.create()
    ask(on_both, instance_stop, made.id, version=made.version)
    assert on_both.show(made.id).desired is Desired.STOPPED
    assert on_both.show(made.id).version > made.version


def test_a_stopped_instance_starts_again_in_a_new_run_on_its_host(cloud: Cloud) -> None:
    cloud.host()
    instance_id = cloud.run()
    ask(cloud, instance_stop, instance_id)
    cloud.settle()
    assert cloud.phase(instance_id) is Phase.STOPPED
    assert cloud.show(instance_id).host_id is not None
    ask(cloud, instance_start, instance_id)
    assert cloud.show(instance_id).run == 2
    cloud.settle()
    assert cloud.phase(instance_id) is Phase.RUNNING
    assert cloud.show(instance_id).observed_run == 2


@pytest.mark.parametrize(
    ("what", "more"), [(instance_start, {}), (instance_stop, {}), (instance_stop, {"release": 1})]
)
def test_a_wish_that_is_repeated_changes_nothing(
    cloud: Cloud, what: Ask, more: dict[str, object]
) -> None:
    cloud.host()
    instance_id = cloud.run()
    ask(cloud, what, instance_id, **more)
    cloud.settle()
    before = cloud.show(instance_id)
    ask(cloud, what, instance_id, **more)
    cloud.settle()
    assert cloud.show(instance_id) == before


def test_stop_with_release_lets_the_guest_shut_down_before_its_place_is_given_back(
    cloud: Cloud,
) -> None:
    machine = cloud.host()
    machine.delays.shutdown = 7
    instance_id = cloud.run()
    generation = cloud.show(instance_id).generation
    ask(cloud, instance_stop, instance_id, release=True)
    cloud.settle()
    guest = machine.guest(instance_id, generation)
    assert guest is not None
    assert guest.observed == "running"
    assert cloud.phase(instance_id) is Phase.STOPPING
    cloud.after(11)
    assert machine.guest(instance_id, generation) is None
    assert cloud.phase(instance_id) is Phase.STOPPED
    assert cloud.show(instance_id).host_id is None


def test_release_long_after_the_stop_is_not_given_up_as_late(cloud: Cloud) -> None:
    cloud.host()
    instance_id = cloud.run()
    ask(cloud, instance_stop, instance_id)
    cloud.settle()
    cloud.clock.ms += 24 * 3600 * 1000
    ask(cloud, instance_stop, instance_id, release=True)
    cloud.settle()
    assert cloud.show(instance_id).host_id is None
    assert cloud.events("instance.parked") == []


def test_only_what_is_stopped_can_be_released(cloud: Cloud) -> None:
    cloud.host()
    instance_id = cloud.run()
    with refused("conflict", "is running, not stopped"):
        ask(cloud, instance_release, instance_id)
    ask(cloud, instance_stop, instance_id)
    ask(cloud, instance_release, instance_id)
    cloud.settle()
    assert cloud.show(instance_id).host_id is None
    assert phase_of(cloud.show(instance_id)) is Phase.STOPPED


def test_what_gave_its_place_back_counts_again_when_it_starts(cloud: Cloud) -> None:
    cloud.host()
    quota(cloud, Quota(vcpus=1))
    instance_id = cloud.run()
    ask(cloud, instance_stop, instance_id, release=True)
    cloud.settle()
    other = cloud.run()
    with refused("quota_exceeded", "2 of 1 vCPUs"):
        ask(cloud, instance_start, instance_id)
    ask(cloud, instance_delete, other)
    cloud.settle()
    ask(cloud, instance_start, instance_id)
    cloud.settle()
    assert cloud.phase(instance_id) is Phase.RUNNING
    assert cloud.show(instance_id).generation == 2


def test_a_reboot_happens_once_and_only_to_what_runs(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    ask(cloud, instance_reboot, instance_id)
    cloud.settle()
    facts = cloud.show(instance_id)
    assert (facts.resets, facts.observed_resets, phase_of(facts)) == (1, 1, Phase.RUNNING)
    machine.guest_halts(instance_id)
    cloud.settle()
    with refused("conflict", "is stopped, not running"):
        ask(cloud, instance_reboot, instance_id)


def test_a_new_name_is_checked_and_written_down(on_both: Cloud) -> None:
    (made,) = on_both.create(name="old")
    with refused("invalid_field", field="name"):
        ask(on_both, instance_rename, made.id, name="No Name")
    ask(on_both, instance_rename, made.id, name="new")
    assert on_both.show(made.id).name == "new"
    assert on_both.events("instance.rename")[0].data == {"from": "old", "to": "new"}


def test_a_pending_instance_is_deleted_without_a_trace_of_a_host(on_both: Cloud) -> None:
    (made,) = on_both.create()
    on_both.settle()
    ask(on_both, instance_delete, made.id)
    on_both.settle()
    assert on_both.phase(made.id) is Phase.DELETED
    assert all(row.gone_ms for row in on_both.rows(volumes))
    assert all(row.released_ms for row in on_both.rows(leases))
    assert on_both.rows(work) == []
    assert on_both.storage.makes == 0


def test_deleting_twice_is_no_more_than_deleting_once(cloud: Cloud) -> None:
    machine = cloud.host()
    instance_id = cloud.run()
    ask(cloud, instance_delete, instance_id)
    ask(cloud, instance_delete, instance_id)
    for what in (instance_start, instance_stop, instance_release, instance_reboot):
        with refused("conflict", "being deleted"):
            ask(cloud, what, instance_id)
    cloud.settle()
    assert cloud.phase(instance_id) is Phase.DELETED
    assert machine.running() == []
    assert cloud.storage.volume_ids() == []
    assert len(cloud.events("instance.deleted")) == 1
    with refused("not_found"):
        ask(cloud, instance_delete, instance_id)


def test_retry_leaves_alone_what_was_not_given_up(cloud: Cloud) -> None:
    cloud.host()
    instance_id = cloud.run()
    before = cloud.show(instance_id)
    ask(cloud, instance_retry, instance_id)
    cloud.settle()
    assert cloud.show(instance_id) == before


def test_the_policy_is_asked_at_every_start(cloud: Cloud) -> None:
    cloud.host()
    instance_id = cloud.run()
    ask(cloud, instance_stop, instance_id)
    cloud.settle()
    policy_put(cloud.world, cloud.admin, NOTHING, origin=ORIGIN)
    with refused("policy_forbids"):
        ask(cloud, instance_start, instance_id)
    assert cloud.show(instance_id).desired is Desired.STOPPED


def test_a_policy_that_turned_against_a_waiting_request_stops_it_until_retried(
    cloud: Cloud,
) -> None:
    (made,) = cloud.create()
    policy_put(cloud.world, cloud.admin, NOTHING, origin=ORIGIN)
    cloud.host()
    cloud.settle()
    assert cloud.phase(made.id) is Phase.FAILED
    assert reason_of(cloud.show(made.id)) == "policy_forbids"
    with refused("policy_forbids"):
        ask(cloud, instance_retry, made.id)
    policy_put(cloud.world, cloud.admin, EVERYTHING, origin=ORIGIN)
    ask(cloud, instance_retry, made.id)
    cloud.settle()
    assert cloud.phase(made.id) is Phase.RUNNING


def test_an_administrator_acts_for_a_project_of_others(cloud: Cloud) -> None:
    other = cloud.project("other", NO_CEILING)
    operation_id, made = instances_create(
        cloud.world, cloud.admin, cloud.wish(project_id=ProjectId("other")), origin=ORIGIN
    )
    assert operation_id
    assert made[0].project_id == other
    assert made[0].on_halt is OnHalt.KEEP


def test_a_host_that_nobody_has_looked_at_yet_may_hold_anything(cloud: Cloud) -> None:
    host_add(
        cloud.world,
        cloud.admin,
        HostWish(name="new", uri="fake://new"),
        origin=ORIGIN,
    )
    (made,) = cloud.create()
    assert phase_of(made) is Phase.PENDING
