"""Do leases, wake-ups, addresses and places each have one holder, whoever else is at it?"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Table, select, update
from sqlalchemy.exc import IntegrityError

from stratus.model.ids import HostId, InstanceId, NetworkId, PoolId, VolumeId
from stratus.model.volume import Presence
from stratus.store import schema
from stratus.store.engine import Store
from stratus.store.leases import (
    ipv4_free,
    ipv4_taken,
    leases_create,
    leases_release,
    macs_taken,
    network_cursor_set,
    network_lock,
)
from stratus.store.leasing import (
    leases_end,
    leases_still_held,
    leases_take,
    rows_due,
    rows_next_ms,
    rows_sleep,
    rows_wake,
)
from stratus.store.placing import hosts_facts, placements_book
from stratus.store.volumes import (
    volumes_next_ms,
    volumes_of,
    volumes_place,
    volumes_set,
    volumes_undone,
    volumes_unwant,
)
from stratus.store.work import (
    INSTANCE,
    work_claim,
    work_depth,
    work_finish,
    work_held,
    work_next_ms,
    work_wake,
)
from tests.store.worlds import (
    NOW_MS,
    id_new,
    instance_new,
    lease_new,
    network_new,
    project_new,
    row_insert,
    user_new,
    volume_new,
)

LEASE_MS = 30_000
TOKEN = 77
KINDS = pytest.mark.parametrize("table", [schema.hosts, schema.pools], ids=["hosts", "pools"])


def made(store: Store, table: Table, count: int = 1) -> list[str]:
    """Insert that many hosts or pools; return their ids in order."""

    def insert(connection: Any) -> list[str]:  # noqa: ANN401  # SQL's
        kind = "host" if table is schema.hosts else "pool"
        ids = [id_new(kind) for _ in range(count)]
        for each in ids:
            more = {"cpu_ratio": 1.0, "memory_ratio": 1.0} if kind == "host" else {}
            row_insert(connection, table, id=each, name=each, desired="enabled", **more)
        return ids

    return store.write(insert)


def take(
    store: Store, table: Table, owner: str, *, at: int = 0, rows_max: int = 10
) -> dict[str, int]:
    """Lease what there is, that many milliseconds from now; return tokens by id."""
    rows = store.write(
        lambda c: leases_take(
            c, table, owner, now_ms=NOW_MS + at, lease_ms=LEASE_MS, rows_max=rows_max
        )
    )
    return {row.id: row.lease_token for row in rows}


def row_of(store: Store, table: Table, row_id: str) -> Any:  # noqa: ANN401  # a row
    return store.read(lambda c: c.execute(select(table).where(table.c.id == row_id)).one())


def at_once(*tasks: Callable[[], object]) -> None:
    """Run them in threads and wait for all; what one raises fails the test."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# -- leases on hosts and pools --------------------------------------------------------------


@KINDS
def test_a_lease_has_one_holder_until_it_ends(store: Store, table: Table) -> None:
    (row_id,) = made(store, table)
    assert take(store, table, "a") == {row_id: 1}
    assert take(store, table, "b", at=LEASE_MS - 1) == {}
    assert take(store, table, "b", at=LEASE_MS) == {row_id: 2}
    assert take(store, table, "a", at=LEASE_MS + 1) == {}


