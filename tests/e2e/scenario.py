"""One site's whole life on a private machine, with real guests; prints what was seen as JSON.

Run by test_cloud.py inside namespaces of its own, so that what is left over can be counted. Every
step is what a user or a fault would do; the judging is left to the tests.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stratus.cli.client import Client
from stratus.cli.trouble import Trouble
from stratus.site.appliance import client_of
from stratus.site.config import Home
from stratus.site.daemon import daemon_find
from stratus.site.demo import ssh_until, ssh_words
from stratus.site.libvirtd import libvirtd_processes
from stratus.site.machine_cloud import libvirtd_site
from stratus.wire.v1 import InstanceCreateBody, InstancesMade, InstanceView

T = TypeVar("T")

WAIT_SECONDS_MAX = 180.0
SSH_SECONDS_MAX = 120.0
COMMAND_SECONDS_MAX = 400

ROOT = Path(__file__).parents[2]
SEEN: dict[str, Any] = {}


def stratus(home: Home, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "stratus.site.main", *words],
        env=os.environ | {"STRATUS_HOME": str(home.root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"stratus {' '.join(words)}: {done.stderr}")
    return done


def until(what: str, true: Callable[[], T]) -> T:
    """Wait until it holds and return what held."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"it never came to this: {what}")


def instance_of(client: Client, ref: str) -> InstanceView:
    return client.get(f"/v1/instances/{ref}", InstanceView)


def phase_until(client: Client, ref: str, phase: str) -> InstanceView:
    def reached() -> InstanceView | None:
        found = instance_of(client, ref)
        return found if found.phase == phase else None

    found = until(f"{ref} is {phase}", reached)
    assert found is not None
    return found


