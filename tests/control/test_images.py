"""Do images get in, get trusted and get out only as they should?"""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from stratus.control.images import (
    ImageWish,
    endorsement_add,
    endorsements_show,
    image_change,
    image_delete,
    image_import,
    image_judged,
    image_page,
    image_retry,
    image_show,
    image_upload_open,
    image_uploaded,
    uploads_unneeded,
)
from stratus.control.pools import pool_add
from stratus.control.tenancy import projects_delete
from stratus.control.trust import (
    image_verdict,
    key_add,
    key_page,
    key_remove,
    policy_put,
    policy_show,
)
from stratus.decide.trust import Allowed, Forbidden, Verdict
from stratus.images.endorse import endorsement_make
from stratus.images.identifier import identifier_of
from stratus.images.keys import PrivateKey, fingerprint_of, public_key_pem
from stratus.model.ids import ImageId
from stratus.model.image import Digests, ImageFacts, ImageFormat, Visibility
from stratus.model.limits import ENDORSEMENT_BYTES_MAX, IMAGE_BYTES_MAX
from stratus.model.problem import Problem
from stratus.model.tenancy import Actor, Role, Scope
from stratus.model.trust import Policy, Rule, RuleAction
from stratus.model.units import DAY_MS
from stratus.model.volume import Presence
from stratus.store.images import image_update
from stratus.store.schema import endorsements, images, pools
from stratus.store.site import policy_set
from tests.control.sites import ORIGIN, Site, in_memory, refused
from tests.store.worlds import instance_new, volume_new

URL = "https://images.example.org/tiny.qcow2"
BYTES = b"the bytes of an image"
DIGESTS = Digests(
    size_bytes=len(BYTES),
    sha256=hashlib.sha256(BYTES).hexdigest(),
    sha1=hashlib.sha1(BYTES, usedforsecurity=False).hexdigest(),
)


@pytest.fixture
def pooled(site: Site) -> Site:
    """A site with a pool."""
    pool_add(site.world, site.admin, name="files", location="/srv/pool", origin=ORIGIN)
    return site


def wish(name: str, **given: Any) -> ImageWish:  # noqa: ANN401  # fields of the wish
    return ImageWish(**{"project": "default", "name": name, "source": URL, **given})


def made(
    site: Site, name: str = "tiny", *, actor: Actor | None = None, **given: object
) -> ImageFacts:
    site.clock.ms += 1  # ids of one millisecond have no order
    return image_import(site.world, actor or site.admin, wish(name, **given), origin=ORIGIN)


def written(site: Site, image: ImageFacts, **changes: object) -> None:
    """Write what a pool worker would."""
    site.world.store.write(lambda c: image_update(c, image.id, version=None, changes=changes))


def ready(site: Site, name: str = "tiny") -> ImageFacts:
    """An image whose bytes were published."""
    image = made(site, name)
    written(
        site,
        image,
        presence=Presence.READY,
        size_bytes=DIGESTS.size_bytes,
        sha256=DIGESTS.sha256,
        sha1=DIGESTS.sha1,
        identifier=identifier_of(DIGESTS.sha1),
    )
    return image_show(site.world, site.admin, image.id)


def row_of(site: Site, image: ImageFacts) -> Any:  # noqa: ANN401  # a row
    return next(row for row in site.rows(images) if row.id == image.id)


def pokes(site: Site) -> int:
    return int(site.rows(pools)[0].poked)


# -- importing ------------------------------------------------------------------------------


def test_an_import_is_a_wish_that_wakes_the_pool(pooled: Site) -> None:
    before = pokes(pooled)
    image = made(pooled, title="A tiny one", size_bytes=14, sha256=DIGESTS.sha256.upper())
    assert pokes(pooled) == before + 1
    assert image_show(pooled.world, pooled.admin, image.id) == image
    assert (image.presence, image.wanted, image.source) == (Presence.UNKNOWN, True, URL)
    row = row_of(pooled, image)
    assert (row.said_bytes, row.said_sha256) == (14, DIGESTS.sha256)
    assert row.pool_id == pooled.rows(pools)[0].id
    event = pooled.events("image.created")[-1]
    assert (event.subject, event.project_id) == (image.id, pooled.project_id)
    assert event.data == {"name": "tiny", "source": URL}


