"""Do administrators' wishes for hosts and pools become what workers act on, and nothing worse?"""

from typing import Any

import msgspec
import pytest

from stratus.control.hosts import (
    FENCE_SILENCE_MS,
    HostChange,
    HostWish,
    host_add,
    host_drain,
    host_enable,
    host_fence,
    host_page,
    host_remove,
    host_show,
    host_update,
    stray_page,
)
from stratus.control.pools import pool_add, pool_page, pool_show
from stratus.model.host import HostDesired, HostFacts
from stratus.model.ids import HostId
from stratus.model.tenancy import Role, Scope
from stratus.store.hosts_admin import host_set
from stratus.store.schema import hosts, instances, pools, strays, tombstones, work
from tests.control.sites import ORIGIN, Site, in_memory, refused
from tests.store.worlds import instance_new

WISH = HostWish(name="node1", uri="qemu:///system")


def pool(site: Site, name: str = "files", location: str = "/var/lib/stratus/pool") -> str:
    site.clock.ms += 1  # ids of one millisecond have no order
    return pool_add(site.world, site.admin, name=name, location=location, origin=ORIGIN).id


def host(site: Site, wish: HostWish = WISH) -> HostFacts:
    site.clock.ms += 1
    return host_add(site.world, site.admin, wish, origin=ORIGIN)


def change(site: Site, host_id: HostId, **columns: object) -> None:
    """Write what a host worker would."""
    site.world.store.write(lambda connection: host_set(connection, host_id, **columns))


def unreachable(site: Site, host_id: HostId) -> None:
    change(site, host_id, unreachable_ms=site.clock.ms)


def placed(site: Site, host_id: HostId | None, **given: object) -> str:
    """Put an instance on the host that was seen to run there; None leaves it without a place."""
    values = {
        "host_id": host_id,
        "generation": 3,
        "observed": "running",
        "observed_generation": 3,
        "vcpus": 2,
        "memory_mib": 512,
        **given,
    }
    return site.world.store.write(
        lambda c: instance_new(c, site.project_id, site.admin.user_id, **values)
    )


def row_of(site: Site, instance_id: str) -> Any:  # noqa: ANN401  # a row
    return next(row for row in site.rows(instances) if row.id == instance_id)


# -- adding ---------------------------------------------------------------------------------


def test_a_host_on_this_machine_reaches_every_pool_and_is_looked_at_now(site: Site) -> None:
    one, two = pool(site), pool(site, "more", "/srv/more")
    made = host(site)
    assert made.pools == (one, two)
    assert made.desired is HostDesired.ENABLED
    assert made.accelerator_wanted == "auto"
    (row,) = site.rows(hosts)
    assert row.wake_ms == site.clock.ms
    assert row.inventory_epoch == 1  # it holds up nothing that waits for a whole picture
    assert site.events("host.added")[-1].subject == made.id


def test_a_host_elsewhere_reaches_the_pools_that_are_named(site: Site) -> None:
    pool(site)
    shared = pool(site, "shared", "/srv/shared")
    far = "qemu+tls://node2.example.org/system"
    assert host(site, HostWish(name="node2", uri=far)).pools == ()
    assert host(site, HostWish(name="node3", uri=far, pools=("shared",))).pools == (shared,)
    assert host(site, HostWish(name="node4", uri="qemu:///system", pools=())).pools == ()


@in_memory
@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
        "qemu+tls://node1.example.org/system",
        "qemu+tls://[2001:db8::1]:16514/system?pkipath=/etc/pki/stratus",
        "qemu+ssh://stratus@node1:2222/system?keyfile=/etc/stratus/key&no_tty=1",
        "test:///default",
        "fake://node1/",
    ],
)
def test_addresses_that_libvirt_reads_are_taken(site: Site, uri: str) -> None:
    assert host(site, HostWish(name="node1", uri=uri)).uri == uri


@in_memory
@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qemu",
        "qemu:/system",
        "xen:///system",
        "qemu+tcp://node1/system",
        "qemu+ext:///system?command=/bin/sh",
        "qemu+ssh://node1/system?command=/tmp/evil",
        "qemu+ssh://node1/system?netcat=/tmp/evil",
        "qemu+ssh://node1/system?no_verify=1",
        "qemu+ssh://node1/system?keyfile=a&COMMAND=b",
        "qemu+ssh://-oProxyCommand=evil/system",
        "qemu+ssh://user:secret@node1/system",
        "qemu+ssh:///system",
        "qemu+tls:///system",
        "qemu://node1/system",
        "qemu:///",
        "qemu:///system#x",
        "qemu:///system\n",
        "qemu+tls://node1:99999/system",
        "qemu+tls://nöde1/system",
        "test:///" + "x" * 1024,
    ],
)
def test_addresses_that_are_wrong_or_do_harm_are_refused(site: Site, uri: str) -> None:
    with refused("invalid_field", field="uri") as refusal:
        host(site, HostWish(name="node1", uri=uri))
    assert "secret" not in refusal.problem.detail


