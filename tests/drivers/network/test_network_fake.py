"""Does the fake network driver behave like a real one?"""

import itertools
from collections.abc import Callable

import pytest

from stratus.drivers.failure import EngineUnreachable
from stratus.drivers.hypervisor.fake import FakeHypervisor, FakeMachine
from stratus.drivers.network import conformance
from stratus.drivers.network.conformance import NetworkLab
from stratus.drivers.network.contract import NetworkDriver
from stratus.drivers.network.fake import FakeNetworkDriver
from stratus.model.host import GuestNic, GuestSpec
from stratus.model.ids import InstanceId, NetworkId
from stratus.model.instance import Nic
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec

NUMBERS = itertools.count(1)


def network_make(class_: NetworkClass) -> NetworkSpec:
    number = next(NUMBERS)
    return NetworkSpec(
        id=NetworkId(f"net-{number:016d}"),
        name=f"lab-{number}",
        class_=class_,
        ipv4_cidr=f"10.77.{number}.0/24",
        ipv4_gateway=f"10.77.{number}.1",
    )


def port_make(network: NetworkSpec, number: int) -> PortSpec:
    prefix = network.ipv4_cidr.rsplit(".", 1)[0]
    return PortSpec(
        network_id=network.id,
        instance_id=InstanceId(f"ins-{number:016d}"),
        mac=f"52:54:00:00:00:{number:02x}",
        ipv4=f"{prefix}.{number + 10}",
        host_name=f"guest-{number}",
    )


def lab_make() -> NetworkLab:
    machine = FakeMachine()

    def plugged(driver: NetworkDriver, spec: NetworkSpec, attempt: Callable[[], None]) -> None:
        port = port_make(spec, 0)
        card = Nic(network_id=spec.id, mac=port.mac, ipv4=port.ipv4)
        guest = GuestSpec(
            instance_id=port.instance_id,
            generation=1,
            run=1,
            resets=0,
            title="",
            vcpus=1,
            memory_mib=64,
            disks=(),
            nics=(GuestNic(nic=card, attachment=driver.ensure_port(port)),),
        )
        hypervisor = FakeHypervisor(machine)
        hypervisor.ensure_running(guest)
        attempt()
        hypervisor.ensure_absent(guest.instance_id, 1)

    return NetworkLab(
        make=lambda: FakeNetworkDriver(machine),
        spec=network_make,
        port=port_make,
        plugged=plugged,
    )


@pytest.mark.parametrize(
    ("_name", "check"), conformance.CHECKS, ids=[name for name, _ in conformance.CHECKS]
)
def test_the_fake_keeps_the_contract(_name: str, check: Callable[[NetworkLab], None]) -> None:
    check(lab_make())


def test_a_machine_that_does_not_answer_says_nothing_about_its_networks() -> None:
    machine = FakeMachine()
    driver = FakeNetworkDriver(machine)
    machine.faults.unreachable = True
    with pytest.raises(EngineUnreachable):
        driver.inventory()
    with pytest.raises(EngineUnreachable):
        driver.ensure_network(network_make(NetworkClass.PUBLIC))
