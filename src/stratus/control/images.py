"""What may users wish of images? Import, upload, change, endorse, delete.

The bytes are fetched, checked and published by the worker of the image's pool. An image that
is to be uploaded has no pool before its bytes are complete, so nobody looks for them.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note, version_check
from stratus.control.requests import field_refused, name_check
from stratus.control.trust import image_verdict as image_verdict  # also for who starts one
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, access_decide, unknown
from stratus.decide.trust import Verdict
from stratus.images.endorse import endorsement_verify
from stratus.images.refusal import invalid
from stratus.model.ids import ImageId, PoolId, ProjectId, id_is
from stratus.model.image import ImageFacts, ImageFormat, Visibility
from stratus.model.limits import ENDORSEMENT_BYTES_MAX, IMAGE_BYTES_MAX, TITLE_CHARS_MAX
from stratus.model.page import Page
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor
from stratus.model.trust import EndorsementFacts
from stratus.model.units import size_text
from stratus.model.volume import Presence
from stratus.store.endorsements import Endorsement, endorsement_ensure, endorsement_list
from stratus.store.images import (
    image_by_ref,
    image_count,
    image_create,
    image_list,
    image_lock,
    image_names_in,
    image_said,
    image_update,
    image_uses,
    images_by_ids,
)
from stratus.store.pools import pool_default, pool_wake
from stratus.store.projects import project_by_id, project_by_name, project_lock
from stratus.store.trust import trusted_pems

IMAGES_MAX: Final = 1000  # of one project
URL_CHARS_MAX: Final = 4096
UPLOAD: Final = "upload:"
SHA256_PATTERN: Final = re.compile(r"^[0-9a-f]{64}\Z")


class ImageWish(msgspec.Struct, frozen=True, kw_only=True):
    """An image to import. `source` is an http(s) URL, or "" for bytes that are uploaded then."""

    project: str  # id or name
    name: str
    title: str = ""
    source: str = ""
    format: ImageFormat = ImageFormat.QCOW2
    size_bytes: int = 0  # 0 = not said beforehand
    sha256: str = ""  # "" = not said beforehand
    visibility: Visibility = Visibility.PRIVATE


# -- reading --------------------------------------------------------------------------------


def image_page(
    world: World,
    actor: Actor,
    *,
    all_projects: bool = False,
    name: str | None = None,
    cursor: str | None = None,
    rows_max: int,
) -> Page[ImageFacts]:
    """Return a page of one's projects' images and the public ones, or of all; oldest first."""
    allow(actor, Verb.AUDIT_READ if all_projects else Verb.CATALOGUE_READ)
    project_ids = None if all_projects else sorted(actor.roles)
    return world.store.read(
        lambda connection: image_list(
            connection, project_ids=project_ids, rows_max=rows_max, cursor=cursor, name=name
        )
    )


def image_show(world: World, actor: Actor, ref: str) -> ImageFacts:
    """Return one image by id, StratusLab identifier or name."""
    return world.store.read(lambda connection: _image(connection, actor, ref, Verb.IMAGE_READ))


def image_judged(world: World, actor: Actor, ref: str) -> tuple[ImageFacts, Verdict]:
    """Return one image with what the site's policy says of it now."""

    def judged(connection: Connection) -> tuple[ImageFacts, Verdict]:
        image = _image(connection, actor, ref, Verb.IMAGE_READ)
        return image, image_verdict(connection, image, now_ms=world.now_ms())

    return world.store.read(judged)


def endorsements_show(world: World, actor: Actor, ref: str) -> Sequence[Endorsement]:
    """Return the documents about an image's bytes as they were received, the newest first."""

    def show(connection: Connection) -> Sequence[Endorsement]:
        image = _image(connection, actor, ref, Verb.IMAGE_READ)
        return endorsement_list(connection, image.sha256) if image.sha256 else ()

    return world.store.read(show)


# -- wishing --------------------------------------------------------------------------------


