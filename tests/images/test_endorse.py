"""Does an endorsement prove what it says, and nothing that was changed, repeated or left out?"""

import base64
import copy
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from stratus.images.dsse import envelope_sign, envelope_verify, pae
from stratus.images.endorse import endorsement_make, endorsement_verify
from stratus.images.keys import (
    PrivateKey,
    fingerprint_of,
    key_file_load,
    key_file_make,
    public_key_load,
    public_key_pem,
)
from stratus.images.statement import PAYLOAD_TYPE, StatementFile, time_ms, time_text
from stratus.model.image import Digests, ImageFormat
from stratus.model.limits import ENDORSEMENT_BYTES_MAX
from stratus.model.problem import Refused

CONTENT = b"example image\n"
DIGESTS = Digests(
    size_bytes=14,
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    sha1="2f8a3551483cefda38b23be3e599223646456880",
)
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CREATED_MS, VALID_MS = 1_760_000_000_123, 1_790_000_000_000


def trusted(*keys: PrivateKey) -> dict[str, str]:
    return {fingerprint_of(k.public_key()): public_key_pem(k.public_key()) for k in keys}


def make(key: PrivateKey = KEY, deprecated: str = "") -> bytes:
    return endorsement_make(
        DIGESTS,
        format=ImageFormat.RAW,
        email="ana@example.org",
        key=key,
        created_ms=CREATED_MS,
        valid_ms=VALID_MS,
        deprecated=deprecated,
        files=[
            StatementFile(
                uri="https://example.org/image.raw",
                sha256=DIGESTS.sha256,
                size=14,
                compression=None,
            )
        ],
    )


def refused(document: bytes, *keys: PrivateKey) -> str:
    with pytest.raises(Refused) as caught:
        endorsement_verify(document, trusted=trusted(*(keys or (KEY,))))
    assert caught.value.problem.code == "endorsement_invalid"
    assert caught.value.problem.remedy
    return caught.value.problem.detail


def payload_of(document: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(base64.b64decode(json.loads(document)["payload"]))
    return payload


def signed(payload: bytes, key: PrivateKey = KEY) -> bytes:
    """What somebody could sign who holds a trusted key and means ill."""
    return envelope_sign(payload, payload_type=PAYLOAD_TYPE, key=key)


# -- envelope --------------------------------------------------------------------------------------


def test_what_is_signed_is_the_standards_encoding() -> None:
    assert pae(PAYLOAD_TYPE, b'{"a":1}') == b'DSSEv1 28 application/vnd.in-toto+json 7 {"a":1}'
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_document_looks_as_the_reference_says() -> None:
    document = make()
    envelope = json.loads(document)
    assert set(envelope) == {"payloadType", "payload", "signatures"}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert payload_of(document) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": "C-KNVFIPO_aOLI74-WZIjZGRWiA",
                "digest": {"sha256": DIGESTS.sha256, "sha1": DIGESTS.sha1},
            }
        ],
        "predicateType": "https://stratuslab.eu/endorsement/v1",
        "predicate": {
            "endorser": {"email": "ana@example.org", "key": fingerprint_of(KEY.public_key())},
            "created": "2025-10-09T08:53:20.123Z",
            "valid": "2026-09-21T14:13:20.000Z",
            "deprecated": None,
            "size": 14,
            "format": "raw",
            "files": [
                {
                    "uri": "https://example.org/image.raw",
                    "sha256": DIGESTS.sha256,
                    "size": 14,
                    "compression": None,
                }
            ],
        },
    }


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=3072),
    ],
    ids=["ed25519", "p256", "rsa3072"],
)
def test_every_accepted_kind_of_key_endorses(key: PrivateKey) -> None:
    document = make(key, deprecated="")
    facts = endorsement_verify(document, trusted=trusted(KEY, key))
    assert facts.key == fingerprint_of(key.public_key())
    assert facts.document_sha256 == hashlib.sha256(document).hexdigest()
    assert (facts.created_ms, facts.valid_ms) == (CREATED_MS, VALID_MS)
    assert (facts.sha256, facts.sha1) == (DIGESTS.sha256, DIGESTS.sha1)
    assert (facts.email, facts.identifier) == ("ana@example.org", "C-KNVFIPO_aOLI74-WZIjZGRWiA")
    assert (facts.size_bytes, facts.format, facts.deprecated) == (14, "raw", "")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["p384", "rsa2048"],
)
def test_weak_and_foreign_kinds_of_key_are_refused(key: PrivateKey) -> None:
    assert "The key cannot be used" in refused(make(key), key)


