"""Which machines run instances? Add, show, drain, fence and remove hosts."""

import time
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar

from cyclopts import Parameter
from msgspec import UNSET, UnsetType

from stratus.cli.client import Client, client_open, decode, part
from stratus.cli.listing import Columns, list_say, one_say, removed_say
from stratus.cli.options import Limit, Reference
from stratus.cli.output import HUMAN, Format, Progress, age, note
from stratus.cli.transport import Answer
from stratus.cli.trouble import Exit, Trouble
from stratus.cli.waiting import PATIENT, Patience, moment_over, pause
from stratus.model.units import MIB, size_text
from stratus.wire.v1 import HostChange, HostCreate, HostFence, HostFenced, HostView, StrayView

T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Room:
    """How much of the machine instances may have."""

    cpu_ratio: Annotated[float, Parameter(help="vCPUs promised per CPU.")] = 1.0
    memory_ratio: Annotated[float, Parameter(help="Memory promised per memory.")] = 1.0
    memory_reserved: Annotated[
        int, Parameter(metavar="MIB", help="Memory kept for the machine itself.")
    ] = 0
    accelerator: Annotated[
        Literal["auto", "kvm", "tcg"], Parameter(help="auto finds out what works.")
    ] = "auto"
    pool: Annotated[
        tuple[str, ...],
        Parameter(
            help="A pool whose disks it can open; may be repeated. Without it: every pool where "
            "the host is this machine, else none."
        ),
    ] = ()


ALL_OF_IT: Final = Room()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Change:
    """What to change of a host."""

    cpu_ratio: Annotated[float | None, Parameter(metavar="N", help="vCPUs promised per CPU.")] = (
        None
    )
    memory_ratio: Annotated[
        float | None, Parameter(metavar="N", help="Memory promised per memory.")
    ] = None
    memory_reserved: Annotated[
        int | None, Parameter(metavar="MIB", help="Memory kept for the machine itself.")
    ] = None
    accelerator: Annotated[
        Literal["auto", "kvm", "tcg"] | None, Parameter(help="auto finds out what works.")
    ] = None
    pool: Annotated[
        tuple[str, ...], Parameter(help="The pools whose disks it can open; may be repeated.")
    ] = ()


NO_CHANGE: Final = Change()


