"""What can instances start from? Import, list, show, endorse and remove images."""

import contextlib
import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec
from cyclopts import Parameter
from msgspec import UNSET

from stratus.cli.client import Client, client_open, decode, part
from stratus.cli.listing import Columns, list_say, one_say, removed_say
from stratus.cli.options import AllProjects, Limit, ProjectOption
from stratus.cli.output import HUMAN, Format, Progress, age, note
from stratus.cli.settings import settings_path
from stratus.cli.start import project_wanted
from stratus.cli.transport import Answer
from stratus.cli.trouble import Exit, Trouble
from stratus.cli.waiting import PATIENT, Patience, moment_over, pause
from stratus.model.image import ImageFormat, Visibility
from stratus.model.limits import ENDORSEMENT_BYTES_MAX
from stratus.model.units import MIB, size_text
from stratus.wire.v1 import EndorsementView, ImageChange, ImageCreate, ImageView

READ_BYTES: Final = 1 * MIB
CHUNK_BYTES: Final = 8 * MIB
STANDSTILLS_MAX: Final = 5  # uploads that got nowhere, one after the other
UPLOADS_KEPT_MAX: Final = 100
QCOW2_MAGIC: Final = b"QFI\xfb"
PACKED: Final = {
    b"\x1f\x8b": "gunzip",
    b"\xfd7zXZ": "unxz",
    b"BZh": "bunzip2",
    b"(\xb5/\xfd": "unzstd",
}
DSSE: Final = "application/json"

