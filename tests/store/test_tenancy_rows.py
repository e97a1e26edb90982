"""Users, projects, members, tokens: do names stay unique, versions guard, and sums add up?"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from stratus.model.ids import ProjectId, TokenId, UserId
from stratus.model.problem import Refused
from stratus.model.tenancy import Quota, Role, Scope, TokenFacts, Usage
from stratus.model.units import GIB
from stratus.store.engine import Store
from stratus.store.projects import (
    member_ensure,
    member_list,
    member_remove,
    member_roles,
    project_by_id,
    project_by_name,
    project_create,
    project_list,
    project_lock,
    project_show,
    project_update,
    project_usage,
)
from stratus.store.tokens import (
    token_create,
    token_find,
    token_list,
    token_remove,
    tokens_prune,
)
from stratus.store.users import (
    user_by_id,
    user_by_name,
    user_count,
    user_create,
    user_list,
    user_password_hash,
    user_update,
)
from tests.store.worlds import (
    NOW_MS,
    id_new,
    instance_new,
    lease_new,
    network_new,
    project_new,
    project_shown,
    user_new,
    volume_new,
)


def test_a_user_is_found_by_id_and_by_name(store: Store) -> None:
    made = store.write(
        lambda c: user_create(
            c, user_id=UserId("usr-1"), name="ada", password_hash="h", auditor=True, now_ms=NOW_MS
        )
    )
    assert (made.name, made.admin, made.auditor, made.version) == ("ada", False, True, 1)
    assert store.read(lambda c: user_by_id(c, made.id)) == made
    assert store.read(lambda c: user_by_name(c, "ada")) == made
    assert store.read(lambda c: user_by_name(c, "Ada")) is None
    assert store.read(lambda c: user_by_id(c, UserId("usr-2"))) is None
    assert store.read(lambda c: user_password_hash(c, made.id)) == "h"
    assert store.read(lambda c: user_password_hash(c, UserId("usr-2"))) == ""
    assert store.read(user_count) == 1


def test_one_of_many_who_ask_for_a_name_at_once_gets_it(store: Store) -> None:
    barrier = threading.Barrier(8)

    def go(number: int) -> str:
        barrier.wait()
        try:
            store.write(
                lambda c: user_create(c, user_id=UserId(f"usr-{number}"), name="ada", now_ms=NOW_MS)
            )
        except Refused as error:
            return error.problem.code
        return "made"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(go, range(8)))
    assert sorted(said) == ["made"] + ["name_taken"] * 7
    assert store.read(user_count) == 1


def test_a_change_of_a_user_needs_the_version_that_was_read(store: Store) -> None:
    ada = store.write(user_new)
    after = store.write(lambda c: user_update(c, ada, version=1, disabled=True))
    assert (after.disabled, after.admin, after.version) == (True, True, 2)
    with pytest.raises(Refused) as caught:
        store.write(lambda c: user_update(c, ada, version=1, admin=False))
    assert caught.value.problem.code == "stale"
    assert store.write(lambda c: user_update(c, ada, version=None, password_hash="n")).version == 3
    assert store.read(lambda c: user_password_hash(c, ada)) == "n"
    with pytest.raises(Refused) as caught:
        store.write(lambda c: user_update(c, UserId("usr-none"), version=None, admin=True))
    assert caught.value.problem.code == "not_found"


def test_users_are_listed_by_name_in_pages(store: Store) -> None:
    for name in ("eve", "ada", "bob"):
        store.write(lambda c, name=name: user_new(c, name))  # type: ignore[misc]  # mypy cannot infer it
    first = store.read(lambda c: user_list(c, rows_max=2))
    assert [user.name for user in first.items] == ["ada", "bob"]
    rest = store.read(lambda c: user_list(c, rows_max=2, cursor=first.next))
    assert ([user.name for user in rest.items], rest.next) == (["eve"], None)


def test_a_project_is_found_and_its_name_is_unique(store: Store) -> None:
    lab = store.write(lambda c: project_new(c, "lab", Quota(vcpus=7)))
    found = store.read(lambda c: project_by_name(c, "lab"))
    assert found is not None
    assert (found.id, found.quota) == (lab, Quota(vcpus=7))
    with pytest.raises(Refused) as caught:
        store.write(
            lambda c: project_create(
                c, project_id=ProjectId("prj-2"), name="lab", quota=Quota(), now_ms=NOW_MS
            )
        )
    assert caught.value.problem.code == "name_taken"


def test_a_project_that_is_gone_is_neither_shown_nor_listed(store: Store) -> None:
    lab = store.write(project_new)
    user = store.write(user_new)
    store.write(lambda c: member_ensure(c, lab, user, Role.OWNER))
    store.write(lambda c: project_update(c, lab, version=1, gone_ms=NOW_MS))
    assert store.read(lambda c: project_show(c, lab)) is None
    assert store.read(lambda c: project_by_name(c, "lab-7")) is None
    assert store.read(lambda c: project_list(c, project_ids=None, rows_max=9)).items == ()
    assert store.read(lambda c: member_roles(c, user)) == {}
    row = store.read(lambda c: project_by_id(c, lab))
    assert row is not None
    assert row.gone_ms == NOW_MS


def test_a_change_of_quota_needs_the_version_that_was_read(store: Store) -> None:
    lab = store.write(project_new)
    changed = store.write(lambda c: project_update(c, lab, version=1, quota=Quota(instances=-1)))
    assert (changed.quota, changed.version) == (Quota(instances=-1), 2)
    with pytest.raises(Refused) as caught:
        store.write(lambda c: project_update(c, lab, version=1, quota=Quota()))
    assert caught.value.problem.code == "stale"


def test_use_is_summed_from_what_is_there(store: Store) -> None:
    def fill(c: Connection) -> tuple[ProjectId, ProjectId]:
        user, lab = user_new(c), project_new(c)
        other = project_new(c, "other")
        network = network_new(c)
        sizes = {"vcpus": 2, "memory_mib": 1024}
        instance_new(c, lab, user, **sizes)
        instance_new(c, lab, user, **sizes, desired="stopped", release=False)
        instance_new(c, lab, user, **sizes, desired="stopped", release=True, host_id="hst-1")
        instance_new(c, lab, user, **sizes, desired="stopped", release=True)
        instance_new(c, lab, user, **sizes, desired="absent", host_id="hst-1")
        instance_new(c, lab, user, **sizes, gone_ms=1)
        instance_new(c, other, user, vcpus=64, memory_mib=4096)
        for size in (1, GIB, GIB + 1):
            volume_new(c, lab, size_bytes=size)
        volume_new(c, lab, size_bytes=0)
        volume_new(c, lab, size_bytes=GIB, kind="seed")
        volume_new(c, lab, size_bytes=GIB, wanted=False)
        volume_new(c, lab, size_bytes=GIB, gone_ms=1)
        lease_new(c, network, lab)
        lease_new(c, network, lab, released_ms=1)
        return lab, other

    lab, other = store.write(fill)
    used = Usage(instances=5, vcpus=8, memory_mib=4096, volumes=4, volume_gib=4, addresses=1)
    assert store.read(lambda c: project_usage(c, lab)) == used
    assert store.read(lambda c: project_shown(c, lab)).usage == used
    page = store.read(lambda c: project_list(c, project_ids=None, rows_max=9))
    assert {facts.id: facts.usage for facts in page.items} == {
        lab: used,
        other: Usage(instances=1, vcpus=64, memory_mib=4096),
    }
    only = store.read(lambda c: project_list(c, project_ids=[other], rows_max=9))
    assert [facts.id for facts in only.items] == [other]
    no_limits = Quota(**dict.fromkeys(Quota.__struct_fields__, -1))
    assert store.read(lambda c: project_usage(c, lab, ceilings=no_limits)) == Usage()
    some = Quota(**{**dict.fromkeys(Quota.__struct_fields__, -1), "addresses": 5})
    assert store.read(lambda c: project_usage(c, lab, ceilings=some)) == Usage(addresses=1)


def test_a_quota_holds_against_many_at_once(store: Store) -> None:
    user, lab = store.write(lambda c: (user_new(c), project_new(c, quota=Quota(instances=3))))
    barrier = threading.Barrier(8)

    def create(c: Connection) -> bool:
        row = project_lock(c, lab)
        assert row is not None
        if project_usage(c, lab).instances + 1 > row.quota.instances:
            return False
        instance_new(c, lab, user)
        return True

    def go(_: int) -> bool:
        barrier.wait()
        return store.write(create)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(go, range(8))) == 3
    assert store.read(lambda c: project_usage(c, lab)).instances == 3


def test_members_come_change_and_go(store: Store) -> None:
    ada, bob, lab = store.write(lambda c: (user_new(c), user_new(c, "bob"), project_new(c)))
    store.write(lambda c: member_ensure(c, lab, bob, Role.READER))
    store.write(lambda c: member_ensure(c, lab, ada, Role.OWNER))
    store.write(lambda c: member_ensure(c, lab, bob, Role.MEMBER))
    page = store.read(lambda c: member_list(c, lab, rows_max=9))
    assert [(one.user_name, one.role) for one in page.items] == [
        ("ada", Role.OWNER),
        ("bob", Role.MEMBER),
    ]
    assert store.read(lambda c: member_roles(c, bob)) == {lab: Role.MEMBER}
    assert store.write(lambda c: member_remove(c, lab, bob))
    assert not store.write(lambda c: member_remove(c, lab, bob))
    assert store.read(lambda c: member_roles(c, bob)) == {}


def token_of(user: UserId, *, expires_ms: int = NOW_MS) -> TokenFacts:
    return TokenFacts(
        id=TokenId(id_new("token")),
        user_id=user,
        name="laptop",
        scopes=(Scope.READ, Scope.ADMIN),
        created_ms=NOW_MS,
        expires_ms=expires_ms,
    )


def test_a_token_is_found_with_its_user_until_it_is_revoked(store: Store) -> None:
    ada, bob = store.write(lambda c: (user_new(c), user_new(c, "bob")))
    token = token_of(ada)
    store.write(lambda c: token_create(c, token, secret_hash=b"\0\xff"))
    found = store.read(lambda c: token_find(c, token.id))
    assert found is not None
    assert (found.token, found.secret_hash) == (token, b"\0\xff")
    assert found.user == store.read(lambda c: user_by_id(c, ada))
    assert store.read(lambda c: token_list(c, ada, rows_max=9)).items == (token,)
    assert store.read(lambda c: token_list(c, bob, rows_max=9)).items == ()
    assert not store.write(lambda c: token_remove(c, token.id, user_id=bob))
    assert store.write(lambda c: token_remove(c, token.id, user_id=ada))
    assert store.read(lambda c: token_find(c, token.id)) is None


def test_expired_tokens_are_pruned_a_few_at_a_time(store: Store) -> None:
    ada = store.write(user_new)
    for expires_ms in (10, 20, 30, 40):
        token = token_of(ada, expires_ms=expires_ms)
        store.write(lambda c, token=token: token_create(c, token, secret_hash=b"x"))  # type: ignore[misc]  # mypy cannot infer it
    assert store.write(lambda c: tokens_prune(c, before_ms=40, rows_max=2)) == 2
    assert store.write(lambda c: tokens_prune(c, before_ms=40, rows_max=2)) == 1
    left = store.read(lambda c: token_list(c, ada, rows_max=9)).items
    assert [token.expires_ms for token in left] == [40]
