"""Does a backup hold everything, and does a restore put all of it back, or nothing?"""

import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from stratus.model.problem import Refused
from stratus.store.backup import store_backup, store_restore
from stratus.store.engine import Store, store_open
from stratus.store.events import event_append, event_cursor_last, event_page
from stratus.store.schema import site
from stratus.store.site import site_epoch, site_get, site_set
from tests.fixtures_postgres import PostgresServer
from tests.store.worlds import NOW_MS


def put(url: str, key: str, value: str = "x") -> None:
    store = store_open(url)
    store.write(lambda c: site_set(c, key, value))
    store.close()


def values(url: str) -> dict[str, str]:
    store = store_open(url)
    rows = store.read(lambda c: c.execute(select(site.c.key, site.c.value)).all())
    store.close()
    return {row.key: row.value for row in rows}


def test_what_was_saved_comes_back_in_a_new_epoch(store_url: str, tmp_path: Path) -> None:
    saved = tmp_path / "backup"
    put(store_url, "one")
    store_backup(store_url, saved)
    put(store_url, "two")
    store_restore(store_url, saved, now_ms=NOW_MS)
    found = values(store_url)
    assert (found["one"], found["epoch"]) == ('"x"', "1")
    assert "two" not in found
    store_restore(store_url, saved, now_ms=NOW_MS)
    assert values(store_url)["epoch"] == "1", "the backup was made in epoch 0"


