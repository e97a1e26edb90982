"""Can the checker fail? Bugs are planted in our own code, and each must be found soon."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from stratus.control import reconcile
from stratus.decide import hostplan, lifecycle
from stratus.decide.hostplan import HostPlan, Remove
from stratus.hosts import pools, worker
from stratus.model.host import GuestFound, GuestWish
from stratus.model.ids import HostId, InstanceId
from stratus.model.instance import InstanceFacts
from stratus.sim.run import seed_run

SEEDS_MAX = 20
STEPS = 120


def found_within(monkeypatch: pytest.MonkeyPatch, *, first: int = 1) -> str:
    """Run seeds until one breaks, and return what it said; `first` saves those known to hold."""
    for seed in range(first, first + SEEDS_MAX):
        outcome = seed_run(seed, steps=STEPS)
        if outcome.broken:
            monkeypatch.undo()
            return outcome.broken
    return ""


def test_absence_that_commands_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[..., HostPlan] = hostplan.host_plan

    def planted(
        host_id: HostId,
        wishes: Iterable[GuestWish],
        found: Iterable[GuestFound],
        **rest: Any,  # noqa: ANN401  # passes anything on
    ) -> HostPlan:
        plan = honest(host_id, wishes, found, **rest)
        removals = tuple(
            Remove(
                GuestWish(
                    instance_id=stray.instance_id,
                    generation=stray.generation,
                    present=False,
                    running=False,
                    run=0,
                    resets=0,
                    desired_ms=0,
                ),
                (stray.generation,),
            )
            for stray in plan.strays
            if stray.instance_id is not None
        )
        return msgspec.structs.replace(plan, actions=plan.actions + removals)

    monkeypatch.setattr(worker, "host_plan", planted)
    assert "nobody wished" in found_within(monkeypatch, first=2)


def test_starting_elsewhere_without_a_fence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = lifecycle.next_step

    def planted(facts: InstanceFacts, **rest: Any) -> Any:  # noqa: ANN401  # any step
        if facts.host_id is not None and facts.host_unreachable_ms and not facts.gone_ms:
            return lifecycle.Release()
        return honest(facts, **rest)

    monkeypatch.setattr(reconcile, "next_step", planted)
    assert found_within(monkeypatch, first=11)


def test_placing_without_looking_at_who_was_faster_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def planted(
        _connection: Connection, host_ids: Iterable[HostId], *, seen: Mapping[HostId, int]
    ) -> set[HostId]:
        del seen
        return set(host_ids)

    honest = reconcile._views

    def forgetful(connection: Connection, ids: Any, *, now_ms: int) -> Any:  # noqa: ANN401  # private
        views = honest(connection, ids, now_ms=now_ms)
        views.table.vcpus_free[:] = views.table.vcpus_all
        views.table.memory_free[:] = views.table.memory_all
        return views

    monkeypatch.setattr(reconcile, "placements_book", planted)
    monkeypatch.setattr(reconcile, "_views", forgetful)
    assert "overcommitted" in found_within(monkeypatch)


def test_giving_disks_back_before_the_guest_is_gone_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = lifecycle.next_step

    def planted(facts: InstanceFacts, **rest: Any) -> Any:  # noqa: ANN401  # any step
        if facts.desired == "absent" and facts.host_id is not None and not facts.gone_ms:
            return lifecycle.Release()
        return honest(facts, **rest)

    monkeypatch.setattr(reconcile, "next_step", planted)
    assert found_within(monkeypatch, first=11)


def test_restarting_without_asking_the_policy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = lifecycle.next_step

    def planted(facts: InstanceFacts, *, now_ms: int, forbidden: object = None) -> Any:  # noqa: ANN401  # any step
        del forbidden
        return honest(facts, now_ms=now_ms, forbidden=None)

    monkeypatch.setattr(reconcile, "next_step", planted)
    assert "policy" in found_within(monkeypatch, first=16)


def test_a_worker_that_never_sleeps_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.HostWorker, "next_ms", lambda _self: 0)
    assert "turns without end" in found_within(monkeypatch)


def test_a_lost_wake_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(
        _connection: Connection, _kind: str, _subjects: Iterable[InstanceId], *, wake_ms: int
    ) -> None:
        del wake_ms

    monkeypatch.setattr(worker, "work_wake", planted)
    monkeypatch.setattr(pools, "work_wake", planted)
    assert "not settled" in found_within(monkeypatch, first=11)
