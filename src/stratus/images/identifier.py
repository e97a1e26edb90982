"""What is the StratusLab identifier of an image? Its SHA-1 in 27 digits of base 64.

The 160 bits are read as one big-endian number, most significant digit first, so two zero bits
stand before them. This is not base64url of the 20 bytes, although it looks like it.
"""

import base64
import re
from typing import Final

IDENTIFIER_PATTERN: Final = re.compile(r"^[A-P][A-Za-z0-9_-]{26}\Z")
SHA1_PATTERN: Final = re.compile(r"^[0-9a-f]{40}\Z")


def identifier_of(sha1: str) -> str:
    """Return the identifier for a SHA-1 in 40 lower-case hex digits."""
    assert SHA1_PATTERN.match(sha1), sha1
    return base64.urlsafe_b64encode(b"\0" + bytes.fromhex(sha1))[1:].decode()


def identifier_is(text: str) -> bool:
    """Tell whether this text has the shape of an identifier."""
    return IDENTIFIER_PATTERN.match(text) is not None


def sha1_of(identifier: str) -> str:
    """Return the SHA-1, leading zeros kept, that the identifier was made from."""
    assert identifier_is(identifier), identifier
    return base64.urlsafe_b64decode("A" + identifier)[1:].hex()
