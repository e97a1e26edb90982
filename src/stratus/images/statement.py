"""What does an endorsement say? An in-toto Statement (v1) about one image.

Fields: reference/marketplace.md section 6.7; https://github.com/in-toto/attestation spec/v1.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from stratus.images.identifier import identifier_of
from stratus.images.refusal import invalid
from stratus.images.strict_json import strict_decode
from stratus.model.image import ImageFormat
from stratus.model.limits import ENDORSEMENT_BYTES_MAX, IMAGE_BYTES_MAX

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://stratuslab.eu/endorsement/v1"
FILES_MAX: Final = 16
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
TIME_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z\Z"

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Sha1 = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z")]
Fingerprint = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Email = Annotated[str, Meta(pattern=r"^[^\s@<>\"]{1,64}@[A-Za-z0-9.-]{1,189}\Z")]
Time = Annotated[str, Meta(pattern=TIME_PATTERN)]
Bytes = Annotated[int, Meta(ge=0, le=IMAGE_BYTES_MAX)]
Reason = Annotated[str, Meta(min_length=1, max_length=1000)]
Uri = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]*:[!-~]{1,2000}\Z")]


class _Exact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a statement: these fields and no others."""


class StatementDigest(_Exact, frozen=True, kw_only=True):
    """The digests of the image's bytes."""

    sha256: Sha256
    sha1: Sha1


class Subject(_Exact, frozen=True, kw_only=True):
    """What the statement is about; the name is the StratusLab identifier."""

    name: str
    digest: StatementDigest


class Endorser(_Exact, frozen=True, kw_only=True):
    """Who says it."""

    email: Email
    key: Fingerprint


class StatementFile(_Exact, frozen=True, kw_only=True):
    """One place from which the image can be fetched."""

    uri: Uri
    sha256: Sha256
    size: Bytes
    compression: Literal["gzip", "xz", "zstd", "bzip2"] | None


class Predicate(_Exact, frozen=True, kw_only=True):
    """What is said about the image."""

    endorser: Endorser
    created: Time
    valid: Time
    deprecated: Reason | None
    size: Bytes
    format: ImageFormat
    files: Annotated[tuple[StatementFile, ...], Meta(max_length=FILES_MAX)]


class Statement(_Exact, frozen=True, kw_only=True, rename={"type": "_type"}):
    """The whole payload."""

    type: Literal["https://in-toto.io/Statement/v1"]
    subject: tuple[Subject]
    predicateType: Literal["https://stratuslab.eu/endorsement/v1"]  # the standard's name
    predicate: Predicate


def statement_build(statement: Statement) -> bytes:
    """Return the payload; refuses a statement that `statement_parse` would not take."""
    payload = msgspec.json.encode(statement)
    statement_parse(payload)
    return payload


def statement_parse(payload: bytes) -> Statement:
    """Return the statement, if it has exactly the fields it should and agrees with itself."""
    statement = strict_decode(payload, Statement, bytes_max=ENDORSEMENT_BYTES_MAX)
    (subject,) = statement.subject
    predicate = statement.predicate
    if subject.name != identifier_of(subject.digest.sha1):
        raise invalid("The identifier does not belong to the SHA-1 beside it.")
    if time_ms(predicate.valid) <= time_ms(predicate.created):
        raise invalid("The endorsement ends before it begins.")
    return statement


def time_text(at_ms: int) -> str:
    """Write a time as RFC 3339 in UTC, to the millisecond."""
    text = (EPOCH + at_ms * MILLISECOND).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def time_ms(text: str) -> int:
    """Read what `time_text` wrote; the fraction may be missing."""
    if re.match(TIME_PATTERN, text) is None:
        raise invalid(f"{text[:40]!r} is no time of the form 2026-01-31T12:00:00Z.")
    try:
        return (datetime.fromisoformat(text) - EPOCH) // MILLISECOND
    except ValueError as error:
        raise invalid(f"{text!r} is no time.") from error
