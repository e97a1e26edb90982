"""How is a guest written as libvirt XML, and how is our mark on it read? Pure.

The mark is an element in our own namespace inside the domain's metadata. It tells our guests from
strangers and carries what must survive us: placement, runs, resets and how the last run ended.
"""

import uuid
from collections.abc import Iterator
from typing import Final

import msgspec
from lxml import etree  # type: ignore[import-untyped]  # publishes no stubs

from stratus.model.host import GuestDisk, GuestNic, GuestSpec
from stratus.model.ids import InstanceId
from stratus.model.instance import HaltCause
from stratus.model.limits import TITLE_CHARS_MAX
from stratus.model.volume import FileDisk, VolumeKind

NAMESPACE: Final = "https://stratuslab.eu/libvirt/guest/1"
PREFIX: Final = "stratus"
QEMU_NAMESPACE: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
UUIDS: Final = uuid.UUID("5b0f6c5e-6a0e-5d0c-9a57-57a7051ab000")

SERIAL_CHARS_MAX: Final = 20  # virtio-blk holds no more
PORTS_SPARE: Final = 4  # sockets for disks and cards plugged into the running guest
PORTS_FIXED: Final = 3  # random numbers, memory balloon, agent channel
TCG_CPU_MODEL: Final = "Nehalem"  # measured best; models with more features take longer to boot
TCG_CACHE_MIB_MIN: Final = 32
TCG_CACHE_MIB_MAX: Final = 256
XML_BYTES_MAX: Final = 1 << 20

# The order in which guests see their disks: root is vda, whatever else there is.
DISK_ORDER: Final = (
    VolumeKind.ROOT,
    VolumeKind.VOLATILE,
    VolumeKind.SWAP,
    VolumeKind.PERSISTENT,
    VolumeKind.SEED,
)


class GuestMark(msgspec.Struct, frozen=True, kw_only=True):
    """What is written on a guest of ours.

    `run` is the last run known to have begun, `starting` the run whose start is under way; they
    differ from the moment the guest is defined until its start is seen to have succeeded.
    `halt_cause` is how `run` ended, once that was seen.
    """

    instance_id: InstanceId
    generation: int
    run: int
    starting: int
    resets: int
    accelerator: str
    halt_cause: HaltCause = HaltCause.NONE


class DomainOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of the domain depends on the host and not on the guest."""

    domain_type: str  # kvm | qemu | test
    machine: str = "q35"
    console_dir: str = ""  # "" keeps no console log
    skips_feature_list: bool = False  # see `_capabilities`


def domain_uuid(name: str) -> uuid.UUID:
    """Return the one UUID that a domain of this name ever has."""
    return uuid.uuid5(UUIDS, name)


def console_file(name: str) -> str:
    """Name the file that keeps what the guest printed."""
    return f"{name}.console"


# -- the mark ----------------------------------------------------------------------------------


def mark_render(mark: GuestMark) -> str:
    """Write the mark as the metadata element that libvirt stores under our namespace."""
    element = etree.Element("guest")
    _mark_fill(element, mark)
    return str(etree.tostring(element, encoding="unicode"))


def mark_parse(xml: str) -> GuestMark | None:
    """Read the mark; None when it is not one of ours, or is damaged."""
    try:
        element = etree.fromstring(xml, _parser())
    except (etree.XMLSyntaxError, ValueError):
        return None
    if etree.QName(element).localname != "guest":
        return None
    found = dict(element.attrib)
    try:
        return GuestMark(
            instance_id=InstanceId(found["instance"]),
            generation=int(found["generation"]),
            run=int(found["run"]),
            starting=int(found["starting"]),
            resets=int(found["resets"]),
            accelerator=found.get("accelerator", ""),
            halt_cause=HaltCause(found.get("halted", "")),
        )
    except (KeyError, ValueError):
        return None


def _mark_fill(element: etree._Element, mark: GuestMark) -> None:
    element.set("instance", mark.instance_id)
    element.set("generation", str(mark.generation))
    element.set("run", str(mark.run))
    element.set("starting", str(mark.starting))
    element.set("resets", str(mark.resets))
    element.set("accelerator", mark.accelerator)
    if mark.halt_cause is not HaltCause.NONE:
        element.set("halted", mark.halt_cause)


def _parser() -> etree.XMLParser:
    """A parser that reads what it is given and nothing else."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False
    )


# -- the domain --------------------------------------------------------------------------------


def domain_render(spec: GuestSpec, mark: GuestMark, options: DomainOptions) -> str:
    """Write the guest as a libvirt domain."""
    root = etree.Element("domain", type=options.domain_type)
    if options.skips_feature_list:
        root = etree.Element(
            "domain", nsmap={"qemu": QEMU_NAMESPACE}, attrib={"type": options.domain_type}
        )
    _text(root, "name", spec.domain_name)
    _text(root, "uuid", str(domain_uuid(spec.domain_name)))
    if title := _title(spec.title):
        _text(root, "title", title)
    metadata = etree.SubElement(root, "metadata")
    ours = etree.SubElement(metadata, f"{{{NAMESPACE}}}guest", nsmap={PREFIX: NAMESPACE})
    _mark_fill(ours, mark)
    _text(root, "memory", str(spec.memory_mib), unit="MiB")
    _text(root, "vcpu", str(spec.vcpus))
    os_ = etree.SubElement(root, "os")
    if options.domain_type == "test":
        _text(os_, "type", "hvm")
        return _written(root)
    _text(os_, "type", "hvm", arch="x86_64", machine=options.machine)
    etree.SubElement(os_, "boot", dev="hd")
    _processor(root, spec, options)
    etree.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    devices = etree.SubElement(root, "devices")
    _ports(devices, spec, options)
    for disk, letter in zip(disks_ordered(spec), _letters(), strict=False):
        _disk(devices, disk, f"vd{letter}")
    for nic in spec.nics:
        _card(devices, nic)
    _console(devices, spec, options)
    _fittings(devices)
    if options.skips_feature_list:
        _capabilities(root)
    return _written(root)


