"""Which host receives this instance? Pure and vectorised: callers bring the facts.

Rules remove hosts one after the other and each counts what it removed, so that a refusal can
be explained. What is left is ranked. A whole batch is decided in turn, each decision seeing
the ones before it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stratus.model.host import HostDesired, HostFacts
from stratus.model.ids import HostId, PoolId
from stratus.model.instance import Ranking
from stratus.model.problem import Problem

NOWHERE: Final = -np.inf
WITH_ROOM: Final = "with room"  # what is left when every rule has removed its hosts


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance needs of its host."""

    vcpus: int
    memory_mib: int
    pool_id: PoolId | None  # where its disks will be; None where it brings none
    ranking: Ranking = Ranking.SPREAD
    avoid: HostId | None = None


class Placed(msgspec.Struct, frozen=True):
    """This host, by its row in the table that was given."""

    row: int
    host_id: HostId


class Unplaced(msgspec.Struct, frozen=True):
    """No host now; `never` when no host could hold it even if empty and enabled."""

    problem: Problem
    never: bool


class RuleCount(msgspec.Struct, frozen=True):
    """How many hosts one rule removed, in words."""

    hosts: int
    words: str


class HostTable:
    """The hosts as columns. Mutable on purpose: a batch fills them up as it decides."""

    def __init__(self, hosts: Sequence[HostFacts]) -> None:
        self.hosts = list(hosts)
        size = len(self.hosts)
        self.present = np.array([h.desired is not HostDesired.ABSENT for h in hosts], dtype=bool)
        self.enabled = np.array([h.desired is HostDesired.ENABLED for h in hosts], dtype=bool)
        self.answers = np.array(
            [h.capacity is not None and not h.unreachable_ms for h in hosts], dtype=bool
        )
        self.vcpus_all = np.zeros(size)
        self.memory_all = np.zeros(size)
        for row, host in enumerate(self.hosts):
            if host.capacity is not None:
                self.vcpus_all[row] = int(host.capacity.cpus * host.cpu_ratio)
                usable = host.capacity.memory_mib - host.memory_reserved_mib
                self.memory_all[row] = max(0, int(usable * host.memory_ratio))
        self.vcpus_free = self.vcpus_all - np.array([h.vcpus_used for h in hosts], dtype=float)
        self.memory_free = self.memory_all - np.array(
            [h.memory_used_mib for h in hosts], dtype=float
        )
        self._pools: dict[PoolId, NDArray[np.bool_]] = {}

    def reaches(self, pool_id: PoolId | None) -> NDArray[np.bool_]:
        """Which hosts can open the disks of this pool."""
        if pool_id is None:
            return np.ones(len(self.hosts), dtype=bool)
        if pool_id not in self._pools:
            self._pools[pool_id] = np.array([pool_id in h.pools for h in self.hosts], dtype=bool)
        return self._pools[pool_id]

    def take(self, row: int, request: Request) -> None:
        """Book the request on this host."""
        self.vcpus_free[row] -= request.vcpus
        self.memory_free[row] -= request.memory_mib
        assert self.vcpus_free[row] >= 0, "a decision overcommitted the processors"
        assert self.memory_free[row] >= 0, "a decision overcommitted the memory"


def placement_decide(table: HostTable, requests: Sequence[Request]) -> list[Placed | Unplaced]:
    """Decide for each request in turn; the table is left as the decisions make it."""
    answers: list[Placed | Unplaced] = []
    scores: dict[Request, NDArray[np.float64]] = {}
    for request in requests:
        score = scores.get(request)
        if score is None:
            score = scores[request] = _scores(table, request)
        row = _best(score)
        if row < 0 and request.avoid is not None:
            # The others are full by now: the host to be avoided gets another chance.
            score = scores[request] = _scores(table, request)
            row = _best(score)
        if row < 0:
            answers.append(_unplaced(table, request))
            continue
        table.take(row, request)
        answers.append(Placed(row, table.hosts[row].id))
        for other, column in scores.items():
            column[row] = _score_of(table, other, row)
    return answers


def _best(score: NDArray[np.float64]) -> int:
    """Return the row with the best score; -1 where nothing fits."""
    row = int(score.argmax()) if len(score) else -1
    return row if row >= 0 and score[row] != NOWHERE else -1