def image_import(world: World, actor: Actor, wish: ImageWish, *, origin: Origin) -> ImageFacts:
    """Wish for an image in the site's first pool; its bytes follow.

    With a `source` they are fetched from there; without one they are to be uploaded.
    """
    _wish_check(wish)
    image_id = ImageId(world.id_new("image"))

    def make(connection: Connection) -> ImageFacts:
        project_id = _project_for_images(connection, actor, wish.project)
        _visibility_check(actor, wish.visibility)
        if image_count(connection, project_id) >= IMAGES_MAX:
            raise refuse(
                "conflict",
                f"The project has {IMAGES_MAX} images already.",
                remedy="Delete images that are no longer used.",
            )
        _name_free_check(connection, project_id, wish.name)
        pool_id = _pool(connection)
        image = ImageFacts(
            id=image_id,
            project_id=project_id,
            user_id=actor.user_id,
            name=wish.name,
            title=wish.title,
            source=wish.source or f"{UPLOAD}{image_id}",
            format=wish.format,
            visibility=wish.visibility,
            wanted=True,
            created_ms=world.now_ms(),
            version=1,
            pool_id=pool_id if wish.source else None,
        )
        image_create(connection, image, said_bytes=wish.size_bytes, said_sha256=wish.sha256.lower())
        if wish.source:
            pool_wake(connection, pool_id, now_ms=world.now_ms())
        _note(connection, world, actor, origin, "image.created", image, source=image.source)
        return image

    return commit(world, make, "pools")


def image_upload_open(world: World, actor: Actor, ref: str) -> ImageFacts:
    """Return the image whose bytes may be uploaded now, or refuse."""

    def look(connection: Connection) -> ImageFacts:
        image = _image(connection, actor, ref, Verb.IMAGE_WRITE)
        _upload_check(image)
        return image

    return world.store.read(look)


def image_uploaded(
    world: World,
    actor: Actor,
    ref: str,
    *,
    size_bytes: int,
    sha256: str = "",
    origin: Origin,
) -> ImageFacts:
    """Say that all bytes are there: the pool's worker takes them up. Repeating changes nothing.

    Size and digest, where they are known, are checked once more when the image is published.
    """
    if not 0 < size_bytes <= IMAGE_BYTES_MAX:
        raise field_refused(
            "size_bytes",
            f"{size_bytes} is not between 1 and {size_text(IMAGE_BYTES_MAX)}.",
            "Upload the whole image first.",
        )
    if sha256:
        _sha256_check(sha256)

    def take(connection: Connection) -> ImageFacts:
        image = _image_held(connection, actor, ref, None)
        if image.pool_id is not None and image.source == f"{UPLOAD}{image.id}":
            return image
        _upload_check(image)
        said_bytes, said_sha256 = image_said(connection, image.id)
        _as_said_check("bytes", said_bytes, size_bytes)
        _as_said_check("SHA-256", said_sha256, sha256.lower())
        pool_id = _pool(connection)
        after = _changed(
            connection,
            image,
            pool_id=pool_id,
            said_bytes=size_bytes,
            said_sha256=said_sha256 or sha256.lower(),
        )
        pool_wake(connection, pool_id, now_ms=world.now_ms())
        _note(connection, world, actor, origin, "image.uploaded", image, size_bytes=size_bytes)
        return after

    return commit(world, take, "pools")


def uploads_unneeded(world: World, image_ids: Collection[ImageId]) -> list[ImageId]:
    """Return of which of these images the uploaded bytes may be thrown away.

    Those are published, or wished away. An image that the store does not know says nothing:
    the store may have been restored from before it was made.
    """
    found = world.store.read(lambda connection: images_by_ids(connection, image_ids))
    return sorted(
        image.id for image in found.values() if not image.wanted or image.presence is Presence.READY
    )


def image_change(
    world: World,
    actor: Actor,
    ref: str,
    *,
    name: str | None = None,
    title: str | None = None,
    visibility: Visibility | None = None,
    version: int | None = None,
    origin: Origin,
) -> ImageFacts:
    """Change what people call an image and who may see it."""
    if name is not None:
        name_check(name)
    if title is not None:
        _title_check(title)

    def change(connection: Connection) -> ImageFacts:
        image = _image_held(connection, actor, ref, version)
        _wanted_check(image)
        if visibility is not None and visibility is not image.visibility:
            _visibility_check(actor, visibility)
        if name is not None and name != image.name:
            _name_free_check(connection, image.project_id, name)
        asked = {"name": name, "title": title, "visibility": visibility}
        said = {what: value for what, value in asked.items() if value is not None}
        after = _changed(connection, image, **said)
        _note(connection, world, actor, origin, "image.changed", after)
        return after

    return commit(world, change)


def image_retry(
    world: World,
    actor: Actor,
    ref: str,
    *,
    version: int | None = None,
    origin: Origin,
) -> ImageFacts:
    """Try an import again that was given up; one that is not is left alone."""

    def retry(connection: Connection) -> ImageFacts:
        image = _image_held(connection, actor, ref, version)
        _wanted_check(image)
        if image.parked is None:
            return image
        after = _changed(connection, image, parked=None, failure=None, failures=0, retry_ms=0)
        if image.pool_id is not None:
            pool_wake(connection, image.pool_id, now_ms=world.now_ms())
        _note(connection, world, actor, origin, "image.retried", image)
        return after

    return commit(world, retry, "pools")


