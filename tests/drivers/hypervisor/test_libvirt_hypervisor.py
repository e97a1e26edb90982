"""Does the libvirt hypervisor keep the contract, on the test driver and on real guests?"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.fixtures_libvirt import Libvirtd

from stratus.drivers.failure import DriverFailed
from stratus.drivers.hypervisor import boot_sector, conformance
from stratus.drivers.hypervisor.conformance import HypervisorLab, guest_await, guest_find
from stratus.drivers.hypervisor.libvirt import LibvirtHypervisor
from stratus.model.host import GuestSpec
from stratus.model.instance import HaltCause, Observed
from stratus.site.libvirtd import LibvirtdSite

NAMES = [name for name, _ in conformance.CHECKS]
STEPS_MAX = 40


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Libvirtd]:
    """Libvirt's own test driver: records of guests, gone with the last connection."""
    site = LibvirtdSite(run_dir=tmp_path, state_dir=tmp_path, kvm_works=False)
    lab = Libvirtd(uri="test:///default", folder=tmp_path, site=site, started_by_us=False)
    keeper = LibvirtHypervisor(lab.uri)
    keeper.inventory()
    yield lab
    lab.clean()
    keeper.close()


def lab_make(lab: Libvirtd) -> HypervisorLab:
    real = lab.uri.startswith("qemu")
    return HypervisorLab(
        make=lambda: LibvirtHypervisor(lab.uri),
        spec=lab.spec,
        guest_halts=(lambda spec: lab.letter(spec, boot_sector.HALT)) if real else None,
        guest_crashes=(lambda spec: lab.letter(spec, boot_sector.PANIC)) if real else None,
        stranger_add=lab.stranger,
    )


@pytest.mark.parametrize(("_name", "check"), conformance.CHECKS, ids=NAMES)
def test_libvirts_test_driver_keeps_the_contract(
    record: Libvirtd, _name: str, check: Callable[[HypervisorLab], None]
) -> None:
    check(lab_make(record))


@pytest.mark.libvirt
@pytest.mark.guest
@pytest.mark.parametrize(("_name", "check"), conformance.CHECKS, ids=NAMES)
def test_real_guests_keep_the_contract(
    libvirtd: Libvirtd, _name: str, check: Callable[[HypervisorLab], None]
) -> None:
    check(lab_make(libvirtd))


# -- killed between any two steps --------------------------------------------------------------


class Aborted(BaseException):
    """The worker was killed here."""


