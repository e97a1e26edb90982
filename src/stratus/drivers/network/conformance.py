"""Does this network driver keep its promises? Plain functions that try any of them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from stratus.drivers.failure import DriverFailed
from stratus.drivers.network.contract import NetworkDriver
from stratus.model.ids import InstanceId
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec

PORTS_TOGETHER: Final = 12
PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class NetworkLab:
    """One host under trial.

    `make` opens one more connection to its networks. `spec` describes a new network of a
    class, with addresses that nobody else has. `port` describes the n-th card on a network.
    `plugged` runs a guest with this card while the call inside goes on; None where the lab
    has no guests.
    """

    make: Callable[[], NetworkDriver]
    spec: Callable[[NetworkClass], NetworkSpec]
    port: Callable[[NetworkSpec, int], PortSpec]
    plugged: Callable[[NetworkDriver, NetworkSpec, Callable[[], None]], None] | None = None


def refusal_of(call: Callable[[], object]) -> str:
    """Return the code with which the driver refuses this call; "" when it does not."""
    try:
        call()
    except DriverFailed as failure:
        return failure.problem.code
    return ""


def ports_of(driver: NetworkDriver, spec: NetworkSpec) -> dict[str, str]:
    """Return address by card, as the inventory shows them on this network."""
    _, ports = driver.inventory()
    ours = [port for port in ports if port.network_id == spec.id]
    found = {port.mac: port.ipv4 for port in ours}
    assert len(found) == len(ours), "a card is there twice"
    return found


def has_networks(lab: NetworkLab) -> bool:
    """Tell whether this driver makes networks at all; user-mode ones are only guests' own."""
    driver = lab.make()
    facts = driver.probe()
    driver.close()
    return facts.fixed_leases


def check_probe(lab: NetworkLab) -> None:
    """The facts are the same every time, and name at least one class."""
    driver = lab.make()
    facts = driver.probe()
    assert facts.name
    assert facts.classes
    assert driver.probe() == facts
    driver.close()


def check_network_repeats(lab: NetworkLab) -> None:
    """Every class can be made twice, is found by another connection, and can be removed twice."""
    driver = lab.make()
    for class_ in driver.probe().classes:
        spec = lab.spec(class_)
        driver.ensure_network(spec)
        driver.ensure_network(spec)
        again = lab.make()
        again.ensure_network(spec)
        if has_networks(lab):
            assert list(again.inventory()[0]).count(spec.id) == 1
        for _ in range(2):
            driver.ensure_network_absent(spec.id)
        assert spec.id not in again.inventory()[0]
        again.close()
    driver.close()


def check_port_repeats(lab: NetworkLab) -> None:
    """A card is bound once, found by another connection, and gone after its removal."""
    driver, spec = lab.make(), lab.spec(NetworkClass.PRIVATE)
    driver.ensure_network(spec)
    port = lab.port(spec, 0)
    attachment = driver.ensure_port(port)
    assert driver.ensure_port(port) == attachment
    if has_networks(lab):
        assert attachment.network or attachment.bridge
        assert ports_of(lab.make(), spec) == {port.mac: port.ipv4}
    driver.ensure_network(spec)  # does not disturb the card
    again = lab.make()
    assert again.ensure_port(port) == attachment
    for _ in range(2):
        again.ensure_port_absent(spec.id, port.mac)
    assert ports_of(driver, spec) == {}
    again.close()
    driver.ensure_network_absent(spec.id)
    driver.close()


def check_port_changes(lab: NetworkLab) -> None:
    """The newest wish counts: a card changes its address, an address changes its card."""
    driver, spec = lab.make(), lab.spec(NetworkClass.PRIVATE)
    if has_networks(lab):
        driver.ensure_network(spec)
        one, two = lab.port(spec, 0), lab.port(spec, 1)
        driver.ensure_port(one)
        driver.ensure_port(replace(one, ipv4=two.ipv4))
        assert ports_of(driver, spec) == {one.mac: two.ipv4}
        driver.ensure_port(two)
        assert ports_of(driver, spec) == {two.mac: two.ipv4}
        renamed = replace(two, host_name="renamed", instance_id=InstanceId("ins-renamed"))
        driver.ensure_port(renamed)
        assert ports_of(driver, spec) == {two.mac: two.ipv4}
        driver.ensure_network_absent(spec.id)
    driver.close()


