"""As whom does this command line talk to which cloud? Log in, log out, and who am I."""

import base64
import os
import sys
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from cyclopts import Parameter

from stratus.cli.client import Client, client_open, decode, part
from stratus.cli.output import HUMAN, Format, note, say, say_facts, say_json
from stratus.cli.passwords import password_ask
from stratus.cli.settings import (
    PROFILE_DEFAULT,
    Place,
    Profile,
    endpoint_check,
    place_find,
    settings_path,
    settings_read,
    settings_write,
)
from stratus.cli.trouble import Exit, Trouble
from stratus.cli.users import ASK, PasswordFrom
from stratus.model.tenancy import Scope
from stratus.wire.v1 import MeView, ServiceView, TokenCreate, TokenMade

DAYS_DEFAULT: Final = 30


def login(
    endpoint: Annotated[
        str, Parameter(metavar="URL", help="The cloud; without it the one you use now.")
    ] = "",
    /,
    *,
    user: Annotated[
        str, Parameter(name=["--user", "-u"], help="Your name there; asked for if left out.")
    ] = "",
    password: PasswordFrom = ASK,
    project: Annotated[
        str, Parameter(name=["--project", "-p"], help="The project to act in by default.")
    ] = "",
    profile: Annotated[str, Parameter(help="Remember it under this name.")] = "",
    days: Annotated[int, Parameter(help="After how many days to log in again.")] = DAYS_DEFAULT,
    admin: Annotated[
        bool, Parameter(help="Ask for the right to administer, if you have it.")
    ] = False,
    ca_file: Annotated[
        str, Parameter(metavar="FILE", help="Who vouches for the cloud's certificate.")
    ] = "",
    plain_http: Annotated[
        bool, Parameter(help="Send the password without encryption over the network.")
    ] = False,
    output: Format = HUMAN,
) -> None:
    """Log in to a cloud and remember it.

    The password is exchanged for a token, which is kept in ~/.config/stratus/config.json with mode
    600. The password itself is not kept.

    $ stratus login https://cloud.example.org -u anna
    $ stratus login https://cloud.example.org -u robot --password-file secret --profile robot
    """
    path = settings_path(os.environ)
    settings = settings_read(path)
    target = endpoint or _present()
    endpoint_check(target)
    _encrypted_check(target, plain_http=plain_http)
    name = user or _name_ask()
    text = password_ask(f"Password of {name} at {target}: ", password)
    ca_path = str(Path(ca_file).absolute()) if ca_file else ""
    place = Place(endpoint=target, ca_file=ca_path)
    made = _token(place, name, text, days=days, admin=admin)
    place = msgspec.structs.replace(place, token=made.token)
    answer = Client(place, note=note).call("GET", "/v1/me")
    me = decode(answer.body, MeView)
    kept = profile or os.environ.get("STRATUS_PROFILE") or PROFILE_DEFAULT
    before = settings.profiles.get(kept)
    chosen = _project(me, project, before.project if before else "")
    settings.profiles[kept] = Profile(
        endpoint=target, token=made.token, project=chosen, ca_file=ca_path
    )
    settings.current = kept
    settings_write(path, settings)
    _overridden_note()
    if output.json:
        say_json(answer.body)
    elif output.quiet:
        say(me.id)
    else:
        note(f"Logged in to {target} as {me.name} until {made.expires_at}.")
        if chosen:
            note(f"Commands act in project {chosen}.")
        elif me.projects:
            names = ", ".join(one.name for one in me.projects)
            note(f"Choose a project with stratus project use NAME: {names}.")


def logout(*, output: Format = HUMAN) -> None:
    """Revoke the token of this login and forget it.

    $ stratus logout
    """
    path = settings_path(os.environ)
    settings = settings_read(path)
    place = place_find(os.environ)
    found = settings.profiles.get(place.profile)
    if found is None or not found.token:
        raise Trouble(
            Exit.USAGE,
            f"There is no login to forget: this one comes from {place.source}.",
            remedy="stratus token ls and stratus token rm revoke tokens.",
        )
    try:
        client = Client(msgspec.structs.replace(place, token=found.token), note=note)
        me = client.get("/v1/me", MeView)
        if me.token_id:
            client.call("DELETE", f"/v1/tokens/{part(me.token_id)}")
    except Trouble as trouble:
        # Forgetting must work without the cloud; an expired token needs no revoking.
        if trouble.exit is not Exit.LOGIN:
            note(f"The token could not be revoked: {trouble.detail}")
            note("It stays good until it expires; stratus token rm revokes it after a login.")
    found.token = ""
    settings_write(path, settings)
    if not output.quiet:
        note(f"Logged out of {place.endpoint}.")