def image_delete(
    world: World,
    actor: Actor,
    ref: str,
    *,
    version: int | None = None,
    origin: Origin,
) -> ImageFacts:
    """Wish an image away; refused while instances or disks stand on it. Repeating is harmless."""

    def delete(connection: Connection) -> ImageFacts:
        image = _image_held(connection, actor, ref, version)
        if not image.wanted:
            return image
        uses = image_uses(connection, image.id)
        if uses.instances or uses.volumes:
            raise refuse(
                "in_use",
                f"Image {image.name} is used by {uses.instances} instances"
                f" and {uses.volumes} disks.",
                remedy="Delete them first, and wait until they are gone.",
                instances=uses.instances,
                volumes=uses.volumes,
            )
        now_ms = world.now_ms()
        if image.pool_id is None:  # no pool ever heard of it
            after = _changed(
                connection, image, wanted=False, gone_ms=now_ms, presence=Presence.ABSENT
            )
        else:
            after = _changed(connection, image, wanted=False, parked=None, failures=0, retry_ms=0)
            pool_wake(connection, image.pool_id, now_ms=now_ms)
        _note(connection, world, actor, origin, "image.deleted", image)
        return after

    return commit(world, delete, "pools")


# -- endorsing ------------------------------------------------------------------------------


def endorsement_add(
    world: World, actor: Actor, ref: str, document: bytes, *, origin: Origin
) -> tuple[Endorsement, EndorsementFacts]:
    """Keep a signed document about an image; refused unless a key known here signed it.

    The same document again changes nothing. Whether it lets the image start is for the
    policy to say, at every start.
    """
    if not 0 < len(document) <= ENDORSEMENT_BYTES_MAX:
        raise invalid(f"The document is not between 1 and {size_text(ENDORSEMENT_BYTES_MAX)} long.")

    def add(connection: Connection) -> tuple[Endorsement, EndorsementFacts]:
        image = _image(connection, actor, ref, Verb.IMAGE_WRITE)
        facts = endorsement_verify(document, trusted=trusted_pems(connection))
        if image.sha256 and facts.sha256 != image.sha256:
            raise invalid(
                "The document is about other bytes than this image's.",
                remedy="Endorse the image as it is here: its digests are in `stratus image show`.",
                image_sha256=image.sha256,
                document_sha256=facts.sha256,
            )
        endorsement = Endorsement(
            sha256=hashlib.sha256(document).hexdigest(),
            image_sha256=facts.sha256,
            document=document,
            received_ms=world.now_ms(),
        )
        if endorsement_ensure(connection, endorsement):
            _note(
                connection,
                world,
                actor,
                origin,
                "image.endorsed",
                image,
                endorsement=endorsement.sha256,
                key=facts.key,
                email=facts.email,
                withdrawn=bool(facts.deprecated),
            )
        return endorsement, facts

    return commit(world, add)


# -- checking -------------------------------------------------------------------------------


def _image(connection: Connection, actor: Actor, ref: str, verb: Verb) -> ImageFacts:
    """Return the image meant, if the actor may do this with it; a hidden one is unknown."""
    everything = actor.admin or actor.auditor
    # Names of one's own projects come first: nobody else can make them ambiguous.
    own = sorted(actor.roles)
    found = image_by_ref(connection, ref, project_ids=own) if own or not everything else None
    if found is None and everything:
        found = image_by_ref(connection, ref, project_ids=None)
    if found is None:
        raise Refused(unknown("image", ref))
    public = found.visibility is Visibility.PUBLIC
    if public and verb is Verb.IMAGE_READ:
        allow(actor, Verb.CATALOGUE_READ)
        return found
    problem = access_decide(actor, verb, project_id=found.project_id, ref=ref)
    if problem is not None and problem.code == "not_found" and public:
        raise refuse(
            "forbidden",
            "The image belongs to another project.",
            remedy="Ask a member of that project, or import the image into your own.",
        )
    if problem is not None:
        raise Refused(problem)
    return found


def _image_held(connection: Connection, actor: Actor, ref: str, version: int | None) -> ImageFacts:
    """Return the image, held until the transaction ends, if it is as the caller read it."""
    found = _image(connection, actor, ref, Verb.IMAGE_WRITE)
    held = image_lock(connection, found.id)
    if held is None or held.gone_ms:
        raise Refused(unknown("image", ref))
    version_check("image", ref, found=held.version, wanted=version)
    return held


def _changed(connection: Connection, image: ImageFacts, **changes: Any) -> ImageFacts:  # noqa: ANN401  # column values
    """Change an image that the caller holds, and return it as it is then."""
    image_update(connection, image.id, version=None, changes=changes)
    after = image_lock(connection, image.id)
    assert after is not None
    return after