def test_without_a_pool_nothing_is_imported(site: Site) -> None:
    with refused("conflict", "no pool"):
        made(site)


@in_memory
@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": "Tiny"}),
        ("name", {"name": "tiny\n"}),
        ("title", {"title": "x" * 201}),
        ("title", {"title": "a\nb"}),
        ("size_bytes", {"size_bytes": -1}),
        ("size_bytes", {"size_bytes": IMAGE_BYTES_MAX + 1}),
        ("sha256", {"sha256": "abc"}),
        ("sha256", {"sha256": DIGESTS.sha256 + "\n"}),
        ("source", {"source": "file:///etc/shadow"}),
        ("source", {"source": "ftp://example.org/x"}),
        ("source", {"source": "https://user:secret@example.org/x"}),
        ("source", {"source": "https:///x"}),
        ("source", {"source": "https://example.org/a b"}),
        ("source", {"source": "https://example.org:99999/"}),
        ("source", {"source": "https://exämple.org/"}),
        ("source", {"source": "https://example.org/" + "x" * 4096}),
        ("source", {"source": "upload:img-0000000000000000"}),
    ],
)
def test_an_impossible_image_is_refused_by_field(
    pooled: Site, field: str, given: dict[str, Any]
) -> None:
    with refused("invalid_field", field=field) as refusal:
        made(pooled, **given)
    assert "secret" not in refusal.problem.detail
    assert pooled.rows(images) == []


def test_a_project_has_one_image_of_a_name(pooled: Site) -> None:
    first = made(pooled)
    with refused("name_taken", first.id):
        made(pooled)
    second = made(pooled, "other")
    with refused("name_taken"):
        image_change(pooled.world, pooled.admin, second.id, name="tiny", origin=ORIGIN)
    image_delete(pooled.world, pooled.admin, first.id, origin=ORIGIN)
    made(pooled)  # the other one is on its way out


def test_members_import_and_readers_do_not(pooled: Site) -> None:
    mem, rea = pooled.user("mem", Role.MEMBER), pooled.user("rea", Role.READER)
    assert made(pooled, actor=mem).user_id == mem.user_id
    aud = pooled.user("aud", auditor=True)
    for actor in (rea, aud, msgspec.structs.replace(mem, scopes=frozenset((Scope.READ,)))):
        with refused("forbidden"):
            made(pooled, "other", actor=actor)


def test_a_project_that_is_hidden_or_gone_takes_no_image(pooled: Site) -> None:
    eve = pooled.user("eve")
    pooled.project("gone")
    projects_delete(pooled.world, pooled.admin, "gone", origin=ORIGIN)
    problems = []
    for actor, project in ((eve, "default"), (eve, "lab-9"), (pooled.admin, "gone")):
        with refused("not_found", project) as refusal:
            made(pooled, actor=actor, project=project)
        problems.append(refusal.problem.detail.replace(project, "?"))
    assert len(set(problems)) == 1


def test_only_administrators_publish(pooled: Site) -> None:
    own = pooled.user("own", Role.OWNER)
    with refused("forbidden"):
        made(pooled, actor=own, visibility=Visibility.PUBLIC)
    image = made(pooled, actor=own)
    with refused("forbidden"):
        image_change(pooled.world, own, image.id, visibility=Visibility.PUBLIC, origin=ORIGIN)
    after = image_change(
        pooled.world, pooled.admin, image.id, visibility=Visibility.PUBLIC, origin=ORIGIN
    )
    assert after.visibility is Visibility.PUBLIC
    image_change(pooled.world, own, image.id, visibility=Visibility.PRIVATE, origin=ORIGIN)


# -- uploading ------------------------------------------------------------------------------