def disks_ordered(spec: GuestSpec) -> list[GuestDisk]:
    """Return the disks in the order in which every guest sees them."""
    return sorted(spec.disks, key=lambda disk: DISK_ORDER.index(disk.kind))


def _processor(root: etree._Element, spec: GuestSpec, options: DomainOptions) -> None:
    features = etree.SubElement(root, "features")
    etree.SubElement(features, "acpi")
    etree.SubElement(features, "apic")
    if options.domain_type == "kvm":
        # Never fails to start and hides nothing; nothing here moves a running guest elsewhere.
        etree.SubElement(root, "cpu", mode="host-passthrough", migratable="on")
        return
    cache_mib = min(max(spec.memory_mib // 4, TCG_CACHE_MIB_MIN), TCG_CACHE_MIB_MAX)
    _text(etree.SubElement(features, "tcg"), "tb-cache", str(cache_mib), unit="MiB")
    cpu = etree.SubElement(root, "cpu", mode="custom", match="exact", check="none")
    _text(cpu, "model", TCG_CPU_MODEL, fallback="forbid")


def _ports(devices: etree._Element, spec: GuestSpec, options: DomainOptions) -> None:
    etree.SubElement(devices, "controller", type="usb", index="0", model="none")
    if options.machine != "q35":
        return
    etree.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    needed = len(spec.disks) + len(spec.nics) + PORTS_FIXED + PORTS_SPARE
    for index in range(1, needed + 1):
        etree.SubElement(
            devices, "controller", type="pci", index=str(index), model="pcie-root-port"
        )


def _disk(devices: etree._Element, disk: GuestDisk, target: str) -> None:
    connection = disk.connection
    assert isinstance(connection, FileDisk)
    element = etree.SubElement(devices, "disk", type="file", device="disk")
    driver = etree.SubElement(element, "driver", name="qemu", type=connection.format)
    if not disk.read_only:
        driver.set("discard", "unmap")
        # A full pool pauses the guest instead of hurting its file system.
        driver.set("error_policy", "enospace")
    etree.SubElement(element, "source", file=connection.path)
    etree.SubElement(element, "target", dev=target, bus="virtio")
    _text(element, "serial", disk.volume_id[:SERIAL_CHARS_MAX])
    if disk.read_only:
        etree.SubElement(element, "readonly")


def _card(devices: etree._Element, card: GuestNic) -> None:
    plug = card.attachment
    kind = "network" if plug.network else "bridge" if plug.bridge else "user"
    element = etree.SubElement(devices, "interface", type=kind)
    etree.SubElement(element, "mac", address=card.nic.mac)
    if kind == "network":
        etree.SubElement(element, "source", network=plug.network)
    elif kind == "bridge":
        etree.SubElement(element, "source", bridge=plug.bridge)
    etree.SubElement(element, "model", type="virtio")
    if plug.filter:
        filter_ = etree.SubElement(element, "filterref", filter=plug.filter)
        for name, values in sorted(plug.filter_parameters.items()):
            for value in values:
                etree.SubElement(filter_, "parameter", name=name, value=value)
    if plug.mtu and kind != "user":
        etree.SubElement(element, "mtu", size=str(plug.mtu))
    etree.SubElement(element, "rom", enabled="no")


def _console(devices: etree._Element, spec: GuestSpec, options: DomainOptions) -> None:
    serial = etree.SubElement(devices, "serial", type="pty")
    if options.console_dir:
        path = f"{options.console_dir}/{console_file(spec.domain_name)}"
        etree.SubElement(serial, "log", file=path, append="on")
    etree.SubElement(serial, "target", port="0")


def _fittings(devices: etree._Element) -> None:
    """Add what every guest has: agent channel, panic notice, random numbers, balloon."""
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    etree.SubElement(devices, "panic", model="isa")
    rng = etree.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    etree.SubElement(devices, "memballoon", model="virtio", freePageReporting="on")
    etree.SubElement(etree.SubElement(devices, "video"), "model", type="none")
    etree.SubElement(devices, "audio", id="1", type="none")


def _capabilities(root: etree._Element) -> None:
    """Let libvirt read the features of the processor at once instead of one by one.

    It asks QEMU for each of 398 features at every start: 0.4 of 0.55 seconds. Taking away the
    capability by which it does so makes it read two words instead. Nothing else depends on it
    where the processor is not checked, as for translated guests.
    """
    capabilities = etree.SubElement(root, f"{{{QEMU_NAMESPACE}}}capabilities")
    etree.SubElement(
        capabilities, f"{{{QEMU_NAMESPACE}}}del", capability="cpu-unavailable-features"
    )


def _letters() -> Iterator[str]:
    """Yield a to z, then aa, ab and so on, as Linux names its disks."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    yield from alphabet
    for first in alphabet:
        for second in alphabet:
            yield first + second


def _title(text: str) -> str:
    """Keep of a title what XML and libvirt can hold: one printable line."""
    return "".join(char for char in text if char.isprintable())[:TITLE_CHARS_MAX].strip()


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    etree.SubElement(parent, tag, attrib=attributes).text = text


def _written(root: etree._Element) -> str:
    xml = str(etree.tostring(root, encoding="unicode"))
    assert len(xml) < XML_BYTES_MAX
    return xml
