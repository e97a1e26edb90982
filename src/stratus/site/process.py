"""Is that process still the one we started, and how is it ended for sure?

A process id alone is no identity: it is recycled. A `ProcessId` also holds the start time from
/proc and the boot, so it names one process for ever. A zombie counts as dead.
"""

import os
import select
import signal
from pathlib import Path
from typing import Final

import msgspec

PROC: Final = Path("/proc")
TERM_GRACE_SECONDS: Final = 10.0
KILL_GRACE_SECONDS: Final = 5.0


class ProcessId(msgspec.Struct, frozen=True, kw_only=True):
    """One process of one boot, recognisable after its number was recycled."""

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    """Name this boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def process_identify(pid: int) -> ProcessId | None:
    """Name the live process that has this number now; None when there is none, or a corpse."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name between parentheses may hold anything, so fields are counted from the last ')'.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], int(fields[19])
    if state in "ZXx" and not _threads_left(pid):
        return None
    return ProcessId(pid=pid, start_ticks=start_ticks, boot_id=boot_id())


def _threads_left(pid: int) -> bool:
    """Whether threads of a dead first thread still hold the process's files and sockets open."""
    try:
        return any(task.name != str(pid) for task in (PROC / str(pid) / "task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False


def process_alive(process: ProcessId) -> bool:
    """Say whether exactly this process still runs."""
    return process_identify(process.pid) == process


def process_arguments(pid: int) -> list[str]:
    """The command line of a process, empty when it is gone."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def process_end(
    process: ProcessId,
    *,
    term_seconds: float = TERM_GRACE_SECONDS,
    kill_seconds: float = KILL_GRACE_SECONDS,
) -> bool:
    """End exactly this process: SIGTERM, then SIGKILL. False only when even that did not help."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        # Looked at after the handle exists: from here on the number cannot change its meaning.
        if not process_alive(process):
            return True
        for number, seconds in ((signal.SIGTERM, term_seconds), (signal.SIGKILL, kill_seconds)):
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                return True
            if _ended_within(handle, seconds):
                return True
        return False
    finally:
        os.close(handle)


def _ended_within(handle: int, seconds: float) -> bool:
    """Wait on a process handle, which becomes readable when the process ends (zombies included)."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