def test_an_upload_is_taken_up_when_it_is_complete(pooled: Site) -> None:
    before = pokes(pooled)
    image = made(pooled, source="")
    assert image.source == f"upload:{image.id}"
    assert image.pool_id is None  # nobody looks for bytes that are not there
    assert pokes(pooled) == before
    assert image_upload_open(pooled.world, pooled.admin, image.id) == image
    after = image_uploaded(
        pooled.world,
        pooled.admin,
        image.id,
        size_bytes=21,
        sha256=DIGESTS.sha256,
        origin=ORIGIN,
    )
    assert after.pool_id == pooled.rows(pools)[0].id
    row = row_of(pooled, image)
    assert (row.said_bytes, row.said_sha256) == (21, DIGESTS.sha256)
    assert pokes(pooled) == before + 1
    again = image_uploaded(pooled.world, pooled.admin, image.id, size_bytes=21, origin=ORIGIN)
    assert again == after
    assert len(pooled.events("image.uploaded")) == 1
    with refused("conflict", "complete"):
        image_upload_open(pooled.world, pooled.admin, image.id)


def test_the_digest_that_was_said_at_first_is_kept(pooled: Site) -> None:
    image = made(pooled, source="", sha256=DIGESTS.sha256)
    image_uploaded(pooled.world, pooled.admin, image.id, size_bytes=21, origin=ORIGIN)
    assert row_of(pooled, image).said_sha256 == DIGESTS.sha256


def test_an_upload_that_is_not_as_it_was_said_is_refused(pooled: Site) -> None:
    image = made(pooled, source="", size_bytes=21, sha256=DIGESTS.sha256)
    for size_bytes, sha256 in ((20, ""), (21, "0" * 64)):
        with refused("checksum_mismatch"):
            image_uploaded(
                pooled.world,
                pooled.admin,
                image.id,
                size_bytes=size_bytes,
                sha256=sha256,
                origin=ORIGIN,
            )
    assert image_show(pooled.world, pooled.admin, image.id) == image
    image_uploaded(pooled.world, pooled.admin, image.id, size_bytes=21, origin=ORIGIN)


def test_uploaded_bytes_may_go_when_they_are_published_or_the_image_is_deleted(
    pooled: Site,
) -> None:
    published = ready(pooled)
    coming, deleted = (made(pooled, name, source="") for name in ("coming", "deleted"))
    image_delete(pooled.world, pooled.admin, deleted.id, origin=ORIGIN)
    unknown = ImageId("img-0000000000000000")
    ids = [published.id, coming.id, deleted.id, unknown]
    assert uploads_unneeded(pooled.world, ids) == [published.id, deleted.id]


def test_an_image_with_a_source_takes_no_upload(pooled: Site) -> None:
    image = made(pooled)
    with refused("conflict", "source"):
        image_upload_open(pooled.world, pooled.admin, image.id)
    with refused("conflict", "source"):
        image_uploaded(pooled.world, pooled.admin, image.id, size_bytes=1, origin=ORIGIN)
    upload = made(pooled, "other", source="")
    for size in (0, IMAGE_BYTES_MAX + 1):
        with refused("invalid_field", field="size_bytes"):
            image_uploaded(pooled.world, pooled.admin, upload.id, size_bytes=size, origin=ORIGIN)
    with refused("forbidden"):
        image_upload_open(pooled.world, pooled.user("rea", Role.READER), upload.id)


def test_an_upload_that_never_came_is_gone_at_once(pooled: Site) -> None:
    image = made(pooled, source="")
    gone = image_delete(pooled.world, pooled.admin, image.id, origin=ORIGIN)
    assert gone.gone_ms == pooled.clock.ms
    with refused("not_found"):
        image_show(pooled.world, pooled.admin, image.id)


# -- seeing ---------------------------------------------------------------------------------


def test_an_image_is_found_by_id_name_and_identifier(pooled: Site) -> None:
    image = ready(pooled)
    for ref in (image.id, "tiny", image.identifier):
        assert image_show(pooled.world, pooled.admin, ref) == image


def test_public_images_are_everybodys_to_see_and_nobody_elses_to_change(pooled: Site) -> None:
    image = made(pooled, visibility=Visibility.PUBLIC)
    eve = pooled.user("eve")
    assert image_show(pooled.world, eve, "tiny") == image
    assert image_page(pooled.world, eve, rows_max=10).items == (image,)
    with refused("forbidden", "another project"):
        image_delete(pooled.world, eve, "tiny", origin=ORIGIN)


