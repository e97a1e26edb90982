"""Which endorsers' keys does this site know?"""

from typing import Final

import msgspec
from sqlalchemy import Connection, delete, select

from stratus.model.limits import PAGE_ROWS_MAX
from stratus.model.page import Page
from stratus.store.pages import page_fetch
from stratus.store.schema import trusted_keys
from stratus.store.upsert import upsert


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True):
    """One public key with whom we believe to hold it."""

    fingerprint: str  # sha256:<hex of the SubjectPublicKeyInfo>
    pem: str
    email: str
    added_ms: int


_KEYS: Final = select(
    trusted_keys.c.fingerprint,
    trusted_keys.c.pem,
    trusted_keys.c.email,
    trusted_keys.c.added_ms,
)


def trusted_key_ensure(
    connection: Connection, *, fingerprint: str, pem: str, email: str, now_ms: int
) -> bool:
    """Leave the key among the known ones; tell whether it is new. The first e-mail stays."""
    insert = upsert(connection, trusted_keys).on_conflict_do_nothing()
    values = {"fingerprint": fingerprint, "pem": pem, "email": email, "added_ms": now_ms}
    return connection.execute(insert, values).rowcount == 1


def trusted_key_find(connection: Connection, fingerprint: str) -> TrustedKey | None:
    """Return the key with this fingerprint, or None."""
    row = connection.execute(_KEYS.where(trusted_keys.c.fingerprint == fingerprint)).one_or_none()
    return None if row is None else TrustedKey(**row._mapping)


def trusted_key_list(
    connection: Connection, *, rows_max: int, cursor: str | None = None
) -> Page[TrustedKey]:
    """Return the known keys in the order of their fingerprints."""
    return page_fetch(
        connection,
        _KEYS,
        [trusted_keys.c.fingerprint],
        cursor=cursor,
        rows_max=rows_max,
        make=lambda row: TrustedKey(**row._mapping),
    )


_PEMS: Final = (
    select(trusted_keys.c.fingerprint, trusted_keys.c.pem)
    .order_by(trusted_keys.c.fingerprint)
    .limit(PAGE_ROWS_MAX)
)


def trusted_pems(connection: Connection) -> dict[str, str]:
    """Return every known key in PEM, by fingerprint; read at every start of an image."""
    return {row.fingerprint: row.pem for row in connection.execute(_PEMS)}


def trusted_key_remove(connection: Connection, fingerprint: str) -> bool:
    """Forget this key; tell whether it was known."""
    where = trusted_keys.c.fingerprint == fingerprint
    return connection.execute(delete(trusted_keys).where(where)).rowcount == 1
