"""What a real libvirtd does on a machine of its own; each function prints what it saw as JSON.

Run by test_libvirtd.py inside private namespaces, one process per scenario.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import libvirt

from stratus.site.libvirtd import (
    SOCKET,
    LibvirtdSite,
    ensure_libvirtd,
    ensure_libvirtd_stopped,
    leftovers_remove,
    libvirtd_processes,
)
from stratus.site.process import process_alive

NETWORK = """
<network><name>private</name><bridge name='private0'/><forward mode='nat'/>
  <ip address='10.99.0.1' netmask='255.255.255.0'><dhcp><range start='10.99.0.9' end='10.99.0.9'/>
  </dhcp></ip><ip family='ipv6' address='fd99::1' prefix='64'/></network>"""
FILTER = """
<filter name='private' chain='root'><filterref filter='clean-traffic'/>
  <rule action='accept' direction='in'><tcp dstportstart='22'/></rule>
  <rule action='accept' direction='in'><tcp-ipv6 dstportstart='22'/></rule>
  <rule action='drop' direction='in'><all/></rule></filter>"""
BINDING = """
<filterbinding><owner><name>guest</name><uuid>d54df46f-1ab5-4a22-8618-4560ef5fac2c</uuid></owner>
  <portdev name='private-tap'/><mac address='52:54:00:00:00:01'/><filterref filter='private'>
  <parameter name='IP' value='10.99.0.9'/></filterref></filterbinding>"""


def site_in(folder: Path, name: str = "site") -> LibvirtdSite:
    """A site of its own."""
    return LibvirtdSite(run_dir=folder / name, state_dir=folder / f"{name}.state", kvm_works=False)


def life(folder: Path) -> dict[str, Any]:
    """Start, start again, stop, stop again."""
    site = site_in(folder)
    began = time.monotonic()
    first = ensure_libvirtd(site)
    seconds = time.monotonic() - began
    before = libvirtd_processes(site)
    second = ensure_libvirtd(site)
    after = libvirtd_processes(site)
    daemon = before[-1].pid
    inside = {path.name for path in Path(f"/proc/{daemon}/root/dev").iterdir()}
    stopped = [ensure_libvirtd_stopped(site), ensure_libvirtd_stopped(site)]
    return {
        "started_by_us": [first.started_by_us, second.started_by_us],
        "version": first.version,
        "seconds": seconds,
        "kvm_hidden": first.kvm_hidden,
        "kvm_seen_inside": "kvm" in inside,
        "tun_seen_inside": "net" in inside,
        "kvm_outside": [Path("/dev/kvm").exists(), first.kvm_hidden],
        "same_processes": before == after,
        "count": len(before),
        "detached": all(os.getsid(process.pid) != os.getsid(0) for process in before),
        "stopped": stopped,
        "alive_after": [process_alive(process) for process in before],
        "qemu_conf_changed": "namespaces = []" in Path("/etc/libvirt/qemu.conf").read_text(),
        "mounts_seen_outside": "stratus-dev" in Path("/proc/self/mounts").read_text(),
        "files_left": sorted(path.name for path in site.run_dir.rglob("*")),
    }


def killed(folder: Path) -> dict[str, Any]:
    """The daemon is killed, a corpse may remain; the next start finds its way."""
    site = site_in(folder)
    ensure_libvirtd(site)
    first = libvirtd_processes(site)
    os.kill(first[-1].pid, signal.SIGKILL)
    while process_alive(first[-1]):
        time.sleep(0.01)
    found = ensure_libvirtd(site)
    second = libvirtd_processes(site)
    # The note of what was started is lost as well: the daemon is still recognised.
    site.record.unlink()
    recognised = len(libvirtd_processes(site))
    stopped = ensure_libvirtd_stopped(site)
    return {
        "answers": found.version,
        "started_by_us": found.started_by_us,
        "another": first[-1] != second[-1],
        "virtlogd_kept": first[0] == second[0],
        "recognised": recognised,
        "stopped": stopped,
        "alive_after": [process_alive(process) for process in second],
    }


def foreign(folder: Path) -> dict[str, Any]:
    """Another site's daemon is used, not stopped; a recycled number is not killed."""
    theirs, ours = site_in(folder, "theirs"), site_in(folder, "ours")
    ensure_libvirtd(theirs)
    found = ensure_libvirtd(ours)
    stopped = ensure_libvirtd_stopped(ours)
    leftovers_remove(ours)
    still_alive = [process_alive(process) for process in libvirtd_processes(theirs)]
    stranger = subprocess.Popen(["sleep", "60"])
    ours.directory.mkdir(parents=True)
    ours.pidfile("libvirtd").write_text(f"{stranger.pid}\n")
    ensure_libvirtd_stopped(ours)
    stranger_lives = stranger.poll() is None
    stranger.kill()
    stranger.wait()
    ensure_libvirtd_stopped(theirs)
    return {
        "started_by_us": found.started_by_us,
        "stopped": stopped,
        "still_alive": still_alive,
        "stranger_lives": stranger_lives,
    }


