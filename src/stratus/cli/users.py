"""Who may use the cloud? List, show, create and disable users; set passwords."""

from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec import UNSET, UnsetType

from stratus.cli.client import client_open, part
from stratus.cli.listing import Columns, list_say, one_say, removed_say
from stratus.cli.options import Limit, Reference
from stratus.cli.output import HUMAN, Format, note
from stratus.cli.passwords import password_ask, password_new
from stratus.wire.v1 import MeView, UserChange, UserCreate, UserMade, UserView


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PasswordFrom:
    """Where the password comes from: never the command line, which others can see."""

    password_stdin: Annotated[bool, Parameter(help="Read the password from stdin.")] = False
    password_file: Annotated[
        str, Parameter(metavar="FILE", help="Read the password from a file of mode 600.")
    ] = ""


ASK: Final = PasswordFrom()


def ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List users.

    $ stratus user ls
    """
    columns: Columns[UserView] = (
        ("NAME", lambda view: view.name),
        ("ID", lambda view: view.id),
        ("STANDING", _standing),
        ("DISABLED", lambda view: view.disabled),
        ("CREATED", lambda view: view.created_at),
    )
    list_say(
        client_open(note),
        "/v1/users",
        UserView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        limit=limit,
    )


def show(user: Reference, /, *, output: Format = HUMAN) -> None:
    """Show one user.

    $ stratus user show anna
    """
    answer = client_open(note).call("GET", f"/v1/users/{part(user)}")
    one_say(answer, UserView, _facts, id_of=lambda view: view.id, output=output)


def create(
    name: Annotated[str, Parameter(help="The name to log in with.")],
    /,
    *,
    admin: Annotated[bool, Parameter(help="May do everything.")] = False,
    auditor: Annotated[bool, Parameter(help="May see everything.")] = False,
    generate: Annotated[
        bool, Parameter(help="Let the cloud make a password; it is printed this once.")
    ] = False,
    no_password: Annotated[
        bool, Parameter(help="Without a password: they cannot log in by one.")
    ] = False,
    password: PasswordFrom = ASK,
    output: Format = HUMAN,
) -> None:
    """Create a user.

    Asks for the password, unless told where to read it.

    $ stratus user create anna
    $ stratus user create bert --generate
    $ stratus user create robot --no-password
    """
    client = client_open(note)
    asks = not (no_password or generate)
    text = password_new(f"Password for {name}: ", password) if asks else ""
    body = UserCreate(name=name, password=text, generate=generate, admin=admin, auditor=auditor)
    # An answer with a secret is not kept for a repeat.
    answer = client.call("POST", "/v1/users", body=body, once=True)
    one_say(
        answer,
        UserMade,
        lambda view: [*_facts(view), ("password", view.password)],
        id_of=lambda view: view.id,
        output=output,
    )


def disable(user: Reference, /, *more: Reference, output: Format = HUMAN) -> None:
    """Lock users out; what they run goes on.

    $ stratus user disable anna
    """
    _change((user, *more), UserChange(disabled=True), output, done="is disabled")


def enable(user: Reference, /, *more: Reference, output: Format = HUMAN) -> None:
    """Let disabled users in again.

    $ stratus user enable anna
    """
    _change((user, *more), UserChange(disabled=False), output, done="may log in")


def passwd(
    user: Annotated[str, Parameter(help="The user; without it yourself.")] = "",
    /,
    *,
    password: PasswordFrom = ASK,
    old_password_file: Annotated[
        str, Parameter(metavar="FILE", help="Read your old password from a file of mode 600.")
    ] = "",
    output: Format = HUMAN,
) -> None:
    """Set a user's password.

    Your own is only changed with the old one. With --password-stdin that comes first, on a line of
    its own.

    $ stratus user passwd
    $ stratus user passwd anna --password-stdin < secret
    """
    client = client_open(note)
    me = client.get("/v1/me", MeView)
    name = user or me.name
    old: str | UnsetType = UNSET
    if name in (me.name, me.id):
        source = PasswordFrom(
            password_stdin=password.password_stdin, password_file=old_password_file
        )
        old = password_ask("Your old password: ", source)
    text = password_new(f"New password for {name}: ", password)
    change = UserChange(password=text, password_old=old)
    client.call("PATCH", f"/v1/users/{part(name)}", body=change)
    removed_say([name], output, done="has a new password")


def _change(users: tuple[str, ...], change: UserChange, output: Format, *, done: str) -> None:
    client = client_open(note)
    for user in users:
        client.call("PATCH", f"/v1/users/{part(user)}", body=change)
        removed_say([user], output, done=done)


def _standing(view: UserView) -> str:
    words = [word for word, is_ in (("admin", view.admin), ("auditor", view.auditor)) if is_]
    return ", ".join(words) or "user"


def _facts(view: UserView) -> list[tuple[str, object]]:
    return [
        ("id", view.id),
        ("name", view.name),
        ("standing", _standing(view)),
        ("disabled", view.disabled),
        ("created", view.created_at),
    ]
