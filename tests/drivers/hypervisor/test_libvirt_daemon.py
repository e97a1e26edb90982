"""Does a hypervisor connection survive the death, the absence and the silence of libvirtd?"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures_libvirt import Libvirtd

from stratus.drivers.failure import EngineUnreachable
from stratus.drivers.hypervisor.conformance import guest_find
from stratus.drivers.hypervisor.libvirt import LibvirtHypervisor
from stratus.drivers.hypervisor.libvirt_connection import (
    KEEPALIVE_MISSES_MAX,
    KEEPALIVE_SECONDS,
    OPEN_SECONDS_MAX,
    RECONNECT_SECONDS_MAX,
)
from stratus.model.host import GuestSpec
from stratus.model.instance import Observed
from stratus.site.libvirtd import ensure_libvirtd, libvirtd_processes

SILENCE_SECONDS_MAX = KEEPALIVE_SECONDS * (KEEPALIVE_MISSES_MAX + 2)
GRACE_SECONDS = 5.0


@pytest.fixture
def own_libvirtd(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """A daemon that we may mistreat; it answers again afterwards."""
    if not libvirtd.started_by_us or not libvirtd_processes(libvirtd.site):
        pytest.skip("this libvirtd is not ours to stop")
    yield libvirtd
    ensure_libvirtd(libvirtd.site)


def daemon_pid(libvirtd: Libvirtd) -> int:
    return libvirtd_processes(libvirtd.site)[-1].pid


def answered(call: Callable[[], object], seconds_max: float) -> bool:
    """Repeat the call until the host answers."""
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        try:
            call()
        except EngineUnreachable:
            time.sleep(0.1)
        else:
            return True
    return False


@pytest.mark.libvirt
@pytest.mark.guest
def test_guests_outlive_the_daemon_and_are_found_again(own_libvirtd: Libvirtd) -> None:
    driver, spec = LibvirtHypervisor(own_libvirtd.uri), own_libvirtd.spec()
    woken = threading.Event()
    driver.watch(woken.set)
    before = driver.ensure_running(spec)
    woken.clear()
    os.kill(daemon_pid(own_libvirtd), signal.SIGKILL)
    assert woken.wait(SILENCE_SECONDS_MAX), "the loss of the connection wakes"
    with pytest.raises(EngineUnreachable) as caught:
        driver.inventory()
    assert caught.value.problem.code == "host_unreachable"
    assert "libvirtd" in caught.value.problem.remedy
    ensure_libvirtd(own_libvirtd.site)
    assert answered(driver.inventory, 2 * RECONNECT_SECONDS_MAX)
    assert guest_find(driver, spec) == before
    assert driver.ensure_running(spec) == before
    woken.clear()
    driver.ensure_absent(spec.instance_id, spec.generation)
    assert woken.wait(SILENCE_SECONDS_MAX), "events come through the new connection too"
    driver.close()


@pytest.mark.libvirt
@pytest.mark.slow
def test_a_silent_daemon_is_unreachable_in_bounded_time(own_libvirtd: Libvirtd) -> None:
    driver = LibvirtHypervisor(own_libvirtd.uri)
    driver.inventory()
    pid = daemon_pid(own_libvirtd)
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(EngineUnreachable):
            driver.inventory()
        assert time.monotonic() - began < SILENCE_SECONDS_MAX + GRACE_SECONDS
        began = time.monotonic()
        with pytest.raises(EngineUnreachable):
            driver.inventory()  # has to connect first, and nobody takes the call
        assert time.monotonic() - began < OPEN_SECONDS_MAX + GRACE_SECONDS
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answered(driver.inventory, 2 * RECONNECT_SECONDS_MAX + OPEN_SECONDS_MAX)
    driver.close()


@pytest.mark.libvirt
@pytest.mark.guest
@pytest.mark.slow
def test_a_guest_whose_qemu_died_unseen_has_crashed_or_is_lost(own_libvirtd: Libvirtd) -> None:
    driver, spec = LibvirtHypervisor(own_libvirtd.uri), own_libvirtd.spec()
    driver.ensure_running(spec)
    qemu = qemu_pid(spec)
    os.kill(daemon_pid(own_libvirtd), signal.SIGKILL)
    os.kill(qemu, signal.SIGKILL)
    ensure_libvirtd(own_libvirtd.site)
    assert answered(driver.inventory, 2 * RECONNECT_SECONDS_MAX)
    deadline = time.monotonic() + SILENCE_SECONDS_MAX
    while (found := guest_find(driver, spec)) and found.observed is not Observed.HALTED:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert found is not None
    assert found.run == spec.run
    assert found.halt_cause in ("crashed", "lost")
    driver.ensure_absent(spec.instance_id, spec.generation)
    driver.close()


def qemu_pid(spec: GuestSpec) -> int:
    return int(Path(f"/run/libvirt/qemu/{spec.domain_name}.pid").read_text())


def test_a_host_that_is_not_there_is_unreachable_with_a_remedy() -> None:
    driver = LibvirtHypervisor("qemu+unix:///system?socket=/nonexistent/libvirt-sock")
    for _ in range(2):
        with pytest.raises(EngineUnreachable) as caught:
            driver.inventory()
        assert caught.value.problem.code == "host_unreachable"
        assert "Start libvirtd" in caught.value.problem.remedy
    driver.close()
