"""What is each thing called? Typed ids, sortable by the time they were made, readable in logs."""

import re
from typing import Final, NewType

InstanceId = NewType("InstanceId", str)
HostId = NewType("HostId", str)
PoolId = NewType("PoolId", str)
VolumeId = NewType("VolumeId", str)
ImageId = NewType("ImageId", str)
NetworkId = NewType("NetworkId", str)
AddressId = NewType("AddressId", str)
ProjectId = NewType("ProjectId", str)
UserId = NewType("UserId", str)
TokenId = NewType("TokenId", str)
OperationId = NewType("OperationId", str)

PREFIXES: Final = {
    "instance": "ins",
    "host": "hst",
    "pool": "pol",
    "volume": "vol",
    "image": "img",
    "network": "net",
    "address": "adr",
    "project": "prj",
    "user": "usr",
    "token": "tok",
    "operation": "opn",
    "request": "req",
}

# Crockford's base 32, lower case: sorts like the number it encodes, without i, l, o, u.
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_BITS: Final = 40  # milliseconds since 2020 fit until 2054
CHANCE_BITS: Final = 40
BODY_CHARS: Final = (TIME_BITS + CHANCE_BITS) // 5
EPOCH_MS: Final = 1_577_836_800_000  # 2020-01-01T00:00:00Z

ID_PATTERN: Final = re.compile(r"^[a-z]{3}-[0-9a-hjkmnp-tv-z]{16}$")


def id_make(kind: str, *, now_ms: int, chance: int) -> str:
    """Return a new id of this kind; `chance` is CHANCE_BITS of randomness from the caller."""
    assert 0 <= chance < 1 << CHANCE_BITS
    number = (max(0, now_ms - EPOCH_MS) % (1 << TIME_BITS)) << CHANCE_BITS | chance
    body = []
    for _ in range(BODY_CHARS):
        body.append(ALPHABET[number & 31])
        number >>= 5
    return PREFIXES[kind] + "-" + "".join(reversed(body))


def id_is(kind: str, text: str) -> bool:
    """Tell whether this text has the shape of an id of this kind."""
    return text.startswith(PREFIXES[kind] + "-") and ID_PATTERN.match(text) is not None
