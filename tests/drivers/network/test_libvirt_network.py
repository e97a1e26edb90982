"""Does libvirt's network driver keep the contract, and are real guests held to their addresses?"""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libvirt
import pytest
from tests.fixtures_libvirt import Libvirtd

from stratus.decide.addresses import ipv6_of
from stratus.drivers.appliance.tiny import ApplianceBuilt
from stratus.drivers.failure import DriverFailed
from stratus.drivers.hypervisor.libvirt import LibvirtHypervisor
from stratus.drivers.network import conformance
from stratus.drivers.network.conformance import NetworkLab
from stratus.drivers.network.contract import NetworkDriver
from stratus.drivers.network.libvirt import libvirt_networks
from stratus.drivers.network.libvirt_xml import bridge_name, network_name
from stratus.drivers.volume.seed import seed_image
from stratus.model.host import GuestDisk, GuestNic, GuestSpec
from stratus.model.ids import InstanceId, NetworkId
from stratus.model.instance import HaltCause, Nic, Observed
from stratus.model.network import NetworkClass, NetworkSpec, PortSpec, card_mac
from stratus.model.volume import FileDisk, VolumeKind

NAMES: Final = [name for name, _ in conformance.CHECKS]
NUMBERS = itertools.count(os.getpid() % 100)
BOOT_SECONDS_MAX: Final = 120
SSH_SECONDS_MAX: Final = 60
DOMAIN: Final = "cloud.test"


def network_make(class_: NetworkClass) -> NetworkSpec:
    number = next(NUMBERS) % 250
    return NetworkSpec(
        id=NetworkId(f"net-{number:016d}"),
        name=f"lab-{number}",
        class_=class_,
        ipv4_cidr=f"10.213.{number}.0/24",
        ipv4_gateway=f"10.213.{number}.1",
        ipv6_cidr=f"fd57:7a70:51ab:{number:x}::/64",
        ipv6_gateway=f"fd57:7a70:51ab:{number:x}::1",
        domain=DOMAIN,
    )


def port_make(network: NetworkSpec, number: int) -> PortSpec:
    ipv4 = f"{network.ipv4_cidr.rpartition('.')[0]}.{number + 10}"
    mac = card_mac(network.id, ipv4)
    return PortSpec(
        network_id=network.id,
        instance_id=InstanceId(f"ins-{number:016d}"),
        mac=mac,
        ipv4=ipv4,
        ipv6=ipv6_of(network.ipv6_cidr, mac),
        host_name=f"guest-{number}",
    )


def nic_make(driver: NetworkDriver, port: PortSpec) -> GuestNic:
    card = Nic(network_id=port.network_id, mac=port.mac, ipv4=port.ipv4, ipv6=port.ipv6)
    return GuestNic(nic=card, attachment=driver.ensure_port(port))


@pytest.fixture
def records() -> Iterator[str]:
    """Libvirt's own test driver; what it knows goes with the last connection."""
    keeper = libvirt.open("test:///default")
    yield "test:///default"
    keeper.close()


@pytest.mark.parametrize(("_name", "check"), conformance.CHECKS, ids=NAMES)
def test_libvirts_test_driver_keeps_the_contract(
    records: str, _name: str, check: Callable[[NetworkLab], None]
) -> None:
    check(NetworkLab(make=lambda: libvirt_networks(records), spec=network_make, port=port_make))


@pytest.mark.parametrize(("_name", "check"), conformance.CHECKS, ids=NAMES)
def test_the_user_mode_driver_keeps_the_contract(
    _name: str, check: Callable[[NetworkLab], None]
) -> None:
    uri = "qemu:///session"
    check(NetworkLab(make=lambda: libvirt_networks(uri), spec=network_make, port=port_make))


@pytest.mark.libvirt
@pytest.mark.guest
@pytest.mark.parametrize(("_name", "check"), conformance.CHECKS, ids=NAMES)
def test_real_networks_keep_the_contract(
    libvirtd: Libvirtd, _name: str, check: Callable[[NetworkLab], None]
) -> None:
    def plugged(driver: NetworkDriver, spec: NetworkSpec, attempt: Callable[[], None]) -> None:
        hypervisor = LibvirtHypervisor(libvirtd.uri)
        guest = libvirtd.spec(nics=(nic_make(driver, port_make(spec, 0)),))
        hypervisor.ensure_running(guest)
        attempt()
        hypervisor.ensure_absent(guest.instance_id, guest.generation)
        hypervisor.close()

    lab = NetworkLab(
        make=lambda: libvirt_networks(libvirtd.uri),
        spec=network_make,
        port=port_make,
        plugged=plugged,
    )
    check(lab)


