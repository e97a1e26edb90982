"""Who may do what: the caller, tokens, users, projects with their members and quotas, types."""

from typing import Any, Final, TypeVar

from msgspec import UNSET, UnsetType

from stratus.api.answer import NO_STORE
from stratus.api.endpoint import Access, Call, Endpoint, NoBody, NoQuery, Reply, endpoint
from stratus.api.pools import Lane
from stratus.api.queries import PageQuery, ProjectQuery, TokenQuery
from stratus.control.login import login
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
from stratus.control.types import type_add, type_drop, type_show, types_show
from stratus.model.ids import TokenId
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import ProjectFacts, Quota, UserFacts
from stratus.wire.v1 import (
    MemberPut,
    MemberView,
    MeView,
    NameView,
    Page,
    ProjectChange,
    ProjectCreate,
    ProjectView,
    TokenCreate,
    TokenMade,
    TokenView,
    TypeCreate,
    TypeView,
    UserChange,
    UserCreate,
    UserMade,
    UserView,
    instance_type,
    me_view,
    project_view,
    quota_changed,
    token_made,
    token_view,
    type_view,
    user_made,
    user_view,
)

V = TypeVar("V")
QUOTA_TRIES_MAX: Final = 3  # when somebody else changes the project at the same time


def _said(value: V | UnsetType) -> V | None:
    return None if value is UNSET else value


# --- the caller and their tokens ---


@endpoint("GET", "/v1/me", tag="access", title="Who am I?", answer=MeView)
def me_show(call: Call[NoBody, NoQuery]) -> Reply:
    """The caller, their projects and roles, and what their token allows."""
    names = call.services.names.of_projects(call.actor.roles)
    return Reply(value=me_view(call.actor, names))


@endpoint(
    "POST",
    "/v1/tokens",
    tag="access",
    title="Log in",
    body=TokenCreate,
    answer=TokenMade,
    status=201,
    access=Access.LOGIN,
    keyed=False,
    codes=("conflict",),
)
def token_create(call: Call[TokenCreate, NoQuery]) -> Reply:
    """Makes a token of the caller's own, by name and password (HTTP Basic) or by another token,
    which must not be narrower. The text of the token is shown this once."""
    body = call.body
    if call.credentials is not None:
        facts, text = login(
            call.world,
            name=call.credentials.name,
            password=call.credentials.password,
            token_name=body.name,
            scopes=body.scopes,
            days=body.days,
            origin=call.origin,
        )
    else:
        facts, text = tokens_add(
            call.world,
            call.actor,
            name=body.name,
            scopes=body.scopes,
            days=body.days,
            origin=call.origin,
        )
    return Reply(value=token_made(facts, text), headers=(NO_STORE,))


@endpoint(
    "GET",
    "/v1/tokens",
    tag="access",
    title="List tokens",
    query=TokenQuery,
    answer=Page[TokenView],
)
def token_list(call: Call[NoBody, TokenQuery]) -> Reply:
    """The caller's tokens without their secrets; another user's for administrators and
    auditors."""
    query = call.query
    page = tokens_page(
        call.world, call.actor, user=query.user, cursor=query.cursor, rows_max=query.limit
    )
    return Reply(value=Page(items=[token_view(facts) for facts in page.items], next=page.next))


@endpoint("DELETE", "/v1/tokens/{token}", tag="access", title="Revoke a token", status=204)
def token_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Makes it worthless at once; in other replicas within seconds."""
    tokens_revoke(call.world, call.actor, TokenId(call.params["token"]), origin=call.origin)
    return Reply()


# --- users ---


def _user(facts: UserFacts) -> Reply:
    return Reply(value=user_view(facts), version=facts.version)


@endpoint(
    "GET",
    "/v1/users",
    tag="tenancy",
    title="List users",
    query=PageQuery,
    answer=Page[UserView],
)
def user_list(call: Call[NoBody, PageQuery]) -> Reply:
    """Everybody, by name; for administrators and auditors."""
    page = users_page(call.world, call.actor, cursor=call.query.cursor, rows_max=call.query.limit)
    return Reply(value=Page(items=[user_view(facts) for facts in page.items], next=page.next))


@endpoint(
    "POST",
    "/v1/users",
    tag="tenancy",
    title="Add a user",
    body=UserCreate,
    answer=UserMade,
    status=201,
    lane=Lane.SLOW,
    keyed=False,
    codes=("name_taken",),
)
def user_create(call: Call[UserCreate, NoQuery]) -> Reply:
    """Adds a user. A password made with `generate` is shown this once."""
    body = call.body
    facts, password = users_add(
        call.world,
        call.actor,
        name=body.name,
        password=body.password,
        generate=body.generate,
        admin=body.admin,
        auditor=body.auditor,
        origin=call.origin,
    )
    return Reply(value=user_made(facts, password), version=facts.version, headers=(NO_STORE,))


@endpoint("GET", "/v1/users/{user}", tag="tenancy", title="Show a user", answer=UserView)
def user_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One user by id or name; everybody may see themselves."""
    return _user(users_show(call.world, call.actor, call.params["user"]))


