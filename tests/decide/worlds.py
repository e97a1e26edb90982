"""Imaginary instances, hosts and guests for the tests of decisions, and how to draw any of them."""

from typing import Any, Final

from hypothesis import strategies as st

from stratus.model.host import (
    GuestFound,
    GuestKnown,
    GuestWish,
    HostCapacity,
    HostDesired,
    HostFacts,
)
from stratus.model.ids import HostId, ImageId, InstanceId, PoolId, ProjectId, UserId
from stratus.model.instance import (
    Desired,
    HaltCause,
    InstanceFacts,
    Observed,
    OnHalt,
    Ranking,
)
from stratus.model.problem import Problem
from stratus.model.units import MINUTE_MS

NOW_MS: Final = 1_800_000_000_000
HOST: Final = HostId("hst-1")
OTHER: Final = HostId("hst-2")
POOL: Final = PoolId("pol-1")
BAD_LUCK: Final = Problem(
    code="guest_failed", detail="qemu said no.", remedy="Look at its console."
)
FORBIDDEN: Final = Problem(code="policy_forbids", detail="Not endorsed.", remedy="Endorse it.")


def instance(**given: Any) -> InstanceFacts:  # noqa: ANN401  # any field
    """An instance that was just wished to run, with whatever is said otherwise."""
    values: dict[str, Any] = {
        "id": InstanceId("ins-1"),
        "project_id": ProjectId("prj-1"),
        "user_id": UserId("usr-1"),
        "name": "one",
        "created_ms": NOW_MS,
        "version": 1,
        "desired": Desired.RUNNING,
        "desired_ms": NOW_MS,
        "run": 1,
        "resets": 0,
        "release": False,
        "on_halt": OnHalt.KEEP,
        "ranking": Ranking.SPREAD,
        "image_id": ImageId("img-1"),
        "type_name": "t1.micro",
        "vcpus": 1,
        "memory_mib": 512,
        "swap_mib": 0,
        "root_gib": 0,
        "volatile_gib": 0,
        "volumes_wanted": 2,
        "volumes_ready": 2,
        "volumes_left": 2,
        **given,
    }
    return InstanceFacts(**values)


def placed(**given: Any) -> InstanceFacts:  # noqa: ANN401  # any field
    """An instance that has a host, on which nothing was seen yet."""
    values = {"host_id": HOST, "host_name": "node1", "generation": 1, "placed_ms": NOW_MS, **given}
    return instance(**values)


def seen(observed: Observed, **given: Any) -> InstanceFacts:  # noqa: ANN401  # any field
    """An instance whose guest was seen so on its host, in the wished run."""
    run = given.get("run", 1)
    values = {"observed": observed, "observed_generation": 1, "observed_run": run, **given}
    return placed(**values)


SMALL = st.integers(min_value=0, max_value=4)
AGES_MS = st.sampled_from((0, 1, MINUTE_MS, 20 * MINUTE_MS, 60 * MINUTE_MS, 10_000 * MINUTE_MS))


@st.composite
def any_instances(draw: st.DrawFn) -> InstanceFacts:
    """Any facts that the store could hold, likely or not."""
    host_id = draw(st.sampled_from((None, HOST)))
    generation = draw(SMALL)
    failures = draw(SMALL)
    stray = draw(st.sampled_from((None, None, HOST, OTHER)))
    left = draw(SMALL)
    return instance(
        desired=draw(st.sampled_from(Desired)),
        desired_ms=NOW_MS - draw(AGES_MS),
        run=1 + draw(SMALL),
        resets=draw(SMALL),
        release=draw(st.booleans()),
        on_halt=draw(st.sampled_from(OnHalt)),
        host_id=host_id,
        generation=generation,
        placed_ms=NOW_MS - draw(AGES_MS),
        observed=draw(st.sampled_from(Observed)),
        observed_generation=draw(SMALL),
        observed_run=draw(SMALL),
        observed_resets=draw(SMALL),
        halt_cause=draw(st.sampled_from(HaltCause)),
        failures=failures,
        failure=BAD_LUCK if failures else None,
        rounds=draw(st.integers(min_value=0, max_value=6)),
        host_unreachable_ms=draw(st.sampled_from((0, 0, NOW_MS - 1))) if host_id else 0,
        volumes_wanted=left,
        volumes_ready=draw(st.integers(min_value=0, max_value=left)),
        volumes_left=left,
        stray_host_id=stray,
        stray_generation=draw(SMALL) if stray else 0,
        stray_alive=stray is not None and draw(st.booleans()),
        parked=draw(st.sampled_from((None, None, BAD_LUCK))),
        waiting=draw(st.sampled_from((None, BAD_LUCK))),
        gone_ms=draw(st.sampled_from((0, 0, 0, NOW_MS))),
    )


def host(name: str = "node1", **given: Any) -> HostFacts:  # noqa: ANN401  # any field
    """An enabled host of 8 CPUs and 16 GiB that answers, with whatever is said otherwise."""
    cpus, memory_mib = given.pop("cpus", 8), given.pop("memory_mib", 16 * 1024)
    values: dict[str, Any] = {
        "id": HostId(f"hst-{name}"),
        "name": name,
        "uri": "fake:///x",
        "desired": HostDesired.ENABLED,
        "cpu_ratio": 1.0,
        "memory_ratio": 1.0,
        "memory_reserved_mib": 0,
        "created_ms": NOW_MS,
        "version": 1,
        "capacity": HostCapacity(cpus=cpus, memory_mib=memory_mib),
        "pools": (POOL,),
        **given,
    }
    return HostFacts(**values)


def wished(number: int = 1, **given: Any) -> GuestWish:  # noqa: ANN401  # any field
    """A line of a document: a guest that should run, its disks ready."""
    values: dict[str, Any] = {
        "instance_id": InstanceId(f"ins-{number}"),
        "generation": 1,
        "present": True,
        "running": True,
        "run": 1,
        "resets": 0,
        "desired_ms": NOW_MS,
        "disks_ready": True,
        **given,
    }
    return GuestWish(**values)


def found(number: int = 1, **given: Any) -> GuestFound:  # noqa: ANN401  # any field
    """A guest of ours that runs in its first run."""
    generation = given.get("generation", 1)
    values: dict[str, Any] = {
        "name": f"ins-{number}.{generation}",
        "observed": Observed.RUNNING,
        "instance_id": InstanceId(f"ins-{number}"),
        "generation": 1,
        "run": 1,
        **given,
    }
    return GuestFound(**values)


def known(guest: GuestFound) -> GuestKnown:
    """What the store knows of a guest that was reported so."""
    return GuestKnown(
        observed=guest.observed,
        generation=guest.generation,
        run=guest.run,
        resets=guest.resets,
        halt_cause=guest.halt_cause,
    )
