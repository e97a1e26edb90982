"""What does a command say about itself? Help and usage errors as plain text, without rich.

cyclopts renders help with rich, whose import alone takes more than the time we have for a command.
"""

import enum
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from typing import Any, Final

from cyclopts import App, CycloptsError
from cyclopts.argument import Argument
from cyclopts.command_spec import CommandSpec
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError

from stratus.cli.app import GROUPS
from stratus.cli.output import say
from stratus.cli.trouble import Exit, Trouble

WIDTH_MAX: Final = 100
WIDTH_MIN: Final = 60
FLAGS: Final = frozenset({"--help", "-h", "--version"})


def help_print(app: App, tokens: Sequence[str]) -> int:
    """Print the help of the command that the words name."""
    chain, apps, left = app.parse_commands(list(tokens))
    holder = apps[-1]
    if left and holder.default_command is None and not left[0].startswith("-"):
        raise UnknownCommandError(unused_tokens=left, app=holder, command_chain=chain)
    width = WIDTH_MAX
    if sys.stdout.isatty():
        width = min(os.get_terminal_size(sys.stdout.fileno()).columns, WIDTH_MAX)
    with app.app_stack(apps):
        say(help_text(holder, chain, width=max(width, WIDTH_MIN)))
    return Exit.OK


def help_text(holder: App, chain: Sequence[str], *, width: int = WIDTH_MAX) -> str:
    """Write the help of one command or folder of commands."""
    if holder.default_command is None:
        return "\n".join(_folder_help(holder, chain, width))
    return "\n".join(_command_help(holder, chain, width))


def usage_trouble(app: App, error: CycloptsError) -> Trouble:
    """Say what is wrong with the command line, and where its help is."""
    chain = " ".join(error.command_chain or ())
    if isinstance(error, UnknownCommandError):
        said, remedy = _unknown(app, error, chain)
        return Trouble(Exit.USAGE, said, remedy=remedy)
    command = f"stratus {chain} --help" if chain else "stratus --help"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        said = f"stratus {chain} needs {_needed(error.argument)}."
    else:
        said = str(error).replace("\n", " ").strip()
    return Trouble(Exit.USAGE, said, remedy=command)


def _needed(argument: Argument) -> str:
    if argument.tokens or argument.index is None:
        return f"a value for {argument.names[0]}"
    return _place(argument)


def _unknown(app: App, error: UnknownCommandError, chain: str) -> tuple[str, str]:
    import difflib

    holder = app.parse_commands(list(error.command_chain or ()))[1][-1]
    word = (error.unused_tokens or [""])[0]
    names = [name for names, _, _ in _commands(holder) for name in names]
    close = difflib.get_close_matches(word, names, n=1)
    where = f"stratus {chain}".strip()
    said = f"There is no command {where} {word}."
    if close:
        return said, f"{where} {close[0]}"
    return said, f"{where} --help"


def _folder_help(holder: App, chain: Sequence[str], width: int) -> Iterator[str]:
    name = " ".join(("stratus", *chain))
    yield f"usage: {name} COMMAND ..."
    yield ""
    yield from textwrap.wrap(holder.help, width)
    entries = list(_commands(holder))
    left = max(len(", ".join(names)) for names, _, _ in entries)
    groups = sorted({group for _, group, _ in entries}, key=_group_rank)
    for group in groups:
        yield ""
        yield f"{group}:"
        for names, group_, promise in entries:
            if group_ == group:
                yield from _entry(", ".join(names), promise, left, width)
    yield ""
    yield f"{name} COMMAND --help says more about each."
    if not chain:
        yield "stratus --profile NAME COMMAND uses another login than the current one."


def _group_rank(group: str) -> tuple[int, str]:
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS), group)


