"""How much memory does the whole idle control plane hold?

    python -m bench.memory [--host-uri test:///default] [--seconds 20]

One process with all roles on SQLite, its first host connected, nobody asking; read some seconds
after it became ready, and once more after it answered some requests.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.cloud import cloud_lent
from bench.common import Figure, directory, finish, machine_read, store_lent
from stratus.wire.v1 import InstanceView

RSS_MIB_MAX: Final = 150.0
REQUESTS: Final = 500
# What a process pays before it is a cloud, each on top of the ones before it.
LAYERS: Final = (
    ("the interpreter", "pass"),
    ("SQLAlchemy and the store", "import stratus.store.engine, stratus.store.sqlite"),
    ("numpy and the reconciler", "import stratus.control.reconcile"),
    ("libvirt and the drivers", "import libvirt, stratus.drivers.hypervisor.libvirt"),
    ("Litestar, uvicorn and the API", "import stratus.api.app, stratus.api.server"),
)


def rss_mib(pid: int | str) -> float:
    """Return the resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def layers() -> list[str]:
    """Say what each layer adds when it is imported."""
    code = "import re, pathlib\n"
    code += "def rss(): return int(re.search(r'VmRSS:\\s+(\\d+)', "
    code += "pathlib.Path('/proc/self/status').read_text())[1]) / 1024\n"
    for name, statement in LAYERS:
        code += f"{statement}\nprint({name!r}, rss(), sep='\\t')\n"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    notes: list[str] = []
    before = 0.0
    for line in said.splitlines():
        name, _, mib = line.partition("\t")
        notes.append(f"{name}: {float(mib) - before:.1f} MiB")
        before = float(mib)
    return notes


def main() -> None:
    """Start a cloud, leave it alone, and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host-uri", default="test:///default")
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    machine = machine_read()
    with (
        directory() as place,
        store_lent("sqlite", place) as store,
        cloud_lent(place, store, hosts=0, host_uri=asked.host_uri) as cloud,
    ):
        time.sleep(asked.seconds)
        idle = rss_mib(cloud.process.pid)
        cpu = cloud.cpu_seconds()
        time.sleep(asked.seconds)
        cpu = cloud.cpu_seconds() - cpu
        for _ in range(REQUESTS):
            cloud.client.items("/v1/instances", InstanceView)
        used = rss_mib(cloud.process.pid)
    figures = [
        Figure(
            what=f"idle, host {asked.host_uri}",
            value=round(idle, 1),
            unit="MiB resident",
            at_most=RSS_MIB_MAX,
            note=f"uses {100 * cpu / asked.seconds:.1f} % of a core",
        ),
        Figure(
            what=f"after {REQUESTS} requests",
            value=round(used, 1),
            unit="MiB resident",
            at_most=RSS_MIB_MAX,
        ),
    ]
    finish("memory", __doc__, machine, figures, layers())


if __name__ == "__main__":
    main()
