"""How is a payload signed? In a DSSE envelope (github.com/secure-systems-lab/dsse, version 1).

What is signed is the pre-authentication encoding of payload type and payload, never the JSON
around them, so nothing has to be parsed or made canonical before the signature is checked.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import msgspec

from stratus.images.keys import (
    PrivateKey,
    fingerprint_of,
    public_key_load,
    signature_make,
    signature_verify,
)
from stratus.images.refusal import invalid
from stratus.images.strict_json import strict_decode
from stratus.model.limits import ENDORSEMENT_BYTES_MAX

SIGNATURES: Final = 1  # one document, one endorser


class DsseSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature; the key id is a hint, not a proof."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed document as it travels."""

    payloadType: str  # the standard's name
    payload: str
    signatures: tuple[DsseSignature, ...]


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A payload whose signature was verified, and the fingerprint of the key that made it."""

    payload: bytes
    key: str


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (pre-authentication encoding)."""
    kind = payload_type.encode()
    return b" ".join((b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload))


def envelope_sign(payload: bytes, *, payload_type: str, key: PrivateKey) -> bytes:
    """Return the document that carries this payload with one signature."""
    signature = signature_make(key, pae(payload_type, payload))
    keyid = fingerprint_of(key.public_key())
    envelope = Envelope(
        payloadType=payload_type,
        payload=base64.b64encode(payload).decode(),
        signatures=(DsseSignature(keyid, base64.b64encode(signature).decode()),),
    )
    return msgspec.json.encode(envelope)


def envelope_verify(document: bytes, *, payload_type: str, trusted: Mapping[str, str]) -> Signed:
    """Return the payload, if one of the trusted keys signed it; refuses anything in doubt.

    `trusted` maps fingerprints to public keys in PEM.
    """
    envelope = strict_decode(document, Envelope, bytes_max=ENDORSEMENT_BYTES_MAX)
    if envelope.payloadType != payload_type:
        raise invalid(f"The document's type is {envelope.payloadType[:100]!r}.")
    if len(envelope.signatures) != SIGNATURES:
        raise invalid(f"The document has {len(envelope.signatures)} signatures, not one.")
    signature = envelope.signatures[0]
    pem = trusted.get(signature.keyid)
    if pem is None:
        raise invalid(
            f"The document is signed by a key unknown to this site: {signature.keyid[:80]}.",
            remedy="Ask the administrator to add the endorser's key, if the endorser is trusted.",
            key=signature.keyid[:80],
        )
    key = public_key_load(pem)
    fingerprint = fingerprint_of(key)
    if fingerprint != signature.keyid:
        raise invalid("The site's list of keys is wrong: a key stands under a foreign fingerprint.")
    payload = _decoded(envelope.payload)
    signature_verify(key, _decoded(signature.sig), pae(payload_type, payload))
    return Signed(payload=payload, key=fingerprint)


def _decoded(text: str) -> bytes:
    """Decode base 64 (RFC 4648, section 4) that is written in the one proper way."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("The document contains broken base 64.") from error
    if base64.b64encode(content).decode() != text:
        raise invalid("The document contains base 64 with stray bits.")
    return content
