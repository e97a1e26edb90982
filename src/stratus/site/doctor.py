"""Is this machine fit to hold a cloud, and if not, what is to be mended?

Pure: `machine` brings the facts. `stratus doctor` prints the findings; `demo` and `up` refuse at
the first that fails, before anything is changed.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stratus.model.problem import Refused, refuse
from stratus.site.kvm import TCG_CPU_MODEL, KvmAnswer
from stratus.site.machine import TOOLS, Init, MachineFacts

PYTHON_LEAST: Final = (3, 11)
SPACE_LEAST_MIB: Final = 1024
SPACE_COMFORT_MIB: Final = 10 * 1024
MEMORY_LEAST_MIB: Final = 512
MEMORY_COMFORT_MIB: Final = 2048


class Health(StrEnum):
    """How a finding turned out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at; a remedy is there whenever it is not ok."""

    what: str
    health: Health
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.health is Health.OK or self.remedy, f"{self.what} needs a remedy"


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteNeeds:
    """What this site will ask of the machine, beside what every site needs."""

    network: str = ""  # the IPv4 network for guests, e.g. "10.77.0.0/24"
    wants_ipv6: bool = True
    # Ports that our own running site holds are no trouble.
    ports_already_ours: frozenset[int] = frozenset()
    # Our own bridge already routes the network of a site that is up.
    network_already_ours: bool = False


def examine(
    facts: MachineFacts, needs: SiteNeeds, *, kvm: KvmAnswer | None = None
) -> list[Finding]:
    """Judge every fact; the order is that in which one would mend things."""
    findings = [check(facts) for check in CHECKS]
    findings.append(accelerator_check(facts, kvm))
    findings.append(ipv6_check(facts, needs))
    findings.append(network_check(facts, needs))
    findings += ports_check(facts, needs)
    findings += space_check(facts)
    return findings


def unfit(findings: Sequence[Finding]) -> Refused | None:
    """The refusal that names everything that fails, each with its remedy; None if all is well."""
    failed = [finding for finding in findings if finding.health is Health.FAIL]
    if not failed:
        return None
    return refuse(
        "machine_unfit",
        " ".join(finding.detail for finding in failed),
        remedy=" ".join(finding.remedy for finding in failed),
        failed=[finding.what for finding in failed],
    )


# -- one check per question -----------------------------------------------------------------------


def python_check(facts: MachineFacts) -> Finding:
    """Is Python new enough?"""
    version = ".".join(map(str, facts.python))
    if facts.python >= PYTHON_LEAST:
        return _ok("python", f"Python {version}.")
    least = ".".join(map(str, PYTHON_LEAST))
    return _fail("python", f"Python is {version}.", f"Install Python {least} or newer.")


def root_check(facts: MachineFacts) -> Finding:
    """May we manage bridges and guests?"""
    if facts.is_root:
        return _ok("permission", "Running as root.")
    return _fail(
        "permission",
        "Not running as root, which bridges, firewall rules and libvirt's system URI need.",
        "Run it with sudo.",
    )


def packages_check(facts: MachineFacts) -> Finding:
    """Is everything installed that libvirt will call?"""
    names = {*facts.packages_missing, *(TOOLS[tool] for tool in facts.tools_missing)}
    if not names:
        return _ok("packages", "All packages are installed.")
    missing = " ".join(sorted(names))
    return _fail(
        "packages",
        f"These packages are missing: {missing}.",
        f"Run 'apt-get install --no-install-recommends {missing}', or './stratus demo', "
        "which does it.",
    )


def libvirtd_check(facts: MachineFacts) -> Finding:
    """Who will run libvirtd?"""
    if facts.libvirtd_answers:
        return _ok("libvirtd", "A libvirtd answers; it is used as it is.")
    match facts.init:
        case Init.SYSTEMD:
            return _ok("libvirtd", "Not running; systemd will start it.")
        case Init.OTHER | Init.NONE:
            return _ok("libvirtd", "Not running and no systemd here; ./stratus starts its own.")


def qemu_user_check(facts: MachineFacts) -> Finding:
    """Do guests get a user of their own?"""
    if facts.qemu_user_exists:
        return _ok("guest user", "Guests run as libvirt-qemu.")
    return _warn(
        "guest user",
        "There is no user libvirt-qemu, so libvirt may run guests as root.",
        "Install libvirt-daemon-system, which makes that user.",
    )


def bridge_check(facts: MachineFacts) -> Finding:
    """Can the kernel make bridges?"""
    if facts.bridge:
        return _ok("bridge", "The kernel makes bridges.")
    return _fail(
        "bridge",
        "The kernel has no bridge support.",
        "Load it with 'modprobe bridge', or boot a kernel with CONFIG_BRIDGE.",
    )


def tun_check(facts: MachineFacts) -> Finding:
    """Can guests have network cards?"""
    if facts.tun:
        return _ok("tun", "/dev/net/tun is there.")
    return _fail(
        "tun",
        "There is no /dev/net/tun, through which guests reach the network.",
        "Run 'modprobe tun'; in a container, pass the device in (--device /dev/net/tun).",
    )


def packet_filter_check(facts: MachineFacts) -> Finding:
    """Can NAT and anti-spoofing rules be made?"""
    if facts.packet_filter:
        return _ok("packet filter", "The kernel answers iptables.")
    if not facts.is_root:
        return _warn(
            "packet filter", "Only root may ask the kernel for its rules.", "Run it with sudo."
        )
    return _fail(
        "packet filter",
        "The kernel does not answer iptables, so there is no NAT and no protection for guests.",
        "Boot a kernel with nftables (CONFIG_NF_TABLES, CONFIG_NFT_COMPAT) and netfilter NAT.",
    )


def bridge_filter_check(facts: MachineFacts) -> Finding:
    """Do firewall rules see what guests on one bridge send to each other?"""
    if facts.bridge_packets_filtered:
        return _ok("bridged packets", "Firewall rules see packets between guests.")
    return _warn(
        "bridged packets",
        "Firewall rules do not see packets between guests of one network.",
        "Run 'modprobe br_netfilter' and 'sysctl net.bridge.bridge-nf-call-iptables=1'.",
    )


def forwarding_check(facts: MachineFacts) -> Finding:
    """May libvirt switch forwarding on?"""
    if facts.ipv4_forwarding_possible:
        return _ok("forwarding", "IPv4 forwarding can be switched on.")
    if not facts.is_root:
        return _warn("forwarding", "Only root may switch forwarding on.", "Run it with sudo.")
    return _fail(
        "forwarding",
        "net.ipv4.ip_forward cannot be written, so guests would not reach anything.",
        "Run outside of a container, or one with a network namespace it may configure.",
    )


def memory_check(facts: MachineFacts) -> Finding:
    """Is there room for a guest?"""
    detail = f"{facts.memory_free_mib} MiB of memory are free, {facts.cpus} processors."
    if facts.memory_free_mib < MEMORY_LEAST_MIB:
        return _fail("memory", detail, f"Free at least {MEMORY_LEAST_MIB} MiB of memory.")
    if facts.memory_free_mib < MEMORY_COMFORT_MIB:
        return _warn("memory", detail, "Expect room for a few small instances only.")
    return _ok("memory", detail)


CHECKS: Final[tuple[Callable[[MachineFacts], Finding], ...]] = (
    python_check,
    root_check,
    packages_check,
    libvirtd_check,
    qemu_user_check,
    bridge_check,
    tun_check,
    packet_filter_check,
    bridge_filter_check,
    forwarding_check,
    memory_check,
)


def accelerator_check(facts: MachineFacts, kvm: KvmAnswer | None) -> Finding:
    """Do guests run at full speed?"""
    if kvm is None:
        seen = "There is a /dev/kvm" if facts.kvm.device_exists else "There is no /dev/kvm"
        return _ok("accelerator", f"{seen}; whether KVM works is tried out at the first start.")
    if kvm.works:
        return _ok("accelerator", f"KVM works: {kvm.reason}")
    detail = f"Guests run without KVM, several times slower: {kvm.reason}"
    if facts.libvirtd_answers and facts.kvm.device_exists:
        detail += (
            " The running libvirtd sees /dev/kvm and may ask QEMU again at every definition, "
            "for about a minute each."
        )
    return _warn(
        "accelerator",
        detail,
        "Nothing needs to be done: QEMU translates instead "
        f"(TCG, processor model {TCG_CPU_MODEL}). For speed use a machine with virtualisation.",
    )


def ipv6_check(facts: MachineFacts, needs: SiteNeeds) -> Finding:
    """Can guests have IPv6 as well?"""
    if not needs.wants_ipv6:
        return _ok("ipv6", "Not asked for.")
    if facts.ipv6.usable:
        return _ok("ipv6", "Guests can have IPv6.")
    if not facts.ipv6.present:
        return _warn(
            "ipv6",
            "The kernel has no IPv6, so guests get IPv4 only.",
            "Boot without ipv6.disable=1, or set net.ipv6.conf.all.disable_ipv6=0.",
        )
    return _warn(
        "ipv6",
        "This machine learns its IPv6 route from announcements and would lose it by forwarding; "
        "guests get IPv4 only.",
        "Set net.ipv6.conf.<uplink>.accept_ra=2 to have both.",
    )


def network_check(facts: MachineFacts, needs: SiteNeeds) -> Finding:
    """Is the guests' network free of what the machine already routes?"""
    if not needs.network or needs.network_already_ours:
        return _ok("guest network", "No conflict looked for.")
    wanted = ipaddress.ip_network(needs.network)
    clashing = [
        route
        for route in facts.routes
        if wanted.overlaps(ipaddress.ip_network(route, strict=False))
    ]
    if not clashing:
        return _ok("guest network", f"{wanted} is free.")
    return _fail(
        "guest network",
        f"The guests' network {wanted} overlaps with {', '.join(clashing)}, which this machine "
        "already routes.",
        "Choose another network for guests in the site's configuration.",
    )


