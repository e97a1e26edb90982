"""How does the control plane run in the background? Started, found, watched and ended by pid file.

A pid counts only together with its start time, so that a number used again by another program
is never ended.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final

import msgspec

from stratus.model.problem import Refused, refuse
from stratus.site.config import Home, SiteConfig
from stratus.site.process import ProcessId, process_alive, process_end, process_identify
from stratus.site.setup import endpoint_of

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.02
LOG_TAIL_BYTES: Final = 2000

Progress = Callable[[str], None]


def daemon_find(home: Home) -> ProcessId | None:
    """Return the running control plane of this home, if there is one."""
    try:
        found = msgspec.json.decode(home.pid.read_bytes(), type=ProcessId)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if process_alive(found) else None


def daemon_ensure(home: Home, config: SiteConfig, progress: Progress) -> ProcessId:
    """Leave the control plane running and answering; return its process."""
    found = daemon_find(home)
    if found is None:
        progress("starting the control plane")
        found = _daemon_start(home)
    _ready_wait(home, config, found)
    return found


def _daemon_start(home: Home) -> ProcessId:
    command = [sys.executable, "-m", "stratus.site.main", "serve", "--home", str(home.root)]
    with home.log.open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
        )
    process = process_identify(child.pid)
    if process is None:
        raise _ended(home)
    return process


def _ready_wait(home: Home, config: SiteConfig, process: ProcessId) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if is_ready(config):
            return
        if not process_alive(process):
            raise _ended(home)
        time.sleep(POLL_SECONDS)
    raise refuse(
        "store_unreachable",
        f"The control plane did not become ready within {START_SECONDS_MAX:.0f} s.",
        remedy=f"Read {home.log}; then `stratus down` and `stratus up`.",
    )


def is_ready(config: SiteConfig) -> bool:
    """Ask the control plane whether it is ready."""
    try:
        with urllib.request.urlopen(f"{endpoint_of(config)}/readyz", timeout=2) as answer:  # noqa: S310  # our own http address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ended(home: Home) -> Refused:
    tail = home.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return refuse(
        "configuration",
        f"The control plane ended at once. It said:\n{tail}",
        remedy=f"Mend what it says; the whole log is {home.log}.",
    )


def daemon_ensure_stopped(home: Home, progress: Progress) -> bool:
    """Leave no control plane running; True when there was one."""
    found = daemon_find(home)
    if found is None:
        home.pid.unlink(missing_ok=True)
        return False
    progress("stopping the control plane")
    process_end(found, term_seconds=STOP_SECONDS_MAX)
    home.pid.unlink(missing_ok=True)
    return True


def daemon_note(home: Home) -> None:
    """Write down that this process is the control plane of the home."""
    process = process_identify(os.getpid())
    assert process is not None
    part = home.pid.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(process))
    part.rename(home.pid)
