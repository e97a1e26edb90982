"""A real PostgreSQL server for the tests: private, on a Unix socket, gone afterwards."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection

from stratus.store.engine import Store, store_open
from stratus.store.schema import METADATA

USER: Final = "postgres"
START_SECONDS_MAX: Final = 60
TEMPLATE: Final = "stratus_template"


def server_programs() -> Path:
    """Find the newest PostgreSQL server of this machine, or fail with the remedy."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    pytest.fail(
        "No PostgreSQL server is installed. apt-get install postgresql-15, or leave these tests "
        "out with -m 'not postgres'.",
        pytrace=False,
    )


class PostgresServer:
    """One server process with its own data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._programs = server_programs()
        # The server refuses to run as root.
        self._user = USER if os.geteuid() == 0 else None
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb", "-D", str(self.data), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8"
        )

    @property
    def data(self) -> Path:
        """Where the server keeps its files."""
        return self.directory / "data"

    def url(self, database: str) -> str:
        """Return the address of a store on this server."""
        return f"postgresql://{USER}@/{database}?host={self.directory}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}{done.stdout}"

    def start(self, **settings: str) -> None:
        """Start the server and return when it answers."""
        chosen = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            **settings,
        }
        options = " ".join(f"-c {name}='{value}'" for name, value in chosen.items())
        self._run(
            "pg_ctl", "-D", str(self.data), "-l", str(self.directory / "log"), "-o", options,
            "-w", "-t", str(START_SECONDS_MAX), "start",
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: smart, fast, or immediate as in a crash."""
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def pid(self) -> int:
        """Return the id of the server's first process."""
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def execute(self, statement: sql.Composed) -> None:
        """Run one administrator's statement."""
        with psycopg.connect(
            f"host={self.directory} user={USER} dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def database_create(self, *, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def database_drop(self, name: str) -> None:
        """Remove a database, whoever still uses it."""
        self.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def close(self) -> None:
        """Leave no process and no file."""
        if (self.data / "postmaster.pid").exists():
            pid = self.pid()
            try:
                self.stop("immediate")
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


def server_make() -> PostgresServer:
    """Make a server that is not running yet; the caller closes it."""
    # A short path: a socket's name has at most 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="stratus-pg-"))
    directory.chmod(0o755)
    try:
        return PostgresServer(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole run."""
    server = server_make()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A database with an up-to-date schema, to copy from."""
    name = postgres_server.database_create()
    store_open(postgres_server.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The address of a fresh store of this test's own."""
    name = postgres_server.database_create(template=postgres_template)
    yield postgres_server.url(name)
    postgres_server.database_drop(name)


@pytest.fixture
def postgres_empty_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a database without any table."""
    name = postgres_server.database_create()
    yield postgres_server.url(name)
    postgres_server.database_drop(name)


ENGINES: Final = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


@pytest.fixture(params=ENGINES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh store, on each engine in turn."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path}/store/stratus.db"


@pytest.fixture(scope="session")
def postgres_shared_url(postgres_server: PostgresServer, postgres_template: str) -> str:
    """The address of the store that tests use one after the other."""
    return postgres_server.url(postgres_server.database_create(template=postgres_template))


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An open store without rows, on each engine in turn.

    On PostgreSQL it is emptied rather than made: that takes a tenth of the time.
    """
    if request.param == "postgresql":
        opened = store_open(request.getfixturevalue("postgres_shared_url"))
        opened.write(_rows_delete)
    else:
        opened = store_open(f"sqlite:///{tmp_path}/store/stratus.db")
    yield opened
    opened.close()


def _rows_delete(connection: Connection) -> None:
    for table in reversed(METADATA.sorted_tables):
        connection.execute(table.delete())


@pytest.fixture
def store_make() -> Iterator[Callable[..., Store]]:
    """Open stores that are closed when the test ends."""
    opened: list[Store] = []

    def make(url: str, **options: Any) -> Store:  # noqa: ANN401  # handed through
        opened.append(store_open(url, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
