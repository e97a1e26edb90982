"""Images and what vouches for them: does a user's word mean exactly one thing?"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stratus.model.ids import ImageId, PoolId, ProjectId, UserId
from stratus.model.image import ImageFacts, ImageFormat, Visibility
from stratus.model.problem import Problem, Refused
from stratus.model.volume import Presence
from stratus.store.endorsements import Endorsement, endorsement_ensure, endorsement_list
from stratus.store.engine import Store
from stratus.store.images import (
    image_by_id,
    image_by_ref,
    image_create,
    image_list,
    image_lock,
    image_update,
    images_by_ids,
)
from stratus.store.trust import (
    trusted_key_ensure,
    trusted_key_find,
    trusted_key_list,
    trusted_key_remove,
)
from tests.store.worlds import NOW_MS, id_new, image_new, project_new, user_new

IDENTIFIER = "MMZu9WvwKIro-rtBQfDk4PsKO7_"
TROUBLE = Problem(code="download_failed", detail="It broke.", remedy="Try again.")


@pytest.fixture
def owners(store: Store) -> tuple[UserId, ProjectId, ProjectId]:
    """A user and two projects."""
    return store.write(lambda c: (user_new(c), project_new(c), project_new(c, "other")))


Owners = tuple[UserId, ProjectId, ProjectId]


def test_an_image_comes_back_as_it_was_made(store: Store, owners: Owners) -> None:
    user, lab, _ = owners
    image = ImageFacts(
        id=ImageId(id_new("image")),
        project_id=lab,
        user_id=user,
        name="tiny",
        title="A tiny one",
        source="https://example.org/tiny",
        format=ImageFormat.QCOW2,
        visibility=Visibility.PUBLIC,
        wanted=True,
        created_ms=NOW_MS,
        version=1,
        pool_id=PoolId("pol-1"),
        presence=Presence.UNKNOWN,
        failure=TROUBLE,
    )
    store.write(lambda c: image_create(c, image, retry_ms=7))
    assert store.read(lambda c: image_by_id(c, image.id)) == image
    assert store.read(lambda c: images_by_ids(c, [image.id])) == {image.id: image}
    assert store.read(lambda c: images_by_ids(c, [])) == {}
    assert store.read(lambda c: image_by_id(c, ImageId("img-none"))) is None


def test_an_image_changes_only_for_who_read_it_last(store: Store, owners: Owners) -> None:
    user, lab, _ = owners
    image = ImageId(store.write(lambda c: image_new(c, lab, user, presence="unknown")))
    changes = {"presence": Presence.READY, "failure": TROUBLE, "fetched_bytes": 5, "retry_ms": 9}
    assert store.write(lambda c: image_update(c, image, version=1, changes=changes))
    assert not store.write(lambda c: image_update(c, image, version=1, changes=changes))
    found = store.read(lambda c: image_by_id(c, image))
    assert found is not None
    assert (found.presence, found.failure, found.fetched_bytes) == (Presence.READY, TROUBLE, 5)
    assert found.version == 2
    assert store.write(lambda c: image_update(c, image, version=None, changes={"failure": None}))
    locked = store.write(lambda c: image_lock(c, image))
    assert locked is not None
    assert (locked.failure, locked.version) == (None, 3)


def test_one_of_many_changes_from_the_same_version_wins(store: Store, owners: Owners) -> None:
    user, lab, _ = owners
    image = ImageId(store.write(lambda c: image_new(c, lab, user)))
    barrier = threading.Barrier(6)

    def go(number: int) -> bool:
        barrier.wait()
        changes = {"title": f"title {number}"}
        return store.write(lambda c: image_update(c, image, version=1, changes=changes))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(go, range(6))) == 1


def test_a_word_means_an_id_an_identifier_or_a_name(store: Store, owners: Owners) -> None:
    user, lab, other = owners
    own = store.write(lambda c: image_new(c, lab, user, identifier=IDENTIFIER))
    hidden = store.write(lambda c: image_new(c, other, user, name="hidden"))
    public = store.write(lambda c: image_new(c, other, user, name="open", visibility="public"))

    def means(word: str, *projects: ProjectId) -> str | None:
        found = store.read(lambda c: image_by_ref(c, word, project_ids=projects))
        return None if found is None else found.id

    assert means(own, lab) == means("tiny", lab) == means(IDENTIFIER, lab) == own
    assert means(own, other) is means("tiny", other) is means(IDENTIFIER, other) is None
    assert means("hidden", lab) is means(hidden, lab) is None
    assert means("open", lab) == means(public) == means("open") == public
    assert means("nothing", lab) is None
    everything = store.read(lambda c: image_by_ref(c, "hidden", project_ids=None))
    assert everything is not None
    assert everything.id == hidden


def test_a_name_of_several_images_is_refused_with_their_ids(store: Store, owners: Owners) -> None:
    user, lab, other = owners
    one = store.write(lambda c: image_new(c, lab, user))
    two = store.write(lambda c: image_new(c, other, user, visibility="public"))
    store.write(lambda c: image_new(c, lab, user, wanted=False))
    with pytest.raises(Refused) as caught:
        store.read(lambda c: image_by_ref(c, "tiny", project_ids=[lab]))
    assert caught.value.problem.code == "name_ambiguous"
    assert caught.value.problem.context["ids"] == [one, two]


def test_several_images_with_the_same_bytes_mean_a_ready_one(store: Store, owners: Owners) -> None:
    user, lab, _ = owners
    store.write(lambda c: image_new(c, lab, user, identifier=IDENTIFIER, presence="unknown"))
    ready = store.write(lambda c: image_new(c, lab, user, identifier=IDENTIFIER))
    store.write(lambda c: image_new(c, lab, user, identifier=IDENTIFIER))
    found = store.read(lambda c: image_by_ref(c, IDENTIFIER, project_ids=[lab]))
    assert found is not None
    assert found.id == ready


def test_a_name_of_27_characters_is_still_a_name(store: Store, owners: Owners) -> None:
    user, lab, _ = owners
    name = "a" * 27
    image = store.write(lambda c: image_new(c, lab, user, name=name))
    found = store.read(lambda c: image_by_ref(c, name, project_ids=[lab]))
    assert found is not None
    assert found.id == image


def test_images_are_listed_that_the_projects_may_see(store: Store, owners: Owners) -> None:
    user, lab, other = owners
    own = store.write(lambda c: image_new(c, lab, user))
    public = store.write(lambda c: image_new(c, other, user, visibility="public"))
    hidden = store.write(lambda c: image_new(c, other, user, name="hidden"))
    store.write(lambda c: image_new(c, lab, user, gone_ms=1))

    def listed(projects: list[ProjectId] | None, name: str | None = None) -> list[str]:
        page = store.read(lambda c: image_list(c, project_ids=projects, rows_max=9, name=name))
        return [image.id for image in page.items]

    assert listed([lab]) == [own, public]
    assert listed([]) == [public]
    assert listed(None) == [own, public, hidden]
    assert listed(None, "hidden") == [hidden]


def test_an_endorsement_is_kept_once_and_never_changed(store: Store) -> None:
    first = Endorsement(sha256="a", image_sha256="i", document=b"\0<x/>", received_ms=1)
    later = Endorsement(sha256="b", image_sha256="i", document=b"two", received_ms=2)
    other = Endorsement(sha256="c", image_sha256="j", document=b"three", received_ms=3)
    for one in (first, later, other):
        assert store.write(lambda c, one=one: endorsement_ensure(c, one))  # type: ignore[misc]  # mypy cannot infer it
    forged = Endorsement(sha256="a", image_sha256="j", document=b"other", received_ms=9)
    assert not store.write(lambda c: endorsement_ensure(c, forged))
    assert store.read(lambda c: endorsement_list(c, "i")) == (later, first)
    assert store.read(lambda c: endorsement_list(c, "none")) == ()


def test_keys_are_known_until_they_are_removed(store: Store) -> None:
    key = {"fingerprint": "sha256:00", "pem": "PEM", "email": "a@b", "now_ms": NOW_MS}
    assert store.write(lambda c: trusted_key_ensure(c, **key))  # type: ignore[arg-type]  # one dict for short
    assert not store.write(
        lambda c: trusted_key_ensure(c, fingerprint="sha256:00", pem="P", email="x", now_ms=0)
    )
    found = store.read(lambda c: trusted_key_find(c, "sha256:00"))
    assert found is not None
    assert (found.pem, found.email, found.added_ms) == ("PEM", "a@b", NOW_MS)
    assert store.read(lambda c: trusted_key_list(c, rows_max=9)).items == (found,)
    assert store.write(lambda c: trusted_key_remove(c, "sha256:00"))
    assert not store.write(lambda c: trusted_key_remove(c, "sha256:00"))
    assert store.read(lambda c: trusted_key_find(c, "sha256:00")) is None
