"""How does a user start instances? One request, granted whole or not at all, then watched."""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from stratus.cli.client import Client, client_open, decode
from stratus.cli.instances import instances_say
from stratus.cli.options import ProjectOption
from stratus.cli.output import HUMAN, Format, Progress, note, say, say_facts, say_json
from stratus.cli.trouble import Exit, Trouble, exit_of
from stratus.cli.waiting import (
    PATIENT,
    Outcome,
    Patience,
    Watched,
    failed,
    follow,
    moment_over,
    seen_of,
    why,
)
from stratus.model.instance import OnHalt, Phase, Ranking
from stratus.model.limits import SSH_KEY_CHARS_MAX, USER_DATA_BYTES_MAX
from stratus.wire.v1 import ExplanationView, InstanceCreateBody, InstanceView

SSH_KEY_FILES: Final = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
SSH_PORT: Final = 22
SSH_TRY_SECONDS: Final = 3.0
SSH_PAUSE_SECONDS: Final = 0.25


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a request made, each instance still in the API's own JSON."""

    operation: str
    items: list[msgspec.Raw]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Guest:
    """What the instances are and what they are told at their first boot."""

    name: Annotated[str, Parameter(help="A name; several get -1, -2, ... appended.")] = ""
    type: Annotated[str, Parameter(name=["--type", "-t"], help="The instance type.")] = "m1.small"
    count: Annotated[int, Parameter(name=["--count", "-n"], help="How many.")] = 1
    network: Annotated[str, Parameter(help="The network they are on.")] = "public"
    ssh_key: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="FILE",
            help="A public key that may log in; may be repeated. Without it: those in ~/.ssh.",
        ),
    ] = ()
    user_data: Annotated[
        str, Parameter(metavar="FILE", help="A file for cloud-init or the like; - for stdin.")
    ] = ""
    context: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--context", "-c"], metavar="KEY=VALUE", help="A pair to tell; may be repeated."
        ),
    ] = ()
    volatile: Annotated[
        int, Parameter(metavar="GIB", help="A scratch disk that goes with the instance.")
    ] = 0
    swap: Annotated[
        int | None, Parameter(metavar="MIB", help="A swap disk, in place of the type's.")
    ] = None
    on_halt: Annotated[
        OnHalt, Parameter(help="What becomes of it when the guest powers itself off.")
    ] = OnHalt.KEEP
    spread: Annotated[bool, Parameter(help="Prefer hosts with much room. This is the default.")] = (
        False
    )
    pack: Annotated[bool, Parameter(help="Prefer hosts that are nearly full.")] = False


PLAIN: Final = Guest()


def run(
    image: Annotated[str, Parameter(help="The image: id, name, or StratusLab identifier.")],
    /,
    *,
    guest: Guest = PLAIN,
    dry_run: Annotated[
        bool, Parameter(help="Only say whether it would fit now, and where not.")
    ] = False,
    wait_ssh: Annotated[bool, Parameter(help="Wait until ssh answers as well.")] = False,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Start instances from an image.

    Waits until they run, and says what they wait for. All of them are granted, or none.

    $ stratus run tiny --name web --wait-ssh
    $ stratus run debian-12 -n 20 -t m1.large --no-wait -q
    $ stratus run tiny --dry-run
    """
    client = client_open(note)
    body = _body(client, image, guest, project)
    if dry_run:
        _explain(client, body, output)
        return
    deadline = patience.deadline()
    progress = Progress()
    answer = client.call("POST", "/v1/instances", body=body)
    made = decode(answer.body, Made)
    watched = Watched(
        operation=made.operation,
        instances=[seen_of(raw) for raw in made.items],
        goal="running",
        settled=lambda view: view.phase in (Phase.RUNNING, Phase.FAILED),
    )
    outcome = Outcome(instances=watched.instances, failures=[])
    if not patience.no_wait:
        outcome = follow(client, watched, deadline=deadline, progress=progress)
        if wait_ssh and not outcome.failures:
            for seen in outcome.instances:
                ssh_await(seen.view, deadline=deadline, progress=progress)
    _say(made.operation, outcome, output)
    if (trouble := failed(outcome, "running")) is not None:
        raise trouble


def _say(operation: str, outcome: Outcome, output: Format) -> None:
    if output.quiet:
        for seen in outcome.instances:
            say(seen.view.id)
    elif output.json:
        items = [msgspec.Raw(seen.raw) for seen in outcome.instances]
        say_json(msgspec.json.encode(Made(operation=operation, items=items)))
    else:
        instances_say([seen.view for seen in outcome.instances])


def _body(client: Client, image: str, guest: Guest, project: str) -> InstanceCreateBody:
    if guest.spread and guest.pack:
        raise Trouble(
            Exit.USAGE,
            "--spread and --pack contradict each other.",
            remedy="Give one of them, or none for --spread.",
        )
    return InstanceCreateBody(
        project=project_wanted(client, project),
        image=image,
        type=guest.type,
        name=guest.name,
        count=guest.count,
        network=guest.network,
        volatile_gib=guest.volatile,
        swap_mib=guest.swap,
        ssh_keys=ssh_keys(guest.ssh_key),
        user_data=user_data(guest.user_data),
        context=pairs(guest.context),
        on_halt=guest.on_halt,
        ranking=Ranking.PACK if guest.pack else Ranking.SPREAD,
    )


def project_wanted(client: Client, project: str) -> str:
    """Return the project to act in; a Trouble where none is chosen."""
    chosen = project or client.place.project
    if not chosen:
        raise Trouble(
            Exit.USAGE,
            "No project is chosen.",
            remedy="stratus project use NAME, or add --project NAME (stratus project ls lists "
            "them).",
        )
    return chosen


def ssh_keys(files: tuple[str, ...]) -> tuple[str, ...]:
    """Read public keys; without files those that the user has."""
    if files:
        return tuple(_public_key(Path(name)) for name in files)
    folder = Path(os.environ.get("HOME") or Path.home()) / ".ssh"
    return tuple(_public_key(folder / name) for name in SSH_KEY_FILES if (folder / name).is_file())


def _public_key(path: Path) -> str:
    text = file_text(path, SSH_KEY_CHARS_MAX, "public key").strip()
    if "PRIVATE KEY" in text:
        raise Trouble(
            Exit.INVALID,
            f"{path} holds a private key, which must not leave this machine.",
            remedy=f"Name the public one, usually {path}.pub.",
        )
    if len(text.split()) < 2 or "\n" in text:
        raise Trouble(
            Exit.INVALID,
            f"{path} is not an ssh public key.",
            remedy="Name a file such as ~/.ssh/id_ed25519.pub; ssh-keygen -t ed25519 makes one.",
        )
    return text


def user_data(name: str) -> str:
    """Read the user data from a file or stdin; "" where none is named."""
    if not name:
        return ""
    return file_text(
        Path("/dev/stdin") if name == "-" else Path(name), USER_DATA_BYTES_MAX, "user data"
    )


def file_text(path: Path, bytes_max: int, noun: str) -> str:
    """Read a small text file; a Trouble where that cannot be done."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise Trouble(
                Exit.INVALID,
                f"{path} is larger than {noun} may be ({bytes_max} bytes).",
                remedy="Make it smaller, or let the guest fetch the rest.",
            )
        return data.decode()
    except OSError as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} cannot be read: {error.strerror}.",
            remedy=f"Name a file with the {noun}.",
        ) from error
    except UnicodeDecodeError as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} is not text in UTF-8.",
            remedy=f"Name a text file with the {noun}.",
        ) from error


