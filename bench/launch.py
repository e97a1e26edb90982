"""How long from `run` to ssh, beside the same guest under the same QEMU without us?

    python -m bench.launch [--rounds 5] [--image tiny.img]

As root, in namespaces of its own: a whole site with libvirtd, a real guest. Each round first asks
the cloud for an instance and runs a command in it over ssh; then stops it, and starts QEMU by hand
with the very command line that libvirt had used (see bench/argv.py), on a fresh clone made before
the clock starts, the same seed medium, the same card on the same bridge.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.argv import Stand, argv_adapt
from bench.common import Figure, directory, finish, machine_read, quantile, say
from stratus.cli.client import Client
from stratus.drivers.appliance.tiny import tiny_build
from stratus.site.appliance import client_of, image_endorse
from stratus.site.config import Home, SiteConfig
from stratus.site.daemon import daemon_ensure_stopped
from stratus.site.demo import demo_clean, ssh_until
from stratus.site.machine_cloud import cloud_up
from stratus.wire.v1 import InstanceCreateBody, InstancesMade, InstanceView

ROOT: Final = Path(__file__).parents[1]
PRIVATE: Final = ROOT / "tests" / "site" / "private_machine.sh"
NAMESPACES: Final = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
HOME: Final = Path("/var/lib/stratus-bench")
CACHE: Final = Path("/var/tmp/stratus-bench-appliance")  # noqa: S108  # packages, kept
SITE: Final = SiteConfig(name="bench", port=7497, network_ipv4="192.168.165.0/24")
TAP: Final = "bench0"
SSH_SECONDS_MAX: Final = 180.0
STOP_SECONDS_MAX: Final = 120
RATIO_MAX: Final = 1.15
QEMU: Final = "qemu-system"


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round took, each from its beginning to the first command over ssh."""

    ours: float
    bare: float
    accelerator: str
    adapted: list[str]


# -- inside the namespaces ------------------------------------------------------------------


