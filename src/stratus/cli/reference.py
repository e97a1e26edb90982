"""What does docs/reference/cli.md say? Every command's help, the exit codes, the settings.

Written by `python -m stratus.cli.reference`; a test compares the file with this. What the program
that owns the machine adds to the command line is not in here.
"""

from collections.abc import Iterator
from typing import Final

from cyclopts import App

from stratus.cli.trouble import EXIT_WORDS
from stratus.cli.usage import FLAGS, WIDTH_MAX, help_text

HEAD: Final = """\
# The command line `stratus`

<!-- Written by `python -m stratus.cli.reference`; do not edit. -->

Data goes to stdout, everything else (progress, notes, errors) to stderr. `--json` prints exactly
the API's JSON as one document, `-q` prints ids only. Commands that change something wait until it
has come true, and say what they wait for; `--no-wait` returns once the request is accepted, and
`--timeout` bounds the wait. Ctrl-C ends the waiting, never the request.

An instance is named by its id, by a unique beginning of its id, or by its name in the project. A
name that fits several things is refused with the candidates.

An error is told in up to three lines: what happened, what to do about it, and the id of the request
for whoever has to look it up.

    stratus: Project lab would use 40 of 32 vCPUs.
      try: Stop an instance or ask your administrator for more quota.
      request: req-5f1d2c3b4a596877
"""

SETTINGS: Final = (
    ("`STRATUS_CONFIG`", "the settings file, instead of `~/.config/stratus/config.json`"),
    ("`STRATUS_PROFILE`", "the login to use, as does `stratus --profile NAME COMMAND`"),
    ("`STRATUS_ENDPOINT`", "the address of the cloud"),
    ("`STRATUS_TOKEN_FILE`", "a file of mode 600 with a token (`stratus token create --file`)"),
    ("`STRATUS_PROJECT`", "the project to act in"),
    ("`STRATUS_HOME`", "the folder of the site's `admin.json`, instead of `/var/lib/stratus`"),
    ("`STRATUS_DEBUG`", "any value: show the Python traceback of a fault of ours"),
    ("`NO_COLOR`", "any value: no colours"),
)

SETTINGS_TEXT: Final = """\
The environment goes before the settings file, which `stratus login` writes with mode 600. Whoever
can read the admin file of the cloud on this machine (root, usually) needs no login there. A token
is only sent to the address it was made for: with another `STRATUS_ENDPOINT` it stays at home. Files
with secrets that others can read are refused.
"""


def reference_text(app: App) -> str:
    """Write the whole page."""
    return "\n".join(_lines(app)).rstrip() + "\n"


def _lines(app: App) -> Iterator[str]:
    yield HEAD
    yield "## Exit codes"
    yield ""
    yield from _table(("code", "meaning"), [(str(int(e)), w) for e, w in EXIT_WORDS.items()])
    yield ""
    yield "`stratus ssh` ends with the exit code of ssh."
    yield ""
    yield "## Settings"
    yield ""
    yield SETTINGS_TEXT
    yield from _table(("variable", "meaning"), SETTINGS)
    yield ""
    yield "## Commands"
    yield ""
    yield from _block(help_text(app, (), width=WIDTH_MAX))
    for chain, holder, stack in commands(app):
        with app.app_stack(stack):
            yield ""
            yield f"### stratus {' '.join(chain)}"
            yield ""
            yield from _block(help_text(holder, chain, width=WIDTH_MAX))


def commands(app: App) -> Iterator[tuple[tuple[str, ...], App, list[App]]]:
    """Every command and folder in alphabetical order, under its first name."""
    yield from _below(app, (), [app])


def _below(
    holder: App, chain: tuple[str, ...], stack: list[App]
) -> Iterator[tuple[tuple[str, ...], App, list[App]]]:
    seen: set[int] = set()
    for name in sorted(holder, key=lambda word: (word != holder[word].name[0], word)):
        child = holder[name]
        if name in FLAGS or id(child) in seen or not child.show:
            continue
        seen.add(id(child))
        below = (*chain, name)
        yield below, child, [*stack, child]
        if child.default_command is None:
            yield from _below(child, below, [*stack, child])


def _table(
    heads: tuple[str, str], rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]
) -> Iterator[str]:
    yield f"| {heads[0]} | {heads[1]} |"
    yield "|---|---|"
    for left, right in rows:
        yield f"| {left} | {right} |"


def _block(text: str) -> Iterator[str]:
    yield "```text"
    yield text
    yield "```"


if __name__ == "__main__":
    from stratus.cli.app import app_make

    print(reference_text(app_make()), end="")
