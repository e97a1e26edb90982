"""Who vouches for an image? An endorsement is made with a key and verified against known keys."""

import hashlib
from collections.abc import Mapping, Sequence

from stratus.images.dsse import envelope_sign, envelope_verify
from stratus.images.identifier import identifier_of
from stratus.images.keys import PrivateKey, fingerprint_of
from stratus.images.refusal import invalid
from stratus.images.statement import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Endorser,
    Predicate,
    Statement,
    StatementDigest,
    StatementFile,
    Subject,
    statement_build,
    statement_parse,
    time_ms,
    time_text,
)
from stratus.model.image import Digests, ImageFormat
from stratus.model.trust import EndorsementFacts


def endorsement_make(
    digests: Digests,
    *,
    format: ImageFormat,
    email: str,
    key: PrivateKey,
    created_ms: int,
    valid_ms: int,
    deprecated: str = "",
    files: Sequence[StatementFile] = (),
) -> bytes:
    """Return a signed document that vouches for these bytes, or withdraws them with a reason."""
    assert digests.sha1, "an endorsement names the image by its SHA-1 too"
    identifier = identifier_of(digests.sha1)
    statement = Statement(
        type=STATEMENT_TYPE,
        predicateType=PREDICATE_TYPE,
        subject=(
            Subject(
                name=identifier,
                digest=StatementDigest(sha256=digests.sha256, sha1=digests.sha1),
            ),
        ),
        predicate=Predicate(
            endorser=Endorser(email=email, key=fingerprint_of(key.public_key())),
            created=time_text(created_ms),
            valid=time_text(valid_ms),
            deprecated=deprecated or None,
            size=digests.size_bytes,
            format=format,
            files=tuple(files),
        ),
    )
    return envelope_sign(statement_build(statement), payload_type=PAYLOAD_TYPE, key=key)


def endorsement_verify(document: bytes, *, trusted: Mapping[str, str]) -> EndorsementFacts:
    """Return what a document says, if a key that is known here signed exactly that.

    `trusted` maps fingerprints to public keys in PEM. Refuses with `endorsement_invalid`.
    Nothing is said yet about whether the site's policy accepts it.
    """
    signed = envelope_verify(document, payload_type=PAYLOAD_TYPE, trusted=trusted)
    statement = statement_parse(signed.payload)
    (subject,) = statement.subject
    predicate = statement.predicate
    if predicate.endorser.key != signed.key:
        raise invalid("The document names another key than the one that signed it.")
    return EndorsementFacts(
        document_sha256=hashlib.sha256(document).hexdigest(),
        key=signed.key,
        email=predicate.endorser.email,
        created_ms=time_ms(predicate.created),
        valid_ms=time_ms(predicate.valid),
        identifier=subject.name,
        sha256=subject.digest.sha256,
        sha1=subject.digest.sha1,
        size_bytes=predicate.size,
        format=predicate.format.value,
        deprecated=predicate.deprecated or "",
    )
