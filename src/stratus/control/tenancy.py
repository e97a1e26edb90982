"""Who may do what for whom, and how much? Users, projects with members and quotas, tokens."""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note, version_check
from stratus.control.login import token_check, token_write
from stratus.control.passwords import (
    password_check,
    password_fits,
    password_generate,
    password_hash,
)
from stratus.control.requests import field_refused, name_check
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, scope_allows, unknown
from stratus.decide.quota import UNLIMITED
from stratus.model.ids import ProjectId, TokenId, UserId, id_is
from stratus.model.limits import USER_NAME_PATTERN
from stratus.model.page import Page
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import (
    Actor,
    ProjectFacts,
    Quota,
    Role,
    Scope,
    TokenFacts,
    UserFacts,
)
from stratus.store.projects import (
    Member,
    ProjectRow,
    member_ensure,
    member_list,
    member_remove,
    member_role,
    project_by_id,
    project_by_name,
    project_create,
    project_list,
    project_lock,
    project_show,
    project_things,
    project_update,
)
from stratus.store.tokens import token_find, token_list, token_remove
from stratus.store.users import (
    admins_lock,
    user_by_id,
    user_by_name,
    user_create,
    user_list,
    user_password_hash,
    user_update,
)

CEILING_MAX: Final = (1 << 31) - 1  # what a column of processors holds
BIG_CEILING_MAX: Final = (1 << 53) - 1  # what every JSON reader keeps exactly
BIG_CEILINGS: Final = ("memory_mib", "volume_gib")


# -- users ----------------------------------------------------------------------------------


def users_add(
    world: World,
    actor: Actor,
    *,
    name: str,
    password: str = "",
    generate: bool = False,
    admin: bool = False,
    auditor: bool = False,
    origin: Origin,
) -> tuple[UserFacts, str]:
    """Add a user; return them with the password where we made one, else with "".

    Without a password (none given, none made) no password opens the account.
    """
    allow(actor, Verb.USER_ADMIN)
    if not USER_NAME_PATTERN.fullmatch(name):
        raise field_refused(
            "name",
            f"{name[:80]!r} is not a user name.",
            "Use 1 to 64 letters, digits and . _ @ + -, beginning with a letter or digit.",
        )
    _standing_check(admin=admin, auditor=auditor)
    made = password_generate(world) if generate else ""
    if password:
        password_check(password)
    chosen = password or made
    hashed = password_hash(world, chosen) if chosen else ""

    def add(connection: Connection) -> UserFacts:
        user = user_create(
            connection,
            user_id=UserId(world.id_new("user")),
            name=name,
            password_hash=hashed,
            admin=admin,
            auditor=auditor,
            now_ms=world.now_ms(),
        )
        note(
            connection,
            world,
            actor,
            origin,
            "user.created",
            user.id,
            name=name,
            admin=admin,
            auditor=auditor,
        )
        return user

    return commit(world, add), "" if password else made


def users_page(
    world: World, actor: Actor, *, cursor: str | None = None, rows_max: int
) -> Page[UserFacts]:
    """Return a page of the users, by name."""
    allow(actor, Verb.USER_READ)
    return world.store.read(
        lambda connection: user_list(connection, rows_max=rows_max, cursor=cursor)
    )


def users_show(world: World, actor: Actor, ref: str) -> UserFacts:
    """Return one user by id or name; everybody may see themselves."""
    allow(actor, Verb.SELF_READ if _is_self(actor, ref) else Verb.USER_READ)
    return world.store.read(lambda connection: _user(connection, ref))


def users_change(
    world: World,
    actor: Actor,
    ref: str,
    *,
    admin: bool | None = None,
    auditor: bool | None = None,
    disabled: bool | None = None,
    version: int | None = None,
    origin: Origin,
) -> UserFacts:
    """Change a user's standing; the last administrator who can log in stays one."""
    allow(actor, Verb.USER_ADMIN)

    def change(connection: Connection) -> UserFacts:
        able = admins_lock(connection)
        user = _user(connection, ref)
        version_check("user", ref, found=user.version, wanted=version)
        stays_admin = user.admin if admin is None else admin
        stays_able = not (user.disabled if disabled is None else disabled)
        _standing_check(admin=stays_admin, auditor=user.auditor if auditor is None else auditor)
        if able == [user.id] and not (stays_admin and stays_able):
            raise refuse(
                "conflict",
                f"User {user.name} is the last administrator.",
                remedy="Make somebody else an administrator first.",
            )
        after = user_update(
            connection, user.id, version=None, admin=admin, auditor=auditor, disabled=disabled
        )
        said: dict[str, Any] = {"admin": admin, "auditor": auditor, "disabled": disabled}
        note(
            connection,
            world,
            actor,
            origin,
            "user.changed",
            user.id,
            name=user.name,
            **{what: value for what, value in said.items() if value is not None},
        )
        return after

    after = commit(world, change)
    world.actors.forget()
    return after


