"""Who may do what? The one table of rights, and the decision made from it.

A verb names what is asked, in one of two ways: on a thing of a project (the caller's role there
counts), or on the site as a whole. Beyond that three rules hold:

- an administrator may do everything, an auditor may see everything and change nothing;
- a token gives at most its scopes, and write access to a project that one is no member of is
  an administrator's act, which needs the scope `admin`;
- a thing that the caller may not even see is answered exactly as one that does not exist.
"""

from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from stratus.model.ids import ProjectId
from stratus.model.problem import Problem
from stratus.model.tenancy import Actor, Role, Scope


class Verb(StrEnum):
    """Everything that somebody can ask to do."""

    INSTANCE_READ = "instance_read"
    INSTANCE_WRITE = "instance_write"
    VOLUME_READ = "volume_read"
    VOLUME_WRITE = "volume_write"
    IMAGE_READ = "image_read"
    IMAGE_WRITE = "image_write"
    PROJECT_READ = "project_read"
    PROJECT_ADMIN = "project_admin"  # rename, members
    EVENT_READ = "event_read"
    OPERATION_READ = "operation_read"

    SELF_READ = "self_read"  # who am I, which tokens do I have
    SELF_WRITE = "self_write"  # revoke my tokens
    SELF_ADMIN = "self_admin"  # make tokens, change my password
    CATALOGUE_READ = "catalogue_read"  # types, networks, public images, policy, trusted keys

    TYPE_ADMIN = "type_admin"
    TRUST_ADMIN = "trust_admin"
    HOST_READ = "host_read"
    HOST_ADMIN = "host_admin"
    POOL_READ = "pool_read"
    POOL_ADMIN = "pool_admin"
    NETWORK_ADMIN = "network_admin"
    USER_READ = "user_read"
    USER_ADMIN = "user_admin"
    SITE_ADMIN = "site_admin"  # create and delete projects, set quotas
    AUDIT_READ = "audit_read"  # every project's instances, events and usage at once


class Least(IntEnum):
    """The least standing that a verb asks for; more standing never gives less."""

    ANYBODY = 0  # whoever is logged in
    READER = 1
    MEMBER = 2
    OWNER = 3
    SITE = 4  # an administrator, or an auditor where nothing changes


class Rule(msgspec.Struct, frozen=True):
    """What one verb asks for."""

    least: Least
    scope: Scope
    changes: bool = False


RULES: Final[dict[Verb, Rule]] = {
    Verb.INSTANCE_READ: Rule(Least.READER, Scope.READ),
    Verb.INSTANCE_WRITE: Rule(Least.MEMBER, Scope.WRITE, changes=True),
    Verb.VOLUME_READ: Rule(Least.READER, Scope.READ),
    Verb.VOLUME_WRITE: Rule(Least.MEMBER, Scope.WRITE, changes=True),
    Verb.IMAGE_READ: Rule(Least.READER, Scope.READ),
    Verb.IMAGE_WRITE: Rule(Least.MEMBER, Scope.WRITE, changes=True),
    Verb.PROJECT_READ: Rule(Least.READER, Scope.READ),
    Verb.PROJECT_ADMIN: Rule(Least.OWNER, Scope.ADMIN, changes=True),
    Verb.EVENT_READ: Rule(Least.READER, Scope.READ),
    Verb.OPERATION_READ: Rule(Least.READER, Scope.READ),
    Verb.SELF_READ: Rule(Least.ANYBODY, Scope.READ),
    # One's own tokens and password are no part of the cloud: auditors look after theirs too.
    Verb.SELF_WRITE: Rule(Least.ANYBODY, Scope.WRITE),
    Verb.SELF_ADMIN: Rule(Least.ANYBODY, Scope.ADMIN),
    Verb.CATALOGUE_READ: Rule(Least.ANYBODY, Scope.READ),
    Verb.TYPE_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.TRUST_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.HOST_READ: Rule(Least.SITE, Scope.READ),
    Verb.HOST_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.POOL_READ: Rule(Least.SITE, Scope.READ),
    Verb.POOL_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.NETWORK_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.USER_READ: Rule(Least.SITE, Scope.READ),
    Verb.USER_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.SITE_ADMIN: Rule(Least.SITE, Scope.ADMIN, changes=True),
    Verb.AUDIT_READ: Rule(Least.SITE, Scope.READ),
}

