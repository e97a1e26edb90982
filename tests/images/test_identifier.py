"""Are identifiers what the old catalogue made of them?"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.images.identifier import identifier_is, identifier_of, sha1_of

VECTORS = [
    (b"example image\n", "C-KNVFIPO_aOLI74-WZIjZGRWiA"),
    (b"abc", "KmZPjZHBoFquj4lcXhQwmyc0Nid"),
    (b"", "No5o-5ea0sNMlW_75VgGJCv2AcJ"),
    (b"image 23\n", "AA4WPIm3FSgKBjiWw0ijsBDKt-b"),
]


@pytest.mark.parametrize(("content", "identifier"), VECTORS)
def test_known_images_have_their_known_identifiers(content: bytes, identifier: str) -> None:
    sha1 = hashlib.sha1(content).hexdigest()  # noqa: S324  # the identifier is made from it
    assert identifier_of(sha1) == identifier
    assert sha1_of(identifier) == sha1


@given(st.binary(min_size=20, max_size=20))
def test_an_identifier_leads_back_to_its_digest(sha1: bytes) -> None:
    identifier = identifier_of(sha1.hex())
    assert identifier_is(identifier)
    assert sha1_of(identifier) == sha1.hex()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "C-KNVFIPO_aOLI74-WZIjZGRWi",
        "L4o1UUg879o4sjvj5ZkiNkZFaIA=",
        "Q" + "A" * 26,
        "C-KNVFIPO_aOLI74-WZIjZGRWiA\n",
        "C+KNVFIPO/aOLI74+WZIjZGRWiA",
    ],
)
def test_what_only_looks_like_an_identifier_is_none(text: str) -> None:
    assert not identifier_is(text)