@in_memory
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Node1"),
        ("name", "node1\n"),
        ("cpu_ratio", 0.0),
        ("cpu_ratio", -1.0),
        ("cpu_ratio", 65.0),
        ("cpu_ratio", float("nan")),
        ("memory_ratio", float("inf")),
        ("memory_reserved_mib", -1),
        ("memory_reserved_mib", 1 << 40),
        ("accelerator", "xen"),
        ("pools", ("nowhere",)),
        ("pools", ("files",) * 65),
    ],
)
def test_an_impossible_host_is_refused_by_field(site: Site, field: str, value: object) -> None:
    pool(site)
    wish = msgspec.structs.replace(WISH, **{field: value})
    with refused("invalid_field", field=field):
        host(site, wish)
    if field != "name":
        made = host(site)
        with refused("invalid_field", field=field):
            host_update(
                site.world,
                site.admin,
                made.id,
                HostChange(**{field: value}),  # type: ignore[arg-type]  # wrong on purpose
                origin=ORIGIN,
            )


def test_a_live_hosts_name_is_not_given_twice(site: Site) -> None:
    made = host(site)
    with refused("name_taken", "node1"):
        host(site)
    change(site, made.id, gone_ms=1)
    assert host(site).id != made.id


# -- reading --------------------------------------------------------------------------------


def test_a_host_shows_what_is_placed_on_it(site: Site) -> None:
    made = host(site)
    change(
        site,
        made.id,
        capacity='{"cpus":8,"memory_mib":16384,"accelerator":"kvm"}',
        seen_ms=site.clock.ms,
    )
    for _ in range(2):
        placed(site, made.id)
    shown = host_show(site.world, site.admin, "node1")
    assert (shown.instances, shown.vcpus_used, shown.memory_used_mib) == (2, 4, 1024)
    assert shown.capacity is not None
    assert shown.capacity.accelerator == "kvm"
    assert host_show(site.world, site.admin, made.id) == shown
    for ref in ("node2", "hst-0000000000000000"):
        with refused("not_found", ref):
            host_show(site.world, site.admin, ref)


def test_hosts_and_strays_come_in_pages(site: Site) -> None:
    names = [host(site, HostWish(name=f"n{i}", uri="test:///default")).name for i in range(3)]
    page = host_page(site.world, site.admin, rows_max=2)
    rest = host_page(site.world, site.admin, rows_max=2, cursor=page.next)
    assert [h.name for h in page.items + rest.items] == names
    assert rest.next is None
    for name in ("b", "a"):
        site.insert(strays, host_id=page.items[0].id, name=name, observed="running")
    found = stray_page(site.world, site.admin, "n0", rows_max=10)
    assert [stray.name for stray in found.items] == ["a", "b"]
    assert stray_page(site.world, site.admin, "n1", rows_max=10).items == ()
    with refused("not_found"):
        stray_page(site.world, site.admin, "n9", rows_max=10)


# -- wishing --------------------------------------------------------------------------------


def test_a_drained_host_can_be_enabled_again(site: Site) -> None:
    host(site)
    drained = host_drain(site.world, site.admin, "node1", version=1, origin=ORIGIN)
    assert drained.desired is HostDesired.DRAINING
    again = host_drain(site.world, site.admin, "node1", origin=ORIGIN)
    assert again.version == drained.version
    with refused("stale"):
        host_enable(site.world, site.admin, "node1", version=1, origin=ORIGIN)
    enabled = host_enable(site.world, site.admin, "node1", origin=ORIGIN)
    assert enabled.desired is HostDesired.ENABLED
    assert len(site.events("host.drained")) == len(site.events("host.enabled")) == 1


def test_a_change_of_wish_voids_placements_under_way_and_wakes_the_worker(site: Site) -> None:
    host(site)
    before = site.rows(hosts)[0]
    site.clock.ms += 1
    host_drain(site.world, site.admin, "node1", origin=ORIGIN)
    after = site.rows(hosts)[0]
    assert after.placements == before.placements + 1
    assert after.poked == before.poked + 1


