"""How many small transactions does the store carry?

    python -m bench.store [--seconds 2] [--directory /var/tmp]

SQLite writes with synchronous=FULL, PostgreSQL with fsync on; both are durable on return.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable

from sqlalchemy import bindparam, insert, select
from tests.fixtures_postgres import server_make

from bench.common import Figure, finish, machine_read
from stratus.store.engine import Store, store_open
from stratus.store.schema import site

CALLERS = (1, 8, 32, 64)
INSERT = insert(site)
BY_KEY = select(site.c.value).where(site.c.key == bindparam("key"))


def rate(action: Callable[[str], object], *, callers: int, seconds: float) -> float:
    """Run the action in so many threads for so long; return how often per second."""
    counts = [0] * callers
    ending = time.perf_counter() + seconds
    started = time.perf_counter()

    def go(number: int) -> None:
        while time.perf_counter() < ending:
            counts[number] += 1
            action(f"{callers}-{number}-{counts[number]}")

    threads = [threading.Thread(target=go, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def measure(name: str, store: Store, seconds: float) -> dict[str, int]:
    """Measure one store."""
    found: dict[str, int] = {}

    def write(key: str) -> None:
        row = {"key": f"{name}-{key}", "value": "x"}
        store.write(lambda connection: connection.execute(INSERT, row))

    def read(_: str) -> None:
        key = {"key": f"{name}-1-0-1"}
        store.read(lambda connection: connection.execute(BY_KEY, key).scalar_one())

    for callers in CALLERS if name != "memory" else (1,):
        found[f"writes/s at {callers}"] = round(rate(write, callers=callers, seconds=seconds))
    for callers in (1, 8) if name != "memory" else (1,):
        found[f"reads/s at {callers}"] = round(rate(read, callers=callers, seconds=seconds))
    return found


def main() -> None:
    """Measure every engine in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--directory", default="/var/tmp")  # noqa: S108  # on a disk, unlike /tmp
    asked = parser.parse_args()
    machine = machine_read()
    results: dict[str, dict[str, int]] = {}
    results["memory"] = measure("memory", store_open("sqlite://"), asked.seconds)
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        store = store_open(f"sqlite:///{directory}/bench.db")
        results["sqlite"] = measure("sqlite", store, asked.seconds)
        store.close()
    server = server_make()
    try:
        server.start(fsync="on", full_page_writes="on")
        store = store_open(server.url(server.database_create()))
        results["postgresql"] = measure("postgresql", store, asked.seconds)
        store.close()
    finally:
        server.close()
    figures = [
        Figure(what=f"{name}: {what.replace('/s', '')} threads", value=per_second, unit="per s")
        for name, found in results.items()
        for what, per_second in found.items()
    ]
    finish("store", __doc__, machine, figures, [])


if __name__ == "__main__":
    main()
