"""Is the domain written as QEMU should run it, and the mark read back as it was written?"""

import shutil
import subprocess
from pathlib import Path

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree  # type: ignore[import-untyped]  # publishes no stubs
from msgspec.structs import replace

from stratus.drivers.hypervisor import boot_sector
from stratus.drivers.hypervisor.libvirt_state import guest_found
from stratus.drivers.hypervisor.libvirt_xml import (
    NAMESPACE,
    DomainOptions,
    GuestMark,
    domain_render,
    domain_uuid,
    mark_parse,
    mark_render,
)
from stratus.model.host import GuestDisk, GuestNic, GuestSpec, PortAttachment
from stratus.model.ids import InstanceId
from stratus.model.instance import HaltCause, Nic, Observed
from stratus.model.volume import FileDisk, VolumeKind

TCG = DomainOptions(domain_type="qemu", console_dir="/var/log/console")
KVM = DomainOptions(domain_type="kvm")
MARK = GuestMark(
    instance_id=InstanceId("ins-1"),
    generation=3,
    run=1,
    starting=2,
    resets=4,
    accelerator="tcg",
    halt_cause=HaltCause.GUEST,
)


def disk(kind: VolumeKind, *, read_only: bool = False) -> GuestDisk:
    return GuestDisk(
        kind=kind,
        volume_id=f"vol-{kind}-0123456789abcdef",
        connection=FileDisk(path=f"/pool/{kind}", format="qcow2"),
        read_only=read_only,
    )


def card(attachment: PortAttachment) -> GuestNic:
    nic = Nic(network_id="net-1", mac="52:54:00:00:00:01")
    return GuestNic(nic=nic, attachment=attachment)


SPEC = GuestSpec(
    instance_id=InstanceId("ins-1"),
    generation=3,
    run=2,
    resets=4,
    title="a title",
    vcpus=2,
    memory_mib=512,
    disks=(
        disk(VolumeKind.SEED, read_only=True),
        disk(VolumeKind.SWAP),
        disk(VolumeKind.ROOT),
        disk(VolumeKind.VOLATILE),
    ),
    nics=(
        card(
            PortAttachment(
                network="stratus-public",
                filter="guard",
                filter_parameters={"IP": ("10.0.0.5",), "IPV6": ("fd00::5", "fe80::5")},
                mtu=1450,
            )
        ),
        card(PortAttachment(bridge="br0")),
        card(PortAttachment()),
    ),
)


def parsed(spec: GuestSpec, options: DomainOptions) -> etree._Element:
    return etree.fromstring(domain_render(spec, MARK, options))


def test_root_is_the_first_disk_and_the_seed_the_last() -> None:
    root = parsed(SPEC, TCG)
    order = [
        (element.find("target").get("dev"), element.find("source").get("file"))
        for element in root.iterfind("devices/disk")
    ]
    assert order == [
        ("vda", "/pool/root"),
        ("vdb", "/pool/volatile"),
        ("vdc", "/pool/swap"),
        ("vdd", "/pool/seed"),
    ]
    serials = [element.text for element in root.iterfind("devices/disk/serial")]
    assert all(len(serial) <= 20 for serial in serials)
    read_only = [element.find("readonly") is not None for element in root.iterfind("devices/disk")]
    assert read_only == [False, False, False, True]


def test_a_full_pool_pauses_the_guest() -> None:
    drivers = parsed(SPEC, TCG).findall("devices/disk/driver")
    assert [driver.get("error_policy") for driver in drivers] == ["enospace"] * 3 + [None]
    assert drivers[0].get("discard") == "unmap"


def test_cards_are_plugged_as_the_network_driver_says() -> None:
    cards = parsed(SPEC, TCG).findall("devices/interface")
    assert [element.get("type") for element in cards] == ["network", "bridge", "user"]
    assert cards[0].find("source").get("network") == "stratus-public"
    assert cards[0].find("mtu").get("size") == "1450"
    assert [
        (parameter.get("name"), parameter.get("value"))
        for parameter in cards[0].iterfind("filterref/parameter")
    ] == [("IP", "10.0.0.5"), ("IPV6", "fd00::5"), ("IPV6", "fe80::5")]
    assert cards[1].find("filterref") is None


def test_the_processor_is_the_hosts_own_or_one_that_translates_well() -> None:
    assert parsed(SPEC, KVM).find("cpu").get("mode") == "host-passthrough"
    assert parsed(SPEC, TCG).findtext("cpu/model") == "Nehalem"