def test_more_room_wakes_those_who_wait_for_it(site: Site) -> None:
    host(site)
    waiting = placed(site, None, waiting='{"code":"no_room_now"}')
    host_update(site.world, site.admin, "node1", HostChange(cpu_ratio=4.0), origin=ORIGIN)
    assert [row.subject for row in site.rows(work)] == [waiting]


def test_what_is_not_said_of_a_host_stays(site: Site) -> None:
    pool(site)
    made = host(site)
    after = host_update(
        site.world,
        site.admin,
        "node1",
        HostChange(memory_reserved_mib=1024, pools=()),
        version=made.version,
        origin=ORIGIN,
    )
    assert (after.cpu_ratio, after.memory_reserved_mib, after.pools) == (1.0, 1024, ())
    after = host_update(
        site.world, site.admin, "node1", HostChange(accelerator="tcg"), origin=ORIGIN
    )
    assert (after.accelerator_wanted, after.memory_reserved_mib) == ("tcg", 1024)
    with refused("stale"):
        host_update(
            site.world, site.admin, "node1", HostChange(cpu_ratio=2), version=1, origin=ORIGIN
        )
    assert site.events("host.changed")[-1].data == {"name": "node1", "accelerator": "tcg"}


def test_a_host_with_instances_is_not_removed(site: Site) -> None:
    made = host(site)
    placed(site, made.id)
    with refused("in_use", "1 instances", "node1") as refusal:
        host_remove(site.world, site.admin, "node1", origin=ORIGIN)
    assert refusal.problem.context == {"instances": 1}
    assert "drain" in refusal.problem.remedy
    assert "fence" in refusal.problem.remedy


def test_a_host_on_its_way_out_takes_no_other_wish(site: Site) -> None:
    host(site)
    with refused("stale"):
        host_remove(site.world, site.admin, "node1", version=7, origin=ORIGIN)
    assert host_remove(site.world, site.admin, "node1", origin=ORIGIN).desired is HostDesired.ABSENT
    for act in (host_enable, host_drain):
        with refused("conflict", "being removed"):
            act(site.world, site.admin, "node1", origin=ORIGIN)


# -- declaring dead -------------------------------------------------------------------------


def test_a_dead_hosts_instances_lose_their_place_and_its_guests_are_doomed(site: Site) -> None:
    made, other = host(site), host(site, HostWish(name="node2", uri="test:///default"))
    lost = [placed(site, made.id), placed(site, made.id, generation=5, desired="stopped")]
    kept = placed(site, other.id)
    unreachable(site, made.id)
    site.clock.ms += 1000
    shown, ids = host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)
    assert list(ids) == lost
    assert shown.desired is HostDesired.DRAINING
    for instance_id, generation in zip(lost, (3, 5), strict=True):
        row = row_of(site, instance_id)
        assert (row.observed, row.observed_generation) == ("absent", generation)
        assert row.release
        assert row.host_id == made.id  # the reconciler gives the placement back
        assert row.version == 2
    assert row_of(site, kept).observed == "running"
    stones = {(row.host_id, row.instance_id, row.generation) for row in site.rows(tombstones)}
    assert stones == {(made.id, lost[0], 3), (made.id, lost[1], 5)}
    assert {row.subject for row in site.rows(work)} == set(lost)
    event = site.events("host.fenced")[-1]
    assert (event.actor, event.data) == ("admin", {"name": "node1", "instances": 2})
    told = site.events("instance.fenced")
    assert {event.subject for event in told} == set(lost)
    assert {event.project_id for event in told} == {site.project_id}


def test_fencing_twice_changes_nothing_more(site: Site) -> None:
    made = host(site)
    placed(site, made.id)
    unreachable(site, made.id)
    for _ in range(2):
        host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)
    assert len(site.rows(tombstones)) == 1


def test_strays_of_ours_on_a_dead_host_hold_up_nobody(site: Site) -> None:
    made = host(site)
    elsewhere = placed(site, None)
    stray = {"host_id": made.id, "observed": "running"}
    site.insert(strays, name="ours", instance_id=elsewhere, generation=9, **stray)
    site.insert(strays, name="theirs", **stray)
    unreachable(site, made.id)
    host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)
    assert [row.name for row in site.rows(strays)] == ["theirs"]
    (stone,) = site.rows(tombstones)
    assert (stone.instance_id, stone.generation) == (elsewhere, 9)
    assert [row.subject for row in site.rows(work)] == [elsewhere]


