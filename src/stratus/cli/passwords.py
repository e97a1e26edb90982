"""Where does a password come from? A terminal, stdin or a private file; never the arguments."""

import sys
from pathlib import Path
from typing import Protocol

from stratus.cli.settings import secret_read
from stratus.cli.trouble import Exit, Trouble


class Source(Protocol):
    """What the user said about where to read it."""

    @property
    def password_stdin(self) -> bool:
        """Read it from stdin."""
        ...

    @property
    def password_file(self) -> str:
        """Read it from this file."""
        ...


def password_ask(prompt: str, source: Source) -> str:
    """Return a password; a Trouble where none can be had."""
    if source.password_file:
        data = secret_read(Path(source.password_file))
        if data is None:
            raise Trouble(
                Exit.INVALID,
                f"There is no file {source.password_file}.",
                remedy="Write the password into a file of mode 600 and name that.",
            )
        return _line(data.decode(errors="surrogateescape"))
    if source.password_stdin:
        return _line(sys.stdin.readline())
    if not sys.stdin.isatty():
        raise Trouble(
            Exit.USAGE,
            "A password is needed, and there is no terminal to ask for it.",
            remedy="Give it with --password-stdin or --password-file FILE.",
        )
    import getpass

    return getpass.getpass(prompt)


def password_new(prompt: str, source: Source) -> str:
    """Return a new password, typed twice where somebody types it."""
    typed = not (source.password_file or source.password_stdin)
    text = password_ask(prompt, source)
    if typed and text != password_ask("The same again: ", source):
        raise Trouble(Exit.USAGE, "The two passwords differ.", remedy="Run the command again.")
    if not text:
        raise Trouble(
            Exit.USAGE, "The password is empty.", remedy="Choose one of at least 12 characters."
        )
    return text


def _line(text: str) -> str:
    return text.split("\n", 1)[0].removesuffix("\r")