class Cut:
    """Kills the worker after so many steps; remembers the steps."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.steps: list[str] = []

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        self.left -= 1
        if self.left == 0:
            raise Aborted


def healed_from_every_cut(
    lab: Libvirtd,
    prepare: Callable[[LibvirtHypervisor, GuestSpec], object],
    act: Callable[[LibvirtHypervisor, GuestSpec], object],
    check: Callable[[GuestSpec, list[str]], None],
) -> int:
    """Cut the act after its first, second, … step; repeat it; check. Return the number of cuts."""
    for cuts in range(1, STEPS_MAX):
        spec = lab.spec()
        driver = LibvirtHypervisor(lab.uri)
        prepare(driver, spec)
        cut = Cut(cuts)
        worker = LibvirtHypervisor(lab.uri, after_step=cut)
        try:
            act(worker, spec)
        except Aborted:
            aborted = True
        else:
            aborted = False
        worker.close()
        again = Cut(0)
        successor = LibvirtHypervisor(lab.uri, after_step=again)
        for _ in range(2):
            act(successor, spec)
        check(spec, cut.steps + again.steps)
        driver.ensure_absent(spec.instance_id, spec.generation)
        driver.close()
        successor.close()
        if not aborted:
            return cuts - 1
    raise AssertionError("the act never ends")


def labs_for_cuts() -> list[object]:
    marks = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.slow]
    return ["record", pytest.param("libvirtd", marks=marks)]


@pytest.fixture(params=labs_for_cuts())
def lab(request: pytest.FixtureRequest) -> Libvirtd:
    found: Libvirtd = request.getfixturevalue(request.param)
    return found


def test_a_start_cut_anywhere_starts_once(lab: Libvirtd) -> None:
    driver = LibvirtHypervisor(lab.uri)

    def check(spec: GuestSpec, steps: list[str]) -> None:
        found = guest_find(driver, spec)
        assert found is not None
        assert (found.observed, found.run) == (Observed.RUNNING, spec.run)
        assert steps.count("create") == 1

    cuts = healed_from_every_cut(
        lab,
        prepare=lambda _driver, _spec: None,
        act=lambda worker, spec: worker.ensure_running(spec),
        check=check,
    )
    assert cuts >= 5


def test_a_start_in_the_next_run_cut_anywhere_starts_once(lab: Libvirtd) -> None:
    driver = LibvirtHypervisor(lab.uri)

    def prepare(driver: LibvirtHypervisor, spec: GuestSpec) -> None:
        driver.ensure_running(spec)
        driver.ensure_halted(spec.instance_id, spec.generation)

    def check(spec: GuestSpec, steps: list[str]) -> None:
        found = guest_find(driver, spec)
        assert found is not None
        assert (found.observed, found.run) == (Observed.RUNNING, 2)
        assert steps.count("create") == 1

    healed_from_every_cut(
        lab,
        prepare=prepare,
        act=lambda worker, spec: worker.ensure_running(replace(spec, run=2)),
        check=check,
    )


def test_a_halt_cut_anywhere_was_asked_for(lab: Libvirtd) -> None:
    driver = LibvirtHypervisor(lab.uri)

    def check(spec: GuestSpec, _steps: list[str]) -> None:
        found = guest_find(driver, spec)
        assert found is not None
        assert (found.observed, found.halt_cause) == (Observed.HALTED, HaltCause.ASKED)

    healed_from_every_cut(
        lab,
        prepare=lambda driver, spec: driver.ensure_running(spec),
        act=lambda worker, spec: worker.ensure_halted(spec.instance_id, 1),
        check=check,
    )


def test_a_removal_cut_anywhere_leaves_nothing(lab: Libvirtd) -> None:
    driver = LibvirtHypervisor(lab.uri)

    def check(spec: GuestSpec, _steps: list[str]) -> None:
        assert guest_find(driver, spec) is None
        assert driver.console_tail(spec.instance_id, 1, bytes_max=10) == b""

    healed_from_every_cut(
        lab,
        prepare=lambda driver, spec: driver.ensure_running(spec),
        act=lambda worker, spec: worker.ensure_absent(spec.instance_id, 1),
        check=check,
    )


def test_a_reset_cut_anywhere_is_done_and_counted(lab: Libvirtd) -> None:
    driver = LibvirtHypervisor(lab.uri)

    def check(spec: GuestSpec, steps: list[str]) -> None:
        found = guest_find(driver, spec)
        assert found is not None
        assert (found.observed, found.resets) == (Observed.RUNNING, 1)
        assert 1 <= steps.count("reset") <= 2

    healed_from_every_cut(
        lab,
        prepare=lambda driver, spec: driver.ensure_running(spec),
        act=lambda worker, spec: worker.ensure_reset(spec.instance_id, 1, resets=1),
        check=check,
    )


# -- what only real guests show ----------------------------------------------------------------


@pytest.mark.libvirt
@pytest.mark.guest
def test_two_guests_cannot_write_to_one_file(libvirtd: Libvirtd) -> None:
    driver, spec = LibvirtHypervisor(libvirtd.uri), libvirtd.spec()
    driver.ensure_running(spec)
    with pytest.raises(DriverFailed, match="lock") as caught:
        driver.ensure_running(replace(spec, generation=2))
    assert "Another guest" in caught.value.problem.remedy
    found = guest_find(driver, replace(spec, generation=2))
    assert found is None or found.run == 0
    driver.ensure_absent(spec.instance_id, 1)
    assert driver.ensure_running(replace(spec, generation=2)).observed is Observed.RUNNING
    driver.ensure_absent(spec.instance_id, 2)
    driver.close()


@pytest.mark.libvirt
@pytest.mark.guest
def test_a_missing_disk_is_named_in_the_refusal(libvirtd: Libvirtd) -> None:
    driver, spec = LibvirtHypervisor(libvirtd.uri), libvirtd.spec()
    connection = spec.disks[0].connection
    Path(connection.path).unlink()
    with pytest.raises(DriverFailed) as caught:
        driver.ensure_running(spec)
    assert connection.path in caught.value.problem.detail
    driver.ensure_absent(spec.instance_id, 1)
    driver.close()


@pytest.mark.libvirt
@pytest.mark.guest
def test_how_a_guest_halted_survives_in_its_mark(libvirtd: Libvirtd) -> None:
    driver, spec = LibvirtHypervisor(libvirtd.uri), libvirtd.spec()
    driver.ensure_running(spec)
    libvirtd.letter(spec, boot_sector.PANIC)
    guest_await(lab_make(libvirtd), driver, spec, Observed.HALTED)
    seen = driver._connection.look(lambda call: driver._look_at(call, spec.instance_id, 1))
    assert seen is not None
    assert seen.mark.halt_cause is HaltCause.CRASHED
    driver.ensure_absent(spec.instance_id, 1)
    driver.close()
