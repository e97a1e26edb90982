"""Is the wish for an instance well formed? Every field held to its limits, with a clear refusal."""

from typing import Final

from stratus.model.instance import InstanceCreate
from stratus.model.limits import (
    CONTEXT_KEY_PATTERN,
    CONTEXT_PAIRS_MAX,
    CONTEXT_VALUE_BYTES_MAX,
    COUNT_MAX,
    DISK_GIB_MAX,
    NAME_CHARS_MAX,
    NAME_PATTERN,
    SSH_KEY_CHARS_MAX,
    SSH_KEYS_MAX,
    SWAP_MIB_MAX,
    USER_DATA_BYTES_MAX,
)
from stratus.model.problem import Refused, refuse

SSH_KEY_TYPES: Final = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
COUNT_SUFFIX_CHARS: Final = len(f"-{COUNT_MAX}")


def field_refused(field: str, detail: str, remedy: str) -> Refused:
    """Refuse one field by name."""
    return refuse("invalid_field", f"{field}: {detail}", remedy=remedy, field=field)


def request_check(wish: InstanceCreate) -> None:
    """Refuse a wish that no site could fulfil as written."""
    if not 1 <= wish.count <= COUNT_MAX:
        raise field_refused(
            "count", f"{wish.count} is not between 1 and {COUNT_MAX}.", "Ask in several requests."
        )
    _name_check(wish)
    if not 0 <= wish.volatile_gib <= DISK_GIB_MAX:
        raise field_refused(
            "volatile_gib",
            f"{wish.volatile_gib} is not between 0 and {DISK_GIB_MAX}.",
            "Give the size of the empty disk in GiB; 0 for none.",
        )
    if wish.swap_mib is not None and not 0 <= wish.swap_mib <= SWAP_MIB_MAX:
        raise field_refused(
            "swap_mib",
            f"{wish.swap_mib} is not between 0 and {SWAP_MIB_MAX}.",
            "Give the size of the swap disk in MiB; 0 for none.",
        )
    _context_check(wish)


def name_check(name: str, *, chars_max: int = NAME_CHARS_MAX) -> None:
    """Refuse a name that cannot be a host name (RFC 1123)."""
    if len(name) > chars_max or not NAME_PATTERN.fullmatch(name):
        raise field_refused(
            "name",
            f"{name[:80]!r} cannot be a host name.",
            f"Use 1 to {chars_max} small letters, digits and inner hyphens.",
        )


def _name_check(wish: InstanceCreate) -> None:
    if wish.name:
        room = COUNT_SUFFIX_CHARS if wish.count > 1 else 0
        name_check(wish.name, chars_max=NAME_CHARS_MAX - room)


def _context_check(wish: InstanceCreate) -> None:
    context = wish.context
    if len(context.ssh_keys) > SSH_KEYS_MAX:
        raise field_refused(
            "ssh_keys",
            f"{len(context.ssh_keys)} keys are more than {SSH_KEYS_MAX}.",
            "Give fewer keys; user data can add more.",
        )
    for key in context.ssh_keys:
        _key_check(key)
    if len(context.user_data.encode()) > USER_DATA_BYTES_MAX:
        raise field_refused(
            "user_data",
            f"It is longer than {USER_DATA_BYTES_MAX} bytes.",
            "Let a short script fetch the rest.",
        )
    if len(context.pairs) > CONTEXT_PAIRS_MAX:
        raise field_refused(
            "context",
            f"{len(context.pairs)} pairs are more than {CONTEXT_PAIRS_MAX}.",
            "Put structured data into user data.",
        )
    for name, value in context.pairs.items():
        if not CONTEXT_KEY_PATTERN.fullmatch(name):
            raise field_refused(
                "context",
                f"{name[:80]!r} is not a name.",
                "Use letters, digits and underscores, not beginning with a digit.",
            )
        if len(value.encode()) > CONTEXT_VALUE_BYTES_MAX or "\0" in value:
            raise field_refused(
                "context",
                f"The value of {name} is too long or holds a zero byte.",
                f"Keep values under {CONTEXT_VALUE_BYTES_MAX} bytes of text.",
            )


def _key_check(key: str) -> None:
    words = key.split()
    whole = len(key) <= SSH_KEY_CHARS_MAX and key.isprintable() and len(words) >= 2
    if not whole or words[0] not in SSH_KEY_TYPES:
        raise field_refused(
            "ssh_keys",
            f"{key[:40]!r} is not one line of an OpenSSH public key.",
            "Give the content of a .pub file, such as ~/.ssh/id_ed25519.pub.",
        )
