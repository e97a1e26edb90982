"""Who is asking, for whom, and how much may they have? Users, projects, roles, quotas."""

from enum import StrEnum

import msgspec

from stratus.model.ids import ProjectId, TokenId, UserId


class Role(StrEnum):
    """What a user may do within one project."""

    READER = "reader"
    MEMBER = "member"
    OWNER = "owner"


class Scope(StrEnum):
    """What a token may be used for at most."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking: the user, their standing, and what their token allows."""

    user_id: UserId
    name: str
    admin: bool = False
    auditor: bool = False
    scopes: frozenset[Scope] = frozenset((Scope.READ, Scope.WRITE, Scope.ADMIN))
    roles: dict[ProjectId, Role] = {}
    token_id: TokenId | None = None


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """The ceilings of one project; -1 means no ceiling."""

    instances: int = 20
    vcpus: int = 40
    memory_mib: int = 80 * 1024
    volumes: int = 80
    volume_gib: int = 1000
    addresses: int = 40


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a project uses, or what a request would add; same units as Quota."""

    instances: int = 0
    vcpus: int = 0
    memory_mib: int = 0
    volumes: int = 0
    volume_gib: int = 0
    addresses: int = 0


class UserFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One user as the store knows them; never the password."""

    id: UserId
    name: str
    admin: bool
    auditor: bool
    disabled: bool
    created_ms: int
    version: int


class ProjectFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One project with its quota and present use."""

    id: ProjectId
    name: str
    quota: Quota
    usage: Usage
    created_ms: int
    version: int


class TokenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One API token as the store knows it; the secret exists only at its owner's."""

    id: TokenId
    user_id: UserId
    name: str
    scopes: tuple[Scope, ...]
    created_ms: int
    expires_ms: int
