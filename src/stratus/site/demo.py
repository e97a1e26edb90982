"""How does somebody see all of it work? From nothing to a command in a real guest over ssh.

Every step leaves something that the next run finds, so a second run is warm.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

import msgspec

from stratus.cli.client import Client
from stratus.cli.trouble import Trouble
from stratus.model.problem import refuse
from stratus.site.appliance import TINY, appliance_build, client_of, image_endorse
from stratus.site.config import DEMO_PORT, Home, SiteConfig
from stratus.site.daemon import daemon_ensure_stopped, daemon_find
from stratus.site.machine_cloud import cloud_up, libvirtd_site
from stratus.wire.v1 import ImageView, InstanceCreateBody, InstancesMade, InstanceView

Progress = Callable[[str], None]

DEMO_SITE: Final = SiteConfig(name="demo", port=DEMO_PORT, network_ipv4="192.168.152.0/24")
ENDORSER: Final = "demo@stratus.invalid"
NAME: Final = "demo"
TYPE: Final = "t1.micro"
RUNNING_SECONDS_MAX: Final = 300
SSH_SECONDS_MAX: Final = 120.0
SSH_POLL_SECONDS: Final = 0.05
GUEST_COMMAND: Final = 'echo "hello from $(hostname), up $(cut -d" " -f1 /proc/uptime) s"'


class Seconds(msgspec.Struct, kw_only=True):
    """How long each part took; set-up and cloud_ready are near zero when warm."""

    setup: float = 0.0
    cloud_ready: float = 0.0
    running: float = 0.0
    ssh: float = 0.0


class DemoResult(msgspec.Struct, kw_only=True):
    """What the demonstration showed."""

    instance: str
    address: str
    accelerator: str
    seconds: Seconds
    guest_says: str


def demo_run(home: Home, progress: Progress, *, as_json: bool) -> None:
    """Do all of it and print what happened; as the last line one JSON object, if asked."""
    seconds = Seconds(setup=float(os.environ.get("STRATUS_SETUP_SECONDS", "0")))
    began = time.monotonic()
    endpoint = cloud_up(home, DEMO_SITE, progress)
    client = client_of(home)
    image = _image_ensure(home, client, progress)
    key = _ssh_key_ensure(home)
    seconds.cloud_ready = time.monotonic() - began

    progress(f"starting an instance of {image.name} ({image.identifier})")
    began = time.monotonic()
    instance = _start(client, key)
    seconds.running = time.monotonic() - began
    progress(f"{instance.name} is running at {instance.address}, waiting for ssh")
    said = ssh_until(home, key, instance, GUEST_COMMAND, SSH_SECONDS_MAX)
    seconds.ssh = time.monotonic() - began
    result = DemoResult(
        instance=instance.id,
        address=instance.address or "",
        accelerator=instance.accelerator,
        seconds=Seconds(**{k: round(v, 3) for k, v in msgspec.structs.asdict(seconds).items()}),
        guest_says=said,
    )
    _tell(home, result, endpoint, instance, key, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(msgspec.json.encode(result).decode())


def _image_ensure(home: Home, client: Client, progress: Progress) -> ImageView:
    """Leave the appliance built, imported and endorsed."""
    image = _image_find(client)
    if image is None or image.phase != "ready":
        path = home.cache / "tiny.img"
        if not path.exists():
            progress("building the tiny appliance")
            appliance_build(TINY, path, home, progress)
        _cli(home, ["image", "import", str(path), "--name", TINY, "--public"], progress)
        image = _image_find(client)
        assert image is not None
    if image.trust is None or not image.trust.allowed:
        progress("endorsing the appliance with a key of this machine")
        image_endorse(image.id, home.state / "endorser.pem", ENDORSER, 180, home)
        _cli(home, ["policy", "show"], None)
        image = _image_find(client)
        assert image is not None
    return image


def _image_find(client: Client) -> ImageView | None:
    try:
        return client.get(f"/v1/images/{TINY}", ImageView)
    except Trouble as trouble:
        if trouble.code == "not_found":
            return None
        raise


def _cli(home: Home, words: list[str], progress: Progress | None) -> str:
    """Carry out a command as its user would; return what it printed."""
    if progress is not None:
        progress(f"stratus {' '.join(words)}")
    done = subprocess.run(
        [sys.executable, "-m", "stratus.site.main", *words],
        env=os.environ | {"STRATUS_HOME": str(home.root)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise refuse(
            "machine_unfit",
            f"`stratus {' '.join(words)}` ended with code {done.returncode}.",
            remedy="It said above what to do; then run the demonstration again.",
        )
    return done.stdout


def _ssh_key_ensure(home: Home) -> Path:
    """Leave a key of the demonstration's own, so that nobody's own keys are touched."""
    key = home.state / "demo_key"
    if not key.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stratus-demo", "-f", str(key)],
            check=True,
            timeout=30,
        )
    return key


def _start(client: Client, key: Path) -> InstanceView:
    body = InstanceCreateBody(
        project=client.place.project,
        image=TINY,
        type=TYPE,
        name=NAME,
        swap_mib=0,
        ssh_keys=(key.with_suffix(".pub").read_text().strip(),),
    )
    query = {"wait": str(RUNNING_SECONDS_MAX)}
    answer = client.call(
        "POST", "/v1/instances", body=body, query=query, wait_seconds=RUNNING_SECONDS_MAX
    )
    made = msgspec.json.decode(answer.body, type=InstancesMade).items[0]
    if made.phase != "running":
        problem = made.parked or made.failure or made.waiting
        raise refuse(
            "guest_failed",
            f"Instance {made.id} is {made.phase}: {problem.detail if problem else made.reason}",
            remedy=problem.remedy
            if problem
            else "Look at it with `stratus show` and `stratus logs`.",
        )
    return made


def ssh_words(home: Home, key: Path, instance: InstanceView) -> list[str]:
    """Return the command that logs in, with a known-hosts file of the demonstration's own."""
    return [
        "ssh",
        *("-i", str(key)),
        *("-o", "StrictHostKeyChecking=accept-new"),
        *("-o", f"UserKnownHostsFile={home.run / 'known_hosts'}"),
        *("-o", f"HostKeyAlias={instance.id}"),
        *("-o", "BatchMode=yes"),
        *("-o", "ConnectTimeout=5"),
        *("-o", "LogLevel=ERROR"),
        f"root@{instance.address}",
    ]


