"""How many instances per second can be given a host, on a fleet of 1,250?

    python -m bench.placement [--hosts 1250] [--requests 20000]

The pure decision alone, in batches as the reconciler makes them; building the table of hosts
counts as part of the batch.
"""

import argparse
import random
import time
from typing import Final

from bench.common import Figure, finish, machine_read
from stratus.decide.placement import HostTable, Placed, Request, placement_decide
from stratus.model.host import HostCapacity, HostDesired, HostFacts
from stratus.model.ids import HostId, PoolId
from stratus.model.instance import Ranking

BATCH: Final = 512  # as the reconciler's
RATE_MIN: Final = 10_000.0
POOL: Final = PoolId("pool-1")
SIZES: Final = ((1, 128), (1, 512), (2, 2048), (4, 4096), (8, 8192))


def fleet(hosts: int, chance: random.Random) -> list[HostFacts]:
    """Make hosts, each filled to another degree."""
    return [
        HostFacts(
            id=HostId(f"host-{number:05}"),
            name=f"h{number:05}",
            uri=f"fake://h{number:05}",
            desired=HostDesired.ENABLED,
            cpu_ratio=4.0,
            memory_ratio=1.0,
            memory_reserved_mib=1024,
            created_ms=1,
            version=1,
            capacity=HostCapacity(cpus=64, memory_mib=512 * 1024, accelerator="kvm"),
            pools=(POOL,),
            vcpus_used=chance.randrange(100),
            memory_used_mib=chance.randrange(200 * 1024),
        )
        for number in range(hosts)
    ]


def rate(hosts: list[HostFacts], requests: list[Request]) -> float:
    """Decide about all requests; return how many per second."""
    began = time.perf_counter()
    for start in range(0, len(requests), BATCH):
        answers = placement_decide(HostTable(hosts), requests[start : start + BATCH])
        assert all(isinstance(answer, Placed) for answer in answers)
    return len(requests) / (time.perf_counter() - began)


def main() -> None:
    """Measure both rankings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1250)
    parser.add_argument("--requests", type=int, default=20_000)
    asked = parser.parse_args()
    machine = machine_read()
    chance = random.Random(1)
    hosts = fleet(asked.hosts, chance)
    figures: list[Figure] = []
    for ranking in Ranking:
        sizes = [chance.choice(SIZES) for _ in range(asked.requests)]
        requests = [
            Request(vcpus=vcpus, memory_mib=memory, pool_id=POOL, ranking=ranking)
            for vcpus, memory in sizes
        ]
        figures.append(
            Figure(
                what=f"{ranking.value}, {asked.hosts:,} hosts",
                value=round(rate(hosts, requests)),
                unit="decisions/s",
                at_least=RATE_MIN,
            )
        )
    finish("placement", __doc__, machine, figures, [])


if __name__ == "__main__":
    main()
