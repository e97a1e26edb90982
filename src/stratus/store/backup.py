"""How is a store copied away while it is used, and how does it come back?

A restored store knows less than the world: instances may run that it has never heard of. It
therefore begins a new epoch, in which every host is looked at before anything is started.
"""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from stratus.model.problem import Refused, refuse
from stratus.store.engine import store_url
from stratus.store.migrate import revisions_known
from stratus.store.sqlite import FILE_MODE, FileLock, place_ensure, sqlite_connect, sqlite_refused

DUMP_SECONDS_MAX: Final = 3600
TOOL_WORDS_MAX: Final = 500  # characters of a tool's complaint that are repeated
# No store sees so many transactions between a backup and its restore.
EVENT_BASE_LEAP: Final = 1 << 32
INTEGRITY_LINES_MAX: Final = 10

# The same on both engines. The base keeps new events behind all that readers have ever seen.
_NEW_EPOCH: Final = (
    "INSERT INTO {schema}site (key, value) VALUES ('epoch', '1') ON CONFLICT (key) DO UPDATE"
    " SET value = CAST(CAST({schema}site.value AS bigint) + 1 AS text)",
    "INSERT INTO {schema}site (key, value) VALUES ('restored_ms', '{now_ms}')"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    "INSERT INTO {schema}site (key, value) SELECT 'event_base',"
    " CAST(coalesce(max(tx), 0) + {leap} AS text) FROM {schema}events WHERE true"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    "INSERT INTO {schema}events (tx, at_ms, kind, subject, actor)"
    " SELECT CAST(value AS bigint), {now_ms}, 'site.restored', 'site', 'administrator'"
    " FROM {schema}site WHERE key = 'event_base'",
)


def store_backup(url: str, target: Path) -> None:
    """Leave a complete, verified copy of the store in this file, readable to its owner only.

    The control plane may go on working meanwhile; the copy is of one moment.
    """
    parsed = store_url(url)
    part = target.with_name(target.name + ".part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except OSError as error:
        raise refuse(
            "configuration",
            f"The backup {part} cannot be written: {error.strerror}.",
            remedy="Name a file in a directory that this user may write to.",
        ) from error
    try:
        if parsed.drivername == "sqlite":
            _sqlite_copy(_sqlite_path(parsed), part)
            _sqlite_verify(part)
        else:
            _tool_run(parsed, "pg_dump", "--format=custom", "--no-owner", "--no-privileges",
                      f"--file={part}")  # fmt: skip
            _archive_verify(parsed, part)
        _durable_replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def store_restore(url: str, source: Path, *, now_ms: int) -> None:
    """Put the copy in the store's place and begin a new epoch, or leave the store as it is.

    Refused while a control plane uses the store, and when the copy is not whole. What was in
    an SQLite store before stays beside it, as `<name>.before-restore`.
    """
    parsed = store_url(url)
    if not source.is_file():
        raise refuse(
            "configuration", f"There is no backup {source}.", remedy="Check the name of the file."
        )
    if parsed.drivername == "sqlite":
        _sqlite_verify(source)
        _sqlite_restore(_sqlite_path(parsed), source, now_ms)
    else:
        _archive_verify(parsed, source)
        _archive_restore(parsed, source, now_ms)


def epoch_statements(schema: str, now_ms: int) -> list[str]:
    """Return what begins a new epoch in a store that was just restored."""
    return [
        statement.format(schema=schema, leap=EVENT_BASE_LEAP, now_ms=int(now_ms))
        for statement in _NEW_EPOCH
    ]


def _durable_replace(part: Path, target: Path) -> None:
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(target)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _revision_check(revision: str, source: Path) -> None:
    known = revisions_known()
    if revision not in known:
        raise refuse(
            "conflict",
            f"The backup {source} has the schema {revision or 'of something else'}; "
            f"this program knows up to {known[-1]}.",
            remedy="Restore it with the program that made it, or choose another backup.",
        )


# SQLite


def _sqlite_path(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise refuse(
            "configuration",
            "A store in memory cannot be saved.",
            remedy="Name the file of the store: sqlite:////absolute/path.db.",
        )
    return Path(url.database).absolute()


def _sqlite_copy(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite_connect(source, writable=False)) as reader,
            closing(sqlite3.connect(target, isolation_level=None)) as writer,
        ):
            # All pages in one step: in WAL mode the writer goes on meanwhile.
            reader.backup(writer)
            # The copy is one file, without a log beside it.
            writer.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise sqlite_refused(error, source) from error


def _sqlite_verify(source: Path) -> None:
    """Refuse a file that is damaged, or not a store."""
    try:
        uri = f"{source.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as reader:
            found = reader.execute(f"PRAGMA integrity_check({INTEGRITY_LINES_MAX})").fetchall()
            if found != [("ok",)]:
                raise _damaged(source, str(found[0][0]))
            row = reader.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise sqlite_refused(error, source) from error
        row = None
    except sqlite3.Error as error:
        raise _damaged(source, str(error)) from error
    _revision_check(row[0] if row else "", source)


def _damaged(source: Path, said: str) -> Refused:
    return refuse(
        "store_damaged",
        f"{source} is damaged: {said.splitlines()[0][:TOOL_WORDS_MAX]}.",
        remedy="Choose another backup.",
    )


def _sqlite_restore(path: Path, source: Path, now_ms: int) -> None:
    place_made = not path.exists()
    place_ensure(path)
    with closing(FileLock(path)):
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        try:
            _sqlite_copy(source, part)
            with closing(sqlite3.connect(part, isolation_level=None)) as writer:
                writer.execute("BEGIN IMMEDIATE")
                for statement in epoch_statements("", now_ms):
                    writer.execute(statement)
                writer.execute("COMMIT")
            if not place_made:
                _sqlite_keep(path)
            for suffix in ("-wal", "-shm"):
                # A log that is not of this file must not be replayed into it.
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            _durable_replace(part, path)
        except sqlite3.Error as error:
            raise sqlite_refused(error, path) from error
        finally:
            part.unlink(missing_ok=True)


def _sqlite_keep(path: Path) -> None:
    """Keep what is there now under another name, log included."""
    # A damaged store cannot be tidied; then its log is kept beside it.
    with suppress(sqlite3.Error, Refused), closing(sqlite_connect(path, writable=True)) as writer:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", ""):
        kept = path.with_name(path.name + ".before-restore" + suffix)
        kept.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            kept.hardlink_to(path.with_name(path.name + suffix))


# PostgreSQL

_DROP_TABLES: Final = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DROP TABLE public.%I CASCADE', name);
  END LOOP;
END $$;
"""
# Checked last, in the transaction itself: a control plane that came meanwhile undoes it all.
_NOBODY_ELSE: Final = """
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'stratus') THEN
    RAISE 'a control plane was started meanwhile';
  END IF;