def site_make(home: Home, image: Path) -> Client:
    """Bring a site up with the appliance imported and endorsed."""
    cloud_up(home, SITE, say)
    words = ["image", "import", str(image), "--name", "tiny", "--public"]
    subprocess.run(
        [sys.executable, "-m", "stratus.site.main", *words],
        env=os.environ | {"STRATUS_HOME": str(home.root)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    image_endorse("tiny", home.state / "endorser.pem", "bench@stratus.invalid", 1, home)
    key = home.state / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30
    )
    return client_of(home)


def ours(home: Home, client: Client, number: int) -> tuple[float, InstanceView]:
    """Ask the cloud; return how long it took until a command ran, and the instance."""
    key = home.state / "key"
    body = InstanceCreateBody(
        project=client.place.project,
        image="tiny",
        type="t1.micro",
        name=f"round-{number}",
        swap_mib=0,
        ssh_keys=(key.with_suffix(".pub").read_text().strip(),),
    )
    began = time.perf_counter()
    answer = client.call("POST", "/v1/instances", body=body)
    made = msgspec.json.decode(answer.body, type=InstancesMade).items[0]
    ssh_until(home, key, made, "true", SSH_SECONDS_MAX)
    took = time.perf_counter() - began
    return took, client.get(f"/v1/instances/{made.id}", InstanceView)


def qemu_argv(instance: InstanceView) -> list[str]:
    """Return the command line of the QEMU that runs this instance."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = path.read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        if argv and QEMU in argv[0] and any(instance.id in word for word in argv):
            return argv
    raise AssertionError(f"no QEMU runs {instance.id}")


def clones_make(argv: list[str], under: Path) -> dict[str, str]:
    """Make anew what this guest writes to; return what stands for what."""
    made: dict[str, str] = {}
    for option, value in itertools.pairwise(argv):
        if option != "-blockdev" or not value.startswith("{"):
            continue
        said = json.loads(value)
        name = said.get("filename")
        if said.get("driver") != "file" or not name:
            continue
        info = _qemu_img_info(name)
        backing = info.get("full-backing-filename")
        if not backing:
            continue  # the image below it or the seed medium, which nobody writes to
        clone = str(under / Path(name).name)
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(backing)]
        subprocess.run([*create, clone, str(info["virtual-size"])], check=True)
        made[name] = clone
    assert made, "no overlay was found: run this where the pool makes no reflinks"
    return made


def _qemu_img_info(name: str) -> dict[str, str | int]:
    done = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", name],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str | int] = json.loads(done.stdout)
    return found


def tap_make() -> None:
    """Leave a card of ours on the bridge that libvirt made."""
    shown = subprocess.run(
        ["ip", "-j", "link", "show", "type", "bridge"], capture_output=True, text=True, check=True
    )
    bridges = [link["ifname"] for link in json.loads(shown.stdout)]
    assert len(bridges) == 1, f"this machine has the bridges {bridges}"
    subprocess.run(["ip", "tuntap", "add", TAP, "mode", "tap"], check=True)
    subprocess.run(["ip", "link", "set", TAP, "master", bridges[0], "up"], check=True)


def bare(
    home: Home, argv: list[str], instance: InstanceView, under: Path
) -> tuple[float, list[str]]:
    """Start the same guest by hand; return how long it took until a command ran."""
    stand = Stand(
        tap=TAP,
        sockets=str(under / "socket-"),
        console=str(under / "console"),
        files=clones_make(argv, under),
    )
    command, notes = argv_adapt(argv, stand)
    # Another name for its host keys: the clone makes new ones.
    known = msgspec.structs.replace(instance, id=f"bare-{instance.id}")
    with (under / "qemu.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            ssh_until(home, home.state / "key", known, "true", SSH_SECONDS_MAX)
            took = time.perf_counter() - began
        except Exception:
            say((under / "qemu.log").read_text()[-2000:])
            raise
        finally:
            process.kill()
            process.wait()
    return took, notes


def rounds_run(folder: Path, image: Path, rounds: int) -> list[Round]:
    """Do all rounds on a site of its own."""
    home = Home(HOME)
    made: list[Round] = []
    try:
        client = site_make(home, image)
        # The first is not counted: libvirt learns then what this QEMU can do, once per machine.
        for number in range(rounds + 1):
            under = folder / f"round-{number}"
            under.mkdir()
            seconds, instance = ours(home, client, number)
            argv = qemu_argv(instance)
            if not number:
                tap_make()
            wait = {"wait": str(STOP_SECONDS_MAX)}
            path = f"/v1/instances/{instance.id}"
            client.call("POST", f"{path}/stop", query=wait, wait_seconds=STOP_SECONDS_MAX)
            alone, notes = bare(home, argv, instance, under)
            client.call("DELETE", path, query=wait, wait_seconds=STOP_SECONDS_MAX)
            say(f"round {number}: ours {seconds:.2f} s, bare {alone:.2f} s")
            if number:
                made.append(
                    Round(ours=seconds, bare=alone, accelerator=instance.accelerator, adapted=notes)
                )
    finally:
        daemon_ensure_stopped(home, say)
        demo_clean(home, say)
    return made


# -- outside --------------------------------------------------------------------------------


def main() -> None:
    """Make namespaces and go into them; judge what comes out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside is not None:
        made = rounds_run(asked.inside, asked.image, asked.rounds)
        (asked.inside / "rounds.json").write_bytes(msgspec.json.encode(made))
        return
    assert os.geteuid() == 0, "namespaces and libvirtd need root"
    machine = machine_read()
    with directory() as folder:
        # The hypervisor runs as another user.
        folder.chmod(0o755)
        image = folder / "tiny.img"
        if asked.image is not None:
            shutil.copy(asked.image, image)
        else:
            CACHE.mkdir(exist_ok=True)
            tiny_build(image, cache=CACHE, progress=say)
        private = ["unshare", *NAMESPACES, "--propagation", "private", "--", "sh", str(PRIVATE)]
        inside = [sys.executable, "-m", "bench.launch", "--inside", str(folder)]
        inside += ["--rounds", str(asked.rounds), "--image", str(image)]
        subprocess.run([*private, *inside], cwd=ROOT, check=True)
        made = msgspec.json.decode((folder / "rounds.json").read_bytes(), type=list[Round])
    finish("launch", __doc__, machine, figures(made), sorted({n for r in made for n in r.adapted}))


def figures(made: list[Round]) -> list[Figure]:
    """Compare the medians."""
    mine = quantile([each.ours for each in made], 0.5)
    alone = quantile([each.bare for each in made], 0.5)
    spread = ", ".join(f"{each.ours:.2f}/{each.bare:.2f}" for each in made)
    note = f"{len(made)} rounds, {made[0].accelerator}"
    return [
        Figure(what="from POST to ssh, median", value=round(mine, 2), unit="s", note=note),
        Figure(what="bare QEMU to ssh, median", value=round(alone, 2), unit="s", note=note),
        Figure(
            what="ratio of the medians",
            value=round(mine / alone, 3),
            unit="",
            at_most=RATIO_MAX,
            note=f"ours/bare: {spread}",
        ),
    ]


if __name__ == "__main__":
    main()
