"""How many instances per second come to run, from the HTTP request on, on simulated hosts?

    python -m bench.scale [--instances 2000] [--hosts 50] [--engine sqlite] [--count 100]

The whole path: `stratus serve` with all roles in one process, its HTTP door, the store on a disk
and durable at every commit, fake hosts behind the host worker. The clock runs from the first POST
until a listing shows all instances running.
"""

import argparse
import asyncio
import time
from typing import Final

import msgspec

from bench.cloud import BenchCloud, cloud_lent
from bench.common import ENGINES, Figure, directory, finish, machine_read, say, store_lent
from bench.load import link_open, request_bytes

POLL_SECONDS: Final = 0.2
PAGE_ROWS: Final = 100  # looked at in one poll: to look shall cost little beside what is looked at
SECONDS_MAX: Final = 600.0
RATE_MIN: Final = 300.0  # instances per second, on two cores


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, and how."""

    engine: str
    hosts: int
    instances: int
    count: int  # in one request
    links: int  # requests at the same time

    @property
    def what(self) -> str:
        """Say it in words."""
        return f"{self.engine}: {self.instances:,} on {self.hosts:,} hosts, {self.count} a request"


class Item(msgspec.Struct, frozen=True):
    """What we look at of an instance."""

    phase: str


class Page(msgspec.Struct, frozen=True):
    """A page of a list."""

    items: list[Item]
    next: str | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one case took."""

    accepted_seconds: float
    running_seconds: float
    server_cpu_seconds: float


async def run_case(cloud: BenchCloud, case: Case) -> Run:
    """Ask for all, and wait until all run."""
    links = [await link_open(cloud.port) for _ in range(case.links)]
    token = cloud.admin.token
    body = msgspec.json.encode(
        {
            "project": cloud.admin.project,
            "image": "tiny",
            "type": "t1.micro",
            "count": case.count,
            "swap_mib": 0,
        }
    )
    create = request_bytes("POST", "/v1/instances", token=token, body=body)
    left = iter(range(case.instances // case.count))
    cpu = cloud.cpu_seconds()
    began = time.perf_counter()

    async def post(number: int) -> None:
        for _ in left:
            status, answer = await links[number].ask(create)
            assert status == 202, answer[:500]

    await asyncio.gather(*(post(number) for number in range(case.links)))
    accepted = time.perf_counter() - began

    cursor = ""
    running = 0
    while running < case.instances:
        assert time.perf_counter() - began < SECONDS_MAX, f"{running} of {case.instances} run"
        target = f"/v1/instances?limit={PAGE_ROWS}" + (f"&cursor={cursor}" if cursor else "")
        status, answer = await links[0].ask(request_bytes("GET", target, token=token))
        assert status == 200, answer[:500]
        page = msgspec.json.decode(answer, type=Page)
        if any(item.phase != "running" for item in page.items):
            await asyncio.sleep(POLL_SECONDS)
            continue
        # Nothing stops what runs: a page that was all running need not be read again.
        running += len(page.items)
        assert page.next is not None or running == case.instances
        cursor = page.next or ""
    seconds = time.perf_counter() - began
    for link in links:
        link.close()
    return Run(
        accepted_seconds=accepted,
        running_seconds=seconds,
        server_cpu_seconds=cloud.cpu_seconds() - cpu,
    )


def measure(case: Case) -> list[Figure]:
    """Run one case in a fresh cloud."""
    with (
        directory() as place,
        store_lent(case.engine, place) as store,
        cloud_lent(place, store, hosts=case.hosts) as cloud,
    ):
        say(f"{case.what} …")
        run = asyncio.run(run_case(cloud, case))
    rate = case.instances / run.running_seconds
    note = (
        f"accepted after {run.accepted_seconds:.1f} s, running after {run.running_seconds:.1f} s,"
        f" {1000 * run.server_cpu_seconds / case.instances:.2f} ms of processor each"
    )
    say(f"  {rate:.0f}/s: {note}")
    return [
        Figure(what=case.what, value=round(rate, 1), unit="per s", at_least=RATE_MIN, note=note)
    ]


def cases(engines: tuple[str, ...], *, large: bool) -> list[Case]:
    """Return what is measured by default."""
    made: list[Case] = []
    for engine in engines:
        made.append(Case(engine=engine, hosts=50, instances=2000, count=100, links=4))
        made.append(Case(engine=engine, hosts=50, instances=2000, count=1, links=32))
        if large:
            made.append(Case(engine=engine, hosts=1250, instances=20_000, count=100, links=4))
    return made


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--instances", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--links", type=int, default=4)
    parser.add_argument("--small", action="store_true", help="leave the 20,000 out")
    asked = parser.parse_args()
    machine = machine_read()
    engines = (asked.engine,) if asked.engine else ENGINES
    chosen = cases(engines, large=not asked.small)
    if asked.count:
        chosen = [
            Case(
                engine=engine,
                hosts=asked.hosts or 50,
                instances=asked.instances or 2000,
                count=asked.count,
                links=asked.links,
            )
            for engine in engines
        ]
    figures = [figure for case in chosen for figure in measure(case)]
    if asked.count:
        for figure in figures:
            print(f"{figure.what}: {figure.value}/s ({figure.note})")
        return
    finish("scale", __doc__, machine, figures, [])


if __name__ == "__main__":
    main()