def machine_state() -> dict[str, Any]:
    """What of the machine could be left over."""

    def lines(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split(
            "\n"
        )

    processes = sorted(words[0].decode() for words in command_lines())
    return {
        "links": sorted(line.split()[0] for line in lines("ip", "-br", "link") if line),
        "rules": [line for line in lines("nft", "list", "ruleset") if line],
        "processes": processes,
        "forward": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip(),
        "home": Path("/var/lib/stratus-e2e").exists(),
    }


def main(folder: Path, image: Path) -> None:
    home = Home(Path("/var/lib/stratus-e2e"))
    home.root.mkdir(mode=0o711)
    home.config.write_text('name = "e2e"\nport = 7499\nnetwork_ipv4 = "192.168.163.0/24"\n')
    # Built outside: this machine has no network to fetch packages by.
    home.cache.mkdir()
    shutil.copy(image, home.cache / "tiny.img")
    before = machine_state()
    first = stratus(home, "demo", "--home", str(home.root), "--json")
    SEEN["demo"] = json.loads(first.stdout.splitlines()[-1])
    SEEN["demo_stdout_lines"] = len(first.stdout.splitlines())
    client = client_of(home)
    guest = instance_of(client, SEEN["demo"]["instance"])
    life(home, client, guest)
    crash_of_control_plane(home, client, guest)
    crash_of_libvirtd(home, client, guest)
    bad_starts(client)
    halt_from_inside(home, client, guest)
    second = stratus(home, "demo", "--home", str(home.root), "--json")
    SEEN["warm"] = json.loads(second.stdout.splitlines()[-1])
    SEEN["ps"] = json.loads(stratus(home, "ps", "--json").stdout)
    delete_all(home, client)
    stratus(home, "demo", "--home", str(home.root), "--clean")
    SEEN["before"], SEEN["after"] = before, machine_state()
    (folder / "seen.json").write_text(json.dumps(SEEN))


def life(home: Home, client: Client, guest: InstanceView) -> None:
    """Files, stop, start and reboot as a user knows them."""
    key = home.state / "demo_key"
    ssh_until(home, key, guest, "echo kept > /root/kept", SSH_SECONDS_MAX)
    SEEN["spoof"] = spoof(home, key, guest)
    SEEN["stop"] = stratus(home, "stop", guest.id).returncode
    SEEN["stopped"] = instance_of(client, guest.id).phase
    stratus(home, "start", guest.id)
    SEEN["kept"] = ssh_until(home, key, guest, "cat /root/kept", SSH_SECONDS_MAX)
    boot = ssh_until(home, key, guest, "cat /proc/sys/kernel/random/boot_id", SSH_SECONDS_MAX)
    stratus(home, "reboot", guest.id)

    def rebooted() -> bool:
        found = ssh_until(home, key, guest, "cat /proc/sys/kernel/random/boot_id", SSH_SECONDS_MAX)
        return found != boot

    SEEN["rebooted"] = until("the guest has booted anew", rebooted)
    SEEN["console"] = stratus(home, "logs", guest.id).stdout[-2000:]
    SEEN["addresses"] = ssh_until(
        home, key, guest, "ip -o addr show dev eth0", SSH_SECONDS_MAX
    ).splitlines()


def spoof(home: Home, key: Path, guest: InstanceView) -> dict[str, Any]:
    """Let the guest use an address that is not its own, and see who hears it."""
    assert guest.address
    prefix = guest.address.rpartition(".")[0]
    stolen, gateway = f"{prefix}.200", f"{prefix}.1"
    script = (
        f"ip addr add {stolen}/24 dev eth0;"
        f" ping -c 2 -W 1 -I {stolen} {gateway} >/dev/null 2>&1 && echo heard || echo silent;"
        f" ip addr del {stolen}/24 dev eth0;"
        f" ping -c 2 -W 2 {gateway} >/dev/null 2>&1 && echo heard || echo silent"
    )
    said = ssh_until(home, key, guest, script, SSH_SECONDS_MAX).split()
    return {"stolen": said[0], "own": said[1]}


def crash_of_control_plane(home: Home, client: Client, guest: InstanceView) -> None:
    """kill -9 in the middle of a start: nothing is lost, nothing runs twice."""
    answer = client.call(
        "POST",
        "/v1/instances",
        body=InstanceCreateBody(
            project=client.place.project, image="tiny", type="t1.micro", name="cut", swap_mib=64
        ),
    )
    made = msgspec.json.decode(answer.body, type=InstancesMade).items[0]
    process = daemon_find(home)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    until("it is dead", lambda: daemon_find(home) is None)
    busy = subprocess.Popen(
        [sys.executable, "-m", "stratus.site.main", "serve", "--home", str(home.root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until("the new one is noted", lambda: daemon_find(home))
    stratus(home, "up")
    second = stratus(home, "serve", "--home", str(home.root), check=False)
    SEEN["second_control_plane"] = {"code": second.returncode, "said": second.stderr}
    again = phase_until(client, made.id, "running")
    SEEN["after_crash"] = {
        "cut": again.phase,
        "guest": phase_until(client, guest.id, "running").phase,
        "domains": domains(),
    }
    os.kill(busy.pid, signal.SIGTERM)
    busy.wait(60)
    stratus(home, "up")
    stratus(home, "rm", made.id)


def domains() -> list[str]:
    """The QEMU processes that run now, by the name of their guest."""
    found = []
    for words in command_lines():
        if b"-name" in words and b"qemu-system" in words[0]:
            name = words[words.index(b"-name") + 1].decode()
            found.append(name.split(",")[0].removeprefix("guest="))
    return sorted(found)


def command_lines() -> list[list[bytes]]:
    """The command line of every process that is more than a corpse."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if process.name.isdigit() and (line := (process / "cmdline").read_bytes()):
                found.append(line.split(b"\0"))
    return found


def crash_of_libvirtd(home: Home, client: Client, guest: InstanceView) -> None:
    """kill -9 of libvirtd: the instance is unknown, not stopped, and comes back by itself."""
    site = libvirtd_site(home)
    for process in libvirtd_processes(site):
        os.kill(process.pid, signal.SIGKILL)
    lost = phase_until(client, guest.id, "unknown")
    SEEN["libvirtd_lost"] = {
        "phase": lost.phase,
        "reason": lost.reason,
        "since": lost.host_unreachable_since,
    }
    stratus(home, "up")
    SEEN["libvirtd_back"] = phase_until(client, guest.id, "running").phase
    SEEN["domains_after_libvirtd"] = domains()
    key = home.state / "demo_key"
    SEEN["guest_lived_on"] = ssh_until(home, key, guest, "cat /root/kept", SSH_SECONDS_MAX)


def bad_starts(client: Client) -> None:
    """Requests that cannot be: each ends in words and leaves nothing."""

    def refused(*, image: str = "tiny", count: int = 1) -> dict[str, Any]:
        create = InstanceCreateBody(
            project=client.place.project, image=image, type="t1.micro", count=count
        )
        try:
            client.call("POST", "/v1/instances", body=create)
        except Trouble as trouble:
            return {"code": trouble.code, "remedy": bool(trouble.remedy)}
        return {"code": "", "remedy": False}

    SEEN["unknown_image"] = refused(image="nothing")
    SEEN["over_quota"] = refused(count=1000)


def halt_from_inside(home: Home, client: Client, guest: InstanceView) -> None:
    """The guest's own power-off shows as stopped and is not overruled."""
    key = home.state / "demo_key"
    subprocess.run([*ssh_words(home, key, guest), "poweroff"], check=False, timeout=60)
    halted = phase_until(client, guest.id, "stopped")
    SEEN["halted"] = {"phase": halted.phase, "reason": halted.reason}
    time.sleep(3)
    SEEN["still_halted"] = instance_of(client, guest.id).phase
    SEEN["released"] = stratus(home, "stop", "--release", guest.id).returncode
    until("its place is given back", lambda: instance_of(client, guest.id).host is None)
    stratus(home, "start", guest.id)
    SEEN["started_again"] = ssh_until(home, key, guest, "cat /root/kept", SSH_SECONDS_MAX)


def delete_all(home: Home, client: Client) -> None:
    """Everything goes, disks and all; the store is well."""
    ids = [view.id for view in client.items("/v1/instances", InstanceView)]
    stratus(home, "rm", *ids)
    SEEN["volumes_left"] = sorted(path.name for path in (home.pool / "volumes").iterdir())
    SEEN["domains_left"] = domains()
    backup = home.state / "backup.db"
    stratus(home, "db", "backup", str(backup))
    SEEN["check"] = stratus(home, "db", "check").stdout.strip()
    SEEN["backup_bytes"] = backup.stat().st_size
    busy = stratus(home, "db", "restore", str(backup), check=False)
    SEEN["restore_while_running"] = {"code": busy.returncode, "said": busy.stderr}
    stratus(home, "down")
    stratus(home, "db", "restore", str(backup))
    stratus(home, "up")
    SEEN["after_restore"] = stratus(home, "status", check=False).returncode


def init() -> None:
    """Be the first process of the machine, as which somebody must collect its dead."""
    child = os.fork()
    while child:
        ended, status = os.wait()
        if ended == child:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    if os.getpid() == 1:
        init()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
