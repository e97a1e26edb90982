"""Does the built-in appliance start as a machine of its own, and do what its seed says?"""

import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pycdlib
import pytest

from stratus.drivers.appliance import ApplianceBuilt, ApplianceFailed, tiny_build
from stratus.drivers.appliance.initramfs import DIRECTORY, PLAIN, Entry, cpio_bytes
from stratus.drivers.appliance.kernel_modules import KernelModule, modules_tree
from stratus.drivers.appliance.tools import tool_run

MIB = 1024 * 1024
ANSWER_SECONDS_MAX = 90
STOP_SECONDS_MAX = 60
TOOL_SECONDS_MAX = 60
GUEST_SCRIPTS = Path(tiny_build.__code__.co_filename).parent / "guest/root/usr/lib/tiny"

FIRST_MAC = "52:54:00:00:00:01"
SECOND_MAC = "52:54:00:00:00:02"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all tests of this module share: one built image and one throwaway key."""

    built: ApplianceBuilt
    cache: Path
    key: Path

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, tiny: ApplianceBuilt, appliance_cache: Path
) -> Workshop:
    folder = tmp_path_factory.mktemp("appliance")
    key = folder / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(key)],
        check=True,
        timeout=TOOL_SECONDS_MAX,
    )
    return Workshop(built=tiny, cache=appliance_cache, key=key)


def seed_iso(path: Path, files: dict[str, str]) -> Path:
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="cidata", rock_ridge="1.09", joliet=3, interchange_level=3)
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        iso.add_fp(
            io.BytesIO(data),
            len(data),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    iso.write(str(path))
    iso.close()
    return path


def seed_fat(path: Path, files: dict[str, str]) -> Path:
    path.write_bytes(bytes(MIB))
    tool_run(
        ["mformat", "-i", str(path), "-v", "cidata", "-T", "2048", "-h", "2", "-s", "32", "::"],
        timeout_seconds=TOOL_SECONDS_MAX,
    )
    for name, text in files.items():
        file = path.with_name(name)
        file.write_text(text)
        tool_run(
            ["mcopy", "-i", str(path), str(file), f"::{name}"], timeout_seconds=TOOL_SECONDS_MAX
        )
    return path


class Guest:
    """A running guest, spoken to through its ssh port and QEMU's monitor."""

    def __init__(self, folder: Path, *, key: Path, disk: Path, devices: list[str]) -> None:
        self.key = key
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.console = folder / "console.log"
        self.monitor = folder / "monitor"
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-accel", "tcg,tb-size=64", "-M", "q35", "-cpu", "Nehalem"),
                *("-m", "128", "-nodefaults", "-no-user-config", "-display", "none"),
                *("-serial", f"file:{self.console}", "-qmp", f"unix:{self.monitor},server,nowait"),
                *("-drive", f"file={disk},format=raw,if=none,id=root"),
                *("-device", "virtio-blk-pci,drive=root,bootindex=1"),
                *("-netdev", f"user,id=first,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
                *("-device", f"virtio-net-pci,netdev=first,romfile=,mac={FIRST_MAC}"),
                *("-device", "virtio-rng-pci"),
                *devices,
            ],
            stdin=subprocess.DEVNULL,
        )

    def answer_wait(self) -> float:
        """Seconds until the guest greeted an ssh client."""
        while not self._greets():
            assert self.process.poll() is None, "QEMU ended"
            waited = time.monotonic() - self.started
            assert waited < ANSWER_SECONDS_MAX, self.console.read_text(errors="replace")
            time.sleep(0.05)
        return time.monotonic() - self.started

    def _greets(self) -> bool:
        try:
            with closing(socket.create_connection(("127.0.0.1", self.port), timeout=2)) as line:
                return line.recv(4) == b"SSH-"
        except OSError:
            return False

    def mark_wait(self, mark: str) -> str:
        """The console once it shows the mark."""
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while mark not in (text := self.console.read_text(errors="replace")):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        return text

    def ssh(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port)),
                *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                *(*options, "root@127.0.0.1", command),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS_MAX,
        )

    def said(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def button_press(self) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as line:
            line.connect(str(self.monitor))
            stream = line.makefile("rw")
            stream.readline()
            for command in ("qmp_capabilities", "system_powerdown"):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                stream.readline()

    def end_wait(self) -> float:
        """Seconds until QEMU was gone."""
        began = time.monotonic()
        assert self.process.wait(timeout=STOP_SECONDS_MAX) == 0
        return time.monotonic() - began


@contextmanager
def guest_running(folder: Path, *, key: Path, disk: Path, devices: list[str]) -> Iterator[Guest]:
    folder.mkdir()
    guest = Guest(folder, key=key, disk=disk, devices=devices)
    try:
        yield guest
    finally:
        guest.process.kill()
        guest.process.wait()


def virtio_disk(path: Path, *, serial: str, options: str = "") -> list[str]:
    return [
        *("-drive", f"file={path},format=raw,if=none,id={serial}{options}"),
        *("-device", f"virtio-blk-pci,drive={serial},serial={serial}"),
    ]


@dataclass(frozen=True, kw_only=True)
class Life:
    """What one guest said: at its first start, at its second, and as a copy with a new seed."""

    first: dict[str, str]
    first_console: str
    second: dict[str, str]
    copy: dict[str, str]
    copy_console: str


@pytest.fixture(scope="module")
def life(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Life:
    folder = tmp_path_factory.mktemp("life")
    disk = folder / "disk.raw"
    shutil.copy(workshop.built.path, disk)
    os.truncate(disk, 512 * MIB)
    swap = folder / "swap.raw"
    swap.write_bytes(bytes(8 * MIB))
    script = "#!/bin/sh\necho ran >> /root/script-ran\n"
    meta = (
        "instance-id: ins-1\nlocal-hostname: little-1\n"
        f"public-keys:\n  - {workshop.public_key}\n  - ssh-ed25519 AAAAother another\n"
    )
    seed = seed_iso(folder / "seed.iso", {"meta-data": meta, "user-data": script})
    devices = [
        *virtio_disk(seed, serial="seed", options=",readonly=on"),
        *virtio_disk(swap, serial="swap"),
    ]

    with guest_running(folder / "1", key=workshop.key, disk=disk, devices=devices) as guest:
        print(f"first answer after {guest.answer_wait():.1f} s")
        guest.mark_wait("tiny: user-data ended with 0")
        first = {
            "host": guest.said("hostname"),
            "script": guest.said("cat /root/script-ran"),
            "swap": guest.said("tail -n +2 /proc/swaps"),
            "root_kib": guest.said("df -k / | awk 'NR > 1 { print $2 }'"),
            "page": guest.said("wget -q -O - http://127.0.0.1/"),
            "id": guest.said("wget -q -O - http://127.0.0.1/cgi-bin/id"),
            "keys": guest.said("cat /root/.ssh/authorized_keys"),
            "host_key": guest.said("sha256sum < /etc/dropbear/dropbear_ed25519_host_key"),
            "password": guest.ssh("true", "-o", "PubkeyAuthentication=no").stderr,
        }
        # No "sync" here: what a command wrote is on the disk when the command returns.
        guest.said("echo remembered > /root/note")
        first_console = guest.console.read_text(errors="replace")
        guest.button_press()
        print(f"off after {guest.end_wait():.1f} s")

    with guest_running(folder / "2", key=workshop.key, disk=disk, devices=devices) as guest:
        print(f"second answer after {guest.answer_wait():.1f} s")
        guest.mark_wait("tiny: ready")
        second = {
            "note": guest.said("cat /root/note"),
            "script": guest.said("cat /root/script-ran"),
            "host_key": guest.said("sha256sum < /etc/dropbear/dropbear_ed25519_host_key"),
            "swap": guest.said("tail -n +2 /proc/swaps"),
        }
        guest.ssh("halt")
        print(f"off after {guest.end_wait():.1f} s")

    wishes = f"#cloud-config\nhostname: little-2\nssh_authorized_keys:\n- {workshop.public_key}\n"
    network = (
        "version: 2\nethernets:\n  wan:\n    match:\n"
        f'      macaddress: "{SECOND_MAC.upper()}"\n'
        "    addresses:\n      - 192.0.2.7/24\n      - 2001:db8::7/64\n"
        "    nameservers:\n      addresses: [192.0.2.53]\n"
    )
    files = {"meta-data": "instance-id: ins-2\n", "user-data": wishes, "network-config": network}
    fat = seed_fat(folder / "seed.fat", files)
    devices = [
        *("-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=seed"),
        *("-drive", f"file={fat},format=raw,if=none,id=seed"),
        *("-netdev", "user,id=second,restrict=on,net=10.9.0.0/24"),
        *("-device", f"virtio-net-pci,netdev=second,romfile=,mac={SECOND_MAC}"),
    ]
    with guest_running(folder / "3", key=workshop.key, disk=disk, devices=devices) as guest:
        guest.answer_wait()
        guest.mark_wait("tiny: ready")
        copy = {
            "host": guest.said("hostname"),
            "note": guest.said("cat /root/note"),
            "keys": guest.said("cat /root/.ssh/authorized_keys"),
            "host_key": guest.said("sha256sum < /etc/dropbear/dropbear_ed25519_host_key"),
            "addresses": guest.said("ip addr show dev eth1"),
            "resolv": guest.said("cat /etc/resolv.conf"),
        }
        copy_console = guest.console.read_text(errors="replace")
        guest.ssh("poweroff")
        guest.end_wait()
    return Life(
        first=first,
        first_console=first_console,
        second=second,
        copy=copy,
        copy_console=copy_console,
    )


def test_the_image_is_small_and_nothing_half_done_is_left(workshop: Workshop) -> None:
    built = workshop.built
    assert built.size_bytes == built.path.stat().st_size < 40_000_000
    assert [path.name for path in built.path.parent.glob("tiny.img*")] == ["tiny.img"]
    assert f"linux-image-{built.kernel_release}=" in " ".join(built.packages)


def test_equal_packages_give_equal_bytes_without_network(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    again = tiny_build(tmp_path / "again.raw", cache=workshop.cache, progress=print)
    assert again.sha256 == workshop.built.sha256


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "stratus.drivers.appliance.tools.PACKAGE_OF_TOOL", {"mformat-not-here": "mtools"}
    )
    with pytest.raises(ApplianceFailed) as caught:
        tool_run(["mformat-not-here"], timeout_seconds=TOOL_SECONDS_MAX)
    assert "mformat-not-here" in caught.value.title
    assert caught.value.remedy == "Install the Debian package mtools."


@pytest.mark.guest
def test_the_seed_names_the_machine_and_lets_its_owner_in(life: Life) -> None:
    assert life.first["host"] == "little-1"
    assert life.first["keys"].splitlines()[-1] == "ssh-ed25519 AAAAother another"
    assert life.first["page"] == "<h1>little-1</h1>"
    assert "host=little-1 instance=ins-1" in life.first["id"]


@pytest.mark.guest
def test_nobody_logs_in_with_a_password(life: Life) -> None:
    assert "Permission denied (publickey)" in life.first["password"]


@pytest.mark.guest
def test_the_console_tells_each_stage_and_readiness_last(life: Life) -> None:
    marks = [line for line in life.first_console.splitlines() if line.startswith("tiny: ")]
    words = [mark.split()[1] for mark in marks]
    assert {"seed", "hostkey", "ssh", "net", "root", "swap"} <= set(words[: words.index("ready")])
    assert marks[words.index("ready")].split()[3] == "little-1"


@pytest.mark.guest
def test_a_script_runs_once_for_an_instance(life: Life) -> None:
    assert life.first["script"] == "ran"
    assert life.second["script"] == "ran"


@pytest.mark.guest
def test_the_root_grows_to_its_disk(life: Life) -> None:
    assert int(life.first["root_kib"]) > 400 * 1024


@pytest.mark.guest
def test_a_blank_swap_volume_is_used_and_used_again(life: Life) -> None:
    assert "partition" in life.first["swap"]
    assert "partition" in life.second["swap"]


@pytest.mark.guest
def test_files_and_host_key_survive_stop_and_start(life: Life) -> None:
    assert life.second["note"] == "remembered"
    assert life.second["host_key"] == life.first["host_key"]


@pytest.mark.guest
def test_a_copied_disk_keeps_files_but_becomes_another_machine(
    life: Life, workshop: Workshop
) -> None:
    assert life.copy["note"] == "remembered"
    assert life.copy["host"] == "little-2"
    assert life.copy["host_key"] != life.first["host_key"]
    assert life.copy["keys"] == workshop.public_key


@pytest.mark.guest
def test_each_interface_has_its_leased_and_its_static_addresses(life: Life) -> None:
    for address in ("10.9.0.15/24", "192.0.2.7/24", "2001:db8::7/64"):
        assert address in life.copy["addresses"]
    assert "nameserver 192.0.2.53" in life.copy["resolv"]
    assert "net eth1 10.9.0.15/24" in life.copy_console


@pytest.fixture(scope="module")
def busybox(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's own busybox, to try the guest's scripts without a guest."""
    folder = tmp_path_factory.mktemp("busybox")
    package = next(workshop.cache.glob("busybox-static_*.deb"))
    tool_run(["dpkg-deb", "--extract", str(package), str(folder)], timeout_seconds=TOOL_SECONDS_MAX)
    return next(path for path in folder.rglob("busybox") if path.parent.name == "bin")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("meta-data", "instance-id: 'i-1'\r\nlocal-hostname: a\r\n", ["instance i-1", "name a"]),
        (
            "meta-data",
            '{"instance-id": "i-1", "local-hostname": "a.b", "public-keys": '
            '["ssh-rsa AAA= me here", "ssh-ed25519 BBB"]}',
            ["instance i-1", "name a.b", "key ssh-rsa AAA= me here", "key ssh-ed25519 BBB"],
        ),
        (
            "meta-data",
            'public-keys:\n  "0":\n    openssh-key: "ssh-rsa AAA"\nother: ssh-rsa BBB\n',
            ["key ssh-rsa AAA"],
        ),
        ("user-data", "#!/bin/sh\nhostname: no\nssh_authorized_keys:\n- ssh-rsa AAA\n", []),
        (
            "user-data",
            "#cloud-config\nfqdn: x\nhostname: b\nssh_authorized_keys: [ssh-rsa AAA]\n"
            "write_files:\n- content: ssh-rsa BBB\n",
            ["name b", "key ssh-rsa AAA"],
        ),
        ("user-data", "", []),
    ],
)
def test_seed_files_are_read_in_all_their_spellings(
    busybox: Path, tmp_path: Path, name: str, text: str, expected: list[str]
) -> None:
    (tmp_path / name).write_text(text, newline="")
    said = tool_run(
        [str(busybox), "awk", "-f", str(GUEST_SCRIPTS / "seed.awk"), str(tmp_path / name)],
        timeout_seconds=TOOL_SECONDS_MAX,
    )
    assert said.splitlines() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n"
            "      addresses: [2001:db8::5/64, '192.0.2.5/24']\n      gateway6: 2001:db8::1\n"
            "    eth1:\n      addresses:\n      - 192.0.2.6/24\n",
            [
                "eth0 address 2001:db8::5/64",
                "eth0 address 192.0.2.5/24",
                "eth0 gateway 2001:db8::1",
                "eth1 address 192.0.2.6/24",
            ],
        ),
        (
            "version: 2\nethernets:\n  x:\n    addresses:\n      - 2001:db8::5/64\n"
            "    routes:\n      - to: default\n        via: 2001:db8::1\n"
            "      - to: 192.0.2.0/24\n        via: 192.0.2.1\n"
            "    nameservers:\n      search: [a.example]\n      addresses: [2001:db8::53]\n"
            "    match: {macaddress: '52:54:00:AA:00:01'}\n",
            [
                "52:54:00:aa:00:01 address 2001:db8::5/64",
                "52:54:00:aa:00:01 gateway 2001:db8::1",
                "52:54:00:aa:00:01 nameserver 2001:db8::53",
            ],
        ),
        ("version: 1\nconfig:\n- type: physical\n", []),
        ("{}\n", []),
    ],
)
def test_network_configuration_becomes_addresses(
    busybox: Path, tmp_path: Path, text: str, expected: list[str]
) -> None:
    (tmp_path / "network-config").write_text(text)
    script = str(GUEST_SCRIPTS / "network-config.awk")
    said = tool_run(
        [str(busybox), "awk", "-f", script, str(tmp_path / "network-config")],
        timeout_seconds=TOOL_SECONDS_MAX,
    )
    assert said.splitlines() == expected


def test_the_archive_has_one_record_per_entry_and_ends_as_the_kernel_expects() -> None:
    archive = cpio_bytes(
        [Entry(path="dev", mode=DIRECTORY), Entry(path="a", mode=PLAIN, content=b"12345")]
    )
    assert archive.count(b"070701") == 3
    assert archive.rstrip(b"\0").endswith(b"TRAILER!!!")
    assert len(archive) % 4 == 0


def test_modules_are_indexed_with_the_deepest_need_last() -> None:
    modules = {
        name: KernelModule(name=name, needs=needs, content=b"")
        for name, needs in {"a": ("b", "c"), "b": ("c",), "c": ()}.items()
    }
    index = modules_tree(modules)["modules.dep"].decode()
    assert index == "a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\n"
