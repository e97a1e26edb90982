"""Which images may start here? The site's trust policy and the keys of endorsers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stratus.cli.client import JSON, client_open, part
from stratus.cli.listing import Columns, list_say, one_say, removed_say
from stratus.cli.options import Limit
from stratus.cli.output import HUMAN, Format, note, say_json
from stratus.cli.start import file_text
from stratus.model.limits import BODY_BYTES_MAX
from stratus.wire.v1 import PEM_CHARS_MAX, KeyAdd, KeyView

KeyRef = Annotated[str, Parameter(help="The fingerprint of the key.")]


def policy_show() -> None:
    """Print the site's trust policy.

    $ stratus policy show > policy.json
    """
    say_json(client_open(note).call("GET", "/v1/policy").body)


def policy_set(
    file: Annotated[str, Parameter(help="A JSON file with the policy; - for stdin.")], /
) -> None:
    """Replace the site's trust policy.

    It is consulted at every start. For administrators.

    $ stratus policy set policy.json
    """
    path = Path("/dev/stdin") if file == "-" else Path(file)
    text = file_text(path, BODY_BYTES_MAX, "policy")
    answer = client_open(note).call(
        "PUT", "/v1/policy", body=text.encode(), headers={"Content-Type": JSON}
    )
    if answer.body:
        say_json(answer.body)


def key_ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List the endorsers' keys that this site knows.

    $ stratus key ls
    """
    columns: Columns[KeyView] = (
        ("FINGERPRINT", lambda view: view.fingerprint),
        ("EMAIL", lambda view: view.email),
        ("ADDED", lambda view: view.added_at),
    )
    list_say(
        client_open(note),
        "/v1/keys",
        KeyView,
        columns,
        id_of=lambda view: view.fingerprint,
        output=output,
        limit=limit,
        empty="This site knows no endorser's key.",
    )


def key_add(
    file: Annotated[str, Parameter(help="A public key in PEM.")],
    /,
    *,
    email: Annotated[str, Parameter(help="Whose key it is.")] = "",
    output: Format = HUMAN,
) -> None:
    """Make an endorser's public key known.

    Whether what they endorse may start is for the policy to say.

    $ stratus key add anna.pem --email anna@example.org
    """
    pem = file_text(Path(file), PEM_CHARS_MAX, "public key")
    answer = client_open(note).call("POST", "/v1/keys", body=KeyAdd(pem=pem, email=email))
    one_say(answer, KeyView, _facts, id_of=lambda view: view.fingerprint, output=output)


def key_rm(key: KeyRef, /, *more: KeyRef, output: Format = HUMAN) -> None:
    """Forget endorsers' keys.

    $ stratus key rm 6f1c...
    """
    client = client_open(note)
    for one in (key, *more):
        client.call("DELETE", f"/v1/keys/{part(one)}")
        removed_say([one], output)


def _facts(view: KeyView) -> list[tuple[str, object]]:
    return [
        ("fingerprint", view.fingerprint),
        ("email", view.email),
        ("added", view.added_at),
    ]