def add(
    uri: Annotated[str, Parameter(help="The libvirt URI, such as qemu:///system.")],
    /,
    *,
    name: Annotated[str, Parameter(help="A name; without it the host name in the URI.")] = "",
    room: Room = ALL_OF_IT,
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Add a machine by its libvirt URI.

    Waits until a host worker has looked at it and it can take instances.

    $ stratus host add qemu:///system --name here
    $ stratus host add qemu+tls://node7.example.org/system --cpu-ratio 4 --pool shared
    """
    client = client_open(note)
    deadline = patience.deadline()
    body = HostCreate(
        name=name or name_of(uri),
        uri=uri,
        cpu_ratio=room.cpu_ratio,
        memory_ratio=room.memory_ratio,
        memory_reserved_mib=room.memory_reserved,
        accelerator=room.accelerator,
        pools=room.pool or None,
    )
    answer = client.call("POST", "/v1/hosts", body=body)
    view = decode(answer.body, HostView)
    if not patience.no_wait:
        answer, view = _ready_await(client, answer, view, deadline=deadline)
    one_say(answer, HostView, _facts, id_of=lambda host: host.id, output=output)
    if not patience.no_wait and view.phase != "ready":
        problem = view.failure
        raise Trouble(
            Exit.FAILED,
            problem.detail if problem else f"{view.name} is {view.phase}.",
            remedy=problem.remedy if problem else f"stratus host show {view.name}",
            code=problem.code if problem else "",
        )


def name_of(uri: str) -> str:
    """Take a host's name from its URI: the machine it names, else this machine."""
    import re
    import socket
    from urllib.parse import urlsplit

    said = urlsplit(uri).hostname or socket.gethostname()
    label = re.sub(r"[^a-z0-9-]+", "-", said.split(".")[0].lower()).strip("-")
    return label or "host"


def _ready_await(
    client: Client, answer: Answer, view: HostView, *, deadline: float | None
) -> tuple[Answer, HostView]:
    progress = Progress()
    try:
        while view.phase == "waiting" and view.failure is None:
            progress.show(f"{view.name}: waiting for a host worker to look at it")
            if moment_over(deadline):
                raise Trouble(
                    Exit.TIMEOUT,
                    f"No host worker has looked at {view.name} yet.",
                    remedy="See whether one runs (stratus status); later: stratus host show "
                    f"{view.name}",
                )
            pause(deadline)
            answer = client.call("GET", f"/v1/hosts/{part(view.id)}")
            view = decode(answer.body, HostView)
    except KeyboardInterrupt:
        progress.end()
        raise Trouble(
            Exit.INTERRUPTED,
            f"Stopped watching; {view.name} is added.",
            remedy=f"stratus host show {view.name}",
        ) from None
    finally:
        progress.end()
    return answer, view


def ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List hosts.

    $ stratus host ls
    """
    now_ms = time.time_ns() // 1_000_000
    columns: Columns[HostView] = (
        ("NAME", lambda view: view.name),
        ("PHASE", lambda view: view.phase),
        ("INSTANCES", lambda view: view.instances),
        ("VCPUS", lambda view: f"{view.vcpus_used}/{view.cpus * view.cpu_ratio:g}"),
        ("MEMORY", _memory),
        ("ACCELERATOR", lambda view: view.accelerator),
        ("SEEN", lambda view: age(view.seen_at, now_ms=now_ms)),
        ("URI", lambda view: view.uri),
    )
    list_say(
        client_open(note),
        "/v1/hosts",
        HostView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        limit=limit,
        empty="There are no hosts; stratus host add URI adds one.",
    )


def show(host: Reference, /, *, output: Format = HUMAN) -> None:
    """Show one host with all that is known of it.

    $ stratus host show here
    """
    answer = client_open(note).call("GET", f"/v1/hosts/{part(host)}")
    one_say(answer, HostView, _facts, id_of=lambda view: view.id, output=output)


def drain(host: Reference, /, *, output: Format = HUMAN) -> None:
    """Keep what runs on a host, and place nothing new there.

    $ stratus host drain node7
    """
    _act(host, "drain", output)


def enable(host: Reference, /, *, output: Format = HUMAN) -> None:
    """Let a host take new instances again.

    $ stratus host enable node7
    """
    _act(host, "enable", output)


def fence(
    host: Reference,
    /,
    *,
    yes: Annotated[
        bool, Parameter(help="You have made sure that the machine is off or cut off.")
    ] = False,
    output: Format = HUMAN,
) -> None:
    """Declare that a host is dead, so its instances may move.

    If the machine still ran, two machines would write to one disk. Switch it off first, then say
    --yes.

    $ stratus host fence node7 --yes
    """
    if not yes:
        raise Trouble(
            Exit.USAGE,
            f"Fencing declares that {host} is surely off; disks are damaged if it is not.",
            remedy=f"Switch the machine off, then: stratus host fence {host} --yes",
        )
    answer = client_open(note).call(
        "POST", f"/v1/hosts/{part(host)}/fence", body=HostFence(confirm=True)
    )
    one_say(
        answer,
        HostFenced,
        lambda view: [*_facts(view), ("start elsewhere", view.lost)],
        id_of=lambda view: view.id,
        output=output,
    )


def set_(
    host: Reference,
    /,
    *,
    change: Change = NO_CHANGE,
    output: Format = HUMAN,
) -> None:
    """Change how much of a host instances may have.

    What is not given stays; guests that run keep running.

    $ stratus host set node7 --cpu-ratio 4 --memory-reserved 2048
    """
    body = HostChange(
        cpu_ratio=_said(change.cpu_ratio),
        memory_ratio=_said(change.memory_ratio),
        memory_reserved_mib=_said(change.memory_reserved),
        accelerator=_said(change.accelerator),
        pools=change.pool or UNSET,
    )
    if body == HostChange():
        raise Trouble(
            Exit.USAGE,
            "Nothing is said that should change.",
            remedy=f"stratus host set {host} --cpu-ratio 4",
        )
    answer = client_open(note).call("PATCH", f"/v1/hosts/{part(host)}", body=body)
    one_say(answer, HostView, _facts, id_of=lambda view: view.id, output=output)


def _said(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def rm(host: Reference, /, *more: Reference, output: Format = HUMAN) -> None:
    """Remove a host that runs nothing any more.

    $ stratus host drain node7
    $ stratus host rm node7
    """
    client = client_open(note)
    for one in (host, *more):
        client.call("DELETE", f"/v1/hosts/{part(one)}")
        removed_say([one], output)


def strays(host: Reference, /, *, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List guests on a host that nobody wished for.

    They are left alone; remove them with the host's own tools if you know what they are.

    $ stratus host strays node7
    """
    columns: Columns[StrayView] = (
        ("NAME", lambda view: view.name),
        ("OBSERVED", lambda view: view.observed),
        ("INSTANCE", lambda view: view.instance_id),
        ("GENERATION", lambda view: view.generation),
        ("FIRST SEEN", lambda view: view.first_seen_at),
        ("SEEN", lambda view: view.seen_at),
    )
    list_say(
        client_open(note),
        f"/v1/hosts/{part(host)}/strays",
        StrayView,
        columns,
        id_of=lambda view: view.name,
        output=output,
        limit=limit,
        empty=f"There are no strays on {host}.",
    )


def _act(host: str, verb: str, output: Format) -> None:
    answer = client_open(note).call("POST", f"/v1/hosts/{part(host)}/{verb}")
    one_say(answer, HostView, _facts, id_of=lambda view: view.id, output=output)


def _memory(view: HostView) -> str:
    offered = (view.memory_mib - view.memory_reserved_mib) * view.memory_ratio
    return f"{size_text(view.memory_used_mib * MIB)} of {size_text(int(max(0, offered)) * MIB)}"


def _facts(view: HostView) -> list[tuple[str, object]]:
    reserved = view.memory_reserved_mib
    found: list[tuple[str, object]] = [
        ("id", view.id),
        ("name", view.name),
        ("uri", view.uri),
        ("phase", view.phase),
        ("wish", view.desired),
        ("hypervisor", view.hypervisor),
        ("accelerator", view.accelerator),
        ("because", view.accelerator_reason),
        ("accelerator wish", view.accelerator_wanted),
        ("arch", view.arch),
        (
            "cpus",
            f"{view.cpus} at ratio {view.cpu_ratio:g}, {view.vcpus_used} used" if view.cpus else "",
        ),
        ("memory", _memory(view) if view.memory_mib else ""),
        ("memory reserved", size_text(reserved * MIB) if reserved else ""),
        ("instances", view.instances),
        ("pools", view.pools),
        ("worker", view.worker),
        ("seen", view.seen_at),
        ("unreachable since", view.unreachable_since),
        ("created", view.created_at),
    ]
    if view.failure is not None:
        found += [("last failure", view.failure.detail), ("try", view.failure.remedy)]
    return found