def test_a_host_that_answers_is_not_declared_dead(site: Site) -> None:
    made = host(site)
    placed(site, made.id)
    change(site, made.id, seen_ms=site.clock.ms)
    with refused("conflict", "answers"):
        host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)
    host_drain(site.world, site.admin, "node1", origin=ORIGIN)
    site.clock.ms += FENCE_SILENCE_MS - 1
    with refused("conflict", "answers"):
        host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)
    assert site.rows(tombstones) == []
    site.clock.ms += 1  # nobody has looked at it for a long time, and it is drained
    host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)


def test_an_enabled_host_that_nobody_looks_at_is_drained_first(site: Site) -> None:
    host(site)
    site.clock.ms += 10 * FENCE_SILENCE_MS
    with refused("conflict"):
        host_fence(site.world, site.admin, "node1", confirm=True, origin=ORIGIN)


def test_declaring_dead_needs_to_be_confirmed(site: Site) -> None:
    made = host(site)
    unreachable(site, made.id)
    with refused("invalid_field", field="confirm"):
        host_fence(site.world, site.admin, "node1", confirm=False, origin=ORIGIN)
    with refused("stale"):
        host_fence(site.world, site.admin, "node1", confirm=True, version=9, origin=ORIGIN)
    with refused("not_found"):
        host_fence(site.world, site.admin, "node9", confirm=True, origin=ORIGIN)


# -- pools ----------------------------------------------------------------------------------


def test_a_pool_is_added_and_looked_at_now(site: Site) -> None:
    pool_id = pool(site)
    shown = pool_show(site.world, site.admin, "files")
    assert (shown.id, shown.driver, shown.room) == (pool_id, "files", None)
    assert pool_show(site.world, site.admin, pool_id) == shown
    assert pool_page(site.world, site.admin, rows_max=10).items == (shown,)
    assert site.rows(pools)[0].wake_ms == site.clock.ms
    for ref in ("more", "pol-0000000000000000"):
        with refused("not_found", ref):
            pool_show(site.world, site.admin, ref)


@in_memory
@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("name", {"name": "Files"}),
        ("driver", {"driver": "rbd"}),
        ("location", {"location": ""}),
        ("location", {"location": "pool"}),
        ("location", {"location": "/"}),
        ("location", {"location": "/var/../etc"}),
        ("location", {"location": "/srv//pool"}),
        ("location", {"location": "/srv/pool/"}),
        ("location", {"location": "/srv/\x00"}),
        ("location", {"location": "/" + "x" * 1024}),
    ],
)
def test_an_impossible_pool_is_refused_by_field(
    site: Site, field: str, wish: dict[str, str]
) -> None:
    with refused("invalid_field", field=field):
        pool_add(
            site.world,
            site.admin,
            **({"name": "files", "location": "/srv/pool"} | wish),
            origin=ORIGIN,
        )


def test_two_pools_share_neither_name_nor_place(site: Site) -> None:
    pool(site)
    with refused("name_taken", "files"):
        pool(site, "files", "/srv/other")
    with refused("conflict", "files"):
        pool(site, "other")


# -- rights ---------------------------------------------------------------------------------


def test_auditors_see_hosts_and_pools_and_change_nothing(site: Site) -> None:
    pool(site)
    host(site)
    aud = site.user("aud", auditor=True)
    assert host_show(site.world, aud, "node1").name == "node1"
    assert len(host_page(site.world, aud, rows_max=10).items) == 1
    assert stray_page(site.world, aud, "node1", rows_max=10).items == ()
    assert pool_show(site.world, aud, "files").name == "files"
    reader = msgspec.structs.replace(site.admin, scopes=frozenset((Scope.WRITE,)))
    for actor in (aud, reader, site.user("ana", Role.OWNER)):
        with refused("forbidden"):
            host_add(site.world, actor, WISH, origin=ORIGIN)
        with refused("forbidden"):
            host_update(site.world, actor, "node1", HostChange(), origin=ORIGIN)
        for act in (host_drain, host_enable, host_remove):
            with refused("forbidden"):
                act(site.world, actor, "node1", origin=ORIGIN)
        with refused("forbidden"):
            host_fence(site.world, actor, "node1", confirm=True, origin=ORIGIN)
        with refused("forbidden"):
            pool_add(site.world, actor, name="x", location="/x", origin=ORIGIN)


def test_users_do_not_see_hosts_whether_they_exist_or_not(site: Site) -> None:
    host(site)
    ana = site.user("ana", Role.OWNER)
    problems = []
    for ref in ("node1", "node2"):
        with refused("forbidden") as refusal:
            host_show(site.world, ana, ref)
        problems.append(refusal.problem)
    assert problems[0] == problems[1]
    with refused("forbidden"):
        pool_page(site.world, ana, rows_max=10)