def _allowed(table: HostTable, request: Request) -> NDArray[np.bool_]:
    allowed: NDArray[np.bool_] = table.enabled & table.answers & table.reaches(request.pool_id)
    if request.avoid is not None:
        others = np.array([host.id != request.avoid for host in table.hosts], dtype=bool)
        # To avoid a host is a preference: the only host there is gets another chance.
        if (allowed & others & _has_room(table, request)).any():
            allowed &= others
    return allowed


def _has_room(table: HostTable, request: Request) -> NDArray[np.bool_]:
    room: NDArray[np.bool_] = table.vcpus_free >= request.vcpus
    room &= table.memory_free >= request.memory_mib
    return room


def _rank(ranking: Ranking, memory_free: float, memory_all: float, vcpus_free: float) -> float:
    # Memory decides, processors break ties: memory is what cannot be shared.
    free = memory_free / max(1.0, memory_all) + 1e-6 * vcpus_free
    return free if ranking is Ranking.SPREAD else -free


def _scores(table: HostTable, request: Request) -> NDArray[np.float64]:
    fits = _allowed(table, request) & _has_room(table, request)
    free = table.memory_free / np.maximum(1.0, table.memory_all) + 1e-6 * table.vcpus_free
    score = free if request.ranking is Ranking.SPREAD else -free
    return np.where(fits, score, NOWHERE)


def _score_of(table: HostTable, request: Request, row: int) -> float:
    """The score of one host after it took something; only ever fewer hosts fit than before."""
    host = table.hosts[row]
    if (
        table.vcpus_free[row] < request.vcpus
        or table.memory_free[row] < request.memory_mib
        or not (table.enabled[row] and table.answers[row])
        or not table.reaches(request.pool_id)[row]
        or host.id == request.avoid
    ):
        return float(NOWHERE)
    return _rank(
        request.ranking,
        float(table.memory_free[row]),
        float(table.memory_all[row]),
        float(table.vcpus_free[row]),
    )


def _unplaced(table: HostTable, request: Request) -> Unplaced:
    counts = rules_count(table, request)
    never = not _could_ever(table, request)
    total = int(table.present.sum())
    words = ", ".join(f"{count.hosts} {count.words}" for count in counts if count.hosts)
    noun = "host" if total == 1 else "hosts"
    detail = f"{total} {noun}: {words}." if words else "This site has no host yet."
    context = {"hosts": total, "rules": [[c.hosts, c.words] for c in counts if c.hosts]}
    if never:
        problem = Problem(
            code="never_fits",
            detail=detail,
            remedy="Choose a smaller instance type (`stratus type ls`), "
            "or ask your administrator for a larger host.",
            context=context,
        )
    else:
        problem = Problem(
            code="no_room_now",
            detail=detail,
            remedy="It starts by itself when there is room; stop something, "
            "or ask your administrator to enable or add a host.",
            context=context,
        )
    return Unplaced(problem, never)


def _could_ever(table: HostTable, request: Request) -> bool:
    """Some host could hold it if it were empty, enabled and answering.

    A host whose capacity was never seen might: absence of knowledge refuses nothing.
    """
    unseen = np.array([host.capacity is None for host in table.hosts], dtype=bool)
    large = (table.vcpus_all >= request.vcpus) & (table.memory_all >= request.memory_mib)
    return bool((table.present & table.reaches(request.pool_id) & (large | unseen)).any())


def rules_count(table: HostTable, request: Request) -> list[RuleCount]:
    """Say what each rule removed, every host counted once, by the first rule it failed."""
    left = table.present.copy()
    counts: list[RuleCount] = []

    def remove(keep: NDArray[np.bool_], words: str) -> None:
        nonlocal left
        counts.append(RuleCount(int((left & ~keep).sum()), words))
        left &= keep

    seen = np.array([host.capacity is not None for host in table.hosts], dtype=bool)
    remove(table.enabled, "in maintenance")
    remove(seen, "not looked at yet")
    remove(table.answers, "not answering")
    remove(table.reaches(request.pool_id), "without access to the pool of its disks")
    gib = f"{request.memory_mib / 1024:.2f}".rstrip("0").rstrip(".")
    remove(table.memory_all >= request.memory_mib, f"smaller than {gib} GiB of memory")
    remove(table.vcpus_all >= request.vcpus, f"with fewer than {request.vcpus} vCPUs")
    remove(table.memory_free >= request.memory_mib, f"lacking {gib} GiB of free memory")
    remove(table.vcpus_free >= request.vcpus, f"lacking {request.vcpus} free vCPUs")
    if left.any():
        counts.append(RuleCount(int(left.sum()), WITH_ROOM))
    return counts