def test_the_console_goes_into_the_given_folder() -> None:
    log = parsed(SPEC, TCG).find("devices/serial/log")
    assert log.get("file") == "/var/log/console/ins-1.3.console"
    assert log.get("append") == "on"
    assert parsed(SPEC, KVM).find("devices/serial/log") is None


@given(title=st.text())
def test_any_title_makes_a_domain(title: str) -> None:
    root = parsed(replace(SPEC, title=title), TCG)
    assert "\n" not in (root.findtext("title") or "")


@given(
    mark=st.builds(
        GuestMark,
        instance_id=st.text(alphabet="ins-0123456789", min_size=1).map(InstanceId),
        generation=st.integers(0, 1 << 40),
        run=st.integers(0, 1 << 40),
        starting=st.integers(0, 1 << 40),
        resets=st.integers(0, 1 << 40),
        accelerator=st.sampled_from(["kvm", "tcg", "fake"]),
        halt_cause=st.sampled_from(HaltCause),
    )
)
def test_a_mark_is_read_as_it_was_written(mark: GuestMark) -> None:
    assert mark_parse(mark_render(mark)) == mark
    domain = etree.fromstring(domain_render(SPEC, mark, TCG))
    inside = domain.find(f"metadata/{{{NAMESPACE}}}guest")
    assert mark_parse(etree.tostring(inside, encoding="unicode")) == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<guest",
        "<other/>",
        "<guest/>",
        "<guest instance='i' generation='x' run='1' starting='1' resets='0'/>",
        "<!DOCTYPE g [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><guest>&e;</guest>",
    ],
)
def test_a_damaged_mark_is_none(text: str) -> None:
    assert mark_parse(text) is None


def test_a_domain_keeps_its_uuid() -> None:
    assert str(domain_uuid("ins-1.3")) == str(domain_uuid("ins-1.3"))
    assert domain_uuid("ins-1.3") != domain_uuid("ins-1.4")


OFF, ON, PAUSED = (
    libvirt.VIR_DOMAIN_SHUTOFF,
    libvirt.VIR_DOMAIN_RUNNING,
    libvirt.VIR_DOMAIN_PAUSED,
)
BEGUN = replace(MARK, run=2, starting=2, halt_cause=HaltCause.NONE)


@pytest.mark.parametrize(
    ("mark", "state", "reason", "run", "observed", "cause"),
    [
        # defined for run 2, and not started, or its start failed: still what run 1 left
        (MARK, OFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, 1, "halted", "guest"),
        (MARK, OFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, 1, "halted", "guest"),
        # started in run 2, and the start not yet noted
        (MARK, ON, libvirt.VIR_DOMAIN_RUNNING_BOOTED, 2, "running", ""),
        (MARK, OFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, 2, "halted", "guest"),
        (MARK, OFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, 2, "halted", "asked"),
        # QEMU is there, the guest not yet: neither run is claimed for it
        (MARK, PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, 1, "paused", ""),
        # noted as begun
        (BEGUN, OFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, 2, "halted", "crashed"),
        (BEGUN, OFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, 2, "halted", "lost"),
        (BEGUN, OFF, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON, 2, "halted", "lost"),
        (BEGUN, PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, 2, "paused", ""),
    ],
)
def test_what_a_domain_says_of_its_run(
    mark: GuestMark, state: int, reason: int, run: int, observed: str, cause: str
) -> None:
    found = guest_found("ins-1.3", state, reason, mark)
    assert (found.run, found.observed, found.halt_cause) == (run, observed, cause)


def test_what_was_noted_outlives_what_libvirt_remembers() -> None:
    noted = replace(BEGUN, halt_cause=HaltCause.GUEST)
    found = guest_found("ins-1.3", OFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, noted)
    assert (found.observed, found.halt_cause) == (Observed.HALTED, HaltCause.GUEST)


@pytest.mark.skipif(shutil.which("as") is None, reason="needs an assembler")
def test_the_boot_sector_is_what_its_source_makes(tmp_path: Path) -> None:
    source = Path(boot_sector.__file__).with_suffix(".S")
    parts, made = tmp_path / "x.o", tmp_path / "x.bin"
    subprocess.run(["as", "--32", str(source), "-o", str(parts)], check=True, timeout=60)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary"]
    subprocess.run([*link, str(parts), "-o", str(made)], check=True, timeout=60)
    assert made.read_bytes() == boot_sector.CODE
