"""Was this very request carried out before? Claims, made in the change's own transaction."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from stratus.model.ids import UserId
from stratus.model.units import DAY_MS
from stratus.store.engine import Store
from stratus.store.hints import Hints
from stratus.store.schema import idempotency

T = TypeVar("T")

ANSWER_LIFE_MS: Final = DAY_MS
UNANSWERED: Final = 0  # the status of a claim whose answer is not written yet


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One request under a key of its user's choice."""

    user_id: UserId
    key: str
    request_sha256: str
    now_ms: int


class GivenAnswer(msgspec.Struct, frozen=True):
    """What was answered; status UNANSWERED where only the change is known to have happened."""

    request_sha256: str
    status: int
    body: bytes
    claimed_ms: int


class ClaimTaken(Exception):
    """Another request with the same key was carried out in the meantime."""


def answer_find(connection: Connection, claim: Claim) -> GivenAnswer | None:
    """Return what was answered under this key, if it was used lately."""
    row = connection.execute(
        select(
            idempotency.c.request_sha256,
            idempotency.c.status,
            idempotency.c.body,
            idempotency.c.created_ms,
        ).where(
            idempotency.c.user_id == claim.user_id,
            idempotency.c.key == claim.key,
            idempotency.c.created_ms > claim.now_ms - ANSWER_LIFE_MS,
        )
    ).one_or_none()
    return None if row is None else GivenAnswer(*row)


def claim_create(connection: Connection, claim: Claim) -> None:
    """Take the key in this transaction, or raise ClaimTaken; old claims are forgotten."""
    connection.execute(
        delete(idempotency).where(idempotency.c.created_ms <= claim.now_ms - ANSWER_LIFE_MS)
    )
    try:
        connection.execute(
            insert(idempotency).values(
                user_id=claim.user_id,
                key=claim.key,
                request_sha256=claim.request_sha256,
                status=UNANSWERED,
                body=b"",
                created_ms=claim.now_ms,
            )
        )
    except IntegrityError as error:
        raise ClaimTaken from error


def answer_keep(connection: Connection, claim: Claim, status: int, body: bytes) -> None:
    """Write the answer beside its claim."""
    connection.execute(
        update(idempotency)
        .where(
            idempotency.c.user_id == claim.user_id,
            idempotency.c.key == claim.key,
            idempotency.c.request_sha256 == claim.request_sha256,
        )
        .values(status=status, body=body)
    )


class ClaimingStore:
    """A store whose first transaction also takes the key: both are durable, or neither."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.dialect = store.dialect
        self.hints: Hints = store.hints
        self.claimed = False
        self._store = store
        self._claim = claim

    def read(self, function: Callable[[Connection], T]) -> T:
        """Run the function on a consistent snapshot; nothing it does is kept."""
        return self._store.read(function)

    def write(self, function: Callable[[Connection], T]) -> T:
        """Run the function in one transaction, the first of them together with the claim."""
        if self.claimed:
            return self._store.write(function)

        def claiming(connection: Connection) -> T:
            claim_create(connection, self._claim)
            return function(connection)

        result = self._store.write(claiming)
        self.claimed = True
        return result

    def close(self) -> None:
        """Do nothing: the store belongs to somebody else."""
