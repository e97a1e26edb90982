"""Is every host chosen one that has room, and does every refusal account for every host?"""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.placement import (
    HostTable,
    Placed,
    Request,
    Unplaced,
    placement_decide,
    rules_count,
)
from stratus.model.host import HostDesired, HostFacts
from stratus.model.ids import HostId, PoolId
from stratus.model.instance import Ranking
from tests.decide.worlds import NOW_MS, POOL, host

GOLDEN = Path(__file__).parent / "golden" / "placements.txt"
ELSEWHERE = PoolId("pol-9")


def asked(vcpus: int = 1, gib: float = 1, **given: object) -> Request:
    values = {"vcpus": vcpus, "memory_mib": int(gib * 1024), "pool_id": POOL, **given}
    return Request(**values)  # type: ignore[arg-type]  # as the test says


def decide(hosts: list[HostFacts], *requests: Request) -> list[Placed | Unplaced]:
    return placement_decide(HostTable(hosts), requests)


@st.composite
def any_hosts(draw: st.DrawFn) -> list[HostFacts]:
    """A few hosts of any size and fate; some are used beyond what they have."""
    made = []
    for number in range(draw(st.integers(min_value=0, max_value=5))):
        facts = host(
            f"n{number}",
            cpus=draw(st.sampled_from((1, 2, 8))),
            memory_mib=draw(st.sampled_from((512, 2048, 8192))),
            desired=draw(st.sampled_from((HostDesired.ENABLED, HostDesired.ENABLED, *HostDesired))),
            cpu_ratio=draw(st.sampled_from((1.0, 1.5, 4.0))),
            memory_ratio=draw(st.sampled_from((1.0, 1.5))),
            memory_reserved_mib=draw(st.sampled_from((0, 0, 500, 4096))),
            unreachable_ms=draw(st.sampled_from((0, 0, 0, NOW_MS))),
            pools=draw(st.sampled_from(((POOL,), (POOL,), (), (ELSEWHERE,)))),
            vcpus_used=draw(st.integers(min_value=0, max_value=9)),
            memory_used_mib=draw(st.sampled_from((0, 0, 512, 9000))),
        )
        seen = draw(st.sampled_from((True, True, True, False)))
        made.append(facts if seen else msgspec.structs.replace(facts, capacity=None))
    return made


REQUESTS = st.builds(
    Request,
    vcpus=st.integers(min_value=1, max_value=9),
    memory_mib=st.sampled_from((256, 512, 1000, 2048, 9000)),
    pool_id=st.sampled_from((POOL, POOL, None, ELSEWHERE)),
    ranking=st.sampled_from(Ranking),
    avoid=st.sampled_from((None, None, HostId("hst-n0"), HostId("hst-n1"))),
)
BATCHES = st.lists(REQUESTS, max_size=8)


def fits(facts: HostFacts, request: Request, vcpus_used: int, memory_used_mib: int) -> bool:
    """The rules again, one host at a time and in plain words."""
    return (
        facts.desired is HostDesired.ENABLED
        and facts.capacity is not None
        and not facts.unreachable_ms
        and (request.pool_id is None or request.pool_id in facts.pools)
        and vcpus_used + request.vcpus <= int(facts.capacity.cpus * facts.cpu_ratio)
        and memory_used_mib + request.memory_mib <= usable(facts)
    )


def usable(facts: HostFacts) -> int:
    assert facts.capacity is not None
    free = facts.capacity.memory_mib - facts.memory_reserved_mib
    return max(0, int(free * facts.memory_ratio))


@given(any_hosts(), BATCHES)
def test_a_batch_is_placed_where_it_fits_and_refused_only_where_it_fits_nowhere(
    hosts: list[HostFacts], batch: list[Request]
) -> None:
    vcpus = {facts.id: facts.vcpus_used for facts in hosts}
    memory = {facts.id: facts.memory_used_mib for facts in hosts}
    for request, answer in zip(batch, decide(hosts, *batch), strict=True):
        room = [f.id for f in hosts if fits(f, request, vcpus[f.id], memory[f.id])]
        if isinstance(answer, Unplaced):
            assert room == []
            continue
        assert answer.host_id in room
        assert hosts[answer.row].id == answer.host_id
        vcpus[answer.host_id] += request.vcpus
        memory[answer.host_id] += request.memory_mib