@KINDS
def test_a_lease_that_is_renewed_keeps_its_token_and_one_that_lapsed_gets_another(
    store: Store, table: Table
) -> None:
    (row_id,) = made(store, table)
    take(store, table, "a")
    assert take(store, table, "a", at=LEASE_MS // 2) == {row_id: 1}
    assert row_of(store, table, row_id).lease_until_ms == NOW_MS + LEASE_MS // 2 + LEASE_MS
    assert take(store, table, "a", at=2 * LEASE_MS) == {row_id: 2}


@KINDS
def test_an_owner_takes_no_more_than_its_limit_and_nothing_that_is_gone(
    store: Store, table: Table
) -> None:
    ids = made(store, table, 4)
    store.write(lambda c: c.execute(update(table).where(table.c.id == ids[0]).values(gone_ms=1)))
    assert sorted(take(store, table, "a", rows_max=2)) == ids[1:3]
    assert sorted(take(store, table, "a", at=1, rows_max=2)) == ids[1:3]
    assert sorted(take(store, table, "b", at=2)) == ids[3:]


@KINDS
def test_what_is_given_back_is_free_at_once_and_its_token_void(store: Store, table: Table) -> None:
    (row_id,) = made(store, table)
    tokens = take(store, table, "a")
    assert store.write(lambda c: leases_still_held(c, table, tokens)) == {row_id}
    store.write(lambda c: leases_end(c, table, "a"))
    assert store.write(lambda c: leases_still_held(c, table, tokens)) == set()
    assert take(store, table, "b", at=1) == {row_id: 3}


@KINDS
def test_of_many_that_take_at_once_each_row_has_one_holder(store: Store, table: Table) -> None:
    ids = made(store, table, 12)
    taken: dict[str, dict[str, int]] = {}

    def taker(owner: str) -> Callable[[], None]:
        def run() -> None:
            taken[owner] = take(store, table, owner, rows_max=6)

        return run

    at_once(*(taker(f"w{number}") for number in range(4)))
    for number in range(2):  # rows that were locked by another at that moment are still free
        for owner, rows in take_again(store, table, f"w{number}").items():
            taken[owner] = rows
    held = [row_id for rows in taken.values() for row_id in rows]
    assert sorted(held) == ids


def take_again(store: Store, table: Table, owner: str) -> dict[str, dict[str, int]]:
    return {owner: take(store, table, owner, at=1, rows_max=12)}


@KINDS
def test_a_wake_up_comes_never_later_than_planned(store: Store, table: Table) -> None:
    (row_id,) = made(store, table)
    take(store, table, "a")
    ((due, poked),) = store.read(lambda c: rows_due(c, table, "a", now_ms=NOW_MS, rows_max=9))
    assert due == row_id
    store.write(lambda c: rows_sleep(c, table, [(row_id, poked, NOW_MS + 9000)]))
    for wake_ms in (5000, 7000):
        later_ms = NOW_MS + wake_ms
        store.write(lambda c, ms=later_ms: rows_wake(c, table, [row_id], wake_ms=ms))
    assert store.read(lambda c: rows_next_ms(c, table, "a")) == NOW_MS + 5000
    assert store.read(lambda c: rows_next_ms(c, table, "a", after_ms=NOW_MS + 5000)) is None
    assert store.read(lambda c: rows_next_ms(c, table, "b")) is None


@KINDS
def test_who_was_poked_since_the_look_began_does_not_sleep(store: Store, table: Table) -> None:
    (row_id,) = made(store, table)
    take(store, table, "a")
    ((_, poked),) = store.read(lambda c: rows_due(c, table, "a", now_ms=NOW_MS, rows_max=9))
    store.write(lambda c: rows_wake(c, table, [row_id], wake_ms=NOW_MS + 1))
    store.write(lambda c: rows_sleep(c, table, [(row_id, poked, NOW_MS + 9000)]))
    assert [due for due, _ in store.read(lambda c: rows_due(
        c, table, "a", now_ms=NOW_MS + 1, rows_max=9
    ))] == [row_id]  # fmt: skip


# -- work -----------------------------------------------------------------------------------


def wake(store: Store, *subjects: str, at: int = 0) -> None:
    store.write(lambda c: work_wake(c, INSTANCE, subjects, wake_ms=NOW_MS + at))


def claim(store: Store, token: int = TOKEN, *, at: int = 0, rows_max: int = 100) -> list[Any]:
    return store.write(
        lambda c: work_claim(
            c, INSTANCE, token=token, now_ms=NOW_MS + at, lease_ms=LEASE_MS, rows_max=rows_max
        )
    )


def finish(store: Store, rows: list[Any], token: int = TOKEN, **wakes_ms: int) -> None:
    store.write(lambda c: work_finish(c, INSTANCE, rows, token=token, wakes_ms=wakes_ms))


def test_work_is_claimed_when_due_and_done_when_finished(store: Store) -> None:
    wake(store, "b", at=5)
    wake(store, "a")
    assert [row.subject for row in claim(store)] == ["a"]
    assert claim(store, 78) == []
    rows = claim(store, at=5)
    assert [row.subject for row in rows] == ["b"]
    finish(store, rows)
    assert store.read(lambda c: work_depth(c, INSTANCE)) == 1


def test_work_sleeps_until_its_time(store: Store) -> None:
    wake(store, "a")
    finish(store, claim(store), a=NOW_MS + 500)
    assert store.read(lambda c: work_next_ms(c, INSTANCE)) == NOW_MS + 500
    assert claim(store, at=499) == []
    assert len(claim(store, at=500)) == 1


def test_a_wake_up_while_somebody_looks_is_never_lost(store: Store) -> None:
    for wakes_ms in ({}, {"a": NOW_MS + 9000}):
        wake(store, "a")
        rows = claim(store)
        wake(store, "a", at=1)
        finish(store, rows, **wakes_ms)
        again = claim(store, 78, at=1)
        assert [row.subject for row in again] == ["a"]
        finish(store, again, 78)
        assert store.read(lambda c: work_depth(c, INSTANCE)) == 0


def test_an_earlier_wake_up_stands_and_a_later_one_does_not_delay(store: Store) -> None:
    wake(store, "a", at=500)
    wake(store, "a", at=100)
    wake(store, "a", at=900)
    assert store.read(lambda c: work_next_ms(c, INSTANCE)) == NOW_MS + 100


def test_who_took_longer_than_the_lease_finishes_nothing(store: Store) -> None:
    wake(store, "a")
    slow = claim(store, 1)
    assert store.read(lambda c: work_next_ms(c, INSTANCE)) == NOW_MS + LEASE_MS
    fast = claim(store, 2, at=LEASE_MS)
    assert [row.subject for row in fast] == ["a"]
    assert store.write(lambda c: work_held(c, INSTANCE, ["a"], token=1)) == set()
    finish(store, slow, 1)
    assert store.write(lambda c: work_held(c, INSTANCE, ["a"], token=2)) == {"a"}
    finish(store, fast, 2)
    assert store.read(lambda c: work_next_ms(c, INSTANCE)) is None


def test_many_claim_at_once_and_each_row_is_claimed_once(store: Store) -> None:
    wake(store, *(f"s{number:02}" for number in range(40)))
    claimed: list[str] = []

    def claimer(token: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(10):
                claimed.extend(row.subject for row in claim(store, token, rows_max=4))

        return run

    at_once(*(claimer(token) for token in range(1, 5)))
    assert sorted(claimed) == [f"s{number:02}" for number in range(40)]


def test_wakers_in_any_order_do_not_lock_one_another_out(store: Store) -> None:
    subjects = [f"s{number:02}" for number in range(30)]
    at_once(
        *(
            lambda order=order: [wake(store, *order) for _ in range(5)]
            for order in (subjects, subjects[::-1], subjects[::2])
        )
    )
    assert store.read(lambda c: work_depth(c, INSTANCE)) == 30


# -- addresses ------------------------------------------------------------------------------


def test_an_address_and_a_card_have_one_holder_at_a_time(store: Store) -> None:
    project_id, network_id = store.write(lambda c: (project_new(c), network_new(c)))
    first = id_new("instance")
    store.write(
        lambda c: lease_new(
            c, network_id, project_id, ipv4="10.0.0.2", mac="52:54:00:00:00:01", instance_id=first
        )
    )
    for clash in ({"ipv4": "10.0.0.2"}, {"mac": "52:54:00:00:00:01"}):
        with pytest.raises(IntegrityError):
            store.write(lambda c, more=clash: lease_new(c, network_id, project_id, **more))
    store.write(lambda c: leases_release(c, [InstanceId(first)], now_ms=NOW_MS))
    store.write(
        lambda c: lease_new(c, network_id, project_id, ipv4="10.0.0.2", mac="52:54:00:00:00:01")
    )
    rows = store.read(lambda c: c.execute(select(schema.leases.c.released_ms)).scalars().all())
    assert sorted(rows) == [0, NOW_MS]  # closed, never overwritten


def test_who_has_which_address_is_told_by_live_leases_alone(store: Store) -> None:
    project_id, network_id = store.write(lambda c: (project_new(c), network_new(c)))
    network = NetworkId(network_id)

    def lease(ipv4: str, mac: str, released_ms: int) -> None:
        store.write(
            lambda c: lease_new(
                c, network_id, project_id, ipv4=ipv4, mac=mac, released_ms=released_ms
            )
        )

    lease("10.0.0.2", "52:54:00:00:00:01", 0)
    lease("10.0.0.3", "52:54:00:00:00:02", NOW_MS)
    lease("", "52:54:00:00:00:03", 0)
    assert store.read(lambda c: ipv4_taken(c, network)) == {(10 << 24) + 2}
    asked = ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert store.read(lambda c: ipv4_free(c, network, asked)) == {"10.0.0.3", "10.0.0.4"}
    macs = [f"52:54:00:00:00:0{number}" for number in (1, 2, 3)]
    assert store.read(lambda c: macs_taken(c, macs)) == {macs[0], macs[2]}


def test_the_cursor_of_a_network_is_held_while_addresses_are_chosen(store: Store) -> None:
    network = NetworkId(store.write(network_new))

    def draw() -> None:
        def one(connection: Any) -> None:  # noqa: ANN401  # SQL's
            network_cursor_set(connection, network, network_lock(connection, network) + 1)

        for _ in range(10):
            store.write(one)

    at_once(draw, draw, draw)
    assert store.write(lambda c: network_lock(c, network)) == 30


def test_leasing_and_releasing_nothing_is_no_trouble(store: Store) -> None:
    store.write(lambda c: leases_create(c, []))
    store.write(lambda c: leases_release(c, [], now_ms=NOW_MS))
    assert store.write(lambda c: leases_still_held(c, schema.hosts, {})) == set()
    store.write(lambda c: rows_wake(c, schema.hosts, [], wake_ms=NOW_MS))


# -- volumes --------------------------------------------------------------------------------

POOL = PoolId("pol-1")


def instance_with_disks(store: Store, **given: object) -> InstanceId:
    """An instance with a root disk and a swap disk that no pool was asked for."""

    def make(connection: Any) -> InstanceId:  # noqa: ANN401  # SQL's
        project_id = project_new(connection, f"p{id_new('project')[-6:]}")
        user_id = user_new(connection, id_new("user"))
        instance_id = instance_new(connection, project_id, user_id, **given)
        for position, kind in enumerate(("root", "swap")):
            volume_new(
                connection,
                project_id,
                kind=kind,
                instance_id=instance_id,
                position=position,
                presence="unknown",
                pool_id=None,
            )
        return InstanceId(instance_id)

    return store.write(make)


def undone(store: Store, at: int = 0) -> list[VolumeId]:
    return [
        facts.id
        for facts in store.read(lambda c: volumes_undone(c, POOL, now_ms=NOW_MS + at, rows_max=100))
    ]


def test_disks_get_a_pool_once_and_a_new_grant_with_each_placement(store: Store) -> None:
    instance_id = instance_with_disks(store)
    store.write(lambda c: volumes_place(c, [(instance_id, POOL)]))
    store.write(lambda c: volumes_place(c, [(instance_id, PoolId("pol-2"))]))
    disks = store.read(lambda c: volumes_of(c, instance_id))
    assert [(disk.kind, disk.pool_id, disk.epoch) for disk in disks] == [
        ("root", POOL, 2),
        ("swap", POOL, 2),
    ]


def test_what_is_ready_is_not_undone_and_what_failed_waits(store: Store) -> None:
    instance_id = instance_with_disks(store)
    assert undone(store) == []
    store.write(lambda c: volumes_place(c, [(instance_id, POOL)]))
    root, swap = store.read(lambda c: volumes_of(c, instance_id))
    assert sorted(undone(store)) == sorted([root.id, swap.id])
    store.write(
        lambda c: volumes_set(
            c,
            [
                (root.id, root.version, {"presence": "ready"}),
                (swap.id, swap.version, {"retry_ms": NOW_MS + 50}),
            ],
        )
    )
    assert undone(store) == []
    assert store.read(lambda c: volumes_next_ms(c, POOL, now_ms=NOW_MS)) == NOW_MS + 50
    assert undone(store, at=50) == [swap.id]


def test_what_became_of_a_disk_counts_only_if_nobody_changed_its_wish(store: Store) -> None:
    instance_id = instance_with_disks(store)
    store.write(lambda c: volumes_place(c, [(instance_id, POOL)]))
    root, _ = store.read(lambda c: volumes_of(c, instance_id))
    store.write(lambda c: volumes_unwant(c, [instance_id], now_ms=NOW_MS))
    store.write(lambda c: volumes_set(c, [(root.id, root.version, {"presence": "ready"})]))
    after, _ = store.read(lambda c: volumes_of(c, instance_id))
    assert (after.wanted, after.presence) == (False, Presence.UNKNOWN)


def test_disks_that_no_pool_was_asked_for_are_gone_at_once(store: Store) -> None:
    instance_id = instance_with_disks(store)
    assert store.write(lambda c: volumes_unwant(c, [instance_id], now_ms=NOW_MS)) == []
    assert store.read(lambda c: volumes_of(c, instance_id)) == []


def test_unwanted_disks_are_removed_only_once_their_instance_has_no_host(store: Store) -> None:
    instance_id = instance_with_disks(store, host_id="hst-1")
    store.write(lambda c: volumes_place(c, [(instance_id, POOL)]))
    assert store.write(lambda c: volumes_unwant(c, [instance_id], now_ms=NOW_MS)) == [POOL]
    assert undone(store) == []
    store.write(lambda c: c.execute(update(schema.instances).values(host_id=None)))
    assert len(undone(store)) == 2


# -- placing --------------------------------------------------------------------------------


def test_a_place_is_booked_only_on_what_was_seen(store: Store) -> None:
    one, other = (HostId(host_id) for host_id in made(store, schema.hosts, 2))
    _, seen = store.read(hosts_facts)
    assert store.write(lambda c: placements_book(c, [one, one], seen=seen)) == {one}
    assert store.write(lambda c: placements_book(c, [one, other], seen=seen)) == {other}
    assert store.write(lambda c: placements_book(c, [], seen=seen)) == set()
    _, now = store.read(hosts_facts)
    assert now == {one: 1, other: 1}


def test_of_many_that_book_at_once_one_gets_the_place(store: Store) -> None:
    (host_id,) = (HostId(each) for each in made(store, schema.hosts))
    _, seen = store.read(hosts_facts)
    booked: list[set[HostId]] = []

    def book() -> None:
        booked.append(store.write(lambda c: placements_book(c, [host_id], seen=seen)))

    at_once(book, book, book, book)
    assert sorted(map(len, booked)) == [0, 0, 0, 1]


def test_the_placer_sees_what_is_used_and_what_is_reached(store: Store) -> None:
    (host_id,) = made(store, schema.hosts)
    instance_with_disks(store, host_id=host_id, vcpus=2, memory_mib=700)
    instance_with_disks(store, host_id=host_id, vcpus=1, memory_mib=300, desired="absent")
    instance_with_disks(store)
    store.write(lambda c: row_insert(c, schema.host_pools, host_id=host_id, pool_id=made_pool(c)))
    (facts,), _ = store.read(hosts_facts)
    assert (facts.instances, facts.vcpus_used, facts.memory_used_mib) == (2, 3, 1000)
    assert len(facts.pools) == 1


def made_pool(connection: Any) -> str:  # noqa: ANN401  # SQL's
    pool_id = id_new("pool")
    row_insert(connection, schema.pools, id=pool_id, name=pool_id, desired="enabled")
    return pool_id
