"""What instances start from, and why the site trusts it: images, endorsements, policy, keys."""

from typing import Any, Final, TypeVar

from msgspec import UNSET, UnsetType

from stratus.api.endpoint import Call, Endpoint, NoBody, NoQuery, Piece, RawBody, Reply, endpoint
from stratus.api.pools import Lane
from stratus.api.queries import ImageQuery, PageQuery
from stratus.api.refs import project_ref
from stratus.control.images import (
    ImageWish,
    endorsement_add,
    endorsements_show,
    image_delete,
    image_import,
    image_judged,
    image_page,
    image_retry,
    image_show,
    image_upload_open,
    image_uploaded,
)
from stratus.control.images import image_change as image_change_
from stratus.control.trust import key_add, key_page, key_remove, policy_put, policy_show
from stratus.decide.trust import Allowed, Verdict
from stratus.model.image import ImageFacts
from stratus.model.problem import refuse
from stratus.model.trust import Policy
from stratus.model.volume import Presence
from stratus.store.endorsements import Endorsement
from stratus.store.trust import TrustedKey
from stratus.wire.v1 import (
    EndorsementView,
    ImageChange,
    ImageCreate,
    ImageView,
    KeyAdd,
    KeyView,
    Page,
    VerdictView,
    endorsement_view,
    image_view,
    key_view,
    verdict_allowed,
    verdict_forbidden,
)

TAG: Final = "images"
V = TypeVar("V")


def _said(value: V | UnsetType) -> V | None:
    return None if value is UNSET else value


def _image(call: Call[Any, Any], facts: ImageFacts, verdict: Verdict | None = None) -> Reply:
    names = call.services.names.of_images((facts,))
    trust = None if verdict is None else _verdict(verdict)
    return Reply(value=image_view(facts, names, trust=trust), version=facts.version)


def _verdict(verdict: Verdict) -> VerdictView:
    if isinstance(verdict, Allowed):
        return verdict_allowed(verdict.endorsement, verdict.rule)
    return verdict_forbidden(verdict.problem)


@endpoint(
    "GET", "/v1/images", tag=TAG, title="List images", query=ImageQuery, answer=Page[ImageView]
)
def image_list(call: Call[NoBody, ImageQuery]) -> Reply:
    """The images of the caller's projects and the public ones, oldest first. With `project` a
    page may hold fewer images than asked for; `next` still says whether more follow."""
    query = call.query
    project_id = project_ref(call, query.project) if query.project else None
    page = image_page(
        call.world,
        call.actor,
        all_projects=query.all_projects,
        name=query.name,
        cursor=query.cursor,
        rows_max=query.limit,
    )
    found = [f for f in page.items if project_id is None or f.project_id == project_id]
    names = call.services.names.of_images(found)
    return Reply(value=Page(items=[image_view(facts, names) for facts in found], next=page.next))


@endpoint(
    "POST",
    "/v1/images",
    tag=TAG,
    title="Import an image",
    body=ImageCreate,
    answer=ImageView,
    status=201,
    codes=("name_taken", "no_space"),
)
def image_create(call: Call[ImageCreate, NoQuery]) -> Reply:
    """Makes an image known. With a `source` its bytes are fetched from there; without one they
    are to be uploaded. Size and digest, where they are said, must match."""
    body = call.body
    wish = ImageWish(
        project=body.project,
        name=body.name,
        title=body.title,
        source=body.source,
        format=body.format,
        size_bytes=body.size_bytes,
        sha256=body.sha256.lower(),
        visibility=body.visibility,
    )
    return _image(call, image_import(call.world, call.actor, wish, origin=call.origin))


@endpoint("GET", "/v1/images/{image}", tag=TAG, title="Show an image", answer=ImageView)
def image_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One image by id, StratusLab identifier or name, with what the site's policy says of it."""
    facts, verdict = image_judged(call.world, call.actor, call.params["image"])
    return _image(call, facts, verdict)


@endpoint(
    "PATCH",
    "/v1/images/{image}",
    tag=TAG,
    title="Change an image",
    body=ImageChange,
    answer=ImageView,
    matched=True,
    codes=("name_taken",),
)
def image_change(call: Call[ImageChange, NoQuery]) -> Reply:
    """Changes what people call it and who may see it."""
    body = call.body
    facts = image_change_(
        call.world,
        call.actor,
        call.params["image"],
        name=_said(body.name),
        title=_said(body.title),
        visibility=_said(body.visibility),
        version=call.version,
        origin=call.origin,
    )
    return _image(call, facts)


@endpoint(
    "DELETE",
    "/v1/images/{image}",
    tag=TAG,
    title="Delete an image",
    answer=ImageView,
    status=202,
    matched=True,
    codes=("in_use",),
)
def image_remove(call: Call[NoBody, NoQuery]) -> Reply:
    """Wishes it away; refused while instances or disks stand on it."""
    facts = image_delete(
        call.world, call.actor, call.params["image"], version=call.version, origin=call.origin
    )
    return _image(call, facts)


@endpoint(
    "POST",
    "/v1/images/{image}/retry",
    tag=TAG,
    title="Retry an import",
    answer=ImageView,
    status=202,
    matched=True,
)
def image_retry_(call: Call[NoBody, NoQuery]) -> Reply:
    """Tries an import again that was given up."""
    facts = image_retry(
        call.world, call.actor, call.params["image"], version=call.version, origin=call.origin
    )
    return _image(call, facts)


# --- uploads ---


