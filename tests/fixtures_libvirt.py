"""A real libvirtd for the tests: the machine's own, or one that is started and stopped again."""

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest

from stratus.drivers.hypervisor import boot_sector
from stratus.drivers.hypervisor.libvirt import LibvirtHypervisor
from stratus.drivers.network.libvirt_traces import traces_remove
from stratus.model.host import GuestDisk, GuestNic, GuestSpec
from stratus.model.ids import InstanceId
from stratus.model.volume import FileDisk, VolumeKind
from stratus.site.libvirtd import LibvirtdSite, ensure_libvirtd, ensure_libvirtd_stopped

# Guests of the tests are told from all others by their memory of this process.
NUMBERS = itertools.count(1)
MEMORY_MIB = 48
TEST_NETWORKS = ("stratus-lab-", "stratus-guard-trial-")
LETTER_SECONDS = 0.2
LETTER_SECONDS_MAX = 60


@dataclass(frozen=True, kw_only=True)
class Libvirtd:
    """A libvirtd that answers, a folder whose files its guests can open, and small guests."""

    uri: str
    folder: Path
    site: LibvirtdSite
    started_by_us: bool
    made: list[str] = field(default_factory=list)

    def spec(self, *, nics: tuple[GuestNic, ...] = ()) -> GuestSpec:
        """Describe a new guest: one sector that prints its name and obeys."""
        number = f"{os.getpid():08d}{next(NUMBERS):08d}"
        path = self.folder / f"{number}.raw"
        path.write_bytes(boot_sector.disk_bytes(f"guest {number} is ready\r\n"))
        self.made.append(f"ins-{number}")
        disk = GuestDisk(
            kind=VolumeKind.ROOT,
            volume_id=f"vol-{number}",
            connection=FileDisk(path=str(path), format="raw"),
        )
        return GuestSpec(
            instance_id=InstanceId(f"ins-{number}"),
            generation=1,
            run=1,
            resets=0,
            title=f"test guest {number}",
            vcpus=1,
            memory_mib=MEMORY_MIB,
            disks=(disk,),
            nics=nics,
        )

    def letter(self, spec: GuestSpec, letter: bytes) -> None:
        """Type a letter on the guest's serial line until it ends of it."""
        conn = libvirt.open(self.uri)
        domain = conn.lookupByName(spec.domain_name)
        deadline = time.monotonic() + LETTER_SECONDS_MAX
        while domain.isActive():
            assert time.monotonic() < deadline, f"{spec.domain_name} does not obey"
            # What comes before the guest has begun is lost with the firmware's reset of the line.
            with suppress(libvirt.libvirtError):
                stream = conn.newStream(0)
                domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
                stream.send(letter)
                time.sleep(LETTER_SECONDS)
                stream.abort()
        conn.close()

    def stranger(self, name: str) -> None:
        """Let somebody else define a guest; it is taken away at the end."""
        conn = libvirt.open(self.uri)
        kind = "test" if self.uri.startswith("test") else "qemu"
        conn.defineXML(
            f"<domain type='{kind}'><name>{name}</name><memory unit='MiB'>32</memory>"
            "<os><type arch='x86_64'>hvm</type></os></domain>"
        )
        self.made.append(name)
        conn.close()

    def clean(self) -> None:
        """Take away what tests made here, also those that failed."""
        hypervisor = LibvirtHypervisor(self.uri)
        for guest in hypervisor.inventory():
            if guest.instance_id in self.made:
                hypervisor.ensure_absent(guest.instance_id, guest.generation)
        hypervisor.close()
        conn = libvirt.open(self.uri)
        for domain in conn.listAllDomains():
            if domain.name() in self.made:
                domain.undefine()
        for network in conn.listAllNetworks():
            if network.name().startswith(TEST_NETWORKS):
                if network.isActive():
                    network.destroy()
                network.undefine()
        conn.close()
        traces_remove(self.uri)


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """A real libvirtd with QEMU; what it started is stopped again."""
    if os.geteuid() != 0 or shutil.which("libvirtd") is None:
        pytest.skip("needs root and an installed libvirtd")
    folder = Path(tempfile.mkdtemp(prefix="stratus-test-", dir="/var/tmp"))  # mkdtemp
    # QEMU runs as another user, who must be able to reach the disks.
    folder.chmod(0o711)
    site = LibvirtdSite(run_dir=folder / "run", state_dir=folder / "state", kvm_works=False)
    found = ensure_libvirtd(site)
    lab = Libvirtd(uri=found.uri, folder=folder, site=site, started_by_us=found.started_by_us)
    try:
        yield lab
    finally:
        lab.clean()
        ensure_libvirtd_stopped(site)
        shutil.rmtree(folder, ignore_errors=True)
