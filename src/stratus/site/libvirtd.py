"""Is a libvirtd answering for this site, and which of it did we start?

A daemon that answers already is used as it is and never stopped. With systemd its unit is started.
Without an init system we start `virtlogd` and `libvirtd` ourselves, with /dev/kvm hidden where KVM
does not work (see `hide_kvm.sh`), and later stop exactly these two processes.
"""

import fcntl
import grp
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stratus.model.problem import refuse
from stratus.site import leftovers
from stratus.site.process import (
    ProcessId,
    boot_id,
    process_alive,
    process_arguments,
    process_end,
    process_identify,
)

URI: Final = "qemu:///system"
SOCKET: Final = Path("/run/libvirt/libvirt-sock")
LOG_SOCKET: Final = Path("/run/libvirt/virtlogd-sock")
QEMU_CONF: Final = Path("/etc/libvirt/qemu.conf")
HIDE_KVM: Final = Path(__file__).with_name("hide_kvm.sh")
SYSTEMD_MARK: Final = Path("/run/systemd/system")

ANSWER_SECONDS_MAX: Final = 120  # a first connection may ask every QEMU binary for its abilities
ANSWER_ATTEMPTS_MAX: Final = 4
ANSWER_PAUSE_SECONDS: Final = 0.5
START_SECONDS_MAX: Final = 60
PROBE_SECONDS_MAX: Final = 2
LOG_TAIL_LINES: Final = 3
OPEN_FILES_MAX: Final = 8192  # what the distribution's unit file grants

# The units that were ours to start, in the order in which they must be stopped again. Newer
# libvirt has one daemon per driver; only units that exist on this machine are considered.
SYSTEMD_UNITS: Final = (
    "libvirtd.socket",
    "virtqemud.socket",
    "virtnetworkd.socket",
    "virtnwfilterd.socket",
)

# Asks for the daemon's own version and not QEMU's, for which libvirt would start QEMU first.
VERSION_SCRIPT: Final = """
import libvirt, sys
number = libvirt.open(sys.argv[1]).getLibVersion()
print(f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}")
"""

DAEMON_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}

Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LibvirtdSite:
    """Where a site keeps what it needs to run a libvirtd of its own, and whether KVM works here."""

    run_dir: Path  # pid files, configuration, sockets of this boot
    state_dir: Path  # what must be remembered to clean up
    kvm_works: bool

    @property
    def record(self) -> Path:
        """The note of what we started."""
        return self.state_dir / "libvirtd.json"

    @property
    def before(self) -> Path:
        """The note of what the machine was like before."""
        return self.state_dir / "before-libvirtd.json"

    @property
    def directory(self) -> Path:
        """The folder with configuration, pid files and log of our daemons."""
        return self.run_dir / "libvirtd"

    @property
    def log(self) -> Path:
        """Where our libvirtd writes what troubles it."""
        return self.directory / "libvirtd.log"

    def pidfile(self, daemon: str) -> Path:
        """The pid file of one of our daemons."""
        return self.directory / f"{daemon}.pid"


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What we started, so that exactly this can be stopped."""

    boot_id: str
    units: list[str]
    kvm_hidden: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LibvirtdFound:
    """The libvirtd that answers now."""

    uri: str
    version: str
    started_by_us: bool
    kvm_hidden: bool


def ensure_libvirtd(site: LibvirtdSite, progress: Progress = silent) -> LibvirtdFound:
    """Leave a libvirtd answering on the system URI, however often called."""
    with _only_one(site):
        version = _version_ensure(site, progress)
        started = _started_read(site)
        return LibvirtdFound(
            uri=URI,
            version=version,
            started_by_us=_ours_runs(site, started),
            kvm_hidden=started.kvm_hidden if started else False,
        )


def ensure_libvirtd_stopped(site: LibvirtdSite, progress: Progress = silent) -> bool:
    """Leave nothing running that we started, and the kernel as it was; True if we stopped it.

    Networks and guests must be gone before, for a guest survives its libvirtd; of those that are
    not, chains and run-time files stay, so that the next libvirtd finds them again.
    """
    with _only_one(site):
        started = _started_read(site)
        stopped = _units_stop(started.units, progress) if started else False
        for daemon in ("libvirtd", "virtlogd"):
            stopped = _daemon_stop(site, daemon, progress) or stopped
        if not _answers(SOCKET):
            _kernel_restore(site, progress)
        shutil.rmtree(site.directory, ignore_errors=True)
        site.record.unlink(missing_ok=True)
        return stopped


def leftovers_remove(site: LibvirtdSite, progress: Progress = silent) -> None:
    """Take away all that libvirt left since we first started it here, caches and logs included.

    For `--clean`, after `ensure_libvirtd_stopped`. What was there before stays, so does what is
    in use; where we never started a libvirtd, or one answers now, nothing is touched.
    """
    with _only_one(site):
        if _answers(SOCKET):
            return
        _kernel_restore(site, progress)
        before = leftovers.note_read(site.before)
        if before is not None:
            for name in leftovers.files_remove(before):
                progress(f"removed {name}")
            site.before.unlink()


def libvirtd_processes(site: LibvirtdSite) -> list[ProcessId]:
    """The daemons of ours that run now."""
    found = [_daemon_find(site, daemon) for daemon in ("virtlogd", "libvirtd")]
    return [process for process in found if process is not None]


# -- asking ------------------------------------------------------------------------------------


def _answers(path: Path) -> bool:
    """Say whether anybody listens on this socket."""
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PROBE_SECONDS_MAX)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _version_ensure(site: LibvirtdSite, progress: Progress) -> str:
    """Leave a daemon answering; one that is just dying may still take connections for a moment."""
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    for _ in range(ANSWER_ATTEMPTS_MAX):
        if not _answers(SOCKET):
            _libvirtd_start(site, progress)
        version = _version_ask()
        if version is not None:
            return version
        if time.monotonic() > deadline:
            break
        time.sleep(ANSWER_PAUSE_SECONDS)
    raise _not_answering(site)


def _version_ask() -> str | None:
    """Ask the daemon for its version through libvirt's own client, in bounded time."""
    # A process, not a thread: a call into a daemon that hangs can only be ended from outside.
    command = [sys.executable, "-c", VERSION_SCRIPT, URI]
    try:
        asked = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _ours_runs(site: LibvirtdSite, started: Started | None) -> bool:
    """Say whether the daemon that answers is the one that we started."""
    if started is None:
        return False
    return bool(started.units) or _daemon_find(site, "libvirtd") is not None