Ask = Callable[[Site, Actor, str], object]
ASKS: dict[str, Ask] = {
    "show": lambda s, a, ref: image_show(s.world, a, ref),
    "judged": lambda s, a, ref: image_judged(s.world, a, ref),
    "endorsements": lambda s, a, ref: endorsements_show(s.world, a, ref),
    "change": lambda s, a, ref: image_change(s.world, a, ref, title="x", origin=ORIGIN),
    "delete": lambda s, a, ref: image_delete(s.world, a, ref, origin=ORIGIN),
    "retry": lambda s, a, ref: image_retry(s.world, a, ref, origin=ORIGIN),
    "open": lambda s, a, ref: image_upload_open(s.world, a, ref),
    "uploaded": lambda s, a, ref: image_uploaded(s.world, a, ref, size_bytes=1, origin=ORIGIN),
    "endorse": lambda s, a, ref: endorsement_add(s.world, a, ref, b"x", origin=ORIGIN),
}


@in_memory
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_another_projects_image_is_answered_as_one_that_does_not_exist(
    pooled: Site, ask: Ask
) -> None:
    image = ready(pooled)
    pooled.project("lab-7")
    eve = pooled.user("eve", Role.OWNER, on="lab-7")
    pairs = (
        (image.id, "img-0000000000000000"),
        ("tiny", "huge"),
        (image.identifier, "B" + image.identifier[1:]),
    )
    for hidden, missing in pairs:
        with refused("not_found") as one:
            ask(pooled, eve, hidden)
        with refused("not_found") as other:
            ask(pooled, eve, missing)
        assert one.problem.detail.replace(hidden, "?") == other.problem.detail.replace(missing, "?")
        assert one.problem.remedy == other.problem.remedy
        assert one.problem.context == other.problem.context


def test_a_name_of_ones_own_projects_comes_before_other_peoples(pooled: Site) -> None:
    mine = made(pooled)
    pooled.project("lab-7")
    other = made(pooled, project="lab-7")
    assert image_show(pooled.world, pooled.admin, "tiny") == mine
    aud = pooled.user("aud", auditor=True)
    with refused("name_ambiguous"):
        image_show(pooled.world, aud, "tiny")
    assert image_show(pooled.world, aud, other.id) == other


def test_images_come_in_pages_of_ones_own_or_of_all(pooled: Site) -> None:
    mine = [made(pooled, name) for name in ("a", "b", "c")]
    pooled.project("lab-7")
    other = made(pooled, "a", project="lab-7")
    page = image_page(pooled.world, pooled.admin, rows_max=2)
    rest = image_page(pooled.world, pooled.admin, rows_max=2, cursor=page.next)
    assert list(page.items + rest.items) == mine
    aud = pooled.user("aud", auditor=True)
    found = image_page(pooled.world, aud, all_projects=True, name="a", rows_max=10)
    assert found.items == (mine[0], other)
    with refused("forbidden"):
        image_page(pooled.world, pooled.user("ana"), all_projects=True, rows_max=10)


# -- changing -------------------------------------------------------------------------------


def test_a_change_of_what_was_changed_meanwhile_is_refused(pooled: Site) -> None:
    image = made(pooled)
    after = image_change(
        pooled.world, pooled.admin, "tiny", name="small", title="S", version=1, origin=ORIGIN
    )
    assert (after.name, after.title, after.version) == ("small", "S", 2)
    with refused("stale"):
        image_change(pooled.world, pooled.admin, image.id, title="T", version=1, origin=ORIGIN)
    with refused("stale"):
        image_delete(pooled.world, pooled.admin, image.id, version=1, origin=ORIGIN)
    with refused("stale"):
        image_retry(pooled.world, pooled.admin, image.id, version=1, origin=ORIGIN)