def password_change(
    world: World,
    actor: Actor,
    ref: str,
    *,
    password: str,
    password_old: str | None = None,
    version: int | None = None,
    origin: Origin,
) -> UserFacts:
    """Set a new password: one's own with the old one, anybody's as an administrator.

    Tokens stay good: revoke those that may be in wrong hands.
    """
    own = _is_self(actor, ref)
    allow(actor, Verb.SELF_ADMIN if own else Verb.USER_ADMIN)
    password_check(password)

    def look(connection: Connection) -> tuple[UserFacts, str]:
        user = _user(connection, ref)
        return user, user_password_hash(connection, user.id)

    user, stored = world.store.read(look)
    if own and not actor.admin:
        _old_check(stored, password_old)
    hashed = password_hash(world, password)

    def change(connection: Connection) -> UserFacts:
        now = _user(connection, user.id)
        version_check("user", ref, found=now.version, wanted=version)
        if user_password_hash(connection, user.id) != stored:
            raise refuse(
                "stale",
                f"The password of {user.name} was changed at the same time.",
                remedy="Check which one holds, and ask again.",
            )
        after = user_update(connection, user.id, version=now.version, password_hash=hashed)
        note(connection, world, actor, origin, "user.password_changed", user.id, name=user.name)
        return after

    return commit(world, change)


def _old_check(stored: str, password_old: str | None) -> None:
    if password_old is None:
        raise field_refused(
            "password_old",
            "Your present password is missing.",
            "Give it, or ask an administrator to set a new one.",
        )
    if not password_fits(stored, password_old):
        raise refuse(
            "forbidden",
            "Your present password is another one.",
            remedy="Check it, or ask an administrator to set a new one.",
        )


def _is_self(actor: Actor, ref: str) -> bool:
    return ref in (actor.user_id, actor.name)


def _user(connection: Connection, ref: str) -> UserFacts:
    """Return the user meant: an id before a name, since a name may look like an id."""
    found = user_by_id(connection, UserId(ref)) if id_is("user", ref) else None
    found = found or user_by_name(connection, ref)
    if found is None:
        raise Refused(unknown("user", ref))
    return found


def _standing_check(*, admin: bool, auditor: bool) -> None:
    if admin and auditor:
        raise field_refused(
            "auditor",
            "Nobody can be administrator and auditor at once.",
            "Choose one: an auditor changes nothing. People who need both get two accounts.",
        )


# -- tokens ---------------------------------------------------------------------------------


def tokens_add(
    world: World,
    actor: Actor,
    *,
    name: str,
    scopes: Collection[Scope],
    days: int,
    origin: Origin,
) -> tuple[TokenFacts, str]:
    """Make a token of one's own, no wider than the one in use; its text is shown this once."""
    allow(actor, Verb.SELF_ADMIN)
    token_check(name, scopes, days)
    wider = [scope for scope in scopes if not scope_allows(actor.scopes, scope)]
    if wider:
        raise refuse(
            "forbidden",
            f"Your own token lacks the scope {wider[0].value}.",
            remedy="Ask for less, or log in with your password.",
        )

    def add(connection: Connection) -> tuple[TokenFacts, str]:
        return token_write(
            world, connection, actor, name=name, scopes=scopes, days=days, origin=origin
        )

    return commit(world, add)


def tokens_page(
    world: World,
    actor: Actor,
    *,
    user: str | None = None,
    cursor: str | None = None,
    rows_max: int,
) -> Page[TokenFacts]:
    """Return a page of one's own tokens, or as administrator or auditor of another user's."""
    own = user is None or _is_self(actor, user)
    allow(actor, Verb.SELF_READ if own else Verb.USER_READ)

    def page(connection: Connection) -> Page[TokenFacts]:
        user_id = actor.user_id if user is None else _user(connection, user).id
        return token_list(connection, user_id, rows_max=rows_max, cursor=cursor)

    return world.store.read(page)


