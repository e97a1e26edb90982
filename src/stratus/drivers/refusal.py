"""How does an error of the operating system become a refusal that a user can act on?"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.model.problem import Problem

FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
GONE_ERRNOS: Final = frozenset({errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT})


def failed(
    code: str,
    detail: str,
    *,
    remedy: str,
    transient: bool = False,
    **context: Any,  # noqa: ANN401  # becomes JSON
) -> DriverFailed:
    """Make the exception for an engine's refusal, ready to raise."""
    problem = Problem(code=code, detail=detail, remedy=remedy, context=context)
    return DriverFailed(problem, transient=transient)


def unreachable(code: str, detail: str, *, remedy: str) -> EngineUnreachable:
    """Make the exception for an engine that does not answer, ready to raise."""
    return EngineUnreachable(Problem(code=code, detail=detail, remedy=remedy))


def no_space(detail: str) -> DriverFailed:
    """Make the refusal of a full pool, ready to raise."""
    return failed(
        "no_space",
        detail,
        remedy="Delete volumes or images that nobody needs, or give the pool more space;"
        " waiting requests then go on by themselves.",
    )


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Turn every OSError within into the failure that says what was being done."""
    try:
        yield
    except OSError as error:
        raise refusal_of(error, doing) from error


def refusal_of(error: OSError, doing: str) -> DriverFailed | EngineUnreachable:
    """Translate one error of the operating system."""
    said = f"{doing}: {error.strerror or error}" + (
        f" ({error.filename})" if error.filename else ""
    )
    if error.errno in FULL_ERRNOS:
        return no_space(said)
    if error.errno in GONE_ERRNOS:
        return unreachable("volume_failed", said, remedy="Check the mount of the pool's directory.")
    return failed(
        "volume_failed",
        said,
        remedy="Look at the directory and its file system on the machine that serves the pool.",
    )