def test_an_image_in_use_is_not_deleted(pooled: Site) -> None:
    image, user_id = ready(pooled), pooled.admin.user_id
    pooled.world.store.write(
        lambda c: instance_new(c, pooled.project_id, user_id, image_id=image.id)
    )
    with refused("in_use", "1 instances") as refusal:
        image_delete(pooled.world, pooled.admin, "tiny", origin=ORIGIN)
    assert refusal.problem.context == {"instances": 1, "volumes": 0}
    other = ready(pooled, "other")
    pooled.world.store.write(
        lambda c: volume_new(c, pooled.project_id, image_id=other.id, wanted=False)
    )
    with refused("in_use", "1 disks"):
        image_delete(pooled.world, pooled.admin, "other", origin=ORIGIN)


def test_a_deleted_image_is_left_to_the_pool(pooled: Site) -> None:
    image = ready(pooled)
    before = pokes(pooled)
    after = image_delete(pooled.world, pooled.admin, "tiny", origin=ORIGIN)
    assert (after.wanted, after.gone_ms) == (False, 0)
    assert pokes(pooled) == before + 1
    assert image_delete(pooled.world, pooled.admin, image.id, origin=ORIGIN) == after
    assert len(pooled.events("image.deleted")) == 1
    with refused("conflict", "being deleted"):
        image_change(pooled.world, pooled.admin, image.id, title="x", origin=ORIGIN)
    with refused("conflict", "being deleted"):
        image_retry(pooled.world, pooled.admin, image.id, origin=ORIGIN)


def test_an_import_that_was_given_up_is_tried_again(pooled: Site) -> None:
    image = made(pooled)
    problem = Problem(code="download_failed", detail="No answer.", remedy="Try again.")
    written(pooled, image, parked=problem, failure=problem, failures=8, retry_ms=9)
    before = pokes(pooled)
    after = image_retry(pooled.world, pooled.admin, "tiny", origin=ORIGIN)
    assert (after.parked, after.failure, after.failures) == (None, None, 0)
    assert row_of(pooled, image).retry_ms == 0
    assert pokes(pooled) == before + 1
    assert image_retry(pooled.world, pooled.admin, "tiny", origin=ORIGIN) == after


# -- trust ----------------------------------------------------------------------------------


def key_new(site: Site) -> PrivateKey:
    """A key that the site knows."""
    key = ed25519.Ed25519PrivateKey.generate()
    key_add(
        site.world,
        site.admin,
        pem=public_key_pem(key.public_key()),
        email="ana@example.org",
        origin=ORIGIN,
    )
    return key


def document(site: Site, key: PrivateKey, *, days: int = 30, deprecated: str = "") -> bytes:
    return endorsement_make(
        DIGESTS,
        format=ImageFormat.QCOW2,
        email="ana@example.org",
        key=key,
        created_ms=site.clock.ms,
        valid_ms=site.clock.ms + days * DAY_MS,
        deprecated=deprecated,
    )


def endorse(site: Site, made_document: bytes, ref: str = "tiny") -> None:
    endorsement_add(site.world, site.admin, ref, made_document, origin=ORIGIN)


def verdict(site: Site, ref: str = "tiny") -> Verdict:
    return image_judged(site.world, site.admin, ref)[1]


def test_at_first_nothing_starts(pooled: Site) -> None:
    ready(pooled)
    judged = verdict(pooled)
    assert isinstance(judged, Forbidden)
    assert judged.problem.code == "policy_forbids"


def test_what_a_trusted_key_endorsed_starts_until_the_endorsement_expires(pooled: Site) -> None:
    image = ready(pooled)
    key = key_new(pooled)
    signed = document(pooled, key)
    endorse(pooled, signed)
    judged = verdict(pooled)
    assert isinstance(judged, Allowed)
    assert judged.endorsement.key == fingerprint_of(key.public_key())
    (kept,) = endorsements_show(pooled.world, pooled.admin, image.id)
    assert (kept.document, kept.image_sha256) == (signed, DIGESTS.sha256)
    event = pooled.events("image.endorsed")[-1]
    assert event.data["key"] == fingerprint_of(key.public_key())
    pooled.clock.ms += 30 * DAY_MS
    assert isinstance(verdict(pooled), Forbidden)