END $$;
"""


def _tool_find(name: str) -> str:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_major)
    found = str(newest[-1]) if newest else shutil.which(name)
    if found is None:
        raise refuse(
            "machine_unfit",
            f"The program {name} is not installed.",
            remedy="apt-get install postgresql-client",
        )
    return found


def _major(program: Path) -> int:
    version = program.parent.parent.name
    return int(version) if version.isdecimal() else 0


def _tool_environment(url: URL) -> dict[str, str]:
    """Hand the connection over in the environment: arguments are for everybody to read."""
    from psycopg import pq

    from stratus.store.postgresql import driver_parameters

    names = {
        option.keyword.decode(): option.envvar.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar is not None
    }
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    environment |= {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    for keyword, value in driver_parameters(url).items():
        if keyword in names:
            environment[names[keyword]] = str(value)
    environment.setdefault("PGOPTIONS", "-c client_min_messages=warning")
    return environment | {"PGAPPNAME": "stratus-db"}


def _tool_run(url: URL, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [_tool_find(name), *arguments],
        env=_tool_environment(url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DUMP_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise _tool_refused(name, done.stderr)
    return done.stdout


def _tool_refused(name: str, said: str) -> Refused:
    return refuse(
        "store_unreachable",
        f"{name} failed: {said.strip()[-TOOL_WORDS_MAX:] or 'it said nothing'}.",
        remedy="Make sure that the server runs and its client programs are of the same version.",
    )


def _archive_verify(url: URL, source: Path) -> None:
    """Refuse an archive that cannot be read to its end, or is not of a store."""
    try:
        _tool_run(url, "pg_restore", "--file=/dev/null", str(source))
        said = _tool_run(
            url, "pg_restore", "--data-only", "--table=alembic_version", "--file=-", str(source)
        )
    except Refused as error:
        if error.problem.code == "store_unreachable":
            raise _damaged(source, error.problem.detail) from error
        raise
    _, _, after = said.partition("COPY public.alembic_version")
    lines = after.splitlines()
    _revision_check(lines[1] if len(lines) > 1 else "", source)


def _archive_restore(url: URL, source: Path, now_ms: int) -> None:
    from stratus.store.postgresql import control_planes

    found = control_planes(url)
    if found:
        raise refuse(
            "store_busy",
            f"{found} connections of control planes use the store.",
            remedy="Stop every control plane of this store first (stratus down).",
        )
    epilogue = ";\n".join(epoch_statements("public.", now_ms)) + ";\n" + _NOBODY_ELSE
    with tempfile.TemporaryDirectory(prefix="stratus-restore-") as directory:
        # A whole file first: a pipe that broke would look like the end of the data.
        script = Path(directory) / "store.sql"
        _tool_run(
            url, "pg_restore", "--no-owner", "--no-privileges", f"--file={script}", str(source)
        )
        # One transaction around everything: the new epoch begins with the old data, or nothing.
        _tool_run(
            url,
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--single-transaction",
            f"--command={_DROP_TABLES}",
            f"--file={script}",
            f"--command={epilogue}",
        )
