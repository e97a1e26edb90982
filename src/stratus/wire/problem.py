"""How does a Problem travel over HTTP? As RFC 9457 problem+json, with code, remedy and request id.

A quota is a 409, not a 403: the caller has the right, and the remedy is to change the present
state (stop something, or have the ceiling raised).
"""

from typing import Any, Final

import msgspec

from stratus.model.problem import CATALOGUE, Kind, Problem

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:stratus:problem:"

STATUS_OF_KIND: Final[dict[Kind, int]] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.QUOTA: 409,
    Kind.STALE: 412,
    Kind.TOO_LARGE: 413,
    Kind.IMPOSSIBLE: 422,
    Kind.RATE: 429,
    Kind.BUG: 500,
    Kind.UNAVAILABLE: 503,
}

# Codes for which HTTP has a status of its own, narrower than that of their kind.
STATUS_OF_CODE: Final[dict[str, int]] = {"method_not_allowed": 405}


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every refusal: what happened, its stable code, and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str
    context: dict[str, Any] = {}
    instance: str = ""  # urn:stratus:request:<request id>
    request_id: str = ""


def status_of(code: str) -> int:
    """Return the HTTP status that a problem with this code answers with."""
    return STATUS_OF_CODE.get(code) or STATUS_OF_KIND[CATALOGUE[code].kind]


def problem_body(problem: Problem, *, request_id: str = "") -> ProblemBody:
    """Put a problem in the words of RFC 9457."""
    return ProblemBody(
        type=TYPE_PREFIX + problem.code,
        title=problem.title,
        status=status_of(problem.code),
        detail=problem.detail,
        code=problem.code,
        remedy=problem.remedy,
        context=problem.context,
        instance=f"urn:stratus:request:{request_id}" if request_id else "",
        request_id=request_id,
    )


def problem_encode(problem: Problem, *, request_id: str = "") -> bytes:
    """Write a problem as problem+json; context that is no JSON is written as text."""
    return msgspec.json.encode(problem_body(problem, request_id=request_id), enc_hook=str)


def problem_decode(data: bytes) -> ProblemBody | None:
    """Read problem+json; None where the bytes are something else (a proxy's page, say)."""
    try:
        return msgspec.json.decode(data, type=ProblemBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
