"""How quickly does one API process answer reads, with a token checked at every request?

    python -m bench.api [--seconds 10] [--rows 100000]

The load comes from another process over keep-alive connections. The rows are put into the store
before the server starts; the API runs alone in its process (`serve --role api`).
"""

import argparse
import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import Connection, insert

from bench.cloud import BenchCloud, cloud_lent
from bench.common import (
    ENGINES,
    Figure,
    directory,
    finish,
    machine_read,
    quantile,
    say,
    store_lent,
)
from bench.load import Link, link_open, request_bytes
from stratus.model.ids import id_make
from stratus.model.image import ImageFacts
from stratus.model.instance import Nic
from stratus.store.instances import instances_create
from stratus.store.json import json_text
from stratus.store.projects import project_by_name
from stratus.store.schema import images, users

GET_RATE_MIN: Final = 1500.0
PAGE_P99_MS_MAX: Final = 20.0
PAGE_ROWS: Final = 100
LINKS: Final = 16
BATCH: Final = 5000
WARM_SECONDS: Final = 2.0


def rows_fill(connection: Connection, *, begin: int, rows: int) -> None:
    """Put running instances into the default project."""
    project = project_by_name(connection, "default")
    assert project is not None
    user_id = connection.execute(users.select().limit(1)).one().id
    image_id = id_make("image", now_ms=1, chance=1)
    if not begin:
        connection.execute(insert(images).values(_image_row(image_id, project.id, user_id)))
    nic = json_text((Nic(network_id="net-1", mac="52:54:00:00:00:01", ipv4="10.0.0.2", ipv6=""),))
    instances_create(
        connection,
        [
            {
                "id": id_make("instance", now_ms=1_700_000_000_000 + number, chance=number),
                "project_id": project.id,
                "user_id": user_id,
                "name": f"web-{number}",
                "created_ms": 1_700_000_000_000 + number,
                "desired": "running",
                "desired_ms": 1,
                "run": 1,
                "on_halt": "keep",
                "ranking": "spread",
                "image_id": image_id,
                "type_name": "t1.micro",
                "vcpus": 1,
                "memory_mib": 128,
                "swap_mib": 0,
                "root_gib": 0,
                "volatile_gib": 0,
                "network": "public",
                "nics": nic,
                "context": "{}",
                "generation": 1,
                "observed": "running",
                "observed_generation": 1,
                "observed_run": 1,
            }
            for number in range(begin, begin + rows)
        ],
    )


def _image_row(image_id: str, project_id: str, user_id: str) -> dict[str, object]:
    said: dict[str, object] = {
        "id": image_id,
        "project_id": project_id,
        "user_id": user_id,
        "name": "bench",
        "source": "",
        "format": "raw",
        "visibility": "public",
        "wanted": True,
        "presence": "ready",
        "created_ms": 1,
    }
    assert set(said) <= set(ImageFacts.__struct_fields__) | {"source", "wanted"}
    return said


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did: answers per second, and how long each took."""

    rate: float
    seconds: list[float]


async def load(port: int, requests: list[bytes], *, links: int, seconds: float) -> Load:
    """Ask from so many connections for so long, in turn what there is to ask."""
    opened = [await link_open(port) for _ in range(links)]
    await _ask(opened, requests, WARM_SECONDS)
    began = time.perf_counter()
    took = await _ask(opened, requests, seconds)
    rate = len(took) / (time.perf_counter() - began)
    for link in opened:
        link.close()
    return Load(rate=rate, seconds=took)


async def _ask(links: list[Link], requests: list[bytes], seconds: float) -> list[float]:
    took: list[float] = []
    ending = time.perf_counter() + seconds

    async def go(link: Link, number: int) -> None:
        began = time.perf_counter()
        while began < ending:
            status, answer = await link.ask(requests[number % len(requests)])
            assert status == 200, answer[:500]
            number += len(links)
            now = time.perf_counter()
            took.append(now - began)
            began = now

    await asyncio.gather(*(go(link, number) for number, link in enumerate(links)))
    return took


def targets(cloud: BenchCloud, ids: list[str], cursors: list[str]) -> tuple[list[bytes], ...]:
    """Write the requests of both questions."""
    ask: Callable[[str], bytes] = lambda path: request_bytes(  # noqa: E731
        "GET", path, token=cloud.admin.token
    )
    ones = [ask(f"/v1/instances/{instance_id}") for instance_id in ids]
    pages = [ask(f"/v1/instances?limit={PAGE_ROWS}&cursor={cursor}") for cursor in cursors]
    return ones, pages


def measure(engine: str, rows: int, seconds: float) -> list[Figure]:
    """Fill a store, serve it, and ask."""
    with directory() as place, store_lent(engine, place) as url:
        say(f"{engine}: filling in {rows:,} instances")

        def fill(connection: Connection) -> None:
            for begin in range(0, rows, BATCH):
                rows_fill(connection, begin=begin, rows=min(BATCH, rows - begin))

        with cloud_lent(place, url, hosts=0, roles=("api",), prepare=fill) as cloud:
            return _figures(engine, cloud, rows, seconds)


def _figures(engine: str, cloud: BenchCloud, rows: int, seconds: float) -> list[Figure]:
    ids: list[str] = []
    cursors: list[str] = []
    for page in cloud.client.pages("/v1/instances"):
        ids += [msgspec.json.decode(raw)["id"] for raw in page.items[:2]]
        if page.next:
            cursors.append(page.next)
    assert len(cursors) >= rows // 1000 - 1
    shuffled = secrets.SystemRandom()
    shuffled.shuffle(ids)
    shuffled.shuffle(cursors)
    ones, pages = targets(cloud, ids, cursors)
    one = asyncio.run(load(cloud.port, ones, links=LINKS, seconds=seconds))
    alone = asyncio.run(load(cloud.port, pages, links=1, seconds=seconds))
    p99 = 1000 * quantile(one.seconds, 0.99)
    return [
        Figure(
            what=f"{engine}: GET one instance",
            value=round(one.rate),
            unit="per s",
            at_least=GET_RATE_MIN,
            note=f"{LINKS} connections, p99 {p99:.1f} ms",
        ),
        Figure(
            what=f"{engine}: page of {PAGE_ROWS} of {rows:,}, p99",
            value=round(1000 * quantile(alone.seconds, 0.99), 2),
            unit="ms",
            at_most=PAGE_P99_MS_MAX,
            note=f"one connection, median {1000 * quantile(alone.seconds, 0.5):.1f} ms",
        ),
    ]


def main() -> None:
    """Measure every engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--engine", choices=ENGINES)
    asked = parser.parse_args()
    machine = machine_read()
    engines = (asked.engine,) if asked.engine else ENGINES
    figures = [f for engine in engines for f in measure(engine, asked.rows, asked.seconds)]
    finish("api", __doc__, machine, figures, [])


if __name__ == "__main__":
    main()