ImageRef = Annotated[str, Parameter(help="The image: id, name, or StratusLab identifier.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class About:
    """What the image is called and who may use it."""

    name: Annotated[str, Parameter(help="A name; without it that of the file.")] = ""
    title: Annotated[str, Parameter(help="What it is, in a sentence.")] = ""
    public: Annotated[bool, Parameter(help="Let every project start it.")] = False
    format: Annotated[
        ImageFormat | None, Parameter(help="How the bytes are arranged; found out for a file.")
    ] = None
    sha256: Annotated[
        str, Parameter(metavar="HEX", help="What the bytes must hash to; computed for a file.")
    ] = ""
    size: Annotated[
        int, Parameter(metavar="BYTES", help="How many they must be; computed for a file.")
    ] = 0


NOTHING_SAID: Final = About()


def import_(
    source: Annotated[
        str, Parameter(metavar="FILE|URL", help="A file here, or an http(s) address.")
    ],
    /,
    *,
    about: About = NOTHING_SAID,
    project: ProjectOption = "",
    patience: Patience = PATIENT,
    output: Format = HUMAN,
) -> None:
    """Import an image from a file or a URL.

    A file is hashed, uploaded and checked; an upload that broke off is taken up where it broke when
    the command is repeated. An address is fetched by the cloud itself. Waits until instances can
    start from it.

    $ stratus image import tiny.qcow2 --name tiny
    $ stratus image import https://example.org/debian.qcow2 --sha256 6f1c...
    """
    client = client_open(note)
    deadline = patience.deadline()
    progress = Progress()
    chosen = project_wanted(client, project)
    try:
        if re.match(r"^https?://", source):
            answer = client.call("POST", "/v1/images", body=_from_url(source, about, chosen))
        else:
            answer = _upload(client, Path(source), about, chosen, progress, deadline)
        if not patience.no_wait:
            answer = _ready_await(client, answer, deadline=deadline, progress=progress)
    except KeyboardInterrupt:
        progress.end()
        raise Trouble(
            Exit.INTERRUPTED,
            "Stopped; what was accepted goes on.",
            remedy="Repeat the command to go on, or look: stratus image ls",
        ) from None
    finally:
        progress.end()
    view = decode(answer.body, ImageView)
    one_say(answer, ImageView, _facts, id_of=lambda image: image.id, output=output)
    if view.parked is not None:
        raise Trouble(
            Exit.FAILED,
            f"{view.name} could not be imported: {view.parked.detail}",
            remedy=view.parked.remedy,
            code=view.parked.code,
        )


def ls(
    *,
    project: ProjectOption = "",
    all_projects: AllProjects = False,
    limit: Limit = 0,
    output: Format = HUMAN,
) -> None:
    """List images.

    $ stratus image ls
    """
    now_ms = time.time_ns() // 1_000_000
    columns: Columns[ImageView] = (
        ("ID", lambda view: view.id),
        ("NAME", lambda view: view.name),
        ("PHASE", lambda view: view.phase),
        ("SIZE", lambda view: size_text(view.size_bytes) if view.size_bytes else ""),
        ("DISK", lambda view: size_text(view.virtual_bytes) if view.virtual_bytes else ""),
        ("FORMAT", lambda view: view.format),
        ("VISIBLE", lambda view: view.visibility),
        ("IDENTIFIER", lambda view: view.identifier),
        ("AGE", lambda view: age(view.created_at, now_ms=now_ms)),
        ("TITLE", lambda view: view.title),
    )
    list_say(
        client_open(note),
        "/v1/images",
        ImageView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        query={"project": project, "all_projects": all_projects},
        limit=limit,
        empty="There are no images; stratus image import FILE adds one.",
    )


def show(image: ImageRef, /, *, output: Format = HUMAN) -> None:
    """Show one image, and whether it may start here.

    $ stratus image show tiny
    """
    answer = client_open(note).call("GET", f"/v1/images/{part(image)}")
    one_say(answer, ImageView, _facts, id_of=lambda view: view.id, output=output)


def retry(image: ImageRef, /, *, output: Format = HUMAN) -> None:
    """Try an import again that had failed for good.

    $ stratus image retry tiny
    """
    answer = client_open(note).call("POST", f"/v1/images/{part(image)}/retry")
    one_say(answer, ImageView, _facts, id_of=lambda view: view.id, output=output)


def set_(
    image: ImageRef,
    /,
    *,
    name: Annotated[str, Parameter(help="Another name.")] = "",
    title: Annotated[str | None, Parameter(metavar="TEXT", help="Another title.")] = None,
    visibility: Annotated[
        Visibility | None, Parameter(help="Whether every project may start it.")
    ] = None,
    output: Format = HUMAN,
) -> None:
    """Change what an image is called, and who may start it.

    $ stratus image set tiny --visibility public
    """
    body = ImageChange(
        name=name or UNSET,
        title=UNSET if title is None else title,
        visibility=visibility or UNSET,
    )
    if body == ImageChange():
        raise Trouble(
            Exit.USAGE,
            "Nothing is said that should change.",
            remedy=f"stratus image set {image} --visibility public",
        )
    answer = client_open(note).call("PATCH", f"/v1/images/{part(image)}", body=body)
    one_say(answer, ImageView, _facts, id_of=lambda view: view.id, output=output)


def rm(image: ImageRef, /, *more: ImageRef, output: Format = HUMAN) -> None:
    """Delete images that no instance stands on.

    $ stratus image rm tiny
    """
    client = client_open(note)
    for one in (image, *more):
        client.call("DELETE", f"/v1/images/{part(one)}")
        removed_say([one], output, done="is being deleted")


def endorse(
    image: ImageRef,
    /,
    *,
    document: Annotated[
        str, Parameter(metavar="FILE", help="The signed endorsement (a DSSE envelope).")
    ],
    output: Format = HUMAN,
) -> None:
    """Hand in a signed endorsement of an image.

    Whether it counts is for the site's policy to say; stratus image show tells.

    $ stratus image endorse tiny --document tiny.endorsement.json
    """
    path = Path(document)
    try:
        with path.open("rb") as file:
            data = file.read(ENDORSEMENT_BYTES_MAX + 1)
    except OSError as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} cannot be read: {error.strerror}.",
            remedy="Name the file that holds the endorsement.",
        ) from error
    if len(data) > ENDORSEMENT_BYTES_MAX:
        raise Trouble(
            Exit.INVALID,
            f"{path} is larger than an endorsement may be ({ENDORSEMENT_BYTES_MAX} bytes).",
            remedy="Name the file that holds the endorsement.",
        )
    answer = client_open(note).call(
        "POST",
        f"/v1/images/{part(image)}/endorsements",
        body=data,
        headers={"Content-Type": DSSE},
    )
    one_say(
        answer,
        EndorsementView,
        lambda view: [
            ("sha256", view.sha256),
            ("of image", view.image_sha256),
            ("received", view.received_at),
        ],
        id_of=lambda view: view.sha256,
        output=output,
    )


# --- importing -----------------------------------------------------------------------------


def _from_url(url: str, about: About, project: str) -> ImageCreate:
    return ImageCreate(
        project=project,
        name=about.name or name_from(url.split("?")[0].rsplit("/", 1)[-1]),
        title=about.title,
        source=url,
        format=about.format or _format_from(url),
        size_bytes=about.size,
        sha256=about.sha256.lower(),
        visibility=Visibility.PUBLIC if about.public else Visibility.PRIVATE,
    )


def name_from(file_name: str) -> str:
    """Make a name out of that of a file: lower-case letters, digits and hyphens."""
    stem = re.sub(r"\.(qcow2|img|raw|qcow)$", "", file_name.lower())
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:63].strip("-")
    if not name:
        raise Trouble(
            Exit.USAGE, f"No name can be made of {file_name!r}.", remedy="Give one with --name."
        )
    return name


