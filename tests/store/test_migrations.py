"""Do the migrations make exactly the schema of the code, on both engines?

After a change of the schema `UPDATE_GOLDEN=1 pytest tests/store/test_migrations.py` writes the
first migration and the golden files anew; that ends with the first release.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from stratus.model.problem import Refused
from stratus.store.engine import Store, store_open
from stratus.store.migrate import MIGRATIONS, revision_of, revisions_known, store_migrate
from stratus.store.schema import METADATA
from tests.fixtures_postgres import PostgresServer, server_programs
from tests.store.schema_golden import FIRST, GOLDEN, UPDATE, first_migration_text, golden_check


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without any table."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_empty_url")
        return url
    return f"sqlite:///{tmp_path}/s.db"


def test_the_first_migration_is_rendered_from_the_schema() -> None:
    golden_check(FIRST, first_migration_text())


def test_migrations_and_schema_do_not_differ(
    empty_url: str, store_make: Callable[..., Store]
) -> None:
    store = store_make(empty_url)

    def differences(connection: Connection) -> list[object]:
        # Alembic takes every empty text default of SQLite for a difference.
        defaults = connection.dialect.name == "postgresql"
        context = MigrationContext.configure(connection, opts={"compare_server_default": defaults})
        return list(compare_metadata(context, METADATA))

    assert store.read(differences) == []


def test_the_simulator_has_the_same_schema_as_a_file(tmp_path: Path) -> None:
    def described(connection: Connection) -> dict[str, object]:
        return {
            table.name: (
                connection.exec_driver_sql(f"PRAGMA table_xinfo({table.name})").all(),
                sorted(
                    tuple(row)[1:]
                    for row in connection.exec_driver_sql(f"PRAGMA index_list({table.name})")
                ),
                sorted(
                    tuple(row)[2:]
                    for row in connection.exec_driver_sql(f"PRAGMA foreign_key_list({table.name})")
                ),
            )
            for table in METADATA.sorted_tables
        }

    file, memory = store_open(f"sqlite:///{tmp_path}/s.db"), store_open("sqlite://")
    assert file.read(described) == memory.read(described)
    file.close()
    memory.close()


def test_the_sqlite_schema_is_golden(tmp_path: Path) -> None:
    store = store_open(f"sqlite:///{tmp_path}/s.db")
    query = text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY tbl_name, name")
    found = store.read(lambda connection: connection.execute(query).scalars().all())
    store.close()
    golden_check(GOLDEN / "schema.sqlite.sql", ";\n\n".join(found) + ";\n")


@pytest.mark.postgres
def test_the_postgresql_schema_is_golden(
    postgres_template: str, postgres_server: PostgresServer
) -> None:
    dumped = subprocess.run(
        [
            *(str(server_programs() / "pg_dump"), "--schema-only", "--no-owner"),
            *("--host", str(postgres_server.directory), "--username", "postgres"),
            postgres_template,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    noise = ("--", "SET ", "SELECT pg_catalog", "\\")
    lines = [line for line in dumped.splitlines() if line and not line.startswith(noise)]
    golden_check(GOLDEN / "schema.postgresql.sql", "\n".join(lines) + "\n")


def test_the_newest_revision_by_name_is_alembics_head() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    assert [script.get_current_head()] == revisions_known()[-1:]
    assert sorted(step.revision for step in script.walk_revisions()) == revisions_known()


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    newest = revisions_known()[-1]
    assert store_migrate(empty_url) == ("", newest)
    assert store_migrate(empty_url) == (newest, newest)


def test_an_old_schema_is_refused_where_migration_is_not_wanted(empty_url: str) -> None:
    with pytest.raises(Refused) as caught:
        store_open(empty_url, migrate=False)
    assert "stratus db migrate" in caught.value.problem.remedy


def test_a_newer_schema_is_refused_and_left_alone(empty_url: str) -> None:
    store = store_open(empty_url)
    store.write(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_x'"))
    store.close()
    for attempt in (store_open, store_migrate):
        with pytest.raises(Refused) as caught:
            attempt(empty_url)
        assert "9999_x" in caught.value.problem.detail
        assert "newer program" in caught.value.problem.remedy
    store = store_open(empty_url, checked=False)
    assert store.read(revision_of) == "9999_x"
    store.close()


def test_somebody_elses_database_is_refused(empty_url: str) -> None:
    store = store_open(empty_url, checked=False)
    store.write(lambda connection: connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)"))
    store.close()
    with pytest.raises(Refused) as caught:
        store_open(empty_url)
    assert caught.value.problem.code == "configuration"


def test_a_migration_that_fails_leaves_the_schema_as_it_was(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_open(empty_url).close()
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / FIRST.name).write_text(FIRST.read_text())
    (versions / "0002_break.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0002_break', '0001_begin'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (id INTEGER)')\n"
        "    op.execute('INSERT INTO nowhere VALUES (1)')\n"
    )
    monkeypatch.setattr("stratus.store.migrate.MIGRATIONS", versions.parent)
    with pytest.raises(Exception, match="nowhere"):
        store_migrate(empty_url)
    store = store_open(empty_url, checked=False)
    assert store.read(revision_of) == "0001_begin"
    store.write(lambda connection: connection.exec_driver_sql("CREATE TABLE half (id INTEGER)"))
    store.close()


@pytest.mark.postgres
def test_two_processes_that_migrate_at_once_both_succeed(postgres_empty_url: str) -> None:
    script = (
        "import sys; from stratus.store.engine import store_open; store_open(sys.argv[1]).close()"
    )

    def go(_: int) -> int:
        return subprocess.run(
            [sys.executable, "-c", script, postgres_empty_url], check=False, timeout=60
        ).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(go, range(3))) == [0, 0, 0]


def test_two_stores_of_one_process_may_migrate_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def go(number: int) -> None:
        barrier.wait()
        store_open(f"sqlite:///{tmp_path}/{number}.db").close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go, range(4)))


def test_a_store_that_is_up_to_date_starts_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    store_open(url).close()
    script = (
        "import sys; from stratus.store.engine import store_open; store_open(sys.argv[1]).close();"
        "print([name for name in ('alembic', 'psycopg') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, check=True
    ).stdout
    assert said == "[]\n"


def test_the_golden_files_are_not_being_rewritten_by_accident() -> None:
    assert not UPDATE, "UPDATE_GOLDEN is set: review the difference, then run without it"
