"""Is a process the one that we started, and does it end for sure?"""

import signal
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from stratus.site.process import (
    ProcessId,
    process_alive,
    process_arguments,
    process_end,
    process_identify,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A child and its name."""

    process: subprocess.Popen[bytes]
    identity: ProcessId


def child(*, deaf: bool = False) -> Child:
    deafness = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
    script = f"import signal,time;{deafness}print('ready',flush=True);time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    identity = process_identify(process.pid)
    assert identity is not None
    return Child(process=process, identity=identity)


def test_a_zombie_counts_as_dead() -> None:
    made = child()
    assert process_alive(made.identity)
    # Ended, and not yet waited for by us, its parent: a corpse in the process table.
    assert process_end(made.identity)
    assert made.process.returncode is None
    assert not process_alive(made.identity)
    assert process_end(made.identity)
    made.process.wait()


def test_a_recycled_number_is_not_killed() -> None:
    made = child()
    before = msgspec.structs.replace(made.identity, start_ticks=made.identity.start_ticks - 1)
    other_boot = msgspec.structs.replace(made.identity, boot_id="another")
    assert process_end(before)
    assert process_end(other_boot)
    assert process_alive(made.identity)
    made.process.kill()
    made.process.wait()


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    made = child(deaf=True)
    assert process_end(made.identity, term_seconds=0.1)
    assert made.process.wait() == -signal.SIGKILL


def test_a_process_that_is_gone_has_no_name_and_no_arguments() -> None:
    made = child()
    made.process.kill()
    made.process.wait()
    assert process_identify(made.process.pid) is None
    assert process_arguments(made.process.pid) == []