@endpoint(
    "PATCH",
    "/v1/users/{user}",
    tag="tenancy",
    title="Change a user",
    body=UserChange,
    answer=UserView,
    lane=Lane.SLOW,
    keyed=False,
    matched=True,
    codes=("conflict",),
)
def user_change(call: Call[UserChange, NoQuery]) -> Reply:
    """Sets a new password, or changes a user's standing (administrators). The password first:
    where it is refused, nothing changes."""
    body, ref = call.body, call.params["user"]
    version = call.version
    facts: UserFacts | None = None
    if body.password is not UNSET:
        facts = password_change(
            call.world,
            call.actor,
            ref,
            password=body.password,
            password_old=_said(body.password_old),
            version=version,
            origin=call.origin,
        )
        version = facts.version
    elif body.password_old is not UNSET:
        raise refuse(
            "invalid_field",
            "The old password alone changes nothing.",
            remedy="Add the field password.",
            field="password",
        )
    if any(said is not UNSET for said in (body.admin, body.auditor, body.disabled)):
        facts = users_change(
            call.world,
            call.actor,
            ref,
            admin=_said(body.admin),
            auditor=_said(body.auditor),
            disabled=_said(body.disabled),
            version=version,
            origin=call.origin,
        )
    return _user(facts or users_show(call.world, call.actor, ref))


@endpoint(
    "DELETE",
    "/v1/users/{user}",
    tag="tenancy",
    title="Disable a user",
    answer=UserView,
    matched=True,
    codes=("conflict",),
)
def user_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Disables the account; what the user made stays, and so does their name in the history."""
    facts = users_change(
        call.world,
        call.actor,
        call.params["user"],
        disabled=True,
        version=call.version,
        origin=call.origin,
    )
    return _user(facts)


# --- projects ---


def _project(facts: ProjectFacts) -> Reply:
    return Reply(value=project_view(facts), version=facts.version)


@endpoint(
    "GET",
    "/v1/projects",
    tag="tenancy",
    title="List projects",
    query=ProjectQuery,
    answer=Page[ProjectView],
)
def project_list(call: Call[NoBody, ProjectQuery]) -> Reply:
    """The caller's projects with quota and use, by name; or all (administrators, auditors)."""
    query = call.query
    page = projects_page(
        call.world,
        call.actor,
        all_projects=query.all_projects,
        cursor=query.cursor,
        rows_max=query.limit,
    )
    return Reply(value=Page(items=[project_view(facts) for facts in page.items], next=page.next))


@endpoint(
    "POST",
    "/v1/projects",
    tag="tenancy",
    title="Add a project",
    body=ProjectCreate,
    answer=ProjectView,
    status=201,
    codes=("name_taken",),
)
def project_create(call: Call[ProjectCreate, NoQuery]) -> Reply:
    """Adds a project; for administrators."""
    facts = projects_add(
        call.world,
        call.actor,
        name=call.body.name,
        quota=quota_changed(Quota(), call.body.quota),
        owner=call.body.owner,
        origin=call.origin,
    )
    return _project(facts)


