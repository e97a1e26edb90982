"""How does a command end badly? With what happened, a remedy, and an exit code by kind."""

from enum import IntEnum
from typing import Final

from stratus.model.problem import CATALOGUE, Kind, Problem


class Exit(IntEnum):
    """What the shell is told; the table in docs/reference/cli.md is made from this one."""

    OK = 0
    USAGE = 2
    LOGIN = 3
    FORBIDDEN = 4
    NOT_FOUND = 5
    CONFLICT = 6
    QUOTA = 7
    INVALID = 8
    UNAVAILABLE = 9
    FAILED = 10
    TIMEOUT = 11
    BUG = 70
    INTERRUPTED = 130
    PIPE = 141


EXIT_WORDS: Final[dict[Exit, str]] = {
    Exit.OK: "done",
    Exit.USAGE: "the command line is wrong",
    Exit.LOGIN: "not logged in, or the token has expired",
    Exit.FORBIDDEN: "logged in, but without the right to do this",
    Exit.NOT_FOUND: "there is no such thing, or you may not see it",
    Exit.CONFLICT: "the present state does not allow it, it changed meanwhile, or a name fits "
    "several things",
    Exit.QUOTA: "the project's quota is used up",
    Exit.INVALID: "the request is wrong, or can never be met",
    Exit.UNAVAILABLE: "the cloud, or something it needs, does not answer at the moment",
    Exit.FAILED: "the request was accepted, but it did not come true",
    Exit.TIMEOUT: "it had not come true when --timeout was over; the request goes on",
    Exit.BUG: "a fault of ours",
    Exit.INTERRUPTED: "interrupted with Ctrl-C; an accepted request goes on",
    Exit.PIPE: "the reader of the output went away",
}

EXIT_OF_KIND: Final[dict[Kind, Exit]] = {
    Kind.INVALID: Exit.INVALID,
    Kind.UNAUTHENTICATED: Exit.LOGIN,
    Kind.FORBIDDEN: Exit.FORBIDDEN,
    Kind.NOT_FOUND: Exit.NOT_FOUND,
    Kind.CONFLICT: Exit.CONFLICT,
    Kind.STALE: Exit.CONFLICT,
    Kind.TOO_LARGE: Exit.INVALID,
    Kind.QUOTA: Exit.QUOTA,
    Kind.IMPOSSIBLE: Exit.INVALID,
    Kind.RATE: Exit.UNAVAILABLE,
    Kind.UNAVAILABLE: Exit.UNAVAILABLE,
    Kind.BUG: Exit.BUG,
}

# For a server newer than this client, whose code we do not know.
EXIT_OF_STATUS: Final[dict[int, Exit]] = {
    401: Exit.LOGIN,
    403: Exit.FORBIDDEN,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    429: Exit.UNAVAILABLE,
    500: Exit.BUG,
}


class Trouble(Exception):
    """The command ends here: says what happened, what the user can do, and the exit code."""

    def __init__(
        self, exit_: Exit, detail: str, *, remedy: str, code: str = "", request_id: str = ""
    ) -> None:
        super().__init__(detail)
        self.exit = exit_
        self.detail = detail
        self.remedy = remedy
        self.code = code
        self.request_id = request_id


def exit_of(code: str, status: int = 0) -> Exit:
    """Choose the exit code for a problem's code; the HTTP status helps where we do not know it."""
    if code in CATALOGUE:
        return EXIT_OF_KIND[CATALOGUE[code].kind]
    if status in EXIT_OF_STATUS:
        return EXIT_OF_STATUS[status]
    return Exit.UNAVAILABLE if status >= 500 else Exit.INVALID


def trouble_of(problem: Problem) -> Trouble:
    """Turn a refusal of our own into the end of the command."""
    return Trouble(exit_of(problem.code), problem.detail, remedy=problem.remedy, code=problem.code)
