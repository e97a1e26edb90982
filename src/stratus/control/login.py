"""Who is asking? Passwords buy tokens, tokens make actors.

A token reads `st_<body of its id>_<secret>`; the store holds the SHA-256 of the secret alone.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection

from stratus.control.commands import commit, note
from stratus.control.passwords import (
    password_fits,
    password_hash,
    password_is_outdated,
)
from stratus.control.requests import field_refused
from stratus.control.world import Origin, World
from stratus.model.ids import BODY_CHARS, PREFIXES, TokenId, id_is
from stratus.model.limits import TOKEN_LIFE_DAYS_MAX
from stratus.model.problem import Problem, Refused, refuse
from stratus.model.tenancy import Actor, Scope, TokenFacts, UserFacts
from stratus.model.units import DAY_MS
from stratus.store.projects import member_roles
from stratus.store.tokens import token_create as row_create
from stratus.store.tokens import token_find, token_list, tokens_prune
from stratus.store.users import user_by_id, user_by_name, user_password_hash, user_update

MARK: Final = "st_"
SECRET_BITS: Final = 256
SECRET_CHARS: Final = 43
TOKEN_CHARS: Final = len(MARK) + BODY_CHARS + 1 + SECRET_CHARS
TOKEN_NAME_CHARS_MAX: Final = 64
TOKENS_MAX: Final = 200  # of one user
EXPIRED_KEPT_MS: Final = 7 * DAY_MS  # so long we say "expired" rather than "unknown"
NO_DIGEST: Final = bytes(32)

WRONG: Final = Problem(
    code="unauthenticated",
    detail="Name or password is wrong.",
    remedy="Check both; an administrator can set a new password with `stratus user password`.",
)
UNKNOWN_TOKEN: Final = Problem(
    code="unauthenticated",
    detail="The token is not known.",
    remedy="Log in again with `stratus login`.",
)
EXPIRED: Final = Problem(
    code="token_expired",
    detail="The token has expired.",
    remedy="Log in again with `stratus login`.",
)


def login(
    world: World,
    *,
    name: str,
    password: str,
    token_name: str = "login",  # noqa: S107  # a name, not a secret
    scopes: Collection[Scope] = (Scope.READ, Scope.WRITE, Scope.ADMIN),
    days: int = 30,
    origin: Origin,
) -> tuple[TokenFacts, str]:
    """Buy a token with a password; its text is shown this once.

    A name that nobody has takes as long to refuse as a wrong password.
    """
    token_check(token_name, scopes, days)

    def look(connection: Connection) -> tuple[UserFacts | None, str]:
        user = user_by_name(connection, name)
        return user, "" if user is None else user_password_hash(connection, user.id)

    user, stored = world.store.read(look)
    if not password_fits(stored, password) or user is None:
        raise Refused(WRONG)
    if user.disabled:
        raise _disabled(user)

    user_id = user.id

    def buy(connection: Connection) -> tuple[TokenFacts, str]:
        now = user_by_id(connection, user_id)
        assert now is not None, "users are disabled, never removed"
        if now.disabled:
            raise _disabled(now)
        if user_password_hash(connection, user_id) != stored:
            raise Refused(WRONG)  # it was changed while we were hashing
        actor = Actor(user_id=now.id, name=now.name)
        return token_write(
            world, connection, actor, name=token_name, scopes=scopes, days=days, origin=origin
        )

    bought = commit(world, buy)
    if password_is_outdated(stored):
        _rehash(world, user, stored, password)
    return bought


def _rehash(world: World, user: UserFacts, stored: str, password: str) -> None:
    """Store the password anew with today's parameters, unless it was changed meanwhile."""
    fresh = password_hash(world, password)

    def renew(connection: Connection) -> None:
        if user_password_hash(connection, user.id) == stored:
            user_update(connection, user.id, version=None, password_hash=fresh)

    world.store.write(renew)


def _disabled(user: UserFacts) -> Refused:
    return refuse(
        "unauthenticated",
        f"The account {user.name} is disabled.",
        remedy="Ask an administrator to enable it.",
    )


