"""Does the store keep its promises on both engines: all or nothing, durable, one writer?"""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from stratus.model.problem import Refused
from stratus.store.engine import Store, store_open
from stratus.store.schema import site, work
from stratus.store.site import site_get, site_set
from stratus.store.sqlite import SqliteStore
from tests.fixtures_postgres import PostgresServer, server_make


class Oops(Exception):
    """What goes wrong on purpose."""


def put(key: str, value: object = "x") -> Callable[[Connection], None]:
    return lambda connection: site_set(connection, key, value)


def keys(connection: Connection) -> set[str]:
    return set(connection.execute(select(site.c.key)).scalars())


def fail_after_put(key: str) -> Callable[[Connection], None]:
    def function(connection: Connection) -> None:
        site_set(connection, key, "x")
        raise Oops(key)

    return function


def test_what_was_written_is_read_and_results_come_back(store: Store) -> None:
    def function(connection: Connection) -> int:
        site_set(connection, "name", "lab")
        return 7

    assert store.write(function) == 7
    assert store.read(lambda connection: site_get(connection, "name", str)) == "lab"


def test_an_exception_undoes_the_work_and_reaches_the_caller(store: Store) -> None:
    with pytest.raises(Oops, match="one"):
        store.write(fail_after_put("one"))
    assert store.read(keys) == set()
    store.write(put("two"))
    assert store.read(keys) == {"two"}


def test_a_database_error_reaches_the_caller_and_the_store_goes_on(store: Store) -> None:
    store.write(put("one"))
    with pytest.raises(IntegrityError):
        store.write(lambda connection: connection.execute(insert(site).values(key="one", value="")))
    store.write(put("two"))
    assert store.read(keys) == {"one", "two"}


def test_a_read_keeps_nothing(store: Store) -> None:
    with pytest.raises(DBAPIError):
        store.read(put("one"))
    assert store.read(keys) == set()


def test_a_read_sees_one_moment(store: Store) -> None:
    def function(connection: Connection) -> tuple[int, int]:
        count = select(func.count()).select_from(site)
        before = connection.execute(count).scalar_one()
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(store.write, put("one")).result()
        return before, connection.execute(count).scalar_one()

    assert store.read(function) == (0, 0)
    assert store.read(keys) == {"one"}


def test_a_savepoint_within_a_function_undoes_its_part_only(store: Store) -> None:
    def function(connection: Connection) -> None:
        site_set(connection, "one", 1)
        try:
            with connection.begin_nested():
                site_set(connection, "two", 2)
                connection.execute(insert(site).values(key="one", value=""))
        except IntegrityError:
            site_set(connection, "three", 3)

    store.write(function)
    assert store.read(keys) == {"one", "three"}


def test_a_failing_function_among_many_harms_no_other(store: Store) -> None:
    def go(number: int) -> bool:
        try:
            store.write(fail_after_put(f"bad-{number}") if number % 3 == 0 else put(f"ok-{number}"))
        except Oops:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(go, range(300)))
    assert done == [number % 3 != 0 for number in range(300)]
    assert store.read(keys) == {f"ok-{number}" for number in range(300) if number % 3 != 0}


def test_two_writers_with_the_same_version_do_not_both_win(store: Store) -> None:
    store.write(put("count", 0))
    barrier = threading.Barrier(8)

    def go(_: int) -> bool:
        seen = store.read(lambda connection: site_get(connection, "count", int))
        assert seen is not None
        barrier.wait()
        change = update(site).where(site.c.key == "count", site.c.value == str(seen))
        return store.write(lambda c: c.execute(change.values(value=str(seen + 1))).rowcount == 1)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(go, range(8))) == 1


def test_a_closed_store_refuses_and_closing_twice_is_fine(store_url: str) -> None:
    store = store_open(store_url)
    store.write(put("one"))
    store.close()
    store.close()
    if store.dialect == "sqlite":
        with pytest.raises(Refused, match="being closed"):
            store.write(put("two"))
        with pytest.raises(Refused, match="being closed"):
            store.read(keys)
    reopened = store_open(store_url)
    assert reopened.read(keys) == {"one"}
    reopened.close()