def pairs(said: tuple[str, ...]) -> dict[str, str]:
    """Read KEY=VALUE pairs."""
    found: dict[str, str] = {}
    for text in said:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Trouble(
                Exit.USAGE,
                f"{text!r} is no pair.",
                remedy="Write --context KEY=VALUE.",
            )
        found[key] = value
    return found


def _explain(client: Client, body: InstanceCreateBody, output: Format) -> None:
    answer = client.call("POST", "/v1/instances", query={"dry_run": True}, body=body)
    said = decode(answer.body, ExplanationView)
    if output.json:
        say_json(answer.body)
    elif not output.quiet:
        say_facts(
            (
                ("fits", said.fits),
                ("would start now", f"{said.placed} of {said.count}"),
                ("hosts", ", ".join(said.hosts) or None),
                ("explanation", said.explanation),
                *((f"less {rule.hosts}", rule.detail) for rule in said.removed),
            )
        )
    if not said.fits:
        problem = said.problem
        raise Trouble(
            exit_of(problem.code) if problem else Exit.UNAVAILABLE,
            problem.detail if problem else said.explanation,
            remedy=problem.remedy if problem else "Ask for less, or wait for room.",
            code=problem.code if problem else "",
        )


def ssh_await(view: InstanceView, *, deadline: float | None, progress: Progress) -> None:
    """Return when an ssh server answers at the instance's address."""
    address = view.address or view.address6
    if address is None:
        raise Trouble(
            Exit.INVALID,
            f"{view.name} has no address, so ssh cannot answer.",
            remedy="Start it on a network with addresses (stratus network ls).",
        )
    if view.phase is not Phase.RUNNING:
        raise Trouble(
            Exit.FAILED,
            f"{view.name} is {why(view)}, so ssh cannot answer.",
            remedy=f"See what it did: stratus logs {view.name}",
        )
    try:
        while not ssh_answers(address):
            progress.show(f"{view.name}: running; ssh at {address} does not answer yet")
            if moment_over(deadline):
                raise Trouble(
                    Exit.TIMEOUT,
                    f"{view.name} runs, but ssh at {address} does not answer yet.",
                    remedy=f"See what it does: stratus logs {view.name}",
                )
            time.sleep(SSH_PAUSE_SECONDS)
    except KeyboardInterrupt:
        progress.end()
        raise Trouble(
            Exit.INTERRUPTED,
            f"Stopped watching; {view.name} ({view.id}) runs on.",
            remedy=f"stratus ssh {view.name}",
        ) from None
    finally:
        progress.end()


def ssh_answers(address: str) -> bool:
    """Tell whether an ssh server greets at this address."""
    try:
        with socket.create_connection((address, SSH_PORT), timeout=SSH_TRY_SECONDS) as peer:
            return peer.recv(4) == b"SSH-"
    except OSError:
        return False