def _format_from(url: str) -> ImageFormat:
    raw = re.search(r"\.(raw|img)(\?|$)", url.lower()) is not None
    return ImageFormat.RAW if raw else ImageFormat.QCOW2


def _upload(
    client: Client,
    path: Path,
    about: About,
    project: str,
    progress: Progress,
    deadline: float | None,
) -> Answer:
    """Register the image and send its bytes; take up an earlier attempt of the same file."""
    try:
        with path.open("rb") as file:
            format_ = about.format or _format_of(file, path)
            size, sha256 = _measure(file, path, progress)
            _compare(about, size, sha256, path)
            wish = ImageCreate(
                project=project,
                name=about.name or name_from(path.name),
                title=about.title,
                format=format_,
                size_bytes=size,
                sha256=sha256,
                visibility=Visibility.PUBLIC if about.public else Visibility.PRIVATE,
            )
            answer = _register(client, wish)
            view = decode(answer.body, ImageView)
            if view.phase in ("ready", "failed"):
                return answer
            _send(client, view, file, size, progress, deadline)
            return client.call("GET", f"/v1/images/{part(view.id)}")
    except OSError as error:
        raise Trouble(
            Exit.INVALID,
            f"{path} cannot be read: {error.strerror or error}.",
            remedy="Name an image file, or an address that begins with http:// or https://.",
        ) from error


def _format_of(file: BinaryIO, path: Path) -> ImageFormat:
    magic = file.read(8)
    file.seek(0)
    for begin, program in PACKED.items():
        if magic.startswith(begin):
            raise Trouble(
                Exit.INVALID,
                f"{path} is compressed; an image is kept unpacked.",
                remedy=f"{program} {path}  and import what comes out",
                code="image_broken",
            )
    return ImageFormat.QCOW2 if magic.startswith(QCOW2_MAGIC) else ImageFormat.RAW


def _measure(file: BinaryIO, path: Path, progress: Progress) -> tuple[int, str]:
    """Return size and SHA-256 of a file."""
    digest = hashlib.sha256()
    size = 0
    while data := file.read(READ_BYTES):
        digest.update(data)
        size += len(data)
        progress.show(f"hashing {path.name}: {size_text(size)}", key="hashing")
    if size == 0:
        raise Trouble(
            Exit.INVALID,
            f"{path} is empty.",
            remedy="Name a disk image.",
            code="image_broken",
        )
    return size, digest.hexdigest()


def _compare(about: About, size: int, sha256: str, path: Path) -> None:
    wanted = about.sha256.lower()
    if (wanted and wanted != sha256) or (about.size and about.size != size):
        raise Trouble(
            Exit.INVALID,
            f"{path} has {size} bytes and SHA-256 {sha256}, which is not what you expect.",
            remedy="Fetch the file again, or correct --sha256 and --size.",
            code="checksum_mismatch",
        )


def _register(client: Client, wish: ImageCreate) -> Answer:
    """Make the image known, or find the same one where an earlier attempt left it."""
    begun = uploads_read()
    try:
        answer = client.call("POST", "/v1/images", body=wish)
    except Trouble as trouble:
        if trouble.code != "name_taken":
            raise
        query = {"project": wish.project, "name": wish.name}
        for view in client.items("/v1/images", ImageView, query=query):
            same = wish.sha256 in (view.sha256, begun.get(view.id))
            if view.name == wish.name and same and view.phase not in ("deleting", "deleted"):
                note(f"{view.name} is known already ({view.id}, {view.phase}).")
                return client.call("GET", f"/v1/images/{part(view.id)}")
        raise
    uploads_write({**begun, decode(answer.body, ImageView).id: wish.sha256})
    return answer


def _uploads_path() -> Path:
    return settings_path(os.environ).parent / "uploads.json"


def uploads_read() -> dict[str, str]:
    """Return which uploads were begun from here: image id and SHA-256 of the file.

    The cloud tells the digest of an image once it has all of it; until then we must know ourselves
    that a repeated command means the same file.
    """
    try:
        return msgspec.json.decode(_uploads_path().read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def uploads_write(begun: dict[str, str]) -> None:
    """Remember the latest uploads; that this fails is no reason not to upload."""
    latest = dict(list(begun.items())[-UPLOADS_KEPT_MAX:])
    path = _uploads_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(latest))


