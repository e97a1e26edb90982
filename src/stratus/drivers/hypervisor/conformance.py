"""Does this hypervisor driver keep its promises? Plain functions that try any of them.

Hand each function of `CHECKS` a `HypervisorLab`. The lab's guests may be records, or real
machines as small as a boot sector; what a driver cannot do by its facts is not asked of it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from stratus.drivers.failure import DriverFailed
from stratus.drivers.hypervisor.contract import Hypervisor
from stratus.model.host import GuestFound, GuestSpec
from stratus.model.instance import HaltCause, Observed

PATIENCE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05
TOGETHER: Final = 6  # threads that call at once


def real_pause() -> None:
    """Let real time pass between two looks."""
    time.sleep(LOOK_SECONDS)


@dataclass(frozen=True, kw_only=True)
class HypervisorLab:
    """One host under trial.

    `make` opens one more connection to the same host. `spec` describes a new guest that obeys
    its power button. The acts are what a guest or a stranger does behind the driver's back;
    None where the lab cannot play that. `pause` lets time pass, real or not.
    """

    make: Callable[[], Hypervisor]
    spec: Callable[[], GuestSpec]
    guest_halts: Callable[[GuestSpec], None] | None = None
    guest_crashes: Callable[[GuestSpec], None] | None = None
    stranger_add: Callable[[str], None] | None = None
    pause: Callable[[], None] = real_pause


def guest_find(driver: Hypervisor, spec: GuestSpec) -> GuestFound | None:
    """Return this placement's guest from the inventory; there is at most one."""
    found = [
        guest
        for guest in driver.inventory()
        if (guest.instance_id, guest.generation) == (spec.instance_id, spec.generation)
    ]
    assert len(found) <= 1, f"{spec.domain_name} is there {len(found)} times"
    return found[0] if found else None