def _daemon_find(site: LibvirtdSite, daemon: str) -> ProcessId | None:
    """The live process that our pid file names, if it is truly ours.

    Nobody else passes our pid file on its command line: this recognises the daemon even when we
    were killed between starting it and writing that down, and never a recycled number.
    """
    pidfile = site.pidfile(daemon)
    try:
        pid = int(pidfile.read_text())
    except (FileNotFoundError, ValueError):
        return None
    process = process_identify(pid)
    if process is None or str(pidfile) not in process_arguments(pid):
        return None
    return process if process_alive(process) else None


# -- starting ----------------------------------------------------------------------------------


def _libvirtd_start(site: LibvirtdSite, progress: Progress) -> None:
    """Start libvirtd in this machine's way, with a note of the firewall before."""
    site.state_dir.mkdir(parents=True, exist_ok=True)
    site.directory.mkdir(parents=True, exist_ok=True)
    leftovers.note_ensure(site.before)
    if SYSTEMD_MARK.is_dir():
        _units_start(site, progress)
    else:
        _daemons_start(site, progress)


def _units_start(site: LibvirtdSite, progress: Progress) -> None:
    """Start the distribution's units, and remember those that did not run before."""
    present = [unit for unit in SYSTEMD_UNITS if _systemctl("cat", unit)]
    # With a modular libvirt both kinds of unit exist; the monolithic one goes first if enabled.
    if "libvirtd.socket" in present and (
        len(present) == 1 or _systemctl("is-enabled", "libvirtd.socket")
    ):
        present = ["libvirtd.socket"]
    units = [unit for unit in present if not _systemctl("is-active", unit)]
    for unit in units:
        progress(f"starting {unit}")
        _systemctl("start", unit)
    _started_write(site, Started(boot_id=boot_id(), units=units, kvm_hidden=False))


def _daemons_start(site: LibvirtdSite, progress: Progress) -> None:
    """Start virtlogd and libvirtd ourselves: no init system does it here."""
    hide = not site.kvm_works and Path("/dev/kvm").exists() and QEMU_CONF.exists()
    _configuration_write(site)
    _started_write(site, Started(boot_id=boot_id(), units=[], kvm_hidden=hide))
    if _daemon_find(site, "virtlogd") is None and not _answers(LOG_SOCKET):
        progress("starting virtlogd")
        _daemon_run(site, "virtlogd", hidden=False)
    progress(
        "starting libvirtd" + (" (without /dev/kvm, which does not work here)" if hide else "")
    )
    _daemon_run(site, "libvirtd", hidden=hide)


