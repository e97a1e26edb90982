"""How does a user get into an instance? By ssh, and by what it writes on its console."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Final, NoReturn

from cyclopts import Parameter

from stratus.cli.client import Client, client_open, part
from stratus.cli.names import instance_find
from stratus.cli.options import InstanceRef, ProjectOption
from stratus.cli.output import log_text, note
from stratus.cli.settings import settings_path
from stratus.cli.trouble import Exit, Trouble
from stratus.cli.waiting import why
from stratus.model.instance import Phase
from stratus.model.limits import CONSOLE_BYTES_MAX
from stratus.wire.v1 import InstanceView

CONSOLE_BYTES_DEFAULT: Final = 64 * 1024
FOLLOW_SECONDS: Final = 0.5
TAIL_BYTES: Final = 256  # enough to recognise where we were in the log


def ssh(
    ref: InstanceRef,
    /,
    *command: Annotated[str, Parameter(help="A command to run there; put -- before it.")],
    login: Annotated[
        str, Parameter(name=["--login", "-l"], metavar="USER", help="The user in the guest.")
    ] = "root",
    identity: Annotated[
        str, Parameter(name=["--identity", "-i"], metavar="FILE", help="A private key to use.")
    ] = "",
    project: ProjectOption = "",
) -> NoReturn:
    """Open a shell in an instance, or run a command there.

    Host keys are remembered by instance, so that an address that is used again does not alarm.
    The exit code is that of ssh.

    $ stratus ssh web
    $ stratus ssh web -- uname -a
    """
    client = client_open(note)
    view = instance_find(client, ref, project=project)
    program = shutil.which("ssh")
    if program is None:
        raise Trouble(
            Exit.UNAVAILABLE,
            "There is no ssh program on this machine.",
            remedy="Install it: apt-get install openssh-client",
        )
    arguments = [program, *ssh_options(view, login=login, identity=identity), *command]
    client.close()
    sys.stdout.flush()
    os.execv(program, arguments)  # noqa: S606  # becoming ssh is the purpose


def ssh_options(view: InstanceView, *, login: str, identity: str) -> list[str]:
    """Say how ssh reaches this instance, up to and including its address."""
    address = view.address or view.address6
    if address is None:
        raise Trouble(
            Exit.INVALID,
            f"{view.name} has no address.",
            remedy="Start it on a network with addresses (stratus network ls).",
        )
    if view.phase is not Phase.RUNNING:
        raise Trouble(
            Exit.CONFLICT,
            f"{view.name} is not running: {why(view)}",
            remedy=f"stratus start {view.name}"
            if view.phase is Phase.STOPPED
            else f"stratus show {view.name}",
            code="conflict",
        )
    hosts = settings_path(os.environ).parent / "known_hosts"
    hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = [
        "-o",
        f"HostKeyAlias={view.id}",
        "-o",
        f"UserKnownHostsFile={_quoted(hosts)}",
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        "CheckHostIP=no",
    ]
    if not sys.stderr.isatty():
        options += ["-o", "LogLevel=ERROR"]
    if identity:
        options += ["-i", identity]
    return [*options, "-l", login, "--", address]


def _quoted(path: Path) -> str:
    """Write a path so that ssh's option parser takes it whole."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text


def logs(
    ref: InstanceRef,
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], help="Go on printing what is written.")
    ] = False,
    bytes_: Annotated[
        int, Parameter(name="--bytes", help="How much of the end to print.")
    ] = CONSOLE_BYTES_DEFAULT,
    project: ProjectOption = "",
) -> None:
    """Print what an instance wrote on its serial console.

    $ stratus logs web
    $ stratus logs web -f
    """
    client = client_open(note)
    view = instance_find(client, ref, project=project)
    _logs(client, view, bytes_=bytes_, follow=follow)


def console(ref: InstanceRef, /, *, project: ProjectOption = "") -> None:
    """Follow an instance's serial console.

    Ctrl-C ends it. Typing into the console comes with a later release; until then use ssh.

    $ stratus console web
    """
    client = client_open(note)
    view = instance_find(client, ref, project=project)
    note(f"The serial console of {view.name} ({view.id}), read-only; Ctrl-C ends.")
    _logs(client, view, bytes_=CONSOLE_BYTES_DEFAULT, follow=True)


def _logs(client: Client, view: InstanceView, *, bytes_: int, follow: bool) -> None:
    wanted = max(1, min(bytes_, CONSOLE_BYTES_MAX))
    seen = _console(client, view, wanted)
    _put(seen)
    try:
        while follow:
            time.sleep(FOLLOW_SECONDS)
            now = _console(client, view, CONSOLE_BYTES_MAX)
            _put(fresh(seen, now))
            seen = now
    except Trouble as trouble:
        if trouble.exit is not Exit.NOT_FOUND:
            raise
        note(f"{view.name} ({view.id}) is gone.")


def fresh(seen: bytes, now: bytes) -> bytes:
    """Return what came since: the log may have grown, lost its beginning, or begun anew."""
    if now.startswith(seen):
        return now[len(seen) :]
    tail = seen[-TAIL_BYTES:]
    if len(tail) == TAIL_BYTES and (at := now.rfind(tail)) >= 0:
        return now[at + len(tail) :]
    return now


def _console(client: Client, view: InstanceView, bytes_: int) -> bytes:
    path = f"/v1/instances/{part(view.id)}/console"
    return client.call("GET", path, query={"bytes": bytes_}).body


def _put(data: bytes) -> None:
    """Print a log: untouched into a file, without commands to the terminal at one."""
    if not data:
        return
    if sys.stdout.isatty():
        sys.stdout.write(log_text(data.decode(errors="replace")))
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()
