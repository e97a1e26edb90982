"""Does the pool in memory keep the contract, and do its knobs do what they say?"""

import io

import pytest

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.volume.conformance import CHECKS, Check, check_name, refused
from stratus.drivers.volume.effects import Hook, nothing_after
from stratus.drivers.volume.fake import FakePool, FakePoolState, PoolDelays, PoolFaults
from stratus.model.ids import ImageId, VolumeId
from stratus.model.problem import Problem
from stratus.model.units import MIB
from stratus.model.volume import Blank, VolumeSpec

SPEC = VolumeSpec(id=VolumeId("vol-1"), source=Blank(), size_bytes=8 * MIB)


@pytest.mark.parametrize("fences", [False, True], ids=["local", "fencing"])
@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_the_fake_pool_keeps_the_contract(check: Check, fences: bool) -> None:
    state = FakePoolState(fences=fences)

    def make(*, after: Hook = nothing_after) -> FakePool:
        return FakePool(state, after=after)

    check(make)


def test_a_silent_pool_concludes_nothing() -> None:
    state = FakePoolState(faults=PoolFaults(unreachable=True))
    for act in (
        FakePool(state).inventory,
        FakePool(state).probe,
        lambda: FakePool(state).ensure_volume(SPEC),
        lambda: FakePool(state).ensure_volume_absent(SPEC.id),
    ):
        with pytest.raises(EngineUnreachable):
            act()


def test_a_lost_reply_has_taken_effect() -> None:
    state = FakePoolState(faults=PoolFaults(lose_replies=1))
    with pytest.raises(EngineUnreachable):
        FakePool(state).ensure_volume(SPEC)
    assert state.makes == 1
    FakePool(state).ensure_volume(SPEC)
    assert state.makes == 1


def test_a_full_pool_refuses_and_gives_back_what_was_removed() -> None:
    state = FakePoolState(total_bytes=1000)
    pool = FakePool(state)
    image = ImageId("img-1")
    refused(
        "no_space",
        lambda: pool.image_stage(image, io.BytesIO(bytes(1001)), offset=0, bytes_max=MIB),
    )
    pool.image_stage(image, io.BytesIO(bytes(1000)), offset=0, bytes_max=MIB)
    assert pool.probe().free_bytes == 0
    pool.ensure_image_absent(image)
    assert pool.probe().free_bytes == 1000
    state.faults.no_space = True
    refused("no_space", lambda: pool.ensure_volume(SPEC))
    assert not state.volume_ids()


def test_what_a_guest_holds_cannot_be_deleted() -> None:
    state = FakePoolState()
    pool = FakePool(state)
    pool.ensure_volume(SPEC)
    state.hold(SPEC.id, "guest")
    refused("in_use", lambda: pool.ensure_volume_absent(SPEC.id))
    state.release(SPEC.id, "guest")
    pool.ensure_volume_absent(SPEC.id)


def test_refusals_and_failed_makes_leave_nothing() -> None:
    problem = Problem(code="volume_failed", detail="no", remedy="wait")
    state = FakePoolState(faults=PoolFaults(refuse=problem))
    refused("volume_failed", lambda: FakePool(state).ensure_volume(SPEC))
    state.faults = PoolFaults(failed_makes=1)
    with pytest.raises(DriverFailed) as failure:
        FakePool(state).ensure_volume(SPEC)
    assert failure.value.transient
    assert not state.volume_ids()
    FakePool(state).ensure_volume(SPEC)


def test_delays_go_through_the_injected_sleep() -> None:
    slept: list[float] = []
    state = FakePoolState(sleep=slept.append, delays=PoolDelays(make=2.0, look=0.5))
    FakePool(state).ensure_volume(SPEC)
    FakePool(state).inventory()
    assert slept == [2.0, 0.5]