def guest_await(
    lab: HypervisorLab, driver: Hypervisor, spec: GuestSpec, want: Observed
) -> GuestFound:
    """Look until the guest is as wanted; fail when patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = guest_find(driver, spec)
        if found is not None and found.observed is want:
            return found
        assert time.monotonic() < deadline, f"{spec.domain_name} is {found}, not {want}"
        lab.pause()


def refusal_of(call: Callable[[], object]) -> str:
    """Return the code with which the driver refuses this call; "" when it does not."""
    try:
        call()
    except DriverFailed as failure:
        return failure.problem.code
    return ""


def check_capacity(lab: HypervisorLab) -> None:
    """The host says what it has, the same every time."""
    driver = lab.make()
    capacity = driver.capacity()
    assert capacity.cpus >= 1
    assert capacity.memory_mib >= 64
    assert capacity.hypervisor
    assert capacity.accelerator in ("kvm", "tcg", "fake")
    assert capacity.accelerator_reason
    assert driver.capacity() == capacity
    driver.close()


def check_running_repeats(lab: HypervisorLab) -> None:
    """Asked twice, and once more through another connection, one guest runs and is left alone."""
    driver, spec = lab.make(), lab.spec()
    first = driver.ensure_running(spec)
    assert (first.name, first.observed) == (spec.domain_name, Observed.RUNNING)
    assert (first.instance_id, first.generation) == (spec.instance_id, spec.generation)
    assert (first.run, first.resets) == (spec.run, spec.resets)
    assert first.halt_cause is HaltCause.NONE
    assert driver.ensure_running(spec) == first
    driver.close()
    again = lab.make()
    assert guest_find(again, spec) == first
    assert again.ensure_running(spec) == first
    again.ensure_absent(spec.instance_id, spec.generation)
    again.close()


def check_running_together(lab: HypervisorLab) -> None:
    """Asked by many at once, one guest runs."""
    driver, spec = lab.make(), lab.spec()
    results: list[GuestFound] = []
    threads = [
        threading.Thread(target=lambda: results.append(driver.ensure_running(spec)))
        for _ in range(TOGETHER)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert results == [guest_find(driver, spec)] * TOGETHER
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_halted_stays_defined(lab: HypervisorLab) -> None:
    """A guest that was powered off is halted because it was asked to, not absent."""
    driver, spec = lab.make(), lab.spec()
    driver.ensure_running(spec)
    for _ in range(2):
        driver.ensure_halted(spec.instance_id, spec.generation)
    found = guest_find(lab.make(), spec)
    assert found is not None
    assert (found.observed, found.halt_cause) == (Observed.HALTED, HaltCause.ASKED)
    assert found.run == spec.run
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_same_run_is_over(lab: HypervisorLab) -> None:
    """A guest that halted in a run is not started again in this run, but in the next."""
    driver, spec = lab.make(), lab.spec()
    driver.ensure_running(spec)
    driver.ensure_halted(spec.instance_id, spec.generation)
    assert refusal_of(lambda: driver.ensure_running(spec)) == "conflict"
    assert guest_await(lab, driver, spec, Observed.HALTED).run == spec.run
    following = replace(spec, run=spec.run + 1, memory_mib=spec.memory_mib + 16, title="changed")
    found = driver.ensure_running(following)
    assert (found.observed, found.run) == (Observed.RUNNING, following.run)
    assert found.halt_cause is HaltCause.NONE
    assert driver.ensure_running(following) == found
    assert refusal_of(lambda: driver.ensure_running(spec)) == "conflict"  # a stale wish
    assert guest_find(driver, spec) == found
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_running_in_earlier_run(lab: HypervisorLab) -> None:
    """A guest that still runs in an earlier run is neither restarted nor taken over."""
    driver, spec = lab.make(), lab.spec()
    before = driver.ensure_running(spec)
    following = replace(spec, run=spec.run + 1)
    assert refusal_of(lambda: driver.ensure_running(following)) == "conflict"
    assert guest_find(driver, spec) == before
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_resets(lab: HypervisorLab) -> None:
    """Resets are counted on the guest itself, so that each is done once."""
    driver, spec = lab.make(), lab.spec()
    instance_id, generation = spec.instance_id, spec.generation
    driver.ensure_running(spec)
    for _ in range(2):
        driver.ensure_reset(instance_id, generation, resets=spec.resets + 2)
    driver.ensure_reset(instance_id, generation, resets=spec.resets + 1)
    again = lab.make()
    found = guest_find(again, spec)
    assert found is not None
    assert (found.resets, found.observed) == (spec.resets + 2, Observed.RUNNING)
    found = again.ensure_running(replace(spec, resets=spec.resets + 3))
    assert (found.resets, found.observed) == (spec.resets + 3, Observed.RUNNING)
    again.ensure_halted(instance_id, generation)
    again.ensure_reset(instance_id, generation, resets=spec.resets + 9)
    found = again.ensure_running(replace(spec, run=spec.run + 1, resets=spec.resets + 4))
    assert (found.resets, found.run) == (spec.resets + 4, spec.run + 1)
    again.ensure_absent(instance_id, generation)
    driver.close()
    again.close()


def check_absent_repeats(lab: HypervisorLab) -> None:
    """Nothing is left of an absent guest, running or halted, and nothing else is touched."""
    driver, spec = lab.make(), lab.spec()
    other = replace(spec, generation=spec.generation + 1, disks=())
    driver.ensure_running(spec)
    kept = driver.ensure_running(other)
    for _ in range(2):
        driver.ensure_absent(spec.instance_id, spec.generation)
    assert guest_find(driver, spec) is None
    assert guest_find(driver, other) == kept
    driver.ensure_halted(other.instance_id, other.generation)
    for _ in range(2):
        driver.ensure_absent(other.instance_id, other.generation)
    assert guest_find(driver, other) is None
    driver.close()


def check_no_guest_is_no_trouble(lab: HypervisorLab) -> None:
    """Calls about a guest that is not there do nothing."""
    driver, spec = lab.make(), lab.spec()
    instance_id, generation = spec.instance_id, spec.generation
    driver.shutdown_ask(instance_id, generation)
    driver.ensure_halted(instance_id, generation)
    driver.ensure_reset(instance_id, generation, resets=7)
    driver.ensure_absent(instance_id, generation)
    assert driver.console_tail(instance_id, generation, bytes_max=100) == b""
    assert guest_find(driver, spec) is None
    driver.close()


def check_too_large_is_refused(lab: HypervisorLab) -> None:
    """A guest larger than the host is refused with the host's own words, and not left running."""
    driver, spec = lab.make(), lab.spec()
    if driver.facts.opens_files:  # a mere record has no memory to run out of
        huge = replace(spec, memory_mib=driver.capacity().memory_mib * 64)
        for _ in range(2):
            assert refusal_of(lambda: driver.ensure_running(huge)) == "host_refused"
        found = guest_find(driver, spec)
        assert found is None or (found.observed, found.run) == (Observed.HALTED, 0)
        assert driver.ensure_running(spec).observed is Observed.RUNNING
    driver.ensure_absent(spec.instance_id, spec.generation)
    assert guest_find(driver, spec) is None
    driver.close()