def _note(
    connection: Connection,
    world: World,
    actor: Actor,
    origin: Origin,
    kind: str,
    image: ImageFacts,
    **data: Any,  # noqa: ANN401  # becomes JSON
) -> None:
    note(
        connection,
        world,
        actor,
        origin,
        kind,
        image.id,
        project_id=image.project_id,
        name=image.name,
        **data,
    )


def _project_for_images(connection: Connection, actor: Actor, ref: str) -> ProjectId:
    """Return the project meant, held until the transaction ends, if images may be put there."""
    found = project_by_id(connection, ProjectId(ref)) if id_is("project", ref) else None
    found = found or project_by_name(connection, ref)
    held = None if found is None else project_lock(connection, found.id)
    if held is None or held.gone_ms:
        raise Refused(unknown("project", ref))
    problem = access_decide(actor, Verb.IMAGE_WRITE, project_id=held.id)
    if problem is not None:
        raise Refused(unknown("project", ref) if problem.code == "not_found" else problem)
    return held.id


def _pool(connection: Connection) -> PoolId:
    pool = pool_default(connection)
    if pool is None:
        raise refuse(
            "conflict",
            "The site has no pool to keep images in.",
            remedy="Ask an administrator to add one: `stratus pool add`.",
        )
    return pool.id


def _name_free_check(connection: Connection, project_id: ProjectId, name: str) -> None:
    taken = image_names_in(connection, project_id, name)
    if taken:
        raise refuse(
            "name_taken",
            f"The project has an image {name} already: {taken[0]}.",
            remedy="Choose another name, or rename or delete that one.",
            name=name,
            image=taken[0],
        )


def _visibility_check(actor: Actor, visibility: Visibility) -> None:
    """Let administrators alone publish: a public name is everybody's."""
    if visibility is Visibility.PUBLIC:
        allow(actor, Verb.SITE_ADMIN)


def _wanted_check(image: ImageFacts) -> None:
    if not image.wanted:
        raise refuse(
            "conflict",
            f"Image {image.name} is being deleted.",
            remedy="Import it again under a new id.",
        )


def _upload_check(image: ImageFacts) -> None:
    _wanted_check(image)
    if image.source != f"{UPLOAD}{image.id}":
        raise refuse(
            "conflict",
            f"Image {image.name} is fetched from its source and takes no upload.",
            remedy="Make an image without a source, and upload to that.",
        )
    if image.pool_id is not None:
        raise refuse(
            "conflict",
            f"The bytes of image {image.name} are complete.",
            remedy="Make a new image for other bytes.",
        )


def _as_said_check(what: str, said: object, found: object) -> None:
    if said and found and said != found:
        raise refuse(
            "checksum_mismatch",
            f"The image was said to have {what} {said}, and has {found}.",
            remedy="Delete it and upload the right bytes to a new one.",
            said=said,
            found=found,
        )


def _wish_check(wish: ImageWish) -> None:
    name_check(wish.name)
    _title_check(wish.title)
    if wish.source:
        _source_check(wish.source)
    if not 0 <= wish.size_bytes <= IMAGE_BYTES_MAX:
        raise field_refused(
            "size_bytes",
            f"{wish.size_bytes} is not between 0 and {size_text(IMAGE_BYTES_MAX)}.",
            "Give the size of the file; 0 where you do not know it.",
        )
    if wish.sha256:
        _sha256_check(wish.sha256)


def _title_check(title: str) -> None:
    if len(title) > TITLE_CHARS_MAX or not title.isprintable():
        raise field_refused(
            "title",
            f"It is longer than {TITLE_CHARS_MAX} characters, or not printable.",
            "Put the rest into the image's documentation.",
        )


def _sha256_check(sha256: str) -> None:
    if not SHA256_PATTERN.match(sha256.lower()):
        raise field_refused(
            "sha256",
            f"{sha256[:80]!r} is no SHA-256.",
            "Write 64 hexadecimal digits, as sha256sum prints them.",
        )


def _source_check(source: str) -> None:
    whole = len(source) <= URL_CHARS_MAX and source.isascii() and source.isprintable()
    whole = whole and " " not in source
    try:
        parts = urlsplit(source)
        whole = whole and parts.scheme in ("http", "https") and bool(parts.hostname)
        whole = whole and parts.username is None and parts.password is None
        whole = whole and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        # What may be a password is not repeated.
        raise field_refused(
            "source",
            "It is not an http or https address without user and password.",
            "Write the address in full, or leave it out and upload the image.",
        )
