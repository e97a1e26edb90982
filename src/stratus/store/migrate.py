"""Is the schema the one that this code knows, and how does it become so?

The revision is compared without Alembic, which is imported only when there is something to do:
a start on a store that is up to date costs one small query.
"""

import threading
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from stratus.model.problem import Refused, refuse
from stratus.store.engine import Store, store_open
from stratus.store.schema import METADATA

MIGRATIONS: Final = Path(__file__).with_name("migrations")
VERSION_TABLE: Final = "alembic_version"
# Any number that no other program on the same server uses.
ADVISORY_LOCK: Final = 7_283_651_902_417_733
MIGRATION_LOCK_SECONDS_MAX: Final = 300

# Alembic's `op` is one per process.
_one_at_a_time: Final = threading.Lock()


def revisions_known() -> list[str]:
    """Return the numbered revisions of this code, oldest first."""
    return sorted(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def revision_of(connection: Connection) -> str:
    """Return the revision of the schema; "" where there is none yet."""
    there = {
        "sqlite": "SELECT name FROM sqlite_master WHERE name = 'alembic_version'",
        "postgresql": "SELECT to_regclass('alembic_version')",
    }[connection.dialect.name]
    if connection.exec_driver_sql(there).scalar() is None:
        return ""
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return str(found or "")


def schema_ensure(store: Store, *, migrate: bool) -> None:
    """Leave the schema at the newest revision that this code knows, or refuse the store."""
    known = revisions_known()
    revision = store.read(revision_of)
    if revision == known[-1]:
        return
    if revision and revision not in known:
        raise _newer_refused(revision, known[-1])
    if not migrate:
        raise refuse(
            "conflict",
            f"The schema of the store is {revision or 'empty'}, this program needs {known[-1]}.",
            remedy="Run stratus db migrate first.",
        )
    if not revision:
        store.read(_empty_check)
    with _one_at_a_time:
        store.write(_upgrade)


def store_migrate(url: str) -> tuple[str, str]:
    """Bring the schema up to date; return the revisions before and after."""
    store = store_open(url, migrate=False, checked=False)
    try:
        before = store.read(revision_of)
        schema_ensure(store, migrate=True)
        return before, store.read(revision_of)
    finally:
        store.close()


def _newer_refused(revision: str, newest: str) -> Refused:
    return refuse(
        "conflict",
        f"The schema of the store is {revision}; this program knows only up to {newest}.",
        remedy="Start the newer program that wrote the store, or restore an older backup.",
    )


def _empty_check(connection: Connection) -> None:
    """Refuse a database that holds somebody else's tables."""
    tables = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()",
    }[connection.dialect.name]
    # Where another process has just finished its migration, there is a revision by now.
    if connection.exec_driver_sql(tables).scalar() and not revision_of(connection):
        raise refuse(
            "configuration",
            "The database holds tables, but not those of a StratusLab store.",
            remedy="Name a database of its own for the store; an empty one will do.",
        )


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_SECONDS_MAX}s'")
        # Two processes that start at once: the second finds the work done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    revision = revision_of(connection)
    known = revisions_known()
    if revision and revision not in known:
        raise _newer_refused(revision, known[-1])
    _alembic_run(connection)


def _alembic_run(connection: Connection) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: object, _context: object) -> object:
        return script._upgrade_revs("head", revision)  # type: ignore[arg-type]  # alembic's own

    # The transaction is the caller's: all steps are made, or none.
    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(
            connection=connection, target_metadata=METADATA, version_table=VERSION_TABLE
        )
        environment.run_migrations()