def check_ports_together(lab: NetworkLab) -> None:
    """Many cards at once on a network that many make at once: all are there."""
    driver, spec = lab.make(), lab.spec(NetworkClass.PRIVATE)
    if has_networks(lab):
        ports = [lab.port(spec, number) for number in range(PORTS_TOGETHER)]

        def bind(port: PortSpec) -> None:
            driver.ensure_network(spec)
            driver.ensure_port(port)

        together(bind, ports)
        assert ports_of(driver, spec) == {port.mac: port.ipv4 for port in ports}
        together(lambda port: driver.ensure_port_absent(spec.id, port.mac), ports)
        assert ports_of(driver, spec) == {}
        driver.ensure_network_absent(spec.id)
    driver.close()


def together(act: Callable[[PortSpec], None], ports: list[PortSpec]) -> None:
    """Do this for all ports at once; fail if one of them fails."""
    failures: list[BaseException] = []

    def one(port: PortSpec) -> None:
        try:
            act(port)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not failures, failures


def check_no_network_is_no_trouble(lab: NetworkLab) -> None:
    """Removing what is not there does nothing; a card needs its network."""
    driver, spec = lab.make(), lab.spec(NetworkClass.PRIVATE)
    port = lab.port(spec, 0)
    driver.ensure_port_absent(spec.id, port.mac)
    driver.ensure_network_absent(spec.id)
    if has_networks(lab):
        assert refusal_of(lambda: driver.ensure_port(port)) == "network_failed"
    assert spec.id not in driver.inventory()[0]
    driver.close()


def check_same_addresses(lab: NetworkLab) -> None:
    """Two networks do not share addresses: the second is refused, the first goes on."""
    driver, first = lab.make(), lab.spec(NetworkClass.PRIVATE)
    if has_networks(lab):
        second = replace(lab.spec(NetworkClass.PRIVATE), ipv4_cidr=first.ipv4_cidr)
        second = replace(second, ipv4_gateway=first.ipv4_gateway)
        driver.ensure_network(first)
        for _ in range(2):
            assert refusal_of(lambda: driver.ensure_network(second)) == "network_failed"
        assert first.id in driver.inventory()[0]
        assert second.id not in driver.inventory()[0]
        driver.ensure_network_absent(first.id)
    driver.close()


def check_in_use(lab: NetworkLab) -> None:
    """A network stays while a guest is plugged into it."""
    driver, spec = lab.make(), lab.spec(NetworkClass.PRIVATE)
    if has_networks(lab) and lab.plugged is not None:

        def attempt() -> None:
            for _ in range(2):
                assert refusal_of(lambda: driver.ensure_network_absent(spec.id)) == "in_use"
            assert spec.id in driver.inventory()[0]

        driver.ensure_network(spec)
        lab.plugged(driver, spec, attempt)
        driver.ensure_network_absent(spec.id)
        assert spec.id not in driver.inventory()[0]
    driver.close()


CHECKS: Final[tuple[tuple[str, Callable[[NetworkLab], None]], ...]] = (
    ("probe", check_probe),
    ("network_repeats", check_network_repeats),
    ("port_repeats", check_port_repeats),
    ("port_changes", check_port_changes),
    ("ports_together", check_ports_together),
    ("no_network_is_no_trouble", check_no_network_is_no_trouble),
    ("same_addresses", check_same_addresses),
    ("in_use", check_in_use),
)


def check_network(lab: NetworkLab) -> None:
    """Try everything, one after the other."""
    for _, check in CHECKS:
        check(lab)