def test_a_withdrawal_says_why() -> None:
    facts = endorsement_verify(make(deprecated="CVE-2026-1"), trusted=trusted(KEY))
    assert facts.deprecated == "CVE-2026-1"


def test_an_unknown_key_proves_nothing() -> None:
    assert "unknown" in refused(make(ed25519.Ed25519PrivateKey.generate()))


def test_a_key_listed_under_a_foreign_fingerprint_proves_nothing() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    wrong = {fingerprint_of(KEY.public_key()): public_key_pem(other.public_key())}
    with pytest.raises(Refused, match="foreign fingerprint"):
        endorsement_verify(make(), trusted=wrong)


@given(st.data())
def test_one_changed_bit_is_always_refused(data: st.DataObject) -> None:
    document = bytearray(make())
    at = data.draw(st.integers(0, len(document) - 1))
    document[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refused) as caught:
        endorsement_verify(bytes(document), trusted=trusted(KEY))
    assert caught.value.problem.code == "endorsement_invalid"


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_and_never_a_crash(document: bytes) -> None:
    refused(document)


@pytest.mark.parametrize(
    "document",
    [
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b"x" * (ENDORSEMENT_BYTES_MAX + 1),
        b'{"payloadType": NaN}',
        b'{"payloadType": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"null",
    ],
    ids=["deep list", "deep object", "large", "NaN", "huge number", "no UTF-8", "null"],
)
def test_hostile_documents_are_refused(document: bytes) -> None:
    refused(document)


def test_a_document_has_exactly_one_signature() -> None:
    for count in (0, 2):
        envelope = json.loads(make())
        envelope["signatures"] = envelope["signatures"] * count
        refused(json.dumps(envelope).encode())


def test_repeated_names_are_refused_outside_and_inside() -> None:
    document = make()
    assert "twice" in refused(document.replace(b"{", b'{"payload":"",', 1))
    payload = base64.b64decode(json.loads(document)["payload"])
    twice = payload.replace(b'"deprecated":null', b'"deprecated":"old","deprecated":null')
    assert twice != payload
    assert "twice" in refused(signed(twice))


def test_stray_bits_in_base_64_are_refused() -> None:
    envelope = json.loads(make())
    signature = envelope["signatures"][0]["sig"]
    assert signature.endswith("==")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bumped = last[last.index(signature[-3]) + 1]
    envelope["signatures"][0]["sig"] = signature[:-3] + bumped + "=="
    assert "stray bits" in refused(json.dumps(envelope).encode())


def test_another_payload_type_is_refused_even_when_signed() -> None:
    payload = base64.b64decode(json.loads(make())["payload"])
    refused(envelope_sign(payload, payload_type="text/plain", key=KEY))


