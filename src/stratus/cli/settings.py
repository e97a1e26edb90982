"""Which cloud do we talk to, and as whom? Profiles, environment, and the admin file of a site.

A secret goes only to the endpoint it was given for: naming another endpoint in the environment
never sends the profile's token there.
"""

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from stratus.cli.trouble import Exit, Trouble

T = TypeVar("T")

SETTINGS_BYTES_MAX: Final = 1 << 20
SITE_HOME: Final = Path("/var/lib/stratus")
PROFILE_DEFAULT: Final = "default"
TOKEN_PATTERN: Final = re.compile(r"[\x21-\x7e]{0,1024}")  # whole in one header


class Profile(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One cloud as one user."""

    endpoint: str
    token: str = ""
    project: str = ""
    ca_file: str = ""


class Settings(msgspec.Struct, kw_only=True):
    """The file that `stratus login` writes."""

    current: str = PROFILE_DEFAULT
    profiles: dict[str, Profile] = {}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The cloud that this command talks to, and as whom. `token` "" means: not logged in."""

    endpoint: str
    token: str = ""
    project: str = ""
    ca_file: str = ""
    profile: str = ""  # "" when it does not come from a profile
    source: str = ""  # where the endpoint was found, for people


class AdminFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a site's set-up leaves for the administrator of the machine."""

    endpoint: str
    token: str
    project: str = ""
    ca_file: str = ""


def settings_path(environ: Mapping[str, str]) -> Path:
    """Say where the settings are kept."""
    if said := environ.get("STRATUS_CONFIG"):
        return Path(said)
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser())
    folder = Path(base) if environ.get("XDG_CONFIG_HOME") else Path(base) / ".config"
    return folder / "stratus" / "config.json"


def settings_read(path: Path) -> Settings:
    """Read the settings, empty where there are none yet; refuse what others could read."""
    data = secret_read(path)
    if data is None:
        return Settings()
    return _decode(data, Settings, path)


def settings_write(path: Path, settings: Settings) -> None:
    """Replace the settings in one step, readable by their owner alone."""
    import tempfile  # only to write: 10 ms

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # made with 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise Trouble(
            Exit.UNAVAILABLE,
            f"{path} cannot be written: {error.strerror}.",
            remedy="Make the folder writable, or name another file in STRATUS_CONFIG.",
        ) from error