def _command_help(holder: App, chain: Sequence[str], width: int) -> Iterator[str]:
    arguments = [a for a in holder.assemble_argument_collection() if a.show and a.parse]
    positional = [a for a in arguments if a.index is not None]
    options = [a for a in arguments if a.index is None]
    words = ["stratus", *chain, *(_place(a) for a in positional)]
    words += [f"{a.names[0]} {_metavar(a)}" for a in options if a.required]
    if any(not a.required for a in options):
        words.append("[OPTIONS]")
    yield from textwrap.wrap("usage: " + " ".join(words), width, subsequent_indent="       ")
    yield ""
    yield from _paragraphs(holder, width)
    told = [(_place(a).strip("[].").removesuffix("..."), a) for a in positional] + [
        (_option(a), a) for a in options
    ]
    left = min(max((len(head) for head, _ in told), default=0), 30)
    for title, part in (
        ("Arguments", told[: len(positional)]),
        ("Options", told[len(positional) :]),
    ):
        if part:
            yield ""
            yield f"{title}:"
            for head, argument in part:
                yield from _entry(head, _meaning(argument), left, width)


def _paragraphs(holder: App, width: int) -> Iterator[str]:
    """The promise, then the rest of the docstring; examples ("$ stratus ...") keep their lines."""
    document = (holder.default_command.__doc__ if holder.default_command else None) or ""
    paragraphs = cleandoc(document).split("\n\n")
    paragraphs[0] = holder.help.strip().split("\n\n")[0]
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ""
        lines = paragraph.strip().splitlines()
        if lines and all(line.strip().startswith("$ ") for line in lines):
            yield from ("    " + line.strip() for line in lines)
        else:
            yield from textwrap.wrap(" ".join(paragraph.split()), width)


def _entry(head: str, text: str, left: int, width: int) -> Iterator[str]:
    lines = textwrap.wrap(text, max(20, width - left - 4)) or [""]
    if len(head) > left:
        yield f"  {head}"
    else:
        yield f"  {head.ljust(left)}  {lines.pop(0)}".rstrip()
    for line in lines:
        yield " " * (left + 4) + line


def _commands(holder: App) -> Iterator[tuple[list[str], str, str]]:
    """The commands of a folder: names, group, promise; lazy ones stay unimported."""
    names: dict[int, list[str]] = {}
    found: dict[int, App | CommandSpec] = {}
    for name in holder:
        if name in FLAGS:
            continue
        entry = holder._get_item(name)
        names.setdefault(id(entry), []).append(name)
        found[id(entry)] = entry
    for key, entry in found.items():
        if not entry.show:
            continue
        group = entry.group
        if isinstance(group, tuple):
            group = group[0] if group else None
        title = getattr(group, "name", group) or "Commands"
        yield names[key], str(title), (entry.help or "").strip().split("\n\n")[0]


def _place(argument: Argument) -> str:
    name = argument.names[0].lstrip("-").upper().replace("-", "_")
    if argument.parameter.metavar:
        name = str(argument.parameter.metavar)
    if argument.is_var_positional():
        return f"{name}..." if argument.required else f"[{name}...]"
    return name if argument.required else f"[{name}]"


def _option(argument: Argument) -> str:
    names = sorted(argument.names, key=lambda name: (name.startswith("--"), name))
    head = ", ".join(names)
    return head if argument.is_flag() else f"{head} {_metavar(argument)}"


def _metavar(argument: Argument) -> str:
    if argument.parameter.metavar:
        return str(argument.parameter.metavar)
    if choices := argument.get_choices():
        return "|".join(choices)
    return {int: "N", float: "N"}.get(argument.hint, "TEXT")


def _meaning(argument: Argument) -> str:
    text = (argument.parameter.help or "").strip()
    default: Any = argument.field_info.default
    if isinstance(default, enum.Enum):
        default = default.value
    shown = isinstance(default, (str, int, float)) and not isinstance(default, bool)
    if argument.index is None and shown and default not in ("", 0, 0.0):
        return f"{text} [default: {default}]"
    return text