@endpoint(
    "GET", "/v1/projects/{project}", tag="tenancy", title="Show a project", answer=ProjectView
)
def project_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One project by id or name, with its quota and use."""
    return _project(projects_show(call.world, call.actor, call.params["project"]))


@endpoint(
    "PATCH",
    "/v1/projects/{project}",
    tag="tenancy",
    title="Change a project",
    body=ProjectChange,
    answer=ProjectView,
    matched=True,
    codes=("name_taken",),
)
def project_change(call: Call[ProjectChange, NoQuery]) -> Reply:
    """Renames it (its owners may) or sets its ceilings (administrators). A ceiling may be below
    what is used: what is there stays, more is refused."""
    body, ref = call.body, call.params["project"]
    for last in (False,) * (QUOTA_TRIES_MAX - 1) + (True,):
        quota: Quota | None = None
        version = call.version
        if body.quota is not UNSET:
            # Fields left out keep their present values: those of the version read here.
            seen = projects_show(call.world, call.actor, ref)
            quota = quota_changed(seen.quota, body.quota)
            version = seen.version if version is None else version
        try:
            facts = projects_change(
                call.world,
                call.actor,
                ref,
                name=_said(body.name),
                quota=quota,
                version=version,
                origin=call.origin,
            )
        except Refused as refused:
            if last or call.version is not None or refused.problem.code != "stale":
                raise
            continue
        return _project(facts)
    raise AssertionError("the last try returns or raises")


@endpoint(
    "DELETE",
    "/v1/projects/{project}",
    tag="tenancy",
    title="Close a project",
    status=204,
    matched=True,
    codes=("in_use",),
)
def project_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Closes a project that has nothing left; its history stays."""
    projects_delete(
        call.world,
        call.actor,
        call.params["project"],
        version=call.version,
        origin=call.origin,
    )
    return Reply()


def _member(user_id: str, user_name: str, role: Any) -> MemberView:  # noqa: ANN401  # a Role
    return MemberView(user=NameView(id=user_id, name=user_name), role=role)


@endpoint(
    "GET",
    "/v1/projects/{project}/members",
    tag="tenancy",
    title="List members",
    query=PageQuery,
    answer=Page[MemberView],
)
def member_list(call: Call[NoBody, PageQuery]) -> Reply:
    """Who belongs to the project and in which role, by name."""
    page = members_page(
        call.world,
        call.actor,
        call.params["project"],
        cursor=call.query.cursor,
        rows_max=call.query.limit,
    )
    items = [_member(member.user_id, member.user_name, member.role) for member in page.items]
    return Reply(value=Page(items=items, next=page.next))


@endpoint(
    "PUT",
    "/v1/projects/{project}/members/{user}",
    tag="tenancy",
    title="Put a member",
    body=MemberPut,
    answer=MemberView,
    codes=("conflict",),
)
def member_put(call: Call[MemberPut, NoQuery]) -> Reply:
    """Leaves the user in the project with exactly this role."""
    member = members_put(
        call.world,
        call.actor,
        call.params["project"],
        call.params["user"],
        call.body.role,
        origin=call.origin,
    )
    return Reply(value=_member(member.user_id, member.user_name, member.role))


@endpoint(
    "DELETE",
    "/v1/projects/{project}/members/{user}",
    tag="tenancy",
    title="Remove a member",
    status=204,
)
def member_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Takes the user out of the project; what they made there stays the project's."""
    members_drop(
        call.world,
        call.actor,
        call.params["project"],
        call.params["user"],
        origin=call.origin,
    )
    return Reply()


# --- types ---


@endpoint("GET", "/v1/types", tag="instances", title="List instance types", answer=Page[TypeView])
def type_list(call: Call[NoBody, NoQuery]) -> Reply:
    """Every size that the site offers, the smallest first."""
    found = types_show(call.world, call.actor)
    return Reply(value=Page(items=[type_view(type_) for type_ in found]))


@endpoint(
    "POST",
    "/v1/types",
    tag="instances",
    title="Add an instance type",
    body=TypeCreate,
    answer=TypeView,
    status=201,
    codes=("name_taken", "conflict"),
)
def type_create(call: Call[TypeCreate, NoQuery]) -> Reply:
    """Offers one more size; for administrators."""
    made = type_add(call.world, call.actor, instance_type(call.body), origin=call.origin)
    return Reply(value=type_view(made))


@endpoint(
    "GET", "/v1/types/{type}", tag="instances", title="Show an instance type", answer=TypeView
)
def type_get(call: Call[NoBody, NoQuery]) -> Reply:
    """One size by name."""
    return Reply(value=type_view(type_show(call.world, call.actor, call.params["type"])))


@endpoint(
    "DELETE", "/v1/types/{type}", tag="instances", title="Remove an instance type", status=204
)
def type_delete(call: Call[NoBody, NoQuery]) -> Reply:
    """Offers it no longer; instances keep the size that they were made with."""
    type_drop(call.world, call.actor, call.params["type"], origin=call.origin)
    return Reply()


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    me_show,
    token_create,
    token_list,
    token_delete,
    user_list,
    user_create,
    user_get,
    user_change,
    user_delete,
    project_list,
    project_create,
    project_get,
    project_change,
    project_delete,
    member_list,
    member_put,
    member_delete,
    type_list,
    type_create,
    type_get,
    type_delete,
)