def test_the_same_document_again_is_no_news(pooled: Site) -> None:
    ready(pooled)
    signed = document(pooled, key_new(pooled))
    for _ in range(2):
        endorse(pooled, signed)
    assert len(endorsements_show(pooled.world, pooled.admin, "tiny")) == 1
    assert len(pooled.events("image.endorsed")) == 1


def test_a_withdrawal_stops_the_next_start(pooled: Site) -> None:
    ready(pooled)
    key = key_new(pooled)
    endorse(pooled, document(pooled, key))
    assert isinstance(verdict(pooled), Allowed)
    pooled.clock.ms += 1
    endorse(pooled, document(pooled, key, deprecated="has a hole"))
    assert isinstance(verdict(pooled), Forbidden)


def test_a_key_that_is_known_no_longer_vouches_for_nothing(pooled: Site) -> None:
    ready(pooled)
    key = key_new(pooled)
    fingerprint = fingerprint_of(key.public_key())
    endorse(pooled, document(pooled, key))
    assert isinstance(verdict(pooled), Allowed)
    key_remove(pooled.world, pooled.admin, fingerprint, origin=ORIGIN)
    assert isinstance(verdict(pooled), Forbidden)
    with refused("not_found", fingerprint):
        key_remove(pooled.world, pooled.admin, fingerprint, origin=ORIGIN)
    key_add(pooled.world, pooled.admin, pem=public_key_pem(key.public_key()), origin=ORIGIN)
    assert isinstance(verdict(pooled), Allowed)


def test_an_endorsement_is_refused_unless_a_known_key_signed_it(pooled: Site) -> None:
    ready(pooled)
    stranger = ed25519.Ed25519PrivateKey.generate()
    good = document(pooled, key_new(pooled))
    flipped = good[:-10] + bytes([good[-10] ^ 1]) + good[-9:]
    for bad in (
        document(pooled, stranger),
        flipped,
        b"",
        b"{}",
        b"x" * (ENDORSEMENT_BYTES_MAX + 1),
    ):
        with refused("endorsement_invalid"):
            endorse(pooled, bad)
    assert endorsements_show(pooled.world, pooled.admin, "tiny") == ()


def test_an_endorsement_of_other_bytes_is_refused(pooled: Site) -> None:
    image = ready(pooled)
    written(pooled, image, sha256="0" * 64)
    with refused("endorsement_invalid", "other bytes"):
        endorse(pooled, document(pooled, key_new(pooled)))


def test_an_endorsement_may_come_before_the_bytes_and_counts_only_for_them(pooled: Site) -> None:
    made(pooled)
    endorse(pooled, document(pooled, key_new(pooled)))
    assert isinstance(verdict(pooled), Forbidden)
    ready(pooled, "other")
    assert isinstance(verdict(pooled, "other"), Allowed)


def test_a_document_that_was_changed_in_the_store_proves_nothing(pooled: Site) -> None:
    ready(pooled)
    signed = document(pooled, key_new(pooled))
    endorse(pooled, signed)
    assert isinstance(verdict(pooled), Allowed)
    broken = signed.replace(b'"', b'" ', 1)
    pooled.world.store.write(
        lambda c: c.execute(endorsements.update().values(document=broken[:-1] + b" "))
    )
    assert isinstance(verdict(pooled), Forbidden)


def test_readers_do_not_endorse(pooled: Site) -> None:
    ready(pooled)
    signed = document(pooled, key_new(pooled))
    for actor in (pooled.user("rea", Role.READER), pooled.user("aud", auditor=True)):
        with refused("forbidden"):
            endorsement_add(pooled.world, actor, "tiny", signed, origin=ORIGIN)
    mem = pooled.user("mem", Role.MEMBER)
    endorsement_add(pooled.world, mem, "tiny", signed, origin=ORIGIN)


