"""Is what came in what we expect? Bytes and query strings to structs, or a Problem that helps."""

import re
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from stratus.model.problem import Refused, refuse

B = TypeVar("B", bound=msgspec.Struct)

QUERY_FIELDS_MAX: Final = 32
REFERENCE_PATTERN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._@+:=~-]{0,127}")
# JSON may carry the character NUL, which PostgreSQL's text may not.
NUL_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>.*)`)?$", re.DOTALL)
MISSING: Final = re.compile(r"^Object missing required field `(.*)`$", re.DOTALL)
UNKNOWN: Final = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
FIELD_CHARS_MAX: Final = 80
# As we write it, or the bare version that the body shows.
ETAG_PATTERN: Final = re.compile(r'(?:W/)?"([0-9]{1,15})(?:-[0-9a-f]{1,8})?"|([0-9]{1,15})')


def body_decode(kind: type[B], body: bytes, content_type: str) -> B:
    """Read a JSON body; an empty one stands for `{}`."""
    if not body:
        body = b"{}"
    elif content_type and not _is_json(content_type):
        raise refuse(
            "bad_request",
            f"The body is said to be {content_type[:FIELD_CHARS_MAX]!r}; only JSON is understood.",
            remedy="Send JSON with the header Content-Type: application/json.",
        )
    if NUL_ESCAPE.search(body):
        raise refuse(
            "bad_request",
            "The body contains the character NUL (\\u0000).",
            remedy="Remove it; encode binary data as base64.",
        )
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise field_refused(error, kind, "body") from error
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise refuse(
            "bad_request",
            f"The body is not the JSON that is expected: {said[:200]}.",
            remedy="Send one JSON object in UTF-8; GET /v1/openapi.json describes its fields.",
        ) from error


def query_decode(kind: type[B], query_string: bytes) -> B:
    """Read the query string; every parameter at most once."""
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError as error:
        raise refuse(
            "bad_request",
            "The query string is not well formed.",
            remedy=f"Write at most {QUERY_FIELDS_MAX} parameters, percent-encoded in UTF-8.",
        ) from error
    for name, value in pairs:
        if "\0" in value or "\0" in name:
            raise refuse(
                "bad_request",
                "The query string contains the character NUL.",
                remedy="Remove it.",
            )
        if name in found:
            raise refuse(
                "bad_request",
                f"The parameter {name[:FIELD_CHARS_MAX]!r} is given twice.",
                remedy="Give every parameter once.",
                field=name[:FIELD_CHARS_MAX],
            )
        found[name] = value
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise field_refused(error, kind, "query") from error


def reference_check(text: str) -> bool:
    """Tell whether this part of an address can name anything at all."""
    return REFERENCE_PATTERN.fullmatch(text) is not None


def field_refused(
    error: msgspec.ValidationError, kind: type[msgspec.Struct], where: str
) -> Refused:
    """Say which field is wrong, how, and what would be right."""
    matched = AT.match(str(error))
    assert matched is not None, "the pattern takes everything"
    what = matched["what"]
    place = (matched["where"] or "$").removeprefix("$").removeprefix(".")
    noun = "parameter" if where == "query" else "field"
    if missing := MISSING.match(what):
        field = _joined(place, missing[1])
        return refuse(
            "invalid_field",
            f"The {noun} {field} is missing.",
            remedy=f"Add the {noun} {field}.",
            field=field,
        )
    if unknown := UNKNOWN.match(what):
        field = _joined(place, unknown[1])[:FIELD_CHARS_MAX]
        known = ", ".join(kind.__struct_encode_fields__) if not place else ""
        return refuse(
            "invalid_field",
            f"The {noun} {field!r} is not known here.",
            remedy=f"Remove it or correct its spelling; known here: {known or 'see OpenAPI'}."
            if known or place
            else f"Remove it; no {noun} is known here.",
            field=field,
        )
    field = place[:FIELD_CHARS_MAX]
    named = f"The {noun} {field}" if field else f"The {where}"
    return refuse(
        "invalid_field",
        f"{named} has a wrong value: {what[:1].lower()}{what[1:400]}.",
        remedy=f"Correct the {noun}; GET /v1/openapi.json describes what it may be.",
        field=field,
    )


def _joined(place: str, field: str) -> str:
    return f"{place}.{field}" if place else field


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def header_version(value: str) -> int | None:
    """Read If-Match: the version in an ETag of ours, None for `*`."""
    text = value.strip()
    if text == "*":
        return None
    matched = ETAG_PATTERN.fullmatch(text)
    if matched is None:
        raise refuse(
            "bad_request",
            "The header If-Match does not hold an ETag of this service.",
            remedy='Send the ETag that the thing was shown with, as in If-Match: "7".',
            field="If-Match",
        )
    return int(matched[1] or matched[2])