def whoami(*, output: Format = HUMAN) -> None:
    """Show who you are to the cloud, and what you may do.

    $ stratus whoami
    """
    client = client_open(note)
    answer = client.call("GET", "/v1/me")
    if output.json:
        say_json(answer.body)
        return
    me = decode(answer.body, MeView)
    if output.quiet:
        say(me.id)
        return
    standing = [word for word, is_ in (("admin", me.admin), ("auditor", me.auditor)) if is_]
    say_facts(
        (
            ("user", me.name),
            ("id", me.id),
            ("standing", standing or "user"),
            ("token allows", [scope.value for scope in me.scopes]),
            ("projects", [f"{one.name} ({one.role})" for one in me.projects]),
            ("default project", client.place.project),
            ("cloud", client.place.endpoint),
            ("login from", client.place.source),
        )
    )


def version(*, output: Format = HUMAN) -> None:
    """Show the versions of this command and of the cloud.

    $ stratus version
    """
    from stratus.cli.app import PRODUCT_VERSION

    try:
        service = client_open().get("/v1", ServiceView)
    except Trouble as trouble:
        # Without a cloud the version of this command is still worth telling.
        service, missing = None, trouble.detail
    else:
        missing = ""
    if output.json:
        cloud = msgspec.to_builtins(service) if service else None
        say_json(msgspec.json.encode({"client": PRODUCT_VERSION, "cloud": cloud}))
    elif output.quiet:
        say(PRODUCT_VERSION)
    else:
        say_facts(
            (
                ("client", PRODUCT_VERSION),
                ("cloud", f"{service.version} ({service.site})" if service else missing),
            )
        )


def _present() -> str:
    try:
        return os.environ.get("STRATUS_ENDPOINT") or place_find(os.environ).endpoint
    except Trouble as trouble:
        if trouble.exit is not Exit.LOGIN:
            raise
        raise Trouble(
            Exit.USAGE,
            "No cloud is named, and none is in use.",
            remedy="stratus login https://cloud.example.org",
        ) from trouble


def _encrypted_check(endpoint: str, *, plain_http: bool) -> None:
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    here = host in ("localhost", "::1") or host.startswith("127.")
    if parts.scheme == "http" and not here and not plain_http:
        raise Trouble(
            Exit.INVALID,
            f"Anybody on the way to {host} could read the password: the address is not https.",
            remedy="Use the https address, or add --plain-http where the network is trusted.",
            code="configuration",
        )


def _name_ask() -> str:
    if not sys.stdin.isatty():
        raise Trouble(
            Exit.USAGE,
            "A user name is needed, and there is no terminal to ask for it.",
            remedy="Give it with --user NAME.",
        )
    sys.stderr.write("User name: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _token(place: Place, name: str, password: str, *, days: int, admin: bool) -> TokenMade:
    scopes = (Scope.READ, Scope.WRITE, Scope.ADMIN) if admin else (Scope.READ, Scope.WRITE)
    body = TokenCreate(name=f"login from {_machine()}", scopes=scopes, days=days)
    basic = base64.b64encode(f"{name}:{password}".encode(errors="surrogateescape")).decode()
    try:
        answer = Client(place, note=note).call(
            "POST", "/v1/tokens", body=body, authorization=f"Basic {basic}", once=True
        )
    except Trouble as trouble:
        if trouble.exit is not Exit.LOGIN:
            raise
        raise Trouble(
            Exit.LOGIN,
            trouble.detail,
            remedy="Check name and password; an administrator can set a new one.",
            code=trouble.code,
            request_id=trouble.request_id,
        ) from trouble
    return decode(answer.body, TokenMade)


def _machine() -> str:
    import socket

    return "".join(c for c in socket.gethostname() if c.isprintable())[:48]


def _project(me: MeView, said: str, before: str) -> str:
    names = [one.name for one in me.projects]
    if said:
        if names and said not in names and said not in [one.id for one in me.projects]:
            note(f"You do not belong to project {said}; it is kept as your default all the same.")
        return said
    if before in names:
        return before
    return names[0] if len(names) == 1 else ""


def _overridden_note() -> None:
    for name in ("STRATUS_ENDPOINT", "STRATUS_TOKEN_FILE", "STRATUS_PROJECT", "STRATUS_PROFILE"):
        if os.environ.get(name):
            note(f"{name} is set and goes before what was just remembered.")