def ssh_until(
    home: Home, key: Path, instance: InstanceView, command: str, seconds_max: float
) -> str:
    """Run a command in the guest as soon as its ssh answers; return what it printed."""
    assert instance.address
    until = time.monotonic() + seconds_max
    said = "nothing listens on port 22"
    while time.monotonic() < until:
        if _listens(instance.address):
            done = subprocess.run(
                [*ssh_words(home, key, instance), command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.returncode == 0:
                return done.stdout.strip()
            said = done.stderr.strip()
        time.sleep(SSH_POLL_SECONDS)
    raise refuse(
        "guest_failed",
        f"ssh to {instance.address} did not answer within {seconds_max:.0f} s: {said}",
        remedy=f"Read what the guest printed: STRATUS_HOME={home.root} stratus logs {instance.id}",
    )


def _listens(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1):
            return True
    except OSError:
        return False


def _tell(
    home: Home,
    result: DemoResult,
    endpoint: str,
    instance: InstanceView,
    key: Path,
    *,
    file: TextIO,
) -> None:
    took = result.seconds
    lines = [
        "",
        f"The guest says: {result.guest_says}",
        "",
        f"  instance     {result.instance} ({instance.name}, {instance.type})",
        f"  address      {result.address}"
        + (f"  {instance.address6}" if instance.address6 else ""),
        f"  accelerator  {result.accelerator}",
        f"  API          {endpoint}",
        f"  set-up {took.setup:.1f} s, cloud ready {took.cloud_ready:.1f} s,"
        f" running {took.running:.1f} s, ssh {took.ssh:.1f} s after the request",
        "",
        "Try next:",
        f"  export STRATUS_HOME={home.root}",
        f"  {' '.join(ssh_words(home, key, instance))}",
        "  ./stratus ps",
        f"  ./stratus logs {instance.name}",
        f"  ./stratus stop {instance.name}",
        "  ./stratus demo --clean",
    ]
    print("\n".join(lines), file=file)


# -- cleaning -------------------------------------------------------------------------------


def demo_clean(home: Home, progress: Progress) -> None:
    """Leave nothing of the demonstration: no process, bridge, firewall rule or file."""
    if not home.root.exists():
        progress(f"there is nothing at {home.root}")
        return
    daemon_ensure_stopped(home, progress)
    _engines_clean(home, progress)
    shutil.rmtree(home.root)
    progress(f"removed {home.root}; installed packages stay")


def _engines_clean(home: Home, progress: Progress) -> None:
    """Remove this site's guests, networks and filters from libvirt, then what was started."""
    from stratus.site.libvirt_clean import guests_and_networks_remove
    from stratus.site.libvirtd import (
        ensure_libvirtd,
        ensure_libvirtd_stopped,
        leftovers_remove,
    )

    if not home.state.is_dir():
        return
    site = libvirtd_site(home)
    assert daemon_find(home) is None
    progress("removing guests and networks")
    ensure_libvirtd(site, progress)
    guests_and_networks_remove(home)
    ensure_libvirtd_stopped(site, progress)
    leftovers_remove(site, progress)