def check_console(lab: HypervisorLab) -> None:
    """What the guest printed can be read from its end, and goes with the guest."""
    driver, spec = lab.make(), lab.spec()
    instance_id, generation = spec.instance_id, spec.generation
    driver.ensure_running(spec)
    if driver.facts.has_console_log:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (text := driver.console_tail(instance_id, generation, bytes_max=4096)):
            assert time.monotonic() < deadline, "the guest printed nothing"
            lab.pause()
        assert driver.console_tail(instance_id, generation, bytes_max=3) == text[-3:]
        assert driver.console_tail(instance_id, generation, bytes_max=0) == b""
    driver.ensure_absent(instance_id, generation)
    assert driver.console_tail(instance_id, generation, bytes_max=4096) == b""
    driver.close()


def check_shutdown(lab: HypervisorLab) -> None:
    """The power button reaches the guest; that it is off is its own doing."""
    driver, spec = lab.make(), lab.spec()
    driver.ensure_running(spec)
    if driver.facts.acpi_shutdown:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := guest_find(driver, spec)) and found.observed is not Observed.HALTED:
            assert time.monotonic() < deadline, "the guest does not obey its power button"
            driver.shutdown_ask(spec.instance_id, spec.generation)
            lab.pause()
        assert found is not None
        assert (found.halt_cause, found.run) == (HaltCause.GUEST, spec.run)
        driver.shutdown_ask(spec.instance_id, spec.generation)
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_guest_halts(lab: HypervisorLab) -> None:
    """A guest that powered itself off is shown so, and its will is not overruled."""
    driver, spec = lab.make(), lab.spec()
    driver.ensure_running(spec)
    if lab.guest_halts is not None:
        lab.guest_halts(spec)
        found = guest_await(lab, driver, spec, Observed.HALTED)
        assert (found.halt_cause, found.run) == (HaltCause.GUEST, spec.run)
        assert refusal_of(lambda: driver.ensure_running(spec)) == "conflict"
        driver.ensure_halted(spec.instance_id, spec.generation)
        found = guest_await(lab, lab.make(), spec, Observed.HALTED)
        assert found.halt_cause is HaltCause.GUEST  # it was off before we asked
        assert driver.ensure_running(replace(spec, run=spec.run + 1)).run == spec.run + 1
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_guest_crashes(lab: HypervisorLab) -> None:
    """A guest that crashed is shown so, and runs again in the next run."""
    driver, spec = lab.make(), lab.spec()
    driver.ensure_running(spec)
    if lab.guest_crashes is not None:
        lab.guest_crashes(spec)
        found = guest_await(lab, driver, spec, Observed.HALTED)
        assert (found.halt_cause, found.run) == (HaltCause.CRASHED, spec.run)
        assert driver.ensure_running(replace(spec, run=spec.run + 1)).run == spec.run + 1
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def check_strangers(lab: HypervisorLab) -> None:
    """Somebody else's guest is shown, and is recognised as not ours."""
    driver = lab.make()
    if lab.stranger_add is not None:
        lab.stranger_add("somebody-else")
        shown = [guest for guest in driver.inventory() if guest.name == "somebody-else"]
        assert [guest.instance_id for guest in shown] == [None]
    driver.close()


def check_watch(lab: HypervisorLab) -> None:
    """Where the driver pushes events, a change wakes the watcher soon."""
    driver, spec = lab.make(), lab.spec()
    woken = threading.Event()
    driver.watch(woken.set)
    driver.ensure_running(spec)
    if driver.facts.pushes_events:
        assert woken.wait(PATIENCE_SECONDS), "nobody called"
        woken.clear()
        lab.make().ensure_halted(spec.instance_id, spec.generation)
        assert woken.wait(PATIENCE_SECONDS), "nobody called"
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


CHECKS: Final[tuple[tuple[str, Callable[[HypervisorLab], None]], ...]] = (
    ("capacity", check_capacity),
    ("running_repeats", check_running_repeats),
    ("running_together", check_running_together),
    ("halted_stays_defined", check_halted_stays_defined),
    ("same_run_is_over", check_same_run_is_over),
    ("running_in_earlier_run", check_running_in_earlier_run),
    ("resets", check_resets),
    ("absent_repeats", check_absent_repeats),
    ("no_guest_is_no_trouble", check_no_guest_is_no_trouble),
    ("too_large_is_refused", check_too_large_is_refused),
    ("console", check_console),
    ("shutdown", check_shutdown),
    ("guest_halts", check_guest_halts),
    ("guest_crashes", check_guest_crashes),
    ("strangers", check_strangers),
    ("watch", check_watch),
)


def check_hypervisor(lab: HypervisorLab) -> None:
    """Try everything, one after the other."""
    for _, check in CHECKS:
        check(lab)