def _daemon_run(site: LibvirtdSite, daemon: str, *, hidden: bool) -> None:
    """Run one daemon; it returns when it serves, detached from us."""
    if _daemon_find(site, daemon) is not None:
        # It runs but does not answer: it is of no use to anybody.
        _daemon_stop(site, daemon, silent)
    site.pidfile(daemon).unlink(missing_ok=True)
    command = [
        "prlimit",
        f"--nofile={OPEN_FILES_MAX}",
        daemon,
        "--daemon",
        f"--config={site.directory / daemon}.conf",
        "--pid-file",
        str(site.pidfile(daemon)),
    ]
    if hidden:
        empty = site.directory / "dev"
        empty.mkdir(exist_ok=True)
        private = ["unshare", "--mount", "--propagation", "private", "--"]
        hide = ["/bin/sh", str(HIDE_KVM), str(empty), str(site.directory / "qemu.conf")]
        command = [*private, *hide, *command]
    output = site.directory / f"{daemon}.start.log"
    try:
        with output.open("wb") as sink:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                timeout=START_SECONDS_MAX,
                env=DAEMON_ENVIRONMENT,
                cwd="/",
                check=True,
            )
    except FileNotFoundError as error:
        raise refuse(
            "machine_unfit",
            f"{error.filename} is not installed.",
            remedy="Install it: apt-get install libvirt-daemon-system util-linux",
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise _not_answering(site, daemon) from error


def _configuration_write(site: LibvirtdSite) -> None:
    """Write the daemons' configuration; the machine's own files stay untouched."""
    lines = [
        # Only root and the group libvirt reach the socket; there is no polkit without a bus.
        'auth_unix_ro = "none"',
        'auth_unix_rw = "none"',
        'unix_sock_group = "libvirt"' if _group_exists("libvirt") else "",
        'unix_sock_ro_perms = "0770"',
        'unix_sock_rw_perms = "0770"',
        'log_filters = "4:util.dbus 4:util.sysinfo"',
        f'log_outputs = "3:file:{site.log}"',
        # Machines without DMI tables would get another host UUID at every start.
        'host_uuid_source = "machine-id"' if Path("/etc/machine-id").exists() else "",
    ]
    (site.directory / "libvirtd.conf").write_text("\n".join(filter(None, lines)) + "\n")
    (site.directory / "virtlogd.conf").write_text(
        f'log_outputs = "3:file:{site.directory}/virtlogd.log"\n'
    )
    # Of a setting given twice libvirt takes the first. QEMU's own mount namespaces cannot be made
    # on top of the /dev of ours.
    machine = QEMU_CONF.read_text() if QEMU_CONF.exists() else ""
    target = site.directory / "qemu.conf"
    target.write_text("namespaces = []\n" + machine)
    target.chmod(0o600)


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _not_answering(site: LibvirtdSite, daemon: str = "libvirtd") -> Exception:
    """Say that the daemon does not answer, with its own last words."""
    words: list[str] = []
    for path in (site.directory / f"{daemon}.start.log", site.directory / f"{daemon}.log"):
        if path.exists():
            words += path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    said = " It said: " + " | ".join(words[-LOG_TAIL_LINES:]) if words else ""
    return refuse(
        "host_unreachable",
        f"{daemon} does not answer on {SOCKET}.{said}",
        remedy=(
            f"Read {site.directory}/{daemon}.log; 'systemctl status libvirtd' where systemd runs; "
            "then try again."
        ),
    )


# -- stopping ----------------------------------------------------------------------------------


def _daemon_stop(site: LibvirtdSite, daemon: str, progress: Progress) -> bool:
    """Stop our daemon if it runs; True if it did."""
    process = _daemon_find(site, daemon)
    if process is None:
        return False
    progress(f"stopping {daemon}")
    if not process_end(process):
        raise refuse(
            "machine_unfit",
            f"{daemon} (process {process.pid}) does not end, not even by SIGKILL.",
            remedy="It waits inside the kernel: look at 'dmesg', or restart the machine.",
        )
    return True


def _units_stop(units: list[str], progress: Progress) -> bool:
    """Stop the units that did not run before we came."""
    for unit in units:
        progress(f"stopping {unit}")
        _systemctl("stop", unit, unit.replace(".socket", ".service"))
    return bool(units)


def _kernel_restore(site: LibvirtdSite, progress: Progress) -> None:
    """Return chains, switches and run-time folders to what they were before, where unused."""
    before = leftovers.note_read(site.before)
    if before is not None:
        for name in leftovers.kernel_restore(before):
            progress(f"removed {name}")


def _systemctl(verb: str, *units: str) -> bool:
    """Ask systemd; False when it says no."""
    try:
        done = subprocess.run(
            ["systemctl", verb, *units],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_SECONDS_MAX,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


# -- notes -------------------------------------------------------------------------------------


def _started_read(site: LibvirtdSite) -> Started | None:
    """Read what we started in this boot."""
    try:
        started = msgspec.json.decode(site.record.read_bytes(), type=Started)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return started if started.boot_id == boot_id() else None


def _started_write(site: LibvirtdSite, started: Started) -> None:
    part = site.record.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(started))
    part.replace(site.record)


@contextmanager
def _only_one(site: LibvirtdSite) -> Iterator[None]:
    """Keep two processes from starting or stopping the same daemon at once."""
    site.run_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(site.run_dir / "libvirtd.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise refuse(
                        "machine_unfit",
                        f"Another process has been starting or stopping libvirtd for "
                        f"{ANSWER_SECONDS_MAX} seconds.",
                        remedy=f"Wait for it, or end the process that holds {site.run_dir}.",
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)
