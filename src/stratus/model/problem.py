"""What went wrong, and what can the user do about it?

Three sorts of trouble exist: a `Problem` (the user can act), `Later` (we look again),
and anything else, which is a bug. A Problem's remedy is mandatory.
"""

from enum import StrEnum
from typing import Any, Final

import msgspec


class Kind(StrEnum):
    """The few sorts of refusal; doors map each to a status and the command line to an exit code."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    STALE = "stale"
    TOO_LARGE = "too_large"
    QUOTA = "quota"
    IMPOSSIBLE = "impossible"
    RATE = "rate"
    UNAVAILABLE = "unavailable"
    BUG = "bug"


class ProblemEntry(msgspec.Struct, frozen=True):
    """One line of the problem catalogue: a stable code, its kind and its title."""

    kind: Kind
    title: str


# The stable codes. docs/reference/problems.md is generated from this table.
CATALOGUE: Final[dict[str, ProblemEntry]] = {
    "bad_request": ProblemEntry(Kind.INVALID, "The request is not well formed"),
    "invalid_field": ProblemEntry(Kind.INVALID, "A field has a wrong value"),
    "unauthenticated": ProblemEntry(Kind.UNAUTHENTICATED, "You are not logged in"),
    "token_expired": ProblemEntry(Kind.UNAUTHENTICATED, "The token has expired"),
    "forbidden": ProblemEntry(Kind.FORBIDDEN, "You may not do this"),
    "not_found": ProblemEntry(Kind.NOT_FOUND, "There is no such thing, or you may not see it"),
    "method_not_allowed": ProblemEntry(Kind.INVALID, "This address does not know the method"),
    "name_taken": ProblemEntry(Kind.CONFLICT, "The name is taken"),
    "name_ambiguous": ProblemEntry(Kind.CONFLICT, "The name fits several things"),
    "conflict": ProblemEntry(Kind.CONFLICT, "The present state does not allow this"),
    "in_use": ProblemEntry(Kind.CONFLICT, "The thing is in use"),
    "idempotency_mismatch": ProblemEntry(Kind.CONFLICT, "The idempotency key was used differently"),
    "stale": ProblemEntry(Kind.STALE, "Somebody changed it in the meantime"),
    "body_too_large": ProblemEntry(Kind.TOO_LARGE, "The request body is too large"),
    "quota_exceeded": ProblemEntry(Kind.QUOTA, "The project's quota is used up"),
    "never_fits": ProblemEntry(Kind.IMPOSSIBLE, "No host of this site can ever hold it"),
    "no_room_now": ProblemEntry(Kind.UNAVAILABLE, "No host has room at the moment"),
    "addresses_exhausted": ProblemEntry(Kind.UNAVAILABLE, "The network has no free address"),
    "no_space": ProblemEntry(Kind.UNAVAILABLE, "The pool is full"),
    "policy_forbids": ProblemEntry(Kind.FORBIDDEN, "The site's trust policy forbids this image"),
    "image_not_ready": ProblemEntry(Kind.CONFLICT, "The image is not ready"),
    "image_broken": ProblemEntry(Kind.INVALID, "The image cannot be used"),
    "checksum_mismatch": ProblemEntry(Kind.INVALID, "The bytes do not match their checksum"),
    "download_failed": ProblemEntry(Kind.UNAVAILABLE, "The download failed"),
    "endorsement_invalid": ProblemEntry(Kind.INVALID, "The endorsement is not valid"),
    "host_unreachable": ProblemEntry(Kind.UNAVAILABLE, "The host does not answer"),
    "host_refused": ProblemEntry(Kind.UNAVAILABLE, "The hypervisor refused"),
    "guest_failed": ProblemEntry(Kind.UNAVAILABLE, "The guest did not start"),
    "volume_failed": ProblemEntry(Kind.UNAVAILABLE, "The storage refused"),
    "network_failed": ProblemEntry(Kind.UNAVAILABLE, "The network refused"),
    "deadline_passed": ProblemEntry(Kind.UNAVAILABLE, "It took longer than its deadline"),
    "rate_limited": ProblemEntry(Kind.RATE, "Too many requests"),
    "overloaded": ProblemEntry(Kind.UNAVAILABLE, "The service is busy"),
    "store_busy": ProblemEntry(Kind.UNAVAILABLE, "The store is held by another process"),
    "store_unreachable": ProblemEntry(Kind.UNAVAILABLE, "The store does not answer"),
    "store_damaged": ProblemEntry(Kind.UNAVAILABLE, "The store is damaged"),
    "machine_unfit": ProblemEntry(Kind.UNAVAILABLE, "This machine lacks something"),
    "configuration": ProblemEntry(Kind.INVALID, "The configuration is wrong"),
    "bug": ProblemEntry(Kind.BUG, "This is a fault of ours"),
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal that a user can act on: stable code, what happened, and a remedy."""

    code: str
    detail: str
    remedy: str
    context: dict[str, Any] = {}

    def __post_init__(self) -> None:
        assert self.code in CATALOGUE, f"{self.code} is not in the problem catalogue"
        assert self.remedy, f"{self.code} needs a remedy"

    @property
    def kind(self) -> Kind:
        """The sort of refusal this is."""
        return CATALOGUE[self.code].kind

    @property
    def title(self) -> str:
        """The code in words, the same for every occurrence."""
        return CATALOGUE[self.code].title


class Refused(Exception):
    """The user can act on this: carries the Problem to whichever door they came through."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


class Later(Exception):
    """Nobody can act on this now; we look again by ourselves after `seconds`."""

    def __init__(self, *, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.reason = reason


def refuse(code: str, detail: str, *, remedy: str, **context: Any) -> Refused:  # noqa: ANN401  # becomes JSON
    """Make the exception for a refusal, ready to raise."""
    return Refused(Problem(code=code, detail=detail, remedy=remedy, context=context))