def token_check(name: str, scopes: Collection[Scope], days: int) -> None:
    """Refuse a token that cannot be made as asked."""
    if not 1 <= len(name) <= TOKEN_NAME_CHARS_MAX or not name.isprintable():
        raise field_refused(
            "name",
            f"It is not 1 to {TOKEN_NAME_CHARS_MAX} printable characters.",
            "Name the token after what uses it.",
        )
    if not scopes:
        raise field_refused(
            "scopes", "A token without scopes opens nothing.", "Choose of read, write and admin."
        )
    if not 1 <= days <= TOKEN_LIFE_DAYS_MAX:
        raise field_refused(
            "days",
            f"{days} is not between 1 and {TOKEN_LIFE_DAYS_MAX}.",
            "Choose a shorter life; a token can be replaced at any time.",
        )


def token_write(
    world: World,
    connection: Connection,
    actor: Actor,
    *,
    name: str,
    scopes: Collection[Scope],
    days: int,
    origin: Origin,
) -> tuple[TokenFacts, str]:
    """Make a token of the actor's own within this transaction; return it with its text."""
    now_ms = world.now_ms()
    tokens_prune(connection, before_ms=now_ms - EXPIRED_KEPT_MS)
    if len(token_list(connection, actor.user_id, rows_max=TOKENS_MAX).items) >= TOKENS_MAX:
        raise refuse(
            "conflict",
            f"User {actor.name} has {TOKENS_MAX} tokens already.",
            remedy="Revoke some with `stratus token rm`.",
        )
    token_id = TokenId(world.id_new("token"))
    raw = world.chance(SECRET_BITS).to_bytes(SECRET_BITS // 8, "big")
    secret = urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
    facts = TokenFacts(
        id=token_id,
        user_id=actor.user_id,
        name=name,
        scopes=tuple(scope for scope in Scope if scope in scopes),
        created_ms=now_ms,
        expires_ms=now_ms + days * DAY_MS,
    )
    row_create(connection, facts, secret_hash=hashlib.sha256(secret.encode()).digest())
    note(
        connection,
        world,
        actor,
        origin,
        "token.created",
        token_id,
        name=name,
        scopes=list(facts.scopes),
        expires_ms=facts.expires_ms,
    )
    return facts, f"{MARK}{token_id.removeprefix(PREFIXES['token'] + '-')}_{secret}"


def actor_by_token(world: World, text: str) -> Actor:
    """Return who holds this token, or refuse it.

    Remembered for a few seconds; a change of rights in this process is seen at once.
    """
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    now_ms = world.now_ms()
    actor = world.actors.find(digest, now_ms=now_ms)
    if actor is not None:
        return actor
    token_id, secret = _token_parse(text)
    age = world.actors.age

    def look(connection: Connection) -> tuple[Actor, int]:
        found = token_find(connection, token_id)
        stored = NO_DIGEST if found is None else found.secret_hash
        proof = hashlib.sha256(secret.encode()).digest()
        if not hmac.compare_digest(proof, stored) or found is None:
            raise Refused(UNKNOWN_TOKEN)
        if now_ms >= found.token.expires_ms:
            raise Refused(EXPIRED)
        if found.user.disabled:
            raise _disabled(found.user)
        actor = Actor(
            user_id=found.user.id,
            name=found.user.name,
            admin=found.user.admin,
            auditor=found.user.auditor,
            scopes=frozenset(found.token.scopes),
            roles=member_roles(connection, found.user.id),
            token_id=found.token.id,
        )
        return actor, found.token.expires_ms

    actor, expires_ms = world.store.read(look)
    world.actors.keep(digest, actor, age=age, now_ms=now_ms, expires_ms=expires_ms)
    return actor


def _token_parse(text: str) -> tuple[TokenId, str]:
    """Take the token apart without telling apart the ways in which it may be wrong."""
    body_end = len(MARK) + BODY_CHARS
    if (
        len(text) != TOKEN_CHARS
        or not text.isascii()
        or not text.startswith(MARK)
        or text[body_end] != "_"
    ):
        raise Refused(UNKNOWN_TOKEN)
    token_id = f"{PREFIXES['token']}-{text[len(MARK) : body_end]}"
    if not id_is("token", token_id):
        raise Refused(UNKNOWN_TOKEN)
    return TokenId(token_id), text[body_end + 1 :]