def test_the_policy_holds_from_the_next_start_on(pooled: Site) -> None:
    ready(pooled)
    endorse(pooled, document(pooled, key_new(pooled)))
    policy = Policy(rules=(Rule(action=RuleAction.ALLOW, keys=("sha256:" + "0" * 64,)),))
    assert policy_put(pooled.world, pooled.admin, policy, origin=ORIGIN) == policy
    assert policy_show(pooled.world, pooled.user("ana")) == policy
    assert isinstance(verdict(pooled), Forbidden)
    assert pooled.events("policy.changed")[-1].data["rules"] == 1


@in_memory
@pytest.mark.parametrize(
    "text", ["", "{}", '{"default":"maybe"}', '{"rules":[{"action":"allow","x":1}]}']
)
def test_a_policy_that_cannot_be_read_denies_everything(pooled: Site, text: str) -> None:
    image = ready(pooled)
    endorse(pooled, document(pooled, key_new(pooled)))
    pooled.world.store.write(lambda connection: policy_set(connection, text))
    judged = pooled.world.store.read(
        lambda connection: image_verdict(connection, image, now_ms=pooled.clock.ms)
    )
    assert isinstance(judged, Forbidden)


@in_memory
@pytest.mark.parametrize(
    ("field", "policy"),
    [
        ("rules", Policy(rules=(Rule(action=RuleAction.DENY),) * 1001)),
        ("rules[0]", Policy(rules=(Rule(action=RuleAction.DENY, keys=("k",) * 1001),))),
        ("rules[0]", Policy(rules=(Rule(action=RuleAction.DENY, emails=("x" * 201,)),))),
        ("rules[0]", Policy(rules=(Rule(action=RuleAction.DENY, emails=("",)),))),
        ("rules[0]", Policy(rules=(Rule(action=RuleAction.DENY, name="a\nb"),))),
        ("rules[0]", Policy(rules=(Rule(action=RuleAction.DENY, younger_than_days=-1),))),
        ("rules[0]", Policy(rules=(Rule(action=RuleAction.DENY, older_than_days=10**6),))),
    ],
)
def test_an_impossible_policy_is_refused_by_field(site: Site, field: str, policy: Policy) -> None:
    with refused("invalid_field", field=field):
        policy_put(site.world, site.admin, policy, origin=ORIGIN)


def test_a_key_is_known_by_its_fingerprint_and_only_once(site: Site) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = public_key_pem(key.public_key())
    first = key_add(site.world, site.admin, pem=pem, email="ana@example.org", origin=ORIGIN)
    again = key_add(site.world, site.admin, pem=pem, email="eve@example.org", origin=ORIGIN)
    assert again == first
    assert first.fingerprint == fingerprint_of(key.public_key())
    assert key_page(site.world, site.user("ana"), rows_max=10).items == (first,)
    (event,) = site.events("key.added")
    assert event.data == {"fingerprint": first.fingerprint, "email": "ana@example.org"}


@in_memory
def test_what_is_no_good_key_is_refused(site: Site) -> None:
    weak = public_key_pem(ec.generate_private_key(ec.SECP256R1()).public_key()).replace("M", "N", 1)
    curve = ec.generate_private_key(ec.SECP384R1()).public_key()
    for pem in ("", "key", weak, public_key_pem(curve), "x" * 20_000):
        with refused("invalid_field", field="pem"):
            key_add(site.world, site.admin, pem=pem, origin=ORIGIN)
    good = public_key_pem(ed25519.Ed25519PrivateKey.generate().public_key())
    for email in ("x" * 201, "a\nb"):
        with refused("invalid_field", field="email"):
            key_add(site.world, site.admin, pem=good, email=email, origin=ORIGIN)


def test_only_administrators_say_whom_the_site_trusts(site: Site) -> None:
    key = key_new(site)
    pem = public_key_pem(key.public_key())
    for actor in (site.user("ana", Role.OWNER), site.user("aud", auditor=True)):
        with refused("forbidden"):
            policy_put(site.world, actor, Policy(), origin=ORIGIN)
        with refused("forbidden"):
            key_add(site.world, actor, pem=pem, origin=ORIGIN)
        with refused("forbidden"):
            key_remove(site.world, actor, "sha256:x", origin=ORIGIN)
