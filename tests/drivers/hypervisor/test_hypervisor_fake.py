"""Does the fake hypervisor behave like a real one, and break in the ways it is told to?"""

import itertools
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.hypervisor import conformance
from stratus.drivers.hypervisor.conformance import HypervisorLab
from stratus.drivers.hypervisor.fake import Delays, FakeHypervisor, FakeMachine, Faults
from stratus.model.host import GuestDisk, GuestSpec
from stratus.model.ids import InstanceId
from stratus.model.instance import HaltCause, Observed
from stratus.model.problem import Problem
from stratus.model.volume import FileDisk, VolumeKind

NUMBERS = itertools.count(1)


def spec_make() -> GuestSpec:
    number = next(NUMBERS)
    disk = GuestDisk(
        kind=VolumeKind.ROOT,
        volume_id=f"vol-{number:016d}",
        connection=FileDisk(path=f"/pool/{number}", format="raw"),
    )
    return GuestSpec(
        instance_id=InstanceId(f"ins-{number:016d}"),
        generation=1,
        run=1,
        resets=0,
        title="a guest",
        vcpus=1,
        memory_mib=128,
        disks=(disk,),
    )


class Clock:
    """Milliseconds that pass when told."""

    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


def lab_make() -> HypervisorLab:
    clock = Clock()
    machine = FakeMachine(clock=clock, delays=Delays(shutdown=2.0))

    def pause() -> None:
        clock.now_ms += 500

    return HypervisorLab(
        make=lambda: FakeHypervisor(machine),
        spec=spec_make,
        guest_halts=lambda spec: machine.guest_halts(spec.instance_id),
        guest_crashes=lambda spec: machine.guest_crashes(spec.instance_id),
        stranger_add=machine.add_stranger,
        pause=pause,
    )


@pytest.mark.parametrize(
    ("_name", "check"), conformance.CHECKS, ids=[name for name, _ in conformance.CHECKS]
)
def test_the_fake_keeps_the_contract(_name: str, check: Callable[[HypervisorLab], None]) -> None:
    check(lab_make())


def test_a_machine_that_does_not_answer_says_nothing_about_its_guests() -> None:
    machine = FakeMachine()
    spec = spec_make()
    FakeHypervisor(machine).ensure_running(spec)
    machine.faults.unreachable = True
    driver = FakeHypervisor(machine)
    for call in (
        driver.capacity,
        driver.inventory,
        lambda: driver.ensure_running(spec),
        lambda: driver.ensure_absent(spec.instance_id, 1),
        lambda: driver.console_tail(spec.instance_id, 1, bytes_max=1),
    ):
        with pytest.raises(EngineUnreachable):
            call()
    assert machine.running() == [spec]


def test_a_lost_reply_leaves_the_effect() -> None:
    machine = FakeMachine(faults=Faults(lose_replies=1))
    driver, spec = FakeHypervisor(machine), spec_make()
    with pytest.raises(EngineUnreachable):
        driver.ensure_running(spec)
    assert machine.running() == [spec]
    driver.ensure_running(spec)
    assert machine.starts == 1


def test_failed_starts_fail_and_then_succeed() -> None:
    machine = FakeMachine(faults=Faults(failed_starts=2))
    driver, spec = FakeHypervisor(machine), spec_make()
    for _ in range(2):
        with pytest.raises(DriverFailed, match="guest_failed"):
            driver.ensure_running(spec)
    assert driver.ensure_running(spec).observed is Observed.RUNNING


def test_a_refusing_machine_refuses_with_the_given_problem() -> None:
    problem = Problem(code="host_refused", detail="no", remedy="none")
    driver = FakeHypervisor(FakeMachine(faults=Faults(refuse=problem)))
    with pytest.raises(DriverFailed) as caught:
        driver.ensure_running(spec_make())
    assert caught.value.problem is problem


def test_memory_comes_back_when_guests_halt() -> None:
    machine = FakeMachine(memory_mib=256)
    driver, specs = FakeHypervisor(machine), [spec_make() for _ in range(3)]
    for spec in specs[:2]:
        driver.ensure_running(spec)
    with pytest.raises(DriverFailed, match="host_refused"):
        driver.ensure_running(specs[2])
    machine.guest_halts(specs[0].instance_id)
    driver.ensure_running(specs[2])
    assert machine.memory_used_mib == 256
    for spec in specs:
        driver.ensure_absent(spec.instance_id, spec.generation)
    assert machine.memory_used_mib == 0


def test_two_guests_do_not_write_to_one_volume() -> None:
    machine = FakeMachine()
    driver, spec = FakeHypervisor(machine), spec_make()
    driver.ensure_running(spec)
    with pytest.raises(DriverFailed, match="in use by another guest"):
        driver.ensure_running(replace(spec, generation=2))
    machine.guest_halts(spec.instance_id)
    driver.ensure_running(replace(spec, generation=2))


def test_a_reboot_loses_the_guests_but_not_their_definitions() -> None:
    machine = FakeMachine()
    driver, spec = FakeHypervisor(machine), spec_make()
    driver.ensure_running(spec)
    boot_id = driver.capacity().boot_id
    machine.reboot()
    assert driver.capacity().boot_id != boot_id
    assert machine.running() == []
    found = machine.guest(spec.instance_id, 1)
    assert found is not None
    assert (found.observed, found.halt_cause) == (Observed.HALTED, HaltCause.LOST)
    assert driver.ensure_running(replace(spec, run=2)).run == 2


def test_a_deaf_guest_ignores_its_button() -> None:
    machine = FakeMachine(faults=Faults(ignores_shutdown=True))
    driver, spec = FakeHypervisor(machine), spec_make()
    driver.ensure_running(spec)
    driver.shutdown_ask(spec.instance_id, 1)
    assert machine.running() == [spec]


def test_a_paused_guest_is_resumed() -> None:
    machine = FakeMachine()
    driver, spec = FakeHypervisor(machine), spec_make()
    driver.ensure_running(spec)
    machine.guest_pauses(spec.instance_id)
    assert driver.inventory()[0].observed is Observed.PAUSED
    assert driver.ensure_running(spec).observed is Observed.RUNNING


def test_delays_are_slept_with_the_given_sleep() -> None:
    slept: list[float] = []
    machine = FakeMachine(sleep=slept.append, delays=Delays(look=0.1, start=1.5, change=0.5))
    driver, spec = FakeHypervisor(machine), spec_make()
    driver.ensure_running(spec)
    driver.ensure_halted(spec.instance_id, 1)
    driver.inventory()
    assert slept == [1.5, 0.5, 0.1]
