"""How is libvirt's QEMU command line run without libvirt? Only what it holds is replaced. Pure.

libvirt hands QEMU open descriptors (its monitor, the tap, the console log), a secret in a file it
removes, and starts the guest paused. Everything else is left word for word.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

CHARDEV_ID: Final = re.compile(r"(?:^|,)id=([^,]+)")


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in for what libvirt held."""

    tap: str
    sockets: str  # the beginning of the paths of sockets
    console: str
    files: Mapping[str, str]  # disks: libvirt's path to ours


def argv_adapt(argv: Sequence[str], stand: Stand) -> tuple[list[str], list[str]]:
    """Return the command line to run, and in words what is different in it."""
    made = [argv[0]]
    notes: list[str] = []
    at = 1
    while at < len(argv):
        option = argv[at]
        if option == "-S":
            notes.append("-S left out: libvirt starts guests paused and then lets them go")
            at += 1
            continue
        if at + 1 == len(argv) or (argv[at + 1].startswith("-") and len(argv[at + 1]) > 1):
            made.append(option)
            at += 1
            continue
        value = _value(option, argv[at + 1], stand)
        if value is None:
            notes.append(f"{option} left out: {argv[at + 1][:60]}")
        else:
            made += [option, value]
            if value != argv[at + 1]:
                notes.append(f"{option}: {argv[at + 1][:60]} became {value[:60]}")
        at += 2
    return made, notes


def _value(option: str, value: str, stand: Stand) -> str | None:
    match option:
        case "-add-fd":
            return None
        case "-object" if '"secret"' in value:
            return None
        case "-chardev":
            return _chardev(value, stand)
        case "-netdev":
            return _netdev(value, stand)
        case "-blockdev":
            for theirs, ours in stand.files.items():
                value = value.replace(f'"{theirs}"', f'"{ours}"')
            return value
        case _:
            return value


def _chardev(value: str, stand: Stand) -> str:
    found = CHARDEV_ID.search(value)
    assert found is not None, value
    name = found[1]
    if value.startswith("socket,"):
        return f"socket,id={name},path={stand.sockets}{name},server=on,wait=off"
    if value.startswith(("pty,", "file,")):
        return f"file,id={name},path={stand.console}"
    return value


def _netdev(value: str, stand: Stand) -> str:
    if value.startswith("{"):
        name = msgspec.json.decode(value)["id"]
    else:
        found = CHARDEV_ID.search(value)
        assert found is not None, value
        name = found[1]
    return f"tap,id={name},ifname={stand.tap},script=no,downscript=no"