def tokens_revoke(world: World, actor: Actor, token_id: TokenId, *, origin: Origin) -> None:
    """Make a token worthless: one's own, or as administrator anybody's."""
    allow(actor, Verb.SELF_WRITE)

    def revoke(connection: Connection) -> None:
        found = token_find(connection, token_id)
        if found is None:
            raise Refused(unknown("token", token_id))
        if found.user.id != actor.user_id:
            if not actor.admin and not actor.auditor:
                raise Refused(unknown("token", token_id))
            allow(actor, Verb.USER_ADMIN)
        token_remove(connection, token_id)
        note(
            connection,
            world,
            actor,
            origin,
            "token.revoked",
            token_id,
            name=found.token.name,
            user=found.user.name,
        )

    commit(world, revoke)
    world.actors.forget()


# -- projects -------------------------------------------------------------------------------


def projects_add(
    world: World,
    actor: Actor,
    *,
    name: str,
    quota: Quota | None = None,
    owner: str | None = None,
    origin: Origin,
) -> ProjectFacts:
    """Add a project, with an owner where one is named."""
    allow(actor, Verb.SITE_ADMIN)
    name_check(name)
    ceilings = quota or Quota()
    _quota_check(ceilings)
    project_id = ProjectId(world.id_new("project"))

    def add(connection: Connection) -> ProjectFacts:
        project_create(
            connection, project_id=project_id, name=name, quota=ceilings, now_ms=world.now_ms()
        )
        if owner is not None:
            member_ensure(connection, project_id, _user(connection, owner).id, Role.OWNER)
        note(
            connection,
            world,
            actor,
            origin,
            "project.created",
            project_id,
            project_id=project_id,
            name=name,
            owner=owner,
        )
        return _shown(connection, project_id)

    made = commit(world, add)
    world.actors.forget()
    return made


def projects_page(
    world: World,
    actor: Actor,
    *,
    all_projects: bool = False,
    cursor: str | None = None,
    rows_max: int,
) -> Page[ProjectFacts]:
    """Return a page of one's own projects with their use, by name; or of all there are."""
    allow(actor, Verb.AUDIT_READ if all_projects else Verb.SELF_READ)
    project_ids = None if all_projects else sorted(actor.roles)
    return world.store.read(
        lambda connection: project_list(
            connection, project_ids=project_ids, rows_max=rows_max, cursor=cursor
        )
    )


def projects_show(world: World, actor: Actor, ref: str) -> ProjectFacts:
    """Return one project by id or name, with its quota and use."""

    def show(connection: Connection) -> ProjectFacts:
        return _shown(connection, _project(connection, actor, ref, Verb.PROJECT_READ).id)

    return world.store.read(show)


def projects_change(
    world: World,
    actor: Actor,
    ref: str,
    *,
    name: str | None = None,
    quota: Quota | None = None,
    version: int | None = None,
    origin: Origin,
) -> ProjectFacts:
    """Rename a project (its owners may) or set its ceilings (administrators).

    A ceiling may be set below what is used: what is there stays, more is refused.
    """
    if name is not None:
        name_check(name)
    if quota is not None:
        _quota_check(quota)

    def change(connection: Connection) -> ProjectFacts:
        project = _project(connection, actor, ref, Verb.PROJECT_READ)
        if name is not None or quota is None:
            allow(actor, Verb.PROJECT_ADMIN, project_id=project.id, ref=ref)
        if quota is not None:
            allow(actor, Verb.SITE_ADMIN)
        _project_held(connection, project, ref, version)
        project_update(connection, project.id, version=None, name=name, quota=quota)
        said = {} if quota is None else {what: getattr(quota, what) for what in _ceilings(quota)}
        note(
            connection,
            world,
            actor,
            origin,
            "project.changed",
            project.id,
            project_id=project.id,
            name=name or project.name,
            **({"quota": said} if said else {}),
        )
        return _shown(connection, project.id)

    return commit(world, change)