@given(any_hosts(), REQUESTS, st.randoms(use_true_random=False))
def test_the_order_of_the_hosts_only_breaks_ties(
    hosts: list[HostFacts], request: Request, random: object
) -> None:
    """Whatever the order, the answer has the same worth: it fits, or the same refusal is given."""
    shuffled = list(hosts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis's own
    (one,), (other,) = decide(hosts, request), decide(shuffled, request)
    if isinstance(one, Placed) and isinstance(other, Placed):
        assert worth(hosts, one) == worth(shuffled, other)
    else:
        assert one == other


def worth(hosts: list[HostFacts], answer: Placed) -> tuple[float, float]:
    """What the ranking looks at: the free share of the memory, and the free processors."""
    table = HostTable(hosts)
    share = table.memory_free[answer.row] / max(1.0, table.memory_all[answer.row])
    return float(share), float(table.vcpus_free[answer.row])


@given(any_hosts(), REQUESTS)
def test_an_explanation_counts_every_host_exactly_once(
    hosts: list[HostFacts], request: Request
) -> None:
    counts = rules_count(HostTable(hosts), request)
    present = [facts for facts in hosts if facts.desired is not HostDesired.ABSENT]
    assert sum(count.hosts for count in counts) == len(present)
    with_room = sum(count.hosts for count in counts if count.words == "with room")
    assert with_room == sum(fits(f, request, f.vcpus_used, f.memory_used_mib) for f in hosts)


@given(any_hosts(), REQUESTS)
def test_never_is_said_if_and_only_if_no_host_could_hold_it_empty_and_enabled(
    hosts: list[HostFacts], request: Request
) -> None:
    (answer,) = decide(hosts, request)
    could = any(
        facts.desired is not HostDesired.ABSENT
        and (request.pool_id is None or request.pool_id in facts.pools)
        and (facts.capacity is None or large(facts, request))
        for facts in hosts
    )
    if isinstance(answer, Unplaced):
        assert answer.never == (not could)
        assert answer.problem.code == ("never_fits" if answer.never else "no_room_now")
    else:
        assert could


def large(facts: HostFacts, request: Request) -> bool:
    assert facts.capacity is not None
    cpus = int(facts.capacity.cpus * facts.cpu_ratio)
    return request.vcpus <= cpus and request.memory_mib <= usable(facts)


@given(any_hosts(), BATCHES)
def test_to_avoid_a_host_refuses_nothing_and_holds_while_another_has_room(
    hosts: list[HostFacts], batch: list[Request]
) -> None:
    for request in batch:
        careless = msgspec.structs.replace(request, avoid=None)
        (one,), (other,) = decide(hosts, request), decide(hosts, careless)
        assert type(one) is type(other)
        if isinstance(one, Placed) and one.host_id == request.avoid:
            room = [f.id for f in hosts if fits(f, request, f.vcpus_used, f.memory_used_mib)]
            assert room == [request.avoid]


def test_a_batch_that_avoids_a_host_fills_the_others_first_and_then_that_one() -> None:
    hosts = [host("n0", cpus=2), host("n1", cpus=2)]
    wary = asked(avoid=HostId("hst-n0"))
    chosen = [answer.row for answer in decide(hosts, *[wary] * 4) if isinstance(answer, Placed)]
    assert chosen == [1, 1, 0, 0]


def test_spread_takes_the_emptiest_host_and_pack_the_fullest_that_has_room() -> None:
    hosts = [
        host("half", memory_used_mib=8 * 1024),
        host("empty"),
        host("full", memory_used_mib=16 * 1024),
    ]
    (spread,) = decide(hosts, asked())
    (pack,) = decide(hosts, asked(ranking=Ranking.PACK))
    assert isinstance(spread, Placed)
    assert isinstance(pack, Placed)
    assert (hosts[spread.row].name, hosts[pack.row].name) == ("empty", "half")


def test_spread_alternates_between_equal_hosts_and_pack_fills_one_first() -> None:
    hosts = [host("n0", cpus=3), host("n1", cpus=3)]
    spread = [a.row for a in decide(hosts, *[asked()] * 4) if isinstance(a, Placed)]
    packed = [
        a.row for a in decide(hosts, *[asked(ranking=Ranking.PACK)] * 4) if isinstance(a, Placed)
    ]
    assert (spread, packed) == ([0, 1, 0, 1], [0, 0, 0, 1])


def test_more_may_be_promised_than_there_is_where_the_administrator_says_so() -> None:
    generous = host(cpu_ratio=4.0, memory_ratio=1.5, memory_reserved_mib=4096)
    assert isinstance(decide([generous], asked(32, 18))[0], Placed)
    assert isinstance(decide([generous], asked(33, 18))[0], Unplaced)
    assert isinstance(decide([generous], asked(32, 18.1))[0], Unplaced)


FLEET = [
    host("drained", desired=HostDesired.DRAINING),
    host("leaving", desired=HostDesired.ABSENT),
    host("dead", unreachable_ms=NOW_MS),
    host("new", capacity=None),
    host("diskless", pools=()),
    host("tiny", cpus=1, memory_mib=1024),
    host("full", memory_used_mib=16 * 1024),
    host("busy", vcpus_used=8),
    host("good"),
    host("better", memory_mib=32 * 1024),
]
IMAGINED = {
    "a small one": (FLEET, asked()),
    "one for which only the best has room": (FLEET, asked(8, 24)),
    "one that is too large for every host": (FLEET[4:], asked(64, 1)),
    "one whose disks nobody can open": (FLEET, asked(pool_id=PoolId("pol-9"))),
    "one that must wait": (FLEET[:8], asked(2, 2.5)),
    "anything, without hosts": ([], asked()),
}


def printed(name: str, hosts: list[HostFacts], request: Request) -> str:
    (answer,) = decide(hosts, request)
    rows = [name]
    if isinstance(answer, Placed):
        rows.append(f"  placed on {hosts[answer.row].name}")
    else:
        rows += [f"  {answer.problem.code}: {answer.problem.detail}", f"  {answer.problem.remedy}"]
    rows += [f"  {c.hosts} {c.words}" for c in rules_count(HostTable(hosts), request) if c.hosts]
    return "\n".join(rows) + "\n"


def test_the_answers_for_an_imaginary_fleet_are_those_that_were_reviewed() -> None:
    text = "\n".join(printed(name, *case) for name, case in IMAGINED.items())
    if not GOLDEN.exists():
        GOLDEN.write_text(text)
        pytest.fail(f"{GOLDEN} was missing; review what was written")
    assert text == GOLDEN.read_text(), f"remove {GOLDEN} and run again, then review the difference"