def test_a_backup_is_for_its_owner_only_and_leaves_nothing_beside(
    store_url: str, tmp_path: Path
) -> None:
    put(store_url, "one")
    (tmp_path / "out").mkdir()
    saved = tmp_path / "out" / "backup"
    saved.write_text("an older backup")
    store_backup(store_url, saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["backup"]


def test_a_backup_of_a_store_in_use_is_of_one_moment(store_url: str, tmp_path: Path) -> None:
    store = store_open(store_url)
    stop, started = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1

            def both(c: object, number: int = number) -> None:
                site_set(c, "left", number)  # type: ignore[arg-type]  # a Connection
                site_set(c, "right", number)  # type: ignore[arg-type]  # a Connection

            store.write(both)
            started.set()

    thread = threading.Thread(target=write)
    thread.start()
    started.wait(10)
    store_backup(store_url, tmp_path / "backup")
    stop.set()
    thread.join()
    store.close()
    store_restore(store_url, tmp_path / "backup", now_ms=NOW_MS)
    found = values(store_url)
    assert found["left"] == found["right"]


def test_a_store_in_use_is_not_restored(
    store_url: str, tmp_path: Path, store_make: Callable[..., Store]
) -> None:
    put(store_url, "one")
    store_backup(store_url, tmp_path / "backup")
    store = store_make(store_url)
    store.write(lambda c: site_set(c, "two", "x"))
    with pytest.raises(Refused) as caught:
        store_restore(store_url, tmp_path / "backup", now_ms=NOW_MS)
    assert caught.value.problem.code == "store_busy"
    assert store.read(lambda c: site_get(c, "two", str)) == "x"


def test_a_broken_backup_is_refused_and_the_store_left_alone(
    store_url: str, tmp_path: Path
) -> None:
    put(store_url, "one")
    saved = tmp_path / "backup"
    store_backup(store_url, saved)
    whole = saved.read_bytes()
    cases = {
        "cut": whole[: len(whole) * 2 // 3],
        "empty": b"",
        "other": b"something else" * 500,
    }
    for name, content in cases.items():
        broken = tmp_path / name
        broken.write_bytes(content)
        with pytest.raises(Refused) as caught:
            store_restore(store_url, broken, now_ms=NOW_MS)
        assert caught.value.problem.code in ("store_damaged", "conflict"), name
        assert caught.value.problem.remedy
    with pytest.raises(Refused, match="no backup"):
        store_restore(store_url, tmp_path / "missing", now_ms=NOW_MS)
    assert values(store_url) == {"one": '"x"'}


def test_a_backup_of_a_newer_schema_is_refused(store_url: str, tmp_path: Path) -> None:
    store = store_open(store_url)
    store.write(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_x'"))
    store.close()
    store_backup_unchecked = tmp_path / "backup"
    with pytest.raises(Refused, match="9999_x"):
        store_backup(store_url, store_backup_unchecked)
    assert list(tmp_path.glob("backup*")) == []


def test_what_a_restore_brings_comes_after_all_that_was_shown(
    store_url: str, tmp_path: Path
) -> None:
    """A follower of the lost future sees every event of the new one."""
    store = store_open(store_url)
    store.write(lambda c: event_append(c, now_ms=NOW_MS, kind="a.old", subject="s"))
    store.close()
    store_backup(store_url, tmp_path / "backup")
    store = store_open(store_url)
    for _ in range(5):
        store.write(lambda c: event_append(c, now_ms=NOW_MS, kind="a.lost", subject="s"))
    shown = store.read(event_cursor_last)
    store.close()
    for _ in range(2):
        store_restore(store_url, tmp_path / "backup", now_ms=NOW_MS + 1)
    store = store_open(store_url)
    store.write(lambda c: event_append(c, now_ms=NOW_MS, kind="a.new", subject="s"))
    page = store.read(lambda c: event_page(c, after=shown, rows_max=9))
    assert [event.kind for event in page.items] == ["site.restored", "a.new"]
    whole = store.read(lambda c: event_page(c, after="0-0", rows_max=9))
    assert [event.kind for event in whole.items] == ["a.old", "site.restored", "a.new"]
    assert store.read(site_epoch) == 1
    store.close()


def test_a_backup_into_a_place_that_is_not_there_is_refused(store_url: str, tmp_path: Path) -> None:
    put(store_url, "one")
    with pytest.raises(Refused) as caught:
        store_backup(store_url, tmp_path / "missing" / "backup")
    assert caught.value.problem.code == "configuration"


# SQLite


def test_the_store_before_a_restore_is_kept_beside_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    put(url, "one")
    store_backup(url, tmp_path / "backup")
    put(url, "two")
    store_restore(url, tmp_path / "backup", now_ms=NOW_MS)
    assert "two" in values(f"sqlite:///{tmp_path}/s.db.before-restore")
    assert "two" not in values(url)


def test_a_damaged_or_missing_store_is_restored_all_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    put(url, "one")
    store_backup(url, tmp_path / "backup")
    (tmp_path / "s.db").write_bytes(b"rubbish" * 1000)
    (tmp_path / "s.db-wal").write_bytes(b"more rubbish" * 1000)
    store_restore(url, tmp_path / "backup", now_ms=NOW_MS)
    assert values(url)["one"] == '"x"'
    elsewhere = f"sqlite:///{tmp_path}/new/place/s.db"
    store_restore(elsewhere, tmp_path / "backup", now_ms=NOW_MS)
    assert values(elsewhere)["one"] == '"x"'
    assert stat.S_IMODE((tmp_path / "new/place/s.db").stat().st_mode) == 0o600


def test_a_log_left_by_a_crash_is_not_replayed_into_a_restored_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    put(url, "one")
    store_backup(url, tmp_path / "backup")
    script = (
        "import os, sys; from stratus.store.engine import store_open;"
        "from stratus.store.site import site_set;"
        "store_open(sys.argv[1]).write(lambda c: site_set(c, 'crashed', 'x')); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, url], check=False).returncode == 9
    assert (tmp_path / "s.db-wal").stat().st_size > 0
    store_restore(url, tmp_path / "backup", now_ms=NOW_MS)
    assert "crashed" not in values(url)
    assert "crashed" in values(f"sqlite:///{tmp_path}/s.db.before-restore")


def test_a_store_in_memory_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        store_backup("sqlite://", tmp_path / "backup")


# PostgreSQL


@pytest.mark.postgres
def test_a_password_is_not_among_the_arguments_of_the_tools(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = tmp_path / "pg_dump"
    spy.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$(dirname "$0")/said"\nexit 1\n')
    spy.chmod(0o755)
    monkeypatch.setattr("stratus.store.backup._tool_find", lambda name: str(tmp_path / name))
    url = postgres_url.replace("postgres@", "postgres:s3cret@")
    with pytest.raises(Refused):
        store_backup(url, tmp_path / "backup")
    assert "s3cret" not in (tmp_path / "said").read_text()


@pytest.mark.postgres
def test_a_backup_is_restored_on_another_server_database(
    postgres_url: str, postgres_empty_url: str, tmp_path: Path
) -> None:
    put(postgres_url, "one")
    store_backup(postgres_url, tmp_path / "backup")
    store_restore(postgres_empty_url, tmp_path / "backup", now_ms=NOW_MS)
    assert values(postgres_empty_url)["one"] == '"x"'


@pytest.mark.postgres
def test_a_restore_that_fails_in_the_middle_leaves_the_store_as_it_was(
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,
) -> None:
    put(postgres_url, "one")
    store_backup(postgres_url, tmp_path / "backup")
    put(postgres_url, "two")
    monkeypatch.setattr("stratus.store.backup._NOBODY_ELSE", "SELECT 1/0;")
    with pytest.raises(Refused, match="division by zero"):
        store_restore(postgres_url, tmp_path / "backup", now_ms=NOW_MS)
    assert values(postgres_url) == {"one": '"x"', "two": '"x"'}
    assert postgres_server.pid()