def leftovers(folder: Path) -> dict[str, Any]:
    """A NAT network and a filter come and go, between two pictures of the machine."""
    site = site_in(folder)
    # What an administrator had before, under names that look like libvirt's.
    subprocess.run(["iptables", "-N", "LIBVIRT_MINE"], check=True)
    subprocess.run(["iptables", "-A", "INPUT", "-j", "LIBVIRT_MINE"], check=True)
    before = picture()
    ensure_libvirtd(site)
    connection = libvirt.open("qemu:///system")
    network = connection.networkDefineXML(NETWORK)
    network.create()
    network_filter = connection.nwfilterDefineXML(FILTER)
    for words in ("tuntap add private-tap mode tap", "link set private-tap master private0 up"):
        subprocess.run(["ip", *words.split()], check=True)
    binding = connection.nwfilterBindingCreateXML(BINDING)
    during = picture()
    binding.delete()
    ensure_libvirtd_stopped(site)
    in_use = picture()
    ensure_libvirtd(site)
    connection = libvirt.open("qemu:///system")
    network = connection.networkLookupByName("private")
    kept = bool(network.isActive())
    network.destroy()
    network.undefine()
    connection.nwfilterLookupByName(network_filter.name()).undefine()
    subprocess.run(["ip", "link", "del", "private-tap"], check=True)
    connection.close()
    said: list[str] = []
    ensure_libvirtd_stopped(site, said.append)
    leftovers_remove(site, said.append)
    return {
        "before": before,
        "during": during,
        "in_use": in_use,
        "network_kept": kept,
        "after": picture(),
        "said": said,
        "files": sorted(
            str(path)
            for root in ("/run", "/var/lib", "/var/cache", "/var/log")
            for path in Path(root, "libvirt").rglob("*")
            if root != "/run" and path.name != "images"
        ),
    }


def picture() -> dict[str, Any]:
    """The firewall and the switches as anybody can see them, without counters."""
    tools = {tool: said([f"{tool}-save"]) for tool in ("iptables", "ip6tables", "ebtables")}
    lines = {
        tool: [line for line in text.splitlines() if not line.startswith("#")]
        for tool, text in tools.items()
    }
    switches = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    return {
        "rules": lines,
        "tables": said(["nft", "list", "tables"]).split("\n"),
        "switches": [Path("/proc/sys", name).read_text().strip() for name in switches],
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
    }


def said(command: list[str]) -> str:
    """What a tool prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


SCENARIOS = {"life": life, "killed": killed, "foreign": foreign, "leftovers": leftovers}


if __name__ == "__main__":
    name, place = sys.argv[1:]
    assert not SOCKET.exists(), "the namespaces are not private"
    seen = SCENARIOS[name](Path(place))
    print(json.dumps(seen))