def _send(
    client: Client,
    view: ImageView,
    file: BinaryIO,
    size: int,
    progress: Progress,
    deadline: float | None,
) -> None:
    """Send the bytes in pieces, each time from where the cloud says that it stands."""
    path = f"/v1/images/{part(view.id)}/content"
    offset = _offset(client, path)
    standstills = 0
    told = False  # the cloud knows that all of it is there
    while offset < size:
        progress.show(
            f"uploading {view.name}: {size_text(offset)} of {size_text(size)}", key="uploading"
        )
        if moment_over(deadline):
            raise Trouble(
                Exit.TIMEOUT,
                f"{size_text(offset)} of {size_text(size)} are uploaded.",
                remedy="Repeat the command; it goes on where it stopped.",
            )
        file.seek(offset)
        data = file.read(min(CHUNK_BYTES, size - offset))
        if not data:
            raise Trouble(
                Exit.INVALID,
                "The file became shorter while it was uploaded.",
                remedy="Leave the file alone and repeat the command.",
            )
        reached = _put(client, path, data, offset, size)
        told = reached is not None
        reached = _offset(client, path) if reached is None else reached
        standstills = 0 if reached > offset else standstills + 1
        if standstills > STANDSTILLS_MAX:
            raise Trouble(
                Exit.UNAVAILABLE,
                f"The upload of {view.name} does not get on ({size_text(offset)} of "
                f"{size_text(size)}).",
                remedy="Repeat the command later; it goes on where it stopped.",
            )
        offset = reached
    if not told:
        _put(client, path, b"", size, size)


def _put(client: Client, path: str, data: bytes, offset: int, size: int) -> int | None:
    """Send one piece; return how far the cloud has come, None where it stands elsewhere.

    No bytes at the end only say that all of them are there.
    """
    range_ = f"{offset}-{offset + len(data) - 1}" if data else "*"
    headers = {
        "Content-Type": "application/octet-stream",
        "Upload-Offset": str(offset),
        "Content-Range": f"bytes {range_}/{size}",
    }
    try:
        answer = client.call("PUT", path, body=data, headers=headers)
    except Trouble as trouble:
        if trouble.code != "conflict":
            raise
        return None
    said = answer.headers.get("upload-offset", "")
    return int(said) if said.isdigit() else offset + len(data)


def _offset(client: Client, path: str) -> int:
    said = client.call("HEAD", path).headers.get("upload-offset", "0")
    return int(said) if said.isdigit() else 0


def _ready_await(
    client: Client, answer: Answer, *, deadline: float | None, progress: Progress
) -> Answer:
    view = decode(answer.body, ImageView)
    while view.phase not in ("ready", "failed"):
        if view.phase in ("deleting", "deleted"):
            raise Trouble(
                Exit.CONFLICT,
                f"{view.name} was deleted before it was ready.",
                remedy="Import it again, if that was not meant.",
                code="conflict",
            )
        of = f" of {size_text(view.size_bytes)}" if view.size_bytes else ""
        said = f": {view.failure.detail}" if view.failure is not None else ""
        progress.show(
            f"{view.name}: {view.phase}, {size_text(view.fetched_bytes)}{of}{said}",
            key=f"{view.phase}{said}",
        )
        if moment_over(deadline):
            raise Trouble(
                Exit.TIMEOUT,
                f"{view.name} is not ready yet: {view.phase}{said}",
                remedy=f"It goes on; look later: stratus image show {view.name}",
            )
        pause(deadline)
        answer = client.call("GET", f"/v1/images/{part(view.id)}")
        view = decode(answer.body, ImageView)
    return answer


def _facts(view: ImageView) -> list[tuple[str, object]]:
    fetched = size_text(view.fetched_bytes) if view.phase == "fetching" else ""
    found: list[tuple[str, object]] = [
        ("id", view.id),
        ("name", view.name),
        ("title", view.title),
        ("phase", view.phase),
        ("fetched", fetched),
        ("project", view.project.name),
        ("visible to", "everybody" if view.visibility is Visibility.PUBLIC else "its project"),
        ("identifier", view.identifier),
        ("format", view.format),
        ("size", size_text(view.size_bytes) if view.size_bytes else ""),
        ("disk", size_text(view.virtual_bytes) if view.virtual_bytes else ""),
        ("sha256", view.sha256),
        ("sha1", view.sha1),
        ("source", view.source),
        ("created", view.created_at),
    ]
    if view.trust is not None:
        verdict = "yes" if view.trust.allowed else "no"
        found += [
            ("may start", f"{verdict}: {view.trust.reason}" if view.trust.reason else verdict),
            ("endorsed by", view.trust.endorsers),
        ]
    for label, problem in (("given up", view.parked), ("last failure", view.failure)):
        if problem is not None:
            found += [(label, problem.detail), ("try", problem.remedy)]
            break
    return found
