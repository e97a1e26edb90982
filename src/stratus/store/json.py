"""How do structured values live in text columns? As JSON, "" standing for nothing."""

from functools import cache
from typing import Any, TypeVar

import msgspec

from stratus.model.problem import Problem

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401  # any msgspec type form
    return msgspec.json.Decoder(kind)


def json_text(value: object) -> str:
    """Encode a value for its column; None becomes ""."""
    return "" if value is None else _encoder.encode(value).decode()


def json_value(kind: type[T], text: str) -> T:
    """Decode a column that is never empty."""
    decoded: T = _decoder(kind).decode(text)  # type: ignore[arg-type]  # types are hashable
    return decoded


def problem_text(problem: Problem | None) -> str:
    """Encode a Problem for its column."""
    return json_text(problem)


def problem_value(text: str) -> Problem | None:
    """Decode a Problem from its column."""
    return json_value(Problem, text) if text else None