@pytest.mark.libvirt
def test_addresses_of_somebody_else_are_refused_with_their_words(libvirtd: Libvirtd) -> None:
    driver, spec = libvirt_networks(libvirtd.uri), network_make(NetworkClass.PRIVATE)
    subprocess.run(["ip", "link", "add", "st-else", "type", "bridge"], check=True)
    try:
        subprocess.run(
            ["ip", "addr", "add", f"{spec.ipv4_gateway}/24", "dev", "st-else"], check=True
        )
        subprocess.run(["ip", "link", "set", "st-else", "up"], check=True)
        with pytest.raises(DriverFailed, match="st-else") as caught:
            driver.ensure_network(spec)
        assert caught.value.problem.code == "network_failed"
        assert "ip route" in caught.value.problem.remedy
        assert spec.id not in driver.inventory()[0]
    finally:
        subprocess.run(["ip", "link", "del", "st-else"], check=True)
        driver.close()


def test_names_fit_the_kernel_and_differ() -> None:
    one, two = network_make(NetworkClass.PUBLIC), network_make(NetworkClass.PUBLIC)
    assert len(bridge_name(one.id)) <= 15
    assert bridge_name(one.id) != bridge_name(two.id)
    assert network_name(one) != network_name(two)


# -- real guests -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Two real guests on one network of class public."""

    hypervisor: LibvirtHypervisor
    networks: NetworkDriver
    network: NetworkSpec
    specs: tuple[GuestSpec, GuestSpec]
    ports: tuple[PortSpec, PortSpec]
    key: Path

    def ssh(self, index: int, script: str) -> str:
        """Run a script in one of them, return what it printed, whatever its exit code."""
        command = ["ssh", "-i", str(self.key), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
        command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        command += ["-o", "LogLevel=ERROR", f"root@{self.ports[index].ipv4}", script]
        deadline = time.monotonic() + BOOT_SECONDS_MAX
        while True:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SSH_SECONDS_MAX,
                check=False,
            )
            if done.returncode != 255:
                return done.stdout
            assert time.monotonic() < deadline, done.stderr + self.console(index)
            time.sleep(0.5)

    def console(self, index: int) -> str:
        """Return what the guest printed."""
        spec = self.specs[index]
        tail = self.hypervisor.console_tail(spec.instance_id, spec.generation, bytes_max=4000)
        return tail.decode(errors="replace")


@pytest.fixture(scope="module")
def neighbours(
    libvirtd: Libvirtd, tiny: ApplianceBuilt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Neighbours]:
    key = tmp_path_factory.mktemp("neighbours") / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60
    )
    hypervisor = LibvirtHypervisor(libvirtd.uri)
    networks = libvirt_networks(libvirtd.uri)
    network = network_make(NetworkClass.PUBLIC)
    networks.ensure_network(network)
    ports = (port_make(network, 1), port_make(network, 2))
    specs = tuple(guest_make(libvirtd, tiny.path, key, port, networks) for port in ports)
    for spec in specs:
        hypervisor.ensure_running(spec)
    pair = Neighbours(
        hypervisor=hypervisor,
        networks=networks,
        network=network,
        specs=(specs[0], specs[1]),
        ports=ports,
        key=key,
    )
    yield pair
    for spec in specs:
        hypervisor.ensure_absent(spec.instance_id, spec.generation)
    networks.ensure_network_absent(network.id)
    networks.close()
    hypervisor.close()


def guest_make(
    libvirtd: Libvirtd, image: Path, key: Path, port: PortSpec, networks: NetworkDriver
) -> GuestSpec:
    """Describe a guest with the appliance, told only its name and its user's key."""
    small = libvirtd.spec()
    root = libvirtd.folder / f"{small.instance_id}.raw"
    shutil.copyfile(image, root)
    seed = libvirtd.folder / f"{small.instance_id}.seed"
    public = key.with_suffix(".pub").read_text().strip()
    files = {
        "meta-data": f"instance-id: {small.instance_id}\nlocal-hostname: {port.host_name}\n",
        "user-data": f"#cloud-config\nssh_authorized_keys:\n  - {public}\n",
    }
    seed.write_bytes(seed_image("cidata", files))
    disks = (
        GuestDisk(
            kind=VolumeKind.SEED,
            volume_id="vol-seed",
            connection=FileDisk(path=str(seed), format="raw"),
            read_only=True,
        ),
        GuestDisk(
            kind=VolumeKind.ROOT,
            volume_id="vol-root",
            connection=FileDisk(path=str(root), format="raw"),
        ),
    )
    return GuestSpec(
        instance_id=small.instance_id,
        generation=1,
        run=1,
        resets=0,
        title=f"neighbour {port.host_name}",
        vcpus=1,
        memory_mib=192,
        disks=disks,
        nics=(nic_make(networks, port),),
    )


