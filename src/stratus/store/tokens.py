"""Which API tokens are good? Only digests are stored; a revoked token's row is gone."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, select

from stratus.model.ids import TokenId, UserId
from stratus.model.page import Page
from stratus.model.tenancy import Scope, TokenFacts, UserFacts
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import tokens, users

TOKENS_PRUNED_MAX: Final = 1000  # rows removed in one transaction


class TokenFound(msgspec.Struct, frozen=True, kw_only=True):
    """A token with what its secret must hash to, and whose it is."""

    token: TokenFacts
    secret_hash: bytes
    user: UserFacts


_COLUMNS: Final = (
    tokens.c.id,
    tokens.c.user_id,
    tokens.c.name,
    tokens.c.scopes,
    tokens.c.created_ms,
    tokens.c.expires_ms,
)
_FOUND: Final = (
    select(
        *_COLUMNS,
        tokens.c.secret_hash,
        *(
            users.c[name].label(f"user_{name}")
            for name in UserFacts.__struct_fields__
            if name != "id"
        ),
    )
    .select_from(tokens.join(users, users.c.id == tokens.c.user_id))
    .where(tokens.c.id == bindparam("id"))
)


def _facts(row: AnyRow) -> TokenFacts:
    return TokenFacts(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        scopes=tuple(Scope(word) for word in row.scopes.split()),
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
    )


def token_create(connection: Connection, token: TokenFacts, *, secret_hash: bytes) -> None:
    """Let whoever knows the secret behind this digest come in as the token's user."""
    connection.execute(
        tokens.insert(),
        {
            "id": token.id,
            "user_id": token.user_id,
            "name": token.name,
            "secret_hash": secret_hash,
            "scopes": scopes_text(token.scopes),
            "created_ms": token.created_ms,
            "expires_ms": token.expires_ms,
        },
    )


def scopes_text(scopes: Sequence[Scope]) -> str:
    """Write scopes as they are stored: in a fixed order, each once."""
    return " ".join(scope for scope in Scope if scope in scopes)


def token_find(connection: Connection, token_id: TokenId) -> TokenFound | None:
    """Return the token and its user, or None; the caller checks secret, expiry and standing."""
    row = connection.execute(_FOUND, {"id": token_id}).one_or_none()
    if row is None:
        return None
    return TokenFound(
        token=_facts(row),
        secret_hash=row.secret_hash,
        user=UserFacts(
            id=row.user_id,
            name=row.user_name,
            admin=row.user_admin,
            auditor=row.user_auditor,
            disabled=row.user_disabled,
            created_ms=row.user_created_ms,
            version=row.user_version,
        ),
    )


def token_list(
    connection: Connection, user_id: UserId, *, rows_max: int, cursor: str | None = None
) -> Page[TokenFacts]:
    """Return the user's tokens in the order they were made."""
    return page_fetch(
        connection,
        select(*_COLUMNS).where(tokens.c.user_id == user_id),
        [tokens.c.id],
        cursor=cursor,
        rows_max=rows_max,
        make=_facts,
    )


def token_remove(
    connection: Connection, token_id: TokenId, *, user_id: UserId | None = None
) -> bool:
    """Revoke the token, of this user only where one is named; tell whether it was there."""
    statement = delete(tokens).where(tokens.c.id == token_id)
    if user_id is not None:
        statement = statement.where(tokens.c.user_id == user_id)
    return connection.execute(statement).rowcount == 1


def tokens_prune(
    connection: Connection, *, before_ms: int, rows_max: int = TOKENS_PRUNED_MAX
) -> int:
    """Forget tokens that expired before this time, not more than so many; return how many."""
    doomed = select(tokens.c.id).where(tokens.c.expires_ms < before_ms).limit(rows_max)
    return connection.execute(delete(tokens).where(tokens.c.id.in_(doomed))).rowcount