def projects_delete(
    world: World, actor: Actor, ref: str, *, version: int | None = None, origin: Origin
) -> None:
    """Close a project that has nothing left; its name and history stay."""
    allow(actor, Verb.SITE_ADMIN)

    def delete(connection: Connection) -> None:
        project = _project(connection, actor, ref, Verb.PROJECT_READ)
        _project_held(connection, project, ref, version)
        things = {
            what: count for what, count in project_things(connection, project.id).items() if count
        }
        if things:
            listed = ", ".join(f"{count} {what}" for what, count in things.items())
            raise refuse(
                "in_use",
                f"Project {project.name} still has {listed}.",
                remedy="Delete them first, and wait until they are gone.",
                **things,
            )
        project_update(connection, project.id, version=None, gone_ms=world.now_ms())
        note(
            connection,
            world,
            actor,
            origin,
            "project.deleted",
            project.id,
            project_id=project.id,
            name=project.name,
        )

    commit(world, delete)
    world.actors.forget()


def _project(connection: Connection, actor: Actor, ref: str, verb: Verb) -> ProjectRow:
    """Return the project meant, if the actor may do this with it; a hidden one is unknown."""
    found = project_by_id(connection, ProjectId(ref)) if id_is("project", ref) else None
    found = found or project_by_name(connection, ref)
    if found is None or found.gone_ms:
        raise Refused(unknown("project", ref))
    allow(actor, verb, project_id=found.id, ref=ref)
    return found


def _project_held(
    connection: Connection, project: ProjectRow, ref: str, version: int | None
) -> None:
    """Hold the project until the transaction ends, if it is as the caller read it."""
    held = project_lock(connection, project.id)
    if held is None or held.gone_ms:
        raise Refused(unknown("project", ref))
    version_check("project", ref, found=held.version, wanted=version)


def _shown(connection: Connection, project_id: ProjectId) -> ProjectFacts:
    shown = project_show(connection, project_id)
    assert shown is not None
    return shown


def _ceilings(quota: Quota) -> tuple[str, ...]:
    return quota.__struct_fields__


def _quota_check(quota: Quota) -> None:
    for what in _ceilings(quota):
        most = BIG_CEILING_MAX if what in BIG_CEILINGS else CEILING_MAX
        value: int = getattr(quota, what)
        if not UNLIMITED <= value <= most:
            raise field_refused(
                f"quota.{what}",
                f"{value} is not between {UNLIMITED} and {most}.",
                f"Give a ceiling; {UNLIMITED} means that there is none.",
            )


# -- members --------------------------------------------------------------------------------


def members_page(
    world: World, actor: Actor, ref: str, *, cursor: str | None = None, rows_max: int
) -> Page[Member]:
    """Return a page of who belongs to the project, by name."""

    def page(connection: Connection) -> Page[Member]:
        project = _project(connection, actor, ref, Verb.PROJECT_READ)
        return member_list(connection, project.id, rows_max=rows_max, cursor=cursor)

    return world.store.read(page)


def members_put(
    world: World, actor: Actor, ref: str, user: str, role: Role, *, origin: Origin
) -> Member:
    """Leave the user in the project with exactly this role."""

    def put(connection: Connection) -> Member:
        project = _project(connection, actor, ref, Verb.PROJECT_ADMIN)
        _project_held(connection, project, ref, None)
        member = _user(connection, user)
        before = member_role(connection, project.id, member.id)
        if before is not role:
            member_ensure(connection, project.id, member.id, role)
            note(
                connection,
                world,
                actor,
                origin,
                "member.set",
                project.id,
                project_id=project.id,
                user=member.name,
                role=role.value,
            )
        return Member(project_id=project.id, user_id=member.id, user_name=member.name, role=role)

    member = commit(world, put)
    world.actors.forget()
    return member


def members_drop(world: World, actor: Actor, ref: str, user: str, *, origin: Origin) -> None:
    """Take the user out of the project; what they made there stays the project's."""

    def drop(connection: Connection) -> None:
        project = _project(connection, actor, ref, Verb.PROJECT_ADMIN)
        member = _user(connection, user)
        if not member_remove(connection, project.id, member.id):
            raise Refused(unknown("member", user))
        note(
            connection,
            world,
            actor,
            origin,
            "member.removed",
            project.id,
            project_id=project.id,
            user=member.name,
        )

    commit(world, drop)
    world.actors.forget()