PING: Final = "ping -c 2 -W 2 {} > /dev/null 2>&1 && echo heard || echo silence"


def heard(pair: Neighbours, prepare: str, ping: str, undo: str = "true") -> str:
    """Let the second guest prepare, ping the first, and undo; return what became of the ping."""
    return pair.ssh(1, f"{prepare}; {PING.format(ping)}; {undo}").strip()


@pytest.mark.libvirt
@pytest.mark.guest
def test_guests_get_exactly_their_addresses_and_know_each_other_by_name(
    neighbours: Neighbours,
) -> None:
    for index, port in enumerate(neighbours.ports):
        shown = neighbours.ssh(index, "ip -o addr show dev eth0; hostname")
        assert f"inet {port.ipv4}/24" in shown
        assert port.host_name in shown
    deadline = time.monotonic() + 30  # addresses form after the next router announcement
    while f"inet6 {neighbours.ports[1].ipv6}/64" not in neighbours.ssh(1, "ip -o -6 addr"):
        assert time.monotonic() < deadline, neighbours.ssh(1, "ip -o -6 addr")
    other = neighbours.ports[0]
    asked = neighbours.ssh(
        1, f"nslookup {other.host_name}.{DOMAIN} {neighbours.network.ipv4_gateway}"
    )
    assert other.ipv4 in asked
    assert heard(neighbours, "true", other.ipv4) == "heard"
    assert heard(neighbours, "true", other.ipv6) == "heard"


@pytest.mark.libvirt
@pytest.mark.guest
def test_a_guest_cannot_speak_with_another_address(neighbours: Neighbours) -> None:
    other = neighbours.ports[0]
    foreign = neighbours.network.ipv4_cidr.replace(".0/24", ".99")
    add, remove = (f"ip addr {verb} {foreign}/24 dev eth0" for verb in ("add", "del"))
    assert heard(neighbours, add, f"-I {foreign} {other.ipv4}", remove) == "silence"
    foreign6 = neighbours.network.ipv6_cidr.replace("::/64", "::99")
    add, remove = (f"ip addr {verb} {foreign6}/64 dev eth0" for verb in ("add", "del"))
    prepare = f"{add} nodad; sleep 1"
    assert heard(neighbours, prepare, f"-I {foreign6} {other.ipv6}", remove) == "silence"
    assert heard(neighbours, "true", other.ipv4) == "heard"
    assert heard(neighbours, "true", other.ipv6) == "heard"


@pytest.mark.libvirt
@pytest.mark.guest
def test_a_guest_cannot_speak_with_another_card(neighbours: Neighbours) -> None:
    """Its own connection breaks while it tries, so it notes what it saw and tells later."""
    other, own = neighbours.ports
    script = (
        "ip link set eth0 down; ip link set eth0 address 52:54:00:12:34:56; ip link set eth0 up; "
        f"ip addr add {own.ipv4}/24 dev eth0; ({PING.format(other.ipv4)}) > /run/seen; "
        f"ip link set eth0 down; ip link set eth0 address {own.mac}; ip link set eth0 up; "
        f"ip addr add {own.ipv4}/24 dev eth0; ({PING.format(other.ipv4)}) >> /run/seen; "
        "touch /run/card-tried"
    )
    neighbours.ssh(1, f"setsid sh -c '{script}' < /dev/null > /dev/null 2>&1 &")
    deadline = time.monotonic() + 60
    while "card-tried" not in neighbours.ssh(1, "ls /run"):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert neighbours.ssh(1, "cat /run/seen").split() == ["silence", "heard"]


@pytest.mark.libvirt
@pytest.mark.guest
def test_guests_end_by_button_and_by_themselves(neighbours: Neighbours) -> None:
    hypervisor, specs = neighbours.hypervisor, neighbours.specs
    hypervisor.shutdown_ask(specs[0].instance_id, 1)
    neighbours.ssh(1, "(sleep 1; poweroff -f) > /dev/null 2>&1 < /dev/null &")
    deadline = time.monotonic() + 60
    wanted = {spec.instance_id for spec in specs}
    while True:
        ours = [guest for guest in hypervisor.inventory() if guest.instance_id in wanted]
        if all(guest.observed is Observed.HALTED for guest in ours):
            break
        assert time.monotonic() < deadline, ours
        time.sleep(0.2)
    assert [guest.halt_cause for guest in ours] == [HaltCause.GUEST] * 2