def secret_read(path: Path) -> bytes | None:
    """Read a file that holds a secret; None where there is none. Others must not read it."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o077:
                raise Trouble(
                    Exit.INVALID,
                    f"{path} holds a secret that others on this machine can read.",
                    remedy=f"chmod 600 {path}  (and make a new token if others had access)",
                    code="configuration",
                )
            data = file.read(SETTINGS_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} cannot be read: {error.strerror}.",
            remedy="Correct the file's owner, or name another one.",
            code="configuration",
        ) from error
    if len(data) > SETTINGS_BYTES_MAX:
        raise Trouble(
            Exit.INVALID,
            f"{path} is too large for what it should be.",
            remedy="Name the right file.",
            code="configuration",
        )
    return data


def place_find(environ: Mapping[str, str], *, profile: str = "") -> Place:
    """Find the cloud to talk to; a Trouble where none is known."""
    place = _place_known(environ, profile=profile or environ.get("STRATUS_PROFILE", ""))
    if token_file := environ.get("STRATUS_TOKEN_FILE"):
        data = secret_read(Path(token_file))
        if data is None:
            raise Trouble(
                Exit.LOGIN,
                f"There is no file {token_file}, which STRATUS_TOKEN_FILE names.",
                remedy="Write a token into it (stratus token create), with mode 600.",
                code="unauthenticated",
            )
        place = msgspec.structs.replace(place, token=data.decode(errors="replace").strip())
    if not TOKEN_PATTERN.fullmatch(place.token):
        raise Trouble(
            Exit.INVALID,
            f"{environ.get('STRATUS_TOKEN_FILE') or place.source} does not hold a token.",
            remedy="Log in again (stratus login), or write a token into the file "
            "(stratus token create --file).",
            code="configuration",
        )
    if project := environ.get("STRATUS_PROJECT"):
        place = msgspec.structs.replace(place, project=project)
    return place


def _place_known(environ: Mapping[str, str], *, profile: str) -> Place:
    path = settings_path(environ)
    settings = settings_read(path)
    endpoint = environ.get("STRATUS_ENDPOINT", "")
    if endpoint:
        endpoint_check(endpoint)
    if profile and profile not in settings.profiles:
        known = ", ".join(sorted(settings.profiles)) or "none"
        raise Trouble(
            Exit.LOGIN,
            f"There is no profile {profile!r} in {path} (known: {known}).",
            remedy=f"stratus login URL --profile {profile}",
            code="configuration",
        )
    name = profile or settings.current
    candidates: list[Place] = []
    if (found := settings.profiles.get(name)) is not None:
        candidates.append(_place_of(name, found, path))
    if endpoint and not profile:
        candidates += [_place_of(n, p, path) for n, p in sorted(settings.profiles.items())]
    if not profile:
        candidates += _admin_places(environ, wanted=bool(endpoint or not candidates))
    for place in candidates:
        if not endpoint or same_endpoint(place.endpoint, endpoint):
            return place
    if endpoint:
        return Place(endpoint=endpoint, source="STRATUS_ENDPOINT")
    raise Trouble(
        Exit.LOGIN,
        "You are not logged in to any cloud.",
        remedy="stratus login URL, or start a cloud on this machine: stratus up",
        code="unauthenticated",
    )


def _place_of(name: str, profile: Profile, path: Path) -> Place:
    endpoint_check(profile.endpoint)
    return Place(
        endpoint=profile.endpoint,
        token=profile.token,
        project=profile.project,
        ca_file=profile.ca_file,
        profile=name,
        source=f"profile {name} in {path}",
    )


def _admin_places(environ: Mapping[str, str], *, wanted: bool) -> list[Place]:
    """The cloud of this machine, for who may read its admin file."""
    if not wanted:
        return []
    said = environ.get("STRATUS_HOME")
    path = Path(said or SITE_HOME) / "admin.json"
    if not os.access(path, os.R_OK):
        return []
    data = secret_read(path)
    if data is None:
        return []
    admin = _decode(data, AdminFile, path)
    endpoint_check(admin.endpoint)
    return [
        Place(
            endpoint=admin.endpoint,
            token=admin.token,
            project=admin.project,
            ca_file=admin.ca_file,
            source=str(path),
        )
    ]


def endpoint_check(endpoint: str) -> None:
    """Refuse what is not the http(s) address of a cloud."""
    try:
        parts = urlsplit(endpoint)
        port_fine = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        parts, port_fine = urlsplit(""), False
    if not port_fine or parts.scheme not in ("http", "https") or not parts.hostname:
        raise Trouble(
            Exit.INVALID,
            f"{endpoint!r} is not the address of a cloud.",
            remedy="Give a URL such as https://cloud.example.org or http://127.0.0.1:8080.",
            code="configuration",
        )
    if parts.username or parts.query or parts.fragment:
        raise Trouble(
            Exit.INVALID,
            "The address of a cloud takes no user, query or fragment.",
            remedy="Give the bare URL; stratus login asks for user and password.",
            code="configuration",
        )


def same_endpoint(one: str, other: str) -> bool:
    """Tell whether two addresses mean the same server."""
    return _endpoint_key(one) == _endpoint_key(other)


def _endpoint_key(endpoint: str) -> tuple[str, str, int, str]:
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port, parts.path.rstrip("/")


def _decode(data: bytes, type_: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} is damaged: {error}.",
            remedy=f"Mend or remove {path}; stratus login writes a new one.",
            code="configuration",
        ) from error
