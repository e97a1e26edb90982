"""How do programs log in? Create, list and revoke API tokens."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stratus.cli.client import client_open, decode, part
from stratus.cli.listing import Columns, list_say, removed_say
from stratus.cli.options import Limit
from stratus.cli.output import HUMAN, Format, note, say, say_json
from stratus.cli.trouble import Exit, Trouble
from stratus.model.tenancy import Scope
from stratus.wire.v1 import TokenCreate, TokenMade, TokenView

TokenRef = Annotated[str, Parameter(help="The id of the token.")]


def ls(
    *,
    user: Annotated[str, Parameter(help="Another user's (administrators, auditors).")] = "",
    limit: Limit = 0,
    output: Format = HUMAN,
) -> None:
    """List your tokens.

    $ stratus token ls
    """
    columns: Columns[TokenView] = (
        ("ID", lambda view: view.id),
        ("NAME", lambda view: view.name),
        ("SCOPES", lambda view: [scope.value for scope in view.scopes]),
        ("CREATED", lambda view: view.created_at),
        ("EXPIRES", lambda view: view.expires_at),
    )
    list_say(
        client_open(note),
        "/v1/tokens",
        TokenView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        query={"user": user},
        limit=limit,
    )


def create(
    name: Annotated[str, Parameter(help="What it is for.")],
    /,
    *,
    scope: Annotated[
        tuple[Scope, ...],
        Parameter(help="What it allows at most; may be repeated. Without it: read and write."),
    ] = (),
    days: Annotated[int, Parameter(help="After how many days it expires.")] = 30,
    file: Annotated[
        str, Parameter(metavar="FILE", help="Write the text into a new file of mode 600.")
    ] = "",
    output: Format = HUMAN,
) -> None:
    """Make a token; its text is printed this once.

    $ stratus token create backup --scope read --days 90 --file backup.token
    $ STRATUS_TOKEN_FILE=backup.token stratus ps
    """
    if file and Path(file).exists():
        raise Trouble(
            Exit.CONFLICT, f"{file} exists already.", remedy="Name another file, or remove it."
        )
    body = TokenCreate(name=name, scopes=scope or (Scope.READ, Scope.WRITE), days=days)
    # An answer with a secret is not kept for a repeat: asking twice would make two tokens.
    answer = client_open(note).call("POST", "/v1/tokens", body=body, once=True)
    made = decode(answer.body, TokenMade)
    if file:
        _write(Path(file), made.token)
        note(f"The token {made.id} is in {file}; it expires {made.expires_at}.")
    if output.json:
        say_json(answer.body)
    elif output.quiet:
        say(made.id)
    elif not file:
        say(made.token)
        note(f"Token {made.id}, expires {made.expires_at}. It is not shown again.")


def rm(token: TokenRef, /, *more: TokenRef, output: Format = HUMAN) -> None:
    """Revoke tokens.

    $ stratus token rm tok-01j8x0a2b3c4d5e6
    """
    client = client_open(note)
    for one in (token, *more):
        client.call("DELETE", f"/v1/tokens/{part(one)}")
        removed_say([one], output, done="revoked")


def _write(path: Path, text: str) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".token-")  # made with 0600
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
        Path(name).replace(path)
    except OSError as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} cannot be written: {error.strerror}; the token was made all the same.",
            remedy="Revoke it (stratus token ls, stratus token rm) and make another.",
        ) from error
