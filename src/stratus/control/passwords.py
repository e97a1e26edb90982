"""Is this the right password? Argon2id, a few at a time, equally slow for names nobody has."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from stratus.control.requests import field_refused
from stratus.control.world import World
from stratus.model.ids import ALPHABET
from stratus.model.problem import refuse

# The first choice of the OWASP cheat sheet for little memory.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
SALT_BYTES: Final = 16

HASHES_AT_ONCE_MAX: Final = 2  # so many times MEMORY_KIB at most
HASH_WAIT_SECONDS_MAX: Final = 5.0
PASSWORD_CHARS_MIN: Final = 10
PASSWORD_CHARS_MAX: Final = 1024
GENERATED_CHARS: Final = 24  # 5 bits each

# Compared with where there is no user, so that the answer takes as long. Nothing known hashes
# to it.
NOBODYS_HASH: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$c3RyYXR1cy1ub2JvZHkhIQ$"
    "J5mgvfMPjXfBHcVvN3oXqyL0G0yMtQqY0A6XH0n5n1E"
)

_HASHER: Final = PasswordHasher(
    time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, salt_len=SALT_BYTES
)
_SLOTS: Final = threading.BoundedSemaphore(HASHES_AT_ONCE_MAX)  # the process has one memory


@contextmanager
def _slot() -> Iterator[None]:
    if not _SLOTS.acquire(timeout=HASH_WAIT_SECONDS_MAX):
        raise refuse(
            "overloaded",
            "Too many people log in at this moment.",
            remedy="Try again in a few seconds.",
        )
    try:
        yield
    finally:
        _SLOTS.release()


def password_check(password: str) -> None:
    """Refuse a new password that is too easy to guess, or too long to hash."""
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise field_refused(
            "password",
            f"It is not between {PASSWORD_CHARS_MIN} and {PASSWORD_CHARS_MAX} characters long.",
            "Choose a longer one, such as four words that do not belong together.",
        )


def password_generate(world: World) -> str:
    """Make a password that nobody guesses."""
    number = world.chance(5 * GENERATED_CHARS)
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(GENERATED_CHARS))


def password_hash(world: World, password: str) -> str:
    """Return what to store of a password. Slow on purpose: not within a transaction."""
    salt = world.chance(8 * SALT_BYTES).to_bytes(SALT_BYTES, "big")
    with _slot():
        return _HASHER.hash(password, salt=salt)


def password_fits(stored: str, password: str) -> bool:
    """Tell whether this password made the hash; "" (no password, no user) takes as long."""
    if len(password) > PASSWORD_CHARS_MAX:
        return False
    with _slot():
        try:
            return _HASHER.verify(stored or NOBODYS_HASH, password) and stored != ""
        except (VerificationError, InvalidHashError):
            return False


def password_is_outdated(stored: str) -> bool:
    """Tell whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored)