@endpoint(
    "HEAD",
    "/v1/images/{image}/content",
    tag=TAG,
    title="How much is uploaded?",
    lane=Lane.SLOW,
)
def upload_show(call: Call[NoBody, NoQuery]) -> Reply:
    """The header `Upload-Offset` says how many bytes are there."""
    facts = image_show(call.world, call.actor, call.params["image"])
    ready = facts.presence is Presence.READY
    size = facts.size_bytes if ready else call.services.uploads.size(facts.id)
    return Reply(headers=(_offset(size),))


@endpoint(
    "PUT",
    "/v1/images/{image}/content",
    tag=TAG,
    title="Upload an image",
    status=204,
    uploads=True,
    lane=Lane.SLOW,
    codes=("conflict", "no_space", "image_broken", "checksum_mismatch"),
)
def upload_put(call: Call[Piece, NoQuery]) -> Reply:
    """Adds bytes at the end: `Upload-Offset` or `Content-Range` says where they begin, which
    must be where the image ends so far (409 where not; ask with HEAD). `Content-Range` also says
    how many bytes the whole image has: with the last of them the import goes on. What arrived
    before a connection broke is kept. `Content-Range: bytes */SIZE` with an empty body only
    says that all is there."""
    piece = call.body
    facts = image_upload_open(call.world, call.actor, call.params["image"])
    uploads = call.services.uploads
    size = uploads.size(facts.id)
    if piece.offset != size:
        raise refuse(
            "conflict",
            f"The upload stands at {size} bytes, not at {piece.offset}.",
            remedy=f"Go on from byte {size}; HEAD of the same address tells where it stands.",
            offset=size,
        )
    if piece.whole is not None and size + len(piece.data) > piece.whole:
        raise refuse(
            "invalid_field",
            f"There are more than the {piece.whole} bytes that the image is said to have.",
            remedy="Delete the image and upload it anew, saying its right size.",
            field="Content-Range",
        )
    if piece.data:
        size = uploads.append(facts.id, piece.offset, piece.data)
    if piece.last and size == piece.whole:
        image_uploaded(call.world, call.actor, facts.id, size_bytes=size, origin=call.origin)
    return Reply(headers=(_offset(size),))


def _offset(size: int) -> tuple[bytes, bytes]:
    return (b"upload-offset", str(size).encode())


# --- endorsements ---


def _endorsement(found: Endorsement) -> EndorsementView:
    return endorsement_view(
        sha256=found.sha256,
        image_sha256=found.image_sha256,
        received_ms=found.received_ms,
        document=found.document,
    )


@endpoint(
    "GET",
    "/v1/images/{image}/endorsements",
    tag=TAG,
    title="List endorsements",
    answer=Page[EndorsementView],
)
def endorsement_list(call: Call[NoBody, NoQuery]) -> Reply:
    """The signed documents about an image's bytes as they were received, the newest first."""
    found = endorsements_show(call.world, call.actor, call.params["image"])
    return Reply(value=Page(items=[_endorsement(each) for each in found]))


@endpoint(
    "POST",
    "/v1/images/{image}/endorsements",
    tag=TAG,
    title="Hand in an endorsement",
    body=RawBody,
    answer=EndorsementView,
    status=201,
    codes=("endorsement_invalid",),
)
def endorsement_create(call: Call[RawBody, NoQuery]) -> Reply:
    """Keeps a signed document (a DSSE envelope) about an image; refused unless a key that the
    site knows signed it. Whether it lets the image start is for the policy to say."""
    kept, _ = endorsement_add(
        call.world, call.actor, call.params["image"], call.body.data, origin=call.origin
    )
    return Reply(value=_endorsement(kept))


# --- the policy and the keys ---


@endpoint("GET", "/v1/policy", tag=TAG, title="Show the trust policy", answer=Policy)
def policy_get(call: Call[NoBody, NoQuery]) -> Reply:
    """The site's ordered rules: the first that matches an endorsement decides about it."""
    return Reply(value=policy_show(call.world, call.actor))


@endpoint(
    "PUT", "/v1/policy", tag=TAG, title="Replace the trust policy", body=Policy, answer=Policy
)
def policy_set(call: Call[Policy, NoQuery]) -> Reply:
    """Replaces it; the new one holds from the next start on."""
    return Reply(value=policy_put(call.world, call.actor, call.body, origin=call.origin))


def _key(found: TrustedKey) -> KeyView:
    return key_view(
        fingerprint=found.fingerprint, pem=found.pem, email=found.email, added_ms=found.added_ms
    )


@endpoint("GET", "/v1/keys", tag=TAG, title="List keys", query=PageQuery, answer=Page[KeyView])
def key_list(call: Call[NoBody, PageQuery]) -> Reply:
    """The endorsers' public keys that this site knows."""
    page = key_page(call.world, call.actor, cursor=call.query.cursor, rows_max=call.query.limit)
    return Reply(value=Page(items=[_key(found) for found in page.items], next=page.next))


@endpoint("POST", "/v1/keys", tag=TAG, title="Add a key", body=KeyAdd, answer=KeyView, status=201)
def key_create(call: Call[KeyAdd, NoQuery]) -> Reply:
    """Makes an endorser's public key known; what they endorse is for the policy to judge."""
    found = key_add(
        call.world, call.actor, pem=call.body.pem, email=call.body.email, origin=call.origin
    )
    return Reply(value=_key(found))


@endpoint("DELETE", "/v1/keys/{key}", tag=TAG, title="Forget a key", status=204)
def key_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Knows it no longer: what only it endorsed starts no more."""
    key_remove(call.world, call.actor, call.params["key"], origin=call.origin)
    return Reply()


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    image_list,
    image_create,
    image_get,
    image_change,
    image_remove,
    image_retry_,
    upload_show,
    upload_put,
    endorsement_list,
    endorsement_create,
    policy_get,
    policy_set,
    key_list,
    key_create,
    key_delete,
)