# -- statement -------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[list[str | int], Any]] = {
    "other statement type": (["_type"], "https://in-toto.io/Statement/v0.1"),
    "other predicate": (["predicateType"], "https://slsa.dev/provenance/v1"),
    "unknown field": (["predicate", "extra"], 1),
    "identifier of another image": (["subject", 0, "name"], "KmZPjZHBoFquj4lcXhQwmyc0Nid"),
    "upper-case digest": (["subject", 0, "digest", "sha256"], DIGESTS.sha256.upper()),
    "short digest": (["subject", 0, "digest", "sha1"], "2f8a"),
    "third digest": (["subject", 0, "digest", "md5"], "00"),
    "negative size": (["predicate", "size"], -1),
    "size as text": (["predicate", "size"], "14"),
    "size as fraction": (["predicate", "size"], 14.5),
    "unknown format": (["predicate", "format"], "vmdk"),
    "no address": (["predicate", "endorser", "email"], "ana"),
    "address with a line break": (["predicate", "endorser", "email"], "a@b\n.org"),
    "foreign key": (["predicate", "endorser", "key"], "sha256:" + "0" * 64),
    "time with an offset": (["predicate", "created"], "2025-10-09T08:53:20+02:00"),
    "impossible time": (["predicate", "created"], "2025-13-09T08:53:20Z"),
    "over before it began": (["predicate", "valid"], "2025-10-09T08:53:20.123Z"),
    "empty reason": (["predicate", "deprecated"], ""),
    "long reason": (["predicate", "deprecated"], "x" * 1001),
    "no address of a file": (["predicate", "files", 0, "uri"], "image.raw"),
    "unknown compression": (["predicate", "files", 0, "compression"], "rar"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_statement_that_is_not_exact_is_refused_although_signed(change: str) -> None:
    path, value = CHANGES[change]
    payload = payload_of(make())
    target: Any = payload
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    refused(signed(json.dumps(payload).encode()))


def test_no_field_of_a_statement_may_be_left_out() -> None:
    whole = payload_of(make())

    def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
        items: Any = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        found: list[tuple[str | int, ...]] = []
        for step, inner in items:
            if isinstance(value, dict):
                found.append((*path, step))
            found += places(inner, (*path, step))
        return found

    assert len(places(whole)) > 15
    for *path, last in places(whole):
        payload = copy.deepcopy(whole)
        target: Any = payload
        for step in path:
            target = target[step]
        del target[last]
        refused(signed(json.dumps(payload).encode()))
    for count in (0, 2):
        payload = copy.deepcopy(whole)
        payload["subject"] = payload["subject"] * count
        refused(signed(json.dumps(payload).encode()))


def test_what_could_not_be_verified_is_not_made() -> None:
    with pytest.raises(Refused):
        endorsement_make(
            DIGESTS,
            format=ImageFormat.RAW,
            email="no address",
            key=KEY,
            created_ms=CREATED_MS,
            valid_ms=VALID_MS,
        )


@given(st.integers(0, 4_000_000_000_000))
def test_times_come_back_as_they_went(at_ms: int) -> None:
    assert time_ms(time_text(at_ms)) == at_ms


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_file_is_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "endorser.pem"
    key = key_file_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert fingerprint_of(key_file_load(path).public_key()) == fingerprint_of(key.public_key())
    before = path.read_bytes()
    with pytest.raises(Refused) as caught:
        key_file_make(path)
    assert caught.value.problem.code == "conflict"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "endorser.pem"
    key_file_make(path)
    path.chmod(0o640)
    with pytest.raises(Refused, match="Others can read"):
        key_file_load(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\0" * 100])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "endorser.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Refused) as caught:
        key_file_load(path)
    assert caught.value.problem.code == "configuration"
    with pytest.raises(Refused):
        key_file_load(tmp_path / "missing.pem")


def test_a_weak_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weak.pem"
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(Refused):
        key_file_load(path)


def test_the_fingerprint_is_that_of_the_public_key_info() -> None:
    # RFC 8410, section 10.1: the example key, and its SubjectPublicKeyInfo.
    pem = (
        "-----BEGIN PUBLIC KEY-----\n"
        "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n"
    )
    der = base64.b64decode(pem.splitlines()[1])
    assert fingerprint_of(public_key_load(pem)) == "sha256:" + hashlib.sha256(der).hexdigest()


def test_envelopes_carry_any_payload() -> None:
    document = envelope_sign(b"\x00\xff", payload_type="x/y", key=KEY)
    found = envelope_verify(document, payload_type="x/y", trusted=trusted(KEY))
    assert found.payload == b"\x00\xff"
