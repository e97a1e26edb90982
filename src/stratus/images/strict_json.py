"""Can this JSON be read in one way only? Decodes what is exact, and refuses the rest.

Readers differ about repeated names and about NaN, so a signed document that contains them could
mean one thing here and another elsewhere (RFC 8259, section 4).
"""

import json
from typing import Any, NoReturn, TypeVar

import msgspec

from stratus.images.refusal import invalid
from stratus.model.problem import Refused

T = TypeVar("T")


class _Ambiguous(ValueError):
    """The text can be read in several ways."""


def strict_decode(content: bytes, type: type[T], *, bytes_max: int) -> T:
    """Return the value, if it has exactly this type's fields, each once."""
    if len(content) > bytes_max:
        raise invalid(f"The document has {len(content)} bytes; {bytes_max} are allowed.")
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant
        )
        return msgspec.convert(value, type)
    except RecursionError as error:
        raise invalid("The document is nested too deeply.") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise _unreadable(error) from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Ambiguous("a name appears twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Ambiguous(f"{name} is no JSON")


def _unreadable(error: Exception) -> Refused:
    return invalid(f"The document is not well formed: {str(error)[:200]}.")
