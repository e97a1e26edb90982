"""Is the table of rights sound? Properties over every actor and verb, and the words of refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.access import RULES, Least, Verb, access_decide, unknown
from stratus.model.ids import ProjectId, UserId
from stratus.model.tenancy import Actor, Role, Scope

MINE = ProjectId("prj-0000000000000001")
OTHER = ProjectId("prj-0000000000000002")
ORDER = [Role.READER, Role.MEMBER, Role.OWNER]

VERBS = st.sampled_from(list(Verb))
SCOPES = st.frozensets(st.sampled_from(list(Scope)))
ROLES = st.dictionaries(st.sampled_from([MINE, OTHER]), st.sampled_from(ORDER))


@st.composite
def actors(draw: st.DrawFn) -> Actor:
    return Actor(
        user_id=UserId("usr-0000000000000001"),
        name="ana",
        admin=draw(st.booleans()),
        auditor=draw(st.booleans()),
        scopes=draw(SCOPES),
        roles=draw(ROLES),
    )


def changed(actor: Actor, **fields: object) -> Actor:
    return Actor(**{name: getattr(actor, name) for name in Actor.__struct_fields__} | fields)


def allowed(actor: Actor, verb: Verb, project_id: ProjectId = MINE) -> bool:
    return access_decide(actor, verb, project_id=project_id) is None


def test_every_verb_has_a_rule() -> None:
    assert set(RULES) == set(Verb)


def test_what_is_called_write_or_admin_changes_something_unless_it_is_ones_own() -> None:
    for verb, rule in RULES.items():
        named = verb.value.endswith(("_write", "_admin")) and not verb.value.startswith("self_")
        assert rule.changes is named
        assert (rule.scope is Scope.READ) is verb.value.endswith("_read")


@given(actors(), VERBS)
def test_an_auditor_never_changes_anything(actor: Actor, verb: Verb) -> None:
    if RULES[verb].changes:
        assert not allowed(changed(actor, auditor=True), verb)


@given(actors(), VERBS)
def test_an_auditor_with_a_reading_token_sees_everything(actor: Actor, verb: Verb) -> None:
    auditor = changed(actor, auditor=True, scopes=frozenset((Scope.READ,)))
    if verb.value.endswith("_read"):
        assert allowed(auditor, verb)


@given(VERBS, SCOPES, st.sampled_from([MINE, OTHER]))
def test_a_reader_never_changes_anything(
    verb: Verb, scopes: frozenset[Scope], project_id: ProjectId
) -> None:
    reader = Actor(user_id=UserId("usr-1"), name="rob", scopes=scopes, roles={MINE: Role.READER})
    if RULES[verb].changes:
        assert not allowed(reader, verb, project_id)


@given(actors(), VERBS, SCOPES)
def test_a_scope_never_gives_more_than_the_user_has(
    actor: Actor, verb: Verb, scopes: frozenset[Scope]
) -> None:
    everything = changed(actor, scopes=frozenset(Scope))
    if allowed(changed(actor, scopes=scopes), verb):
        assert allowed(everything, verb)


@given(actors(), VERBS, SCOPES)
def test_fewer_scopes_never_allow_more(actor: Actor, verb: Verb, scopes: frozenset[Scope]) -> None:
    if allowed(changed(actor, scopes=actor.scopes & scopes), verb):
        assert allowed(actor, verb)


@given(actors(), VERBS)
def test_a_token_without_scopes_opens_nothing(actor: Actor, verb: Verb) -> None:
    assert not allowed(changed(actor, scopes=frozenset()), verb)


@given(actors(), VERBS)
def test_a_reading_token_changes_nothing(actor: Actor, verb: Verb) -> None:
    if RULES[verb].changes:
        assert not allowed(changed(actor, scopes=frozenset((Scope.READ,))), verb)


@given(actors(), VERBS, st.sampled_from(ORDER), st.sampled_from(ORDER))
def test_a_higher_role_never_allows_less(actor: Actor, verb: Verb, one: Role, two: Role) -> None:
    low, high = sorted((one, two), key=ORDER.index)
    if allowed(changed(actor, roles={MINE: low}), verb):
        assert allowed(changed(actor, roles={MINE: high}), verb)


@given(actors(), VERBS)
def test_a_role_counts_in_its_own_project_only(actor: Actor, verb: Verb) -> None:
    elsewhere = changed(actor, roles={OTHER: Role.OWNER})
    nowhere = changed(actor, roles={})
    assert access_decide(elsewhere, verb, project_id=MINE) == access_decide(
        nowhere, verb, project_id=MINE
    )


@given(VERBS, SCOPES)
def test_a_strangers_thing_is_answered_as_one_that_does_not_exist(
    verb: Verb, scopes: frozenset[Scope]
) -> None:
    stranger = Actor(user_id=UserId("usr-2"), name="eve", scopes=scopes, roles={OTHER: Role.OWNER})
    if Least.ANYBODY < RULES[verb].least < Least.SITE:
        noun = verb.value.partition("_")[0]
        assert access_decide(stranger, verb, project_id=MINE, ref="x-1") == unknown(noun, "x-1")


def test_an_administrator_changes_other_projects_only_with_the_admin_scope() -> None:
    admin = Actor(user_id=UserId("usr-3"), name="admin", admin=True)
    assert allowed(admin, Verb.INSTANCE_WRITE)
    writer = changed(admin, scopes=frozenset((Scope.READ, Scope.WRITE)))
    problem = access_decide(writer, Verb.INSTANCE_WRITE, project_id=MINE)
    assert problem is not None
    assert problem.code == "forbidden"
    assert problem.context == {"needs": "admin"}
    assert allowed(writer, Verb.INSTANCE_READ)
    assert allowed(changed(writer, roles={MINE: Role.MEMBER}), Verb.INSTANCE_WRITE)


def test_a_role_that_is_too_low_is_named_with_the_one_needed() -> None:
    reader = Actor(user_id=UserId("usr-1"), name="rob", roles={MINE: Role.READER})
    problem = access_decide(reader, Verb.INSTANCE_WRITE, project_id=MINE)
    assert problem is not None
    assert problem.detail == "Your role in this project is reader; this needs member."


def test_a_user_without_standing_is_refused_the_site() -> None:
    user = Actor(user_id=UserId("usr-1"), name="rob", roles={MINE: Role.OWNER})
    for verb in (Verb.HOST_ADMIN, Verb.HOST_READ, Verb.USER_ADMIN, Verb.AUDIT_READ):
        problem = access_decide(user, verb)
        assert problem is not None
        assert problem.code == "forbidden"


def test_asking_of_a_projects_thing_without_its_project_is_our_own_fault() -> None:
    actor = Actor(user_id=UserId("usr-1"), name="rob")
    with pytest.raises(AssertionError):
        access_decide(actor, Verb.INSTANCE_READ)