def test_closing_finishes_what_waits_and_refuses_the_rest(tmp_path: Path) -> None:
    store = store_open(f"sqlite:///{tmp_path}/s.db")
    kept: list[str] = []

    def go(number: int) -> None:
        for step in range(1000):
            try:
                store.write(put(f"{number}-{step}"))
            except Refused:
                return
            kept.append(f"{number}-{step}")

    threads = [threading.Thread(target=go, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(kept) < 50:
        time.sleep(0.001)
    store.close()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive(), "nobody waits for a writer that has gone"
    reopened = store_open(f"sqlite:///{tmp_path}/s.db")
    assert reopened.read(keys) == set(kept)
    reopened.close()


def test_a_reader_may_open_beside_the_writer_and_cannot_write(
    store_url: str, store_make: Callable[..., Store]
) -> None:
    writer = store_make(store_url)
    reader = store_make(store_url, exclusive=False)
    writer.write(put("one"))
    assert reader.read(keys) == {"one"}
    with pytest.raises(AssertionError, match="reading only"):
        reader.write(put("two"))


def test_an_unknown_address_is_refused_without_repeating_its_password() -> None:
    for url in ("mysql://root:secret@db/stratus", "nonsense secret"):
        with pytest.raises(Refused) as caught:
            store_open(url)
        assert caught.value.problem.code == "configuration"
        assert "secret" not in str(caught.value.problem)


# SQLite


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    store = store_open(f"sqlite:///{tmp_path}/new/dir/s.db")
    store.write(put("one"))
    assert stat.S_IMODE((tmp_path / "new/dir").stat().st_mode) == 0o700
    files = sorted(path.name for path in (tmp_path / "new/dir").iterdir())
    assert files == ["s.db", "s.db-shm", "s.db-wal", "s.db.lock"]
    for name in files:
        assert stat.S_IMODE((tmp_path / "new/dir" / name).stat().st_mode) == 0o600, name
    store.close()


HOLDER = """
import sys, time
from stratus.store.engine import store_open
store = store_open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_control_plane_on_one_file_is_refused_by_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(Refused) as caught:
            store_open(url)
        assert caught.value.problem.code == "store_busy"
        assert str(holder.pid) in caught.value.problem.detail
        holder.kill()
    # A holder that died holds nothing.
    store_open(url).close()


WRITER = """
import sys, threading
from stratus.store.engine import store_open
from stratus.store.site import site_set
store = store_open(sys.argv[1])
def go(number):
    for step in range(100000):
        key = f"{number}-{step}"
        store.write(lambda connection: site_set(connection, key, "x"))
        sys.stdout.write(key + "\\n")
        sys.stdout.flush()
for number in range(8):
    threading.Thread(target=go, args=(number,)).start()
"""


def killed_writer(url: str, *, lines: int) -> set[str]:
    """Let a process write, kill it in the middle, and return what it was told is durable."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    return {line.strip() for line in said if line.endswith("\n")}


def test_kill_9_in_the_middle_of_writing_loses_nothing_committed(store_url: str) -> None:
    promised = killed_writer(store_url, lines=400)
    assert len(promised) >= 400
    store = store_open(store_url)
    assert promised <= store.read(keys)
    store.write(put("after"))
    store.close()


def test_a_full_disk_fails_its_group_only_and_the_store_goes_on(tmp_path: Path) -> None:
    store = store_open(f"sqlite:///{tmp_path}/s.db")
    pages = store.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    store.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 8}").all())
    with pytest.raises(Refused) as caught:
        store.write(put("big", "x" * 200_000))
    assert caught.value.problem.code == "store_unreachable"
    assert "full" in caught.value.problem.detail
    store.write(put("small"))
    assert store.read(keys) == {"small"}
    store.close()


def test_a_failed_commit_reaches_every_caller_of_its_group(tmp_path: Path) -> None:
    store = store_open(f"sqlite:///{tmp_path}/s.db")
    # Deferred foreign keys are looked at by the commit.
    broken = "CREATE TABLE child (id INTEGER REFERENCES site(key) DEFERRABLE INITIALLY DEFERRED)"
    store.write(lambda connection: connection.exec_driver_sql(broken))
    joined = threading.Event()

    def poison(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO child VALUES (1)")
        joined.wait(10)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.write, poison)
        time.sleep(0.05)  # until it runs; the second then waits in the queue behind it
        second = pool.submit(store.write, put("innocent"))
        time.sleep(0.01)
        joined.set()
        assert first.exception() is not None
        told = second.exception()
    there = "innocent" in store.read(keys)
    assert there == (told is None), "a caller is told exactly what became of its work"
    store.write(put("after"))
    store.close()


def test_a_damaged_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(Refused) as caught:
        store_open(f"sqlite:///{tmp_path}/s.db")
    assert caught.value.problem.code == "store_damaged"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused) as caught:
        store_open(f"sqlite:///{tmp_path}/file/s.db")
    assert caught.value.problem.code == "store_unreachable"


def test_many_readers_share_few_connections(tmp_path: Path) -> None:
    store = store_open(f"sqlite:///{tmp_path}/s.db")
    assert isinstance(store, SqliteStore)
    store.write(put("one"))

    def go(_: int) -> set[str]:
        return store.read(keys)

    with ThreadPoolExecutor(40) as pool:
        assert all(found == {"one"} for found in pool.map(go, range(400)))
    open_files = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert open_files.count(store.path.resolve()) <= 9
    store.close()


