"""Do users, projects, members, quotas and tokens keep to the rules, whoever asks?"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from sqlalchemy import Connection

from stratus.control.login import actor_by_token, login
from stratus.control.tenancy import (
    members_drop,
    members_page,
    members_put,
    password_change,
    projects_add,
    projects_change,
    projects_delete,
    projects_page,
    projects_show,
    tokens_add,
    tokens_page,
    tokens_revoke,
    users_add,
    users_change,
    users_page,
    users_show,
)
from stratus.model.ids import TokenId, id_make
from stratus.model.problem import Refused
from stratus.model.tenancy import Actor, Quota, Role, Scope
from stratus.store.schema import leases, networks
from tests.control.sites import BEGIN_MS, ORIGIN, Site, in_memory, refused
from tests.store.worlds import image_new, instance_new, volume_new

PASSWORD = "correct horse battery"
OTHER = "staple of the stable"


def narrowed(actor: Actor, *scopes: Scope) -> Actor:
    return msgspec.structs.replace(actor, scopes=frozenset(scopes))


# -- users ----------------------------------------------------------------------------------


def test_a_user_is_found_by_name_and_by_id(site: Site) -> None:
    made, password = users_add(
        site.world, site.admin, name="ana@lab.org", password=PASSWORD, origin=ORIGIN
    )
    assert password == ""
    assert users_show(site.world, site.admin, "ana@lab.org") == made
    assert users_show(site.world, site.admin, made.id) == made
    assert made in users_page(site.world, site.admin, rows_max=10).items
    event = site.events("user.created")[-1]
    assert (event.subject, event.actor, event.request_id) == (made.id, "admin", "req-test")
    assert PASSWORD not in repr(event)


def test_a_password_that_we_make_is_told_once_and_opens_the_account(site: Site) -> None:
    _, password = users_add(site.world, site.admin, name="ana", generate=True, origin=ORIGIN)
    assert len(password) == 24
    login(site.world, name="ana", password=password, origin=ORIGIN)


def test_a_user_name_is_not_given_twice(site: Site) -> None:
    site.user("ana")
    with refused("name_taken", "ana"):
        site.user("ana")


@in_memory
@pytest.mark.parametrize("name", ["", "-ana", "a b", "a/b", "ä", "x" * 65, "ana\n"])
def test_what_is_no_user_name_is_refused(site: Site, name: str) -> None:
    with refused("invalid_field", field="name"):
        users_add(site.world, site.admin, name=name, origin=ORIGIN)


@in_memory
@pytest.mark.parametrize("password", ["short", "x" * 1025])
def test_a_bad_password_is_refused(site: Site, password: str) -> None:
    with refused("invalid_field", field="password"):
        users_add(site.world, site.admin, name="ana", password=password, origin=ORIGIN)


def test_nobody_is_administrator_and_auditor_at_once(site: Site) -> None:
    with refused("invalid_field", field="auditor"):
        users_add(site.world, site.admin, name="ana", admin=True, auditor=True, origin=ORIGIN)
    site.user("aud", auditor=True)
    with refused("invalid_field", field="auditor"):
        users_change(site.world, site.admin, "aud", admin=True, origin=ORIGIN)
    after = users_change(site.world, site.admin, "aud", admin=True, auditor=False, origin=ORIGIN)
    assert (after.admin, after.auditor) == (True, False)


def test_the_last_administrator_stays_one(site: Site) -> None:
    for change in ({"admin": False}, {"disabled": True}):
        with refused("conflict", "last administrator"):
            users_change(site.world, site.admin, "admin", origin=ORIGIN, **change)
    users_add(site.world, site.admin, name="eve", admin=True, origin=ORIGIN)
    users_change(site.world, site.admin, "eve", disabled=True, origin=ORIGIN)
    with refused("conflict", "last administrator"):  # a disabled one does not count
        users_change(site.world, site.admin, "admin", disabled=True, origin=ORIGIN)
    users_change(site.world, site.admin, "eve", disabled=False, origin=ORIGIN)
    assert users_change(site.world, site.admin, "admin", disabled=True, origin=ORIGIN).disabled


def test_administrators_who_demote_each_other_at_once_do_not_lock_the_site(site: Site) -> None:
    users_add(site.world, site.admin, name="eve", admin=True, origin=ORIGIN)

    def demote(name: str) -> bool:
        try:
            users_change(site.world, site.admin, name, admin=False, origin=ORIGIN)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(max_workers=2) as threads:
        done = list(threads.map(demote, ("admin", "eve")))
    left = [u.name for u in users_page(site.world, site.admin, rows_max=10).items if u.admin]
    assert sorted(done) == [False, True]
    assert len(left) == 1


def test_a_user_that_was_changed_meanwhile_is_not_changed_again(site: Site) -> None:
    site.user("ana")
    version = users_show(site.world, site.admin, "ana").version
    users_change(site.world, site.admin, "ana", disabled=True, version=version, origin=ORIGIN)
    with refused("stale"):
        users_change(site.world, site.admin, "ana", disabled=False, version=version, origin=ORIGIN)
    with refused("stale"):
        password_change(
            site.world, site.admin, "ana", password=PASSWORD, version=version, origin=ORIGIN
        )


def test_everybody_may_see_themselves_and_nobody_else(site: Site) -> None:
    ana, bob = site.user("ana"), site.user("bob")
    assert users_show(site.world, ana, "ana").id == ana.user_id
    assert users_show(site.world, ana, ana.user_id).name == "ana"
    for ref in ("bob", bob.user_id, "nobody"):
        with refused("forbidden"):
            users_show(site.world, ana, ref)
    with refused("forbidden"):
        users_page(site.world, ana, rows_max=10)


def test_only_administrators_change_users(site: Site) -> None:
    for actor in (site.user("ana", Role.OWNER), site.user("aud", auditor=True)):
        with refused("forbidden"):
            users_add(site.world, actor, name="eve", origin=ORIGIN)
        with refused("forbidden"):
            users_change(site.world, actor, actor.name, admin=True, origin=ORIGIN)
    with refused("forbidden"):
        users_add(
            site.world,
            narrowed(site.admin, Scope.READ, Scope.WRITE),
            name="eve",
            origin=ORIGIN,
        )


def test_unknown_users_are_not_found(site: Site) -> None:
    for ref in ("nobody", "usr-0000000000000000"):
        with refused("not_found", ref):
            users_show(site.world, site.admin, ref)
        with refused("not_found", ref):
            users_change(site.world, site.admin, ref, disabled=True, origin=ORIGIN)


# -- passwords ------------------------------------------------------------------------------


def with_password(site: Site, name: str = "ana") -> Actor:
    users_add(site.world, site.admin, name=name, password=PASSWORD, origin=ORIGIN)
    _, text = login(site.world, name=name, password=PASSWORD, origin=ORIGIN)
    return actor_by_token(site.world, text)


def test_ones_own_password_is_changed_with_the_old_one(site: Site) -> None:
    ana = with_password(site)
    with refused("invalid_field", field="password_old"):
        password_change(site.world, ana, "ana", password=OTHER, origin=ORIGIN)
    with refused("forbidden", "another one"):
        password_change(site.world, ana, "ana", password=OTHER, password_old="wrong", origin=ORIGIN)
    password_change(site.world, ana, "ana", password=OTHER, password_old=PASSWORD, origin=ORIGIN)
    login(site.world, name="ana", password=OTHER, origin=ORIGIN)
    with refused("unauthenticated"):
        login(site.world, name="ana", password=PASSWORD, origin=ORIGIN)
    assert site.events("user.password_changed")[-1].actor == "ana"


def test_an_administrator_sets_anybodys_password_without_the_old_one(site: Site) -> None:
    with_password(site)
    password_change(site.world, site.admin, "ana", password=OTHER, origin=ORIGIN)
    login(site.world, name="ana", password=OTHER, origin=ORIGIN)
    password_change(site.world, site.admin, "admin", password=OTHER, origin=ORIGIN)


def test_nobody_else_sets_a_password(site: Site) -> None:
    ana = with_password(site)
    with_password(site, "bob")
    with refused("forbidden"):
        password_change(
            site.world, ana, "bob", password=OTHER, password_old=PASSWORD, origin=ORIGIN
        )
    with refused("forbidden"):
        password_change(
            site.world,
            narrowed(ana, Scope.WRITE),
            "ana",
            password=OTHER,
            password_old=PASSWORD,
            origin=ORIGIN,
        )
    with refused("invalid_field", field="password"):
        password_change(
            site.world, ana, "ana", password="short", password_old=PASSWORD, origin=ORIGIN
        )


def test_an_auditor_changes_their_own_password(site: Site) -> None:
    users_add(site.world, site.admin, name="aud", password=PASSWORD, auditor=True, origin=ORIGIN)
    _, text = login(site.world, name="aud", password=PASSWORD, origin=ORIGIN)
    aud = actor_by_token(site.world, text)
    password_change(site.world, aud, "aud", password=OTHER, password_old=PASSWORD, origin=ORIGIN)


# -- tokens ---------------------------------------------------------------------------------


def token_make(site: Site, actor: Actor, *scopes: Scope) -> TokenId:
    facts, _ = tokens_add(
        site.world, actor, name="ci", scopes=scopes or (Scope.READ,), days=1, origin=ORIGIN
    )
    return facts.id


def test_a_token_makes_no_wider_token(site: Site) -> None:
    ana = narrowed(site.user("ana"), Scope.ADMIN)
    token_make(site, ana, Scope.READ, Scope.WRITE, Scope.ADMIN)
    for narrow in (Scope.READ, Scope.WRITE):
        with refused("forbidden", "scope admin"):
            token_make(site, narrowed(ana, narrow), Scope.READ)


def test_tokens_are_ones_own(site: Site) -> None:
    ana, bob, aud = site.user("ana"), site.user("bob"), site.user("aud", auditor=True)
    token_id = token_make(site, ana)
    (mine,) = tokens_page(site.world, ana, rows_max=10).items
    assert mine.id == token_id
    assert tokens_page(site.world, bob, rows_max=10).items == ()
    assert tokens_page(site.world, aud, user="ana", rows_max=10).items == (mine,)
    assert tokens_page(site.world, site.admin, user="ana", rows_max=10).items == (mine,)
    with refused("forbidden"):
        tokens_page(site.world, bob, user="ana", rows_max=10)
    with refused("forbidden"):
        tokens_revoke(site.world, aud, token_id, origin=ORIGIN)
    with refused("not_found") as hidden:
        tokens_revoke(site.world, bob, token_id, origin=ORIGIN)
    tokens_revoke(site.world, site.admin, token_id, origin=ORIGIN)
    with refused("not_found") as missing:
        tokens_revoke(site.world, bob, token_id, origin=ORIGIN)
    assert hidden.problem == missing.problem
    assert site.events("token.revoked")[-1].data == {"name": "ci", "user": "ana"}


# -- projects -------------------------------------------------------------------------------


def test_a_project_is_shown_to_its_members_and_to_those_who_see_everything(site: Site) -> None:
    lab = site.project("lab-7")
    ana, bob = site.user("ana", Role.READER, on="lab-7"), site.user("bob")
    aud = site.user("aud", auditor=True)
    for actor in (ana, aud, site.admin):
        assert projects_show(site.world, actor, "lab-7").id == lab
        assert projects_show(site.world, actor, lab).name == "lab-7"
    assert [p.id for p in projects_page(site.world, ana, rows_max=10).items] == [lab]
    assert projects_page(site.world, bob, rows_max=10).items == ()
    names = [p.name for p in projects_page(site.world, aud, all_projects=True, rows_max=9).items]
    assert names == ["default", "lab-7"]
    with refused("forbidden"):
        projects_page(site.world, ana, all_projects=True, rows_max=10)


Ask = Callable[[Site, Actor, str], object]
ASKS: dict[str, Ask] = {
    "show": lambda s, a, ref: projects_show(s.world, a, ref),
    "rename": lambda s, a, ref: projects_change(s.world, a, ref, name="x", origin=ORIGIN),
    "quota": lambda s, a, ref: projects_change(s.world, a, ref, quota=Quota(), origin=ORIGIN),
    "members": lambda s, a, ref: members_page(s.world, a, ref, rows_max=10),
    "member_put": lambda s, a, ref: members_put(s.world, a, ref, "ana", Role.OWNER, origin=ORIGIN),
    "member_drop": lambda s, a, ref: members_drop(s.world, a, ref, "ana", origin=ORIGIN),
}


@in_memory
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_another_project_is_answered_as_one_that_does_not_exist(site: Site, ask: Ask) -> None:
    lab = site.project("lab-7")
    eve = site.user("eve", Role.OWNER)
    for hidden, missing in (("lab-7", "lab-8"), (lab, id_make("project", now_ms=0, chance=1))):
        with refused("not_found") as one:
            ask(site, eve, hidden)
        with refused("not_found") as other:
            ask(site, eve, missing)
        blanked = [
            r.problem.detail.replace(ref, "?") for r, ref in ((one, hidden), (other, missing))
        ]
        assert blanked[0] == blanked[1]
        assert one.problem.remedy == other.problem.remedy
        assert one.problem.context == other.problem.context


def test_owners_rename_and_administrators_set_ceilings(site: Site) -> None:
    lab = site.project("lab-7")
    own = site.user("own", Role.OWNER, on="lab-7")
    mem = site.user("mem", Role.MEMBER, on="lab-7")
    renamed = projects_change(site.world, own, "lab-7", name="lab-8", origin=ORIGIN)
    assert (renamed.id, renamed.name, renamed.version) == (lab, "lab-8", 2)
    with refused("forbidden", "owner"):
        projects_change(site.world, mem, lab, name="x", origin=ORIGIN)
    with refused("forbidden"):
        projects_change(site.world, own, lab, quota=Quota(vcpus=1000), origin=ORIGIN)
    quota = Quota(vcpus=1, instances=-1)
    changed = projects_change(site.world, site.admin, lab, quota=quota, origin=ORIGIN)
    assert changed.quota == quota
    assert changed.name == "lab-8"
    event = site.events("project.changed")[-1]
    assert event.project_id == lab
    assert event.data["quota"]["vcpus"] == 1
    with refused("stale"):
        projects_change(site.world, own, lab, name="x", version=renamed.version, origin=ORIGIN)


def test_the_name_of_a_project_is_not_given_twice_not_even_after_it_is_gone(site: Site) -> None:
    site.project("lab-7")
    with refused("name_taken"):
        site.project("lab-7")
    with refused("name_taken", "default"):
        projects_change(site.world, site.admin, "lab-7", name="default", origin=ORIGIN)
    projects_delete(site.world, site.admin, "lab-7", origin=ORIGIN)
    with refused("name_taken"):
        site.project("lab-7")


@in_memory
@pytest.mark.parametrize("name", ["", "Lab", "lab 7", "-lab", "x" * 64, "lab\n"])
def test_what_is_no_project_name_is_refused(site: Site, name: str) -> None:
    with refused("invalid_field", field="name"):
        site.project(name)
    with refused("invalid_field", field="name"):
        projects_change(site.world, site.admin, "default", name=name, origin=ORIGIN)


@in_memory
@pytest.mark.parametrize(
    ("what", "value"), [("vcpus", -2), ("instances", 1 << 31), ("memory_mib", 1 << 53)]
)
def test_an_impossible_ceiling_is_refused_by_field(site: Site, what: str, value: int) -> None:
    quota = Quota(**{what: value})
    with refused("invalid_field", field=f"quota.{what}"):
        site.project("lab-7", quota)
    with refused("invalid_field", field=f"quota.{what}"):
        projects_change(site.world, site.admin, "default", quota=quota, origin=ORIGIN)


def test_a_project_can_begin_with_an_owner(site: Site) -> None:
    ana = site.user("ana")
    made = projects_add(site.world, site.admin, name="lab-7", owner="ana", origin=ORIGIN)
    (member,) = members_page(site.world, site.admin, made.id, rows_max=10).items
    assert (member.user_id, member.role) == (ana.user_id, Role.OWNER)
    with refused("not_found", "nobody"):
        projects_add(site.world, site.admin, name="lab-8", owner="nobody", origin=ORIGIN)
    with refused("not_found"):  # and it was not made
        projects_show(site.world, site.admin, "lab-8")


@pytest.mark.parametrize("what", ["instances", "volumes", "images", "addresses"])
def test_a_project_with_anything_left_is_not_deleted(site: Site, what: str) -> None:
    lab, user_id = site.project("lab-7"), site.admin.user_id

    def put(connection: Connection) -> None:
        match what:
            case "instances":
                other = image_new(connection, site.project_id, user_id)
                instance_new(connection, lab, user_id, image_id=other)
            case "volumes":
                volume_new(connection, lab, wanted=False)
            case "images":
                image_new(connection, lab, user_id)

    site.world.store.write(put)
    if what == "addresses":
        site.insert(networks, id="net-1", name="public", **{"class": "public"})
        site.insert(leases, id="adr-1", network_id="net-1", project_id=lab, instance_id="ins-1")
    with refused("in_use", f"1 {what}") as refusal:
        projects_delete(site.world, site.admin, "lab-7", origin=ORIGIN)
    assert refusal.problem.context == {what: 1}


def test_a_deleted_project_is_unknown_and_gives_no_role(site: Site) -> None:
    site.project("lab-7")
    users_add(site.world, site.admin, name="ana", password=PASSWORD, origin=ORIGIN)
    members_put(site.world, site.admin, "lab-7", "ana", Role.OWNER, origin=ORIGIN)
    _, text = login(site.world, name="ana", password=PASSWORD, origin=ORIGIN)
    ana = actor_by_token(site.world, text)
    with refused("forbidden"):
        projects_delete(site.world, ana, "lab-7", origin=ORIGIN)
    with refused("stale"):
        projects_delete(site.world, site.admin, "lab-7", version=9, origin=ORIGIN)
    projects_delete(site.world, site.admin, "lab-7", version=1, origin=ORIGIN)
    assert actor_by_token(site.world, text).roles == {}
    for actor in (ana, site.admin):
        with refused("not_found"):
            projects_show(site.world, actor, "lab-7")


# -- members --------------------------------------------------------------------------------


def test_owners_choose_who_belongs_and_others_do_not(site: Site) -> None:
    site.project("lab-7")
    own = site.user("own", Role.OWNER, on="lab-7")
    mem = site.user("mem", Role.MEMBER, on="lab-7")
    site.user("new")
    member = members_put(site.world, own, "lab-7", "new", Role.READER, origin=ORIGIN)
    assert (member.user_name, member.role) == ("new", Role.READER)
    names = [m.user_name for m in members_page(site.world, mem, "lab-7", rows_max=10).items]
    assert names == ["mem", "new", "own"]
    for actor in (mem, narrowed(own, Scope.READ, Scope.WRITE)):
        with refused("forbidden"):
            members_put(site.world, actor, "lab-7", "mem", Role.OWNER, origin=ORIGIN)
        with refused("forbidden"):
            members_drop(site.world, actor, "lab-7", "new", origin=ORIGIN)
    members_drop(site.world, own, "lab-7", "new", origin=ORIGIN)
    with refused("not_found", "new"):
        members_drop(site.world, own, "lab-7", "new", origin=ORIGIN)
    with refused("not_found", "nobody"):
        members_put(site.world, own, "lab-7", "nobody", Role.READER, origin=ORIGIN)


def test_putting_the_same_role_again_is_no_news(site: Site) -> None:
    site.user("ana", Role.READER)
    before = len(site.events("member.set"))
    members_put(site.world, site.admin, "default", "ana", Role.READER, origin=ORIGIN)
    assert len(site.events("member.set")) == before
    members_put(site.world, site.admin, "default", "ana", Role.MEMBER, origin=ORIGIN)
    assert site.events("member.set")[-1].data == {"user": "ana", "role": "member"}
    assert site.events("member.set")[-1].at_ms == BEGIN_MS
