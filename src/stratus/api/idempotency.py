"""Was this very request carried out before? Then the same answer is given, and nothing is done.

The claim is written by the first transaction of the request, so the change and the claim are
durable together; the answer is added right after. A crash in between leaves a claim without an
answer: then we say so, since carrying the request out twice is what the key is there to prevent.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from stratus.control.world import World
from stratus.model.ids import UserId
from stratus.model.problem import Refused, refuse
from stratus.model.units import MINUTE_MS
from stratus.store.idempotency import (
    UNANSWERED,
    Claim,
    ClaimingStore,
    GivenAnswer,
    answer_find,
    answer_keep,
)

ANSWER_MS_MAX: Final = MINUTE_MS  # after a change, for its answer to be written
KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,128}")


def key_check(key: str) -> None:
    """Refuse a key that nobody can mean."""
    if not KEY_PATTERN.fullmatch(key):
        raise refuse(
            "bad_request",
            "The header Idempotency-Key is not well formed.",
            remedy="Use 1 to 128 visible ASCII characters, for example a random UUID.",
            field="Idempotency-Key",
        )


def request_sha256(method: str, path: str, body: bytes) -> str:
    """Return the digest by which two requests count as the same."""
    digest = hashlib.sha256(f"{method} {path}\n".encode())
    digest.update(body)
    return digest.hexdigest()


class Keys:
    """The requests with a key that are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[tuple[UserId, str]] = set()

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Let one request at a time use the key; another one is told to come back."""
        mine = (claim.user_id, claim.key)
        with self._lock:
            if mine in self._busy:
                raise _under_way()
            self._busy.add(mine)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(mine)


def given_answer(world: World, claim: Claim) -> GivenAnswer | None:
    """Return the answer given under this key, or None where the request is new."""
    found = world.store.read(lambda connection: answer_find(connection, claim))
    if found is None:
        return None
    if found.request_sha256 != claim.request_sha256:
        raise refuse(
            "idempotency_mismatch",
            "This Idempotency-Key was used for a different request.",
            remedy="Use a fresh key for every new request.",
        )
    if found.status == UNANSWERED:
        if claim.now_ms - found.claimed_ms < ANSWER_MS_MAX:
            raise _under_way()  # perhaps by another replica
        raise refuse(
            "conflict",
            "The request with this Idempotency-Key was carried out, but its answer was lost.",
            remedy="List the things it was about; do not send it again under another key"
            " before you know.",
        )
    return found


def world_claiming(world: World, claim: Claim) -> tuple[World, ClaimingStore]:
    """Return a world whose first transaction takes the key."""
    store = ClaimingStore(world.store, claim)
    return replace(world, store=store), store


def answer_store(world: World, claim: Claim, status: int, body: bytes) -> None:
    """Keep the answer for those who repeat the request."""
    world.store.write(lambda connection: answer_keep(connection, claim, status, body))


def _under_way() -> Refused:
    return refuse(
        "conflict",
        "A request with this Idempotency-Key is being carried out right now.",
        remedy="Wait a moment and send the same request again to get its answer.",
    )