# In memory


def test_a_store_in_memory_needs_no_thread_and_forgets() -> None:
    before = threading.active_count()
    store = store_open("sqlite://")
    store.write(put("one"))
    assert store.read(keys) == {"one"}
    with pytest.raises(Oops):
        store.write(fail_after_put("two"))
    store.read(put("three"))
    assert store.read(keys) == {"one"}
    assert threading.active_count() == before
    store.close()
    other = store_open("sqlite://")
    assert other.read(keys) == set()
    other.close()


def test_a_transaction_within_a_transaction_is_a_fault_of_ours() -> None:
    store = store_open("sqlite://")
    with pytest.raises(AssertionError, match="within"):
        store.write(lambda _: store.write(put("one")))
    store.write(put("two"))
    assert store.read(keys) == {"two"}
    store.close()


def test_rows_that_others_hold_are_not_waited_for_in_sqlite_sql() -> None:
    # FOR UPDATE SKIP LOCKED renders nothing on SQLite: one writer needs no row locks.
    store = store_open("sqlite://")
    query = select(work).with_for_update(skip_locked=True)
    assert store.read(lambda connection: connection.execute(query).all()) == []
    store.close()


# PostgreSQL


@pytest.mark.postgres
def test_a_function_that_goes_on_after_a_failed_statement_is_found_out(postgres_url: str) -> None:
    store = store_open(postgres_url)
    store.write(put("one"))

    def function(connection: Connection) -> None:
        try:
            connection.execute(insert(site).values(key="one", value=""))
        except IntegrityError:
            return

    with pytest.raises(AssertionError, match="had failed"):
        store.write(function)
    store.close()


@pytest.mark.postgres
def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    store = store_open(postgres_url)
    store.write(put("a", 0))
    store.write(put("b", 0))
    both = threading.Barrier(2, timeout=10)
    runs: list[str] = []

    def function(first: str, second: str) -> Callable[[Connection], None]:
        def run(connection: Connection) -> None:
            runs.append(first)
            for key in (first, second):
                value = connection.execute(
                    select(site.c.value).where(site.c.key == key).with_for_update()
                ).scalar_one()
                if key == first and len(runs) <= 2:
                    both.wait()
                site_set(connection, key, int(value) + 1)

        return run

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(store.write, [function("a", "b"), function("b", "a")]))
    assert len(runs) == 3
    assert store.read(lambda connection: site_get(connection, "a", int)) == 2
    store.close()


@pytest.mark.postgres
def test_a_lost_server_is_said_and_forgotten_when_it_is_back() -> None:
    server = server_make()
    try:
        server.start(fsync="on")
        store = store_open(server.url(server.database_create()))
        store.write(put("one"))
        server.stop("immediate")
        started = time.monotonic()
        with pytest.raises(Refused) as caught:
            store.write(put("two"))
        assert caught.value.problem.code == "store_unreachable"
        assert "Start the PostgreSQL server" in caught.value.problem.remedy
        with pytest.raises(Refused):
            store.read(keys)
        assert time.monotonic() - started < 20
        server.start(fsync="on")
        assert store.read(keys) == {"one"}
        store.write(put("three"))
        # Restarted between two calls: the stale connections are replaced silently.
        server.stop("fast")
        server.start(fsync="on")
        store.write(put("four"))
        assert store.read(keys) == {"one", "three", "four"}
        store.close()
    finally:
        server.close()


@pytest.mark.postgres
def test_a_connection_killed_within_a_function_costs_one_more_run(postgres_url: str) -> None:
    store = store_open(postgres_url)
    victims: list[int] = []

    def function(connection: Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        site_set(connection, "one", len(victims))
        if not victims:
            victims.append(pid)
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
        site_set(connection, "two", len(victims))

    store.write(function)
    assert victims
    assert store.read(keys) == {"one", "two"}
    store.close()


@pytest.mark.postgres
def test_a_server_that_goes_during_the_commit_leaves_the_caller_in_no_false_belief() -> None:
    server = server_make()
    try:
        server.start()
        store = store_open(server.url(server.database_create()))

        def function(connection: Connection) -> None:
            site_set(connection, "one", 1)
            server.stop("immediate")

        with pytest.raises(Refused) as caught:
            store.write(function)
        assert "during the commit" in caught.value.problem.detail
        store.close()
    finally:
        server.close()


@pytest.mark.postgres
def test_a_wrong_database_name_is_refused_with_a_remedy(postgres_server: PostgresServer) -> None:
    with pytest.raises(Refused) as caught:
        store_open(postgres_server.url("no_such_database"))
    assert caught.value.problem.code == "store_unreachable"
