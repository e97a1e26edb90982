"""How does a site begin? Once, in one transaction: its name, an administrator, a project, types."""

from typing import Final

import msgspec
from sqlalchemy import Connection

from stratus.control.login import token_write
from stratus.control.passwords import password_generate, password_hash
from stratus.control.requests import field_refused
from stratus.control.world import Origin, World
from stratus.model.ids import ProjectId, UserId
from stratus.model.instance import InstanceType
from stratus.model.limits import TITLE_CHARS_MAX, TOKEN_LIFE_DAYS_MAX
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor, Quota, Role, Scope
from stratus.model.trust import Policy, Rule, RuleAction
from stratus.store.events import event_append
from stratus.store.json import json_text
from stratus.store.projects import member_ensure, project_create
from stratus.store.site import EPOCH, policy_set, site_get, site_set
from stratus.store.types import type_ensure
from stratus.store.users import user_by_name, user_create, user_update

NAME: Final = "name"  # the key of the site's name in the store
FIRST_EPOCH: Final = 1
ADMIN: Final = "admin"
FIRST_PROJECT: Final = "default"
SETUP: Final = "set-up"  # who did it, in events

# The types of StratusLab 13.05 to 14.06: processors, MiB of memory, MiB of swap.
FIRST_TYPES: Final = (
    InstanceType(name="t1.micro", vcpus=1, memory_mib=512, swap_mib=512),
    InstanceType(name="m1.small", vcpus=1, memory_mib=1536, swap_mib=1536),
    InstanceType(name="m1.medium", vcpus=1, memory_mib=3072, swap_mib=3072),
    InstanceType(name="m1.large", vcpus=2, memory_mib=6144, swap_mib=6144),
    InstanceType(name="m1.xlarge", vcpus=4, memory_mib=8192, swap_mib=8192),
    InstanceType(name="c1.medium", vcpus=2, memory_mib=1536, swap_mib=1536),
    InstanceType(name="c1.xlarge", vcpus=4, memory_mib=6144, swap_mib=6144),
)

# Only what a key known to the site has endorsed is ever judged, so this rule names no keys.
FIRST_POLICY: Final = Policy(
    rules=(Rule(action=RuleAction.ALLOW, name="endorsed by a trusted key"),),
    default=RuleAction.DENY,
)


class FirstSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What the first administrator comes in with; told once, kept nowhere by us."""

    user: str
    password: str
    token: str
    expires_ms: int  # of the token


def site_name(world: World) -> str:
    """Return the name of the site; "" before it was set up."""
    return world.store.read(lambda connection: site_get(connection, NAME, str)) or ""


def site_init(
    world: World, *, name: str, quota: Quota | None = None, origin: Origin | None = None
) -> FirstSecrets | None:
    """Set the site up, or leave one that is set up as it is and return None.

    The secrets are told this once. The first trust policy lets start what a trusted key has
    endorsed, and nothing else; no key is trusted yet.
    """
    if not 1 <= len(name) <= TITLE_CHARS_MAX or not name.isprintable():
        raise field_refused(
            "name",
            f"It is not 1 to {TITLE_CHARS_MAX} printable characters.",
            "Name the site as its users call it.",
        )
    if site_name(world):
        return None
    password = password_generate(world)
    hashed = password_hash(world, password)
    request_id = "" if origin is None else origin.request_id

    def begin(connection: Connection) -> FirstSecrets | None:
        if site_get(connection, NAME, str):
            return None
        now_ms = world.now_ms()
        site_set(connection, NAME, name)
        if site_get(connection, EPOCH, int) is None:
            site_set(connection, EPOCH, FIRST_EPOCH)
        admin = user_create(
            connection,
            user_id=UserId(world.id_new("user")),
            name=ADMIN,
            password_hash=hashed,
            admin=True,
            now_ms=now_ms,
        )
        project_id = ProjectId(world.id_new("project"))
        project_create(
            connection,
            project_id=project_id,
            name=FIRST_PROJECT,
            quota=quota or Quota(),
            now_ms=now_ms,
        )
        member_ensure(connection, project_id, admin.id, Role.OWNER)
        policy_set(connection, json_text(FIRST_POLICY))
        for type_ in FIRST_TYPES:
            type_ensure(connection, type_)
        event_append(
            connection,
            now_ms=now_ms,
            kind="site.created",
            subject=project_id,
            actor=SETUP,
            request_id=request_id,
            data={"name": name, "admin": ADMIN, "project": FIRST_PROJECT},
        )
        return _secrets(world, connection, admin.id, password, request_id)

    try:
        secrets = world.store.write(begin)
    except Refused as refused:
        # Two replicas began at once on one database: the other one was first.
        if refused.problem.code == "name_taken" and site_name(world):
            return None
        raise
    world.store.hints.send("events")
    return secrets


def admin_secrets_renew(world: World) -> FirstSecrets:
    """Give the first administrator a new password and token, enabled and an administrator again.

    For whoever owns the machine and has lost the file with the first ones; no door leads here.
    """
    password = password_generate(world)
    hashed = password_hash(world, password)

    def renew(connection: Connection) -> FirstSecrets:
        admin = user_by_name(connection, ADMIN)
        if admin is None:
            raise refuse(
                "not_found",
                f"There is no user {ADMIN} yet.",
                remedy="Set the site up first with `stratus up`.",
            )
        user_update(
            connection,
            admin.id,
            version=None,
            password_hash=hashed,
            admin=True,
            auditor=False,
            disabled=False,
        )
        event_append(
            connection,
            now_ms=world.now_ms(),
            kind="user.recovered",
            subject=admin.id,
            actor=SETUP,
        )
        return _secrets(world, connection, admin.id, password, "")

    secrets = world.store.write(renew)
    world.actors.forget()
    world.store.hints.send("events")
    return secrets


def _secrets(
    world: World, connection: Connection, user_id: UserId, password: str, request_id: str
) -> FirstSecrets:
    facts, text = token_write(
        world,
        connection,
        Actor(user_id=user_id, name=ADMIN),
        name=SETUP,
        scopes=tuple(Scope),
        days=TOKEN_LIFE_DAYS_MAX,
        origin=Origin(request_id=request_id),
    )
    return FirstSecrets(user=ADMIN, password=password, token=text, expires_ms=facts.expires_ms)