def ports_check(facts: MachineFacts, needs: SiteNeeds) -> list[Finding]:
    """Are the ports free on which the cloud will answer?"""
    return [
        _fail(
            f"port {port.port}",
            f"Port {port.port} on {port.address} is taken by another process.",
            f"See who has it with 'ss -ltnp sport = :{port.port}', or choose another port.",
        )
        if port.taken and port.port not in needs.ports_already_ours
        else _ok(f"port {port.port}", f"Port {port.port} on {port.address} is free or ours.")
        for port in facts.ports
    ]


def space_check(facts: MachineFacts) -> list[Finding]:
    """Is there room on disk where the site keeps its things?"""
    findings = []
    for space in facts.space:
        what = f"space in {space.path}"
        detail = f"{space.free_mib} MiB are free in {space.path}."
        if not space.writable:
            finding = _fail(
                what, f"{space.path} cannot be written.", "Choose another folder, or use sudo."
            )
        elif space.free_mib < SPACE_LEAST_MIB:
            finding = _fail(what, detail, f"Free at least {SPACE_LEAST_MIB} MiB there.")
        elif space.free_mib < SPACE_COMFORT_MIB:
            finding = _warn(what, detail, "Expect room for a few small disks only.")
        else:
            finding = _ok(what, detail)
        findings.append(finding)
    return findings


def _ok(what: str, detail: str) -> Finding:
    return Finding(what=what, health=Health.OK, detail=detail)


def _warn(what: str, detail: str, remedy: str) -> Finding:
    return Finding(what=what, health=Health.WARN, detail=detail, remedy=remedy)


def _fail(what: str, detail: str, remedy: str) -> Finding:
    return Finding(what=what, health=Health.FAIL, detail=detail, remedy=remedy)