STANDINGS: Final = {Role.READER: Least.READER, Role.MEMBER: Least.MEMBER, Role.OWNER: Least.OWNER}
SCOPES_COVERED: Final = {  # each scope includes those below it
    Scope.READ: frozenset((Scope.READ,)),
    Scope.WRITE: frozenset((Scope.READ, Scope.WRITE)),
    Scope.ADMIN: frozenset((Scope.READ, Scope.WRITE, Scope.ADMIN)),
}


def unknown(noun: str, ref: str = "") -> Problem:
    """Say that there is no such thing; the same words whether it is missing or not yours to see."""
    named = f"{noun} {ref}" if ref else f"such {noun}"
    return Problem(
        code="not_found",
        detail=f"There is no {named}, or you may not see it.",
        remedy=f"Check the spelling against the list of {noun}s you can see"
        ", or ask an owner of the project to add you.",
    )


def scope_allows(scopes: frozenset[Scope], wanted: Scope) -> bool:
    """Tell whether a token with these scopes may be used for what needs this one."""
    return any(wanted in SCOPES_COVERED[scope] for scope in scopes)


def access_decide(
    actor: Actor,
    verb: Verb,
    *,
    project_id: ProjectId | None = None,
    ref: str = "",
) -> Problem | None:
    """Say why this actor may not do this, or None where they may.

    `project_id` is whose thing it is; `ref` is how the caller named the thing, so that a hidden
    one is refused in the words of `unknown`.
    """
    rule = RULES[verb]
    if rule.least is Least.ANYBODY:
        return _scope_check(actor, rule.scope)
    if rule.least is Least.SITE:
        return _site_decide(actor, verb, rule)
    assert project_id is not None, f"{verb} is asked of a thing of a project"
    role = actor.roles.get(project_id)
    if role is None and not actor.admin and not actor.auditor:
        return unknown(verb.value.partition("_")[0], ref)
    if rule.changes and actor.auditor:
        return _auditor_changes_nothing()
    if role is not None and STANDINGS[role] >= rule.least:
        return _scope_check(actor, rule.scope)
    if actor.admin:
        return _scope_check(actor, Scope.ADMIN if rule.changes else rule.scope)
    if actor.auditor:
        return _scope_check(actor, rule.scope)
    assert role is not None
    return Problem(
        code="forbidden",
        detail=f"Your role in this project is {role.value}; this needs {rule.least.name.lower()}.",
        remedy="Ask an owner of the project to do it, or to raise your role.",
        context={"role": role.value, "needs": rule.least.name.lower()},
    )


def _site_decide(actor: Actor, verb: Verb, rule: Rule) -> Problem | None:
    if rule.changes and actor.auditor:
        return _auditor_changes_nothing()
    if actor.admin or actor.auditor:
        return _scope_check(actor, rule.scope)
    allowed = "an administrator" if rule.changes else "an administrator or an auditor"
    return Problem(
        code="forbidden",
        detail=f"Only {allowed} of the site may do this.",
        remedy="Ask an administrator of your site.",
        context={"verb": verb.value},
    )


def _auditor_changes_nothing() -> Problem:
    return Problem(
        code="forbidden",
        detail="An auditor sees everything and changes nothing.",
        remedy="Log in as a user who is not an auditor.",
    )


def _scope_check(actor: Actor, wanted: Scope) -> Problem | None:
    if scope_allows(actor.scopes, wanted):
        return None
    return Problem(
        code="forbidden",
        detail=f"Your token lacks the scope {wanted.value}.",
        remedy=f"Log in again, or make a token with the scope {wanted.value}.",
        context={"needs": wanted.value},
    )
