"""What is this machine like? Facts only; `doctor` judges them.

Nothing here changes the machine, and every question is bounded in time.
"""

import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from stratus.site.kvm import KvmFacts, kvm_facts_read
from stratus.site.libvirtd import SOCKET

ASK_SECONDS_MAX: Final = 10
CONNECT_SECONDS_MAX: Final = 1

# libvirt drives these; each is named with the Debian package that brings it.
TOOLS: Final = {
    "libvirtd": "libvirt-daemon-system",
    "virtlogd": "libvirt-daemon-system",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "ebtables": "ebtables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "unshare": "util-linux",
    "prlimit": "util-linux",
}


class Init(StrEnum):
    """Who looks after services on this machine."""

    SYSTEMD = "systemd"
    OTHER = "other"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class PortFacts:
    """One TCP port that the site wants on an address of its own."""

    address: str
    port: int
    taken: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceFacts:
    """Room in the file system that holds, or will hold, a folder."""

    path: Path
    free_mib: int
    writable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ipv6Facts:
    """Whether guests can have IPv6, and what forwarding it would do to the machine itself."""

    present: bool
    default_route_by_announcement: bool
    # Without this a kernel that forwards forgets a default route it learned from announcements.
    announcements_kept_when_forwarding: bool

    @property
    def usable(self) -> bool:
        """Whether a dual-stack network can be made without harm to the machine."""
        at_risk = self.default_route_by_announcement and not self.announcements_kept_when_forwarding
        return self.present and not at_risk


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFacts:
    """Everything the doctor wants to know."""

    python: tuple[int, int]
    architecture: str
    is_root: bool
    init: Init
    tools_missing: tuple[str, ...]
    packages_missing: tuple[str, ...]
    qemu_user_exists: bool
    libvirtd_answers: bool
    bridge: bool
    tun: bool
    packet_filter: bool
    bridge_packets_filtered: bool
    ipv4_forwarding_possible: bool
    ipv6: Ipv6Facts
    kvm: KvmFacts
    cpus: int
    memory_free_mib: int
    ports: tuple[PortFacts, ...] = ()
    space: tuple[SpaceFacts, ...] = ()
    routes: tuple[str, ...] = field(default=())


def machine_facts_read(
    *,
    ports: Sequence[tuple[str, int]] = (),
    folders: Sequence[Path] = (),
    packages: Iterable[str] = (),
) -> MachineFacts:
    """Look at this machine: the ports and folders the site wants, the packages it needs."""
    return MachineFacts(
        python=sys.version_info[:2],
        architecture=platform.machine(),
        is_root=os.geteuid() == 0,
        init=init_system(),
        tools_missing=tuple(tool for tool in TOOLS if tool_find(tool) is None),
        packages_missing=packages_missing(packages),
        qemu_user_exists=_user_exists("libvirt-qemu"),
        libvirtd_answers=_listens(SOCKET),
        bridge=_kernel_has("bridge", Path("/sys/module/bridge")),
        tun=Path("/dev/net/tun").exists(),
        packet_filter=_packet_filter_answers(),
        bridge_packets_filtered=_flag("net/bridge/bridge-nf-call-iptables"),
        ipv4_forwarding_possible=os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK),
        ipv6=_ipv6_read(),
        kvm=kvm_facts_read(),
        cpus=len(os.sched_getaffinity(0)),
        memory_free_mib=_memory_free_mib(),
        ports=tuple(port_facts_read(address, port) for address, port in ports),
        space=tuple(space_facts_read(path) for path in folders),
        routes=_routes_read(),
    )


def init_system() -> Init:
    """Say who looks after services here."""
    if Path("/run/systemd/system").is_dir():
        return Init.SYSTEMD
    name = Path("/proc/1/comm").read_text().strip()
    return Init.OTHER if name in {"init", "openrc-init", "runit"} else Init.NONE


def tool_find(name: str) -> str | None:
    """Where a tool is, also when the user's PATH leaves out the administrator's folders."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=path)


def packages_missing(names: Iterable[str]) -> tuple[str, ...]:
    """Those Debian packages that are not installed; none where there is no dpkg to ask."""
    wanted = list(names)
    if not wanted or tool_find("dpkg-query") is None:
        return ()
    form = "--showformat=${Package} ${db:Status-Status}\n"
    said = _ask(["dpkg-query", "--show", form, *wanted])
    installed = {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}
    return tuple(name for name in wanted if name not in installed)


def port_facts_read(address: str, port: int) -> PortFacts:
    """Try to take a port for a moment; one that a process listens on is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        # As servers do: a port whose last connections are just closing is not taken.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError:
            return PortFacts(address=address, port=port, taken=True)
    return PortFacts(address=address, port=port, taken=False)


def space_facts_read(path: Path) -> SpaceFacts:
    """Room for a folder that need not exist yet."""
    present = path
    while not present.exists():
        present = present.parent
    free = shutil.disk_usage(present).free
    writable = present.is_dir() and os.access(present, os.W_OK)
    return SpaceFacts(path=path, free_mib=free // 2**20, writable=writable)


def routes_parse(table: str) -> tuple[str, ...]:
    """The networks of /proc/net/route, as `address/prefix`, without the default route."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        target, mask = int(fields[1], 16), int(fields[7], 16)
        if mask:
            # The kernel prints the address as the processor holds it, which here is backwards.
            address = socket.inet_ntoa(struct.pack("<I", target))
            found.append(f"{address}/{mask.bit_count()}")
    return tuple(found)


def _routes_read() -> tuple[str, ...]:
    return routes_parse(_read("/proc/net/route"))


def _packet_filter_answers() -> bool:
    """Ask the kernel for its rules; listing changes nothing."""
    tool = tool_find("iptables-save")
    return tool is not None and _succeeds([tool])


def _ipv6_read() -> Ipv6Facts:
    sysctls = Path("/proc/sys/net/ipv6/conf")
    present = (sysctls / "all").is_dir() and not _flag("net/ipv6/conf/all/disable_ipv6")
    ip = tool_find("ip")
    said = _ask([ip, "-6", "route", "show", "default"]) if ip and present else ""
    announced = [line.split() for line in said.splitlines() if " proto ra " in f" {line} "]
    links = {words[words.index("dev") + 1] for words in announced if "dev" in words}
    kept = all(_read(f"/proc/sys/net/ipv6/conf/{link}/accept_ra").strip() == "2" for link in links)
    return Ipv6Facts(
        present=present,
        default_route_by_announcement=bool(links),
        announcements_kept_when_forwarding=kept,
    )


def _kernel_has(module: str, mark: Path) -> bool:
    """Whether the kernel has a feature built in or loaded, or can load it."""
    if mark.exists():
        return True
    modprobe = tool_find("modprobe")
    return modprobe is not None and _succeeds([modprobe, "--dry-run", "--quiet", module])


def _memory_free_mib() -> int:
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) // 1024
    return 0


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_SECONDS_MAX)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _user_exists(name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in _read("/etc/passwd").splitlines())


def _flag(sysctl: str) -> bool:
    return _read(f"/proc/sys/{sysctl}").strip() == "1"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _ask(command: list[str]) -> str:
    """What a tool prints, nothing if it fails to answer."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS_MAX,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
