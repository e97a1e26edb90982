"""Does KVM really work on this machine?

A /dev/kvm that opens is no proof: there are hypervisors under which it opens and then interprets
ordinary guests instruction by instruction, so that a kernel never finishes booting. Only a guest
that runs proves it: 440 bytes (`kvm_probe.S`) that do what a kernel does in its first moments.
The answer is remembered for as long as processor, kernel, boot and QEMU stay the same.
"""

import base64
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stratus.site.process import boot_id

QEMU: Final = Path("/usr/bin/qemu-system-x86_64")
DEVICE: Final = Path("/dev/kvm")
CPUINFO: Final = Path("/proc/cpuinfo")

PROBE_SECONDS_MAX: Final = 8.0  # a working machine needs 0.3 s; the rest is for a loaded one
KILL_SECONDS_MAX: Final = 2.0
PROBE_MEMORY_MIB: Final = 64
EXIT_CODE_GOOD: Final = 0x2A << 1 | 1  # how isa-debug-exit reports the guest's 0x2a

# The model that measured best where QEMU translates: it lacks what is slow to translate.
TCG_CPU_MODEL: Final = "Nehalem"

# What `as --64 kvm_probe.S` and `ld -Ttext 0x100000 --oformat binary` make; a test compares.
PROBE_GUEST: Final = base64.b64decode(
    "ArCtGwAAAQD+T1HkAAAQAAAAEAC4ARAAuAEQACAAEACwUObpvAAAIQC/AAAgADHAuQAQAADzq8cFAAAgAAMQIADHBQ"
    "AQIAADICAAvwAgIAC4gwAAALkQAAAAiQcFAAAgAIPHCOL0DyDgg8ggDyLguAAAIAAPIti5gAAAwA8yDQABAAAPMA8g"
    "wA0AAAGADyLADwEVqAEQAOqeABAACACwTObpuBAAAACO0I7YjsBIx8QAACEAvwAwIAC5AAEAALiGARAAZokHZsdHAg"
    "gAZsdHBACOwegQZolHBjHASIlHCEiDxxDi2Q8BHCWuARAAuYDw+gL/yXX8sEPm6UjHxwAAQABIiT9IgccAEAAASIH/"
    "AABAAXLtDyDYDyLYSMfHAABAAEg5P3VcSIHHABAAAEiB/wAAQAFy67BN5ukxwA+iDzGwEeYg5qCwIOYhsCjmobAE5i"
    "GwAuahsAHmIeahsP7mIbD/5qGwNOZDsKnmQLAE5kAx2/v0+oP7FHL4sFTm6bAq5vT69Ov8/8NQsCDmIFhIzwAAAAAA"
    "AAAA//8AAACarwD//wAAAJLPABcAkAEQAP8PADAgAAAAAAA="
)

# What the guest tells on its debug console, and what it does next.
NEXT_STAGE: Final = {
    "": "does not begin",
    "P": "does not reach 64-bit mode",
    "L": "computes far too slowly",
    "C": "fails in using memory",
    "M": "gets no timer interrupts",
    "T": "does not end",
}


class KvmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether guests run under KVM here, and why one thinks so."""

    works: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KvmFacts:
    """What can be seen without running a guest."""

    architecture: str
    cpu_flags: frozenset[str]
    device_exists: bool
    device_opens: bool
    qemu_exists: bool


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    answer: KvmAnswer


def kvm_works(state_dir: Path, progress: Callable[[str], None] = lambda _line: None) -> KvmAnswer:
    """Say whether KVM works, from memory if the machine is the same; takes at most ten seconds."""
    note = state_dir / "kvm.json"
    key = _machine_key()
    remembered = _note_read(note)
    if remembered is not None and remembered.key == key:
        return remembered.answer
    answer = kvm_refusal(kvm_facts_read())
    if answer is None:
        progress("trying out whether KVM works here")
        answer = probe_run()
    _note_write(note, _Remembered(key=key, answer=answer))
    return answer


def kvm_refusal(facts: KvmFacts) -> KvmAnswer | None:
    """Say no from facts alone, or None when only a guest can tell."""
    reason = None
    if facts.architecture != "x86_64":
        reason = f"KVM was only tried on x86_64, and this machine is {facts.architecture}."
    elif not facts.cpu_flags & {"vmx", "svm"}:
        reason = "The processor offers no virtualisation (neither vmx nor svm in /proc/cpuinfo)."
    elif not facts.device_exists:
        reason = f"There is no {DEVICE}: load kvm_intel or kvm_amd, or enable it in the firmware."
    elif not facts.device_opens:
        reason = f"{DEVICE} does not open for this user: join the group kvm, or be root."
    elif not facts.qemu_exists:
        reason = f"{QEMU} is not installed, so no guest could be tried."
    return None if reason is None else KvmAnswer(works=False, reason=reason)


def kvm_facts_read() -> KvmFacts:
    """Look at processor and device."""
    return KvmFacts(
        architecture=platform.machine(),
        cpu_flags=cpu_flags_parse(_cpuinfo()),
        device_exists=DEVICE.exists(),
        device_opens=_opens(DEVICE),
        qemu_exists=QEMU.exists(),
    )


def cpu_flags_parse(cpuinfo: str) -> frozenset[str]:
    """The flags of the first processor in /proc/cpuinfo."""
    return frozenset(_cpuinfo_field(cpuinfo, "flags").split())


def probe_run(
    *, accelerator: str = "kvm", cpu: str = "host", seconds_max: float = PROBE_SECONDS_MAX
) -> KvmAnswer:
    """Run the probe guest, never longer than given, and judge."""
    with tempfile.TemporaryDirectory(prefix="stratus-probe-") as folder:
        guest = Path(folder) / "guest"
        guest.write_bytes(PROBE_GUEST)
        stages = Path(folder) / "stages"
        command = _probe_command(guest, stages, accelerator=accelerator, cpu=cpu)
        started = time.monotonic()
        code, said = _run_bounded(command, seconds_max)
        seconds = time.monotonic() - started
        reached = stages.read_text(errors="replace") if stages.exists() else ""
    return probe_judge(code, said=said, reached=reached, seconds=seconds)


def probe_judge(code: int | None, *, said: str, reached: str, seconds: float) -> KvmAnswer:
    """Read the end of the probe guest; `code` is None when it had to be killed."""
    if code == EXIT_CODE_GOOD:
        return KvmAnswer(works=True, reason=f"A probe guest ran well in {seconds:.1f} s.")
    trouble = NEXT_STAGE.get(reached[-1:], "does not begin")
    if code is None:
        reason = f"{DEVICE} opens, but a guest in it {trouble} (given up after {seconds:.1f} s)."
    else:
        last = said.strip().splitlines()[-1] if said.strip() else f"exit code {code}"
        reason = f"{DEVICE} opens, but QEMU cannot use it: {last}"
    return KvmAnswer(works=False, reason=reason)


def _probe_command(guest: Path, stages: Path, *, accelerator: str, cpu: str) -> list[str]:
    plain = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    machine = ["-machine", "pc", "-accel", accelerator, "-cpu", cpu, "-m", str(PROBE_MEMORY_MIB)]
    doors = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-debugcon", f"file:{stages}"]
    return [str(QEMU), *plain, *machine, *doors, "-kernel", str(guest)]


def _run_bounded(command: list[str], seconds_max: float) -> tuple[int | None, str]:
    """Run to the end or to the limit; the exit code is None when it was killed."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        try:
            code: int | None = process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Our own child until it is waited for: its number cannot belong to anybody else.
            process.kill()
            # One that waits inside the kernel is left behind rather than waited for without end.
            _wait_briefly(process)
        errors.seek(0)
        return code, errors.read().decode(errors="replace")


def _wait_briefly(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(KILL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return


def _machine_key() -> str:
    """Everything that may change the answer."""
    qemu = QEMU.stat().st_mtime_ns if QEMU.exists() else 0
    model = _cpuinfo_field(_cpuinfo(), "model name")
    device = f"{DEVICE.exists()} {_opens(DEVICE)}"
    return " | ".join([model, platform.release(), boot_id(), f"qemu {qemu}", f"device {device}"])


def _cpuinfo() -> str:
    return CPUINFO.read_text(errors="replace")


def _cpuinfo_field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _opens(device: Path) -> bool:
    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(handle)
    return True


def _note_read(note: Path) -> _Remembered | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Remembered)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _note_write(note: Path, remembered: _Remembered) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(remembered))
    part.replace(note)
