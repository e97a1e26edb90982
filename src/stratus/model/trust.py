"""What is trust: signed statements about images, and a site's ordered rules about them."""

from enum import StrEnum

import msgspec


class EndorsementFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one endorsement says, its signature verified against a key that the site knows."""

    document_sha256: str  # of the document's bytes as received: names exactly this entry
    key: str  # fingerprint of the verifying key, `sha256:` and 64 hex digits
    email: str  # what the holder of the key says; not proven by itself
    created_ms: int
    valid_ms: int  # until when
    identifier: str
    sha256: str
    sha1: str
    size_bytes: int
    format: str
    deprecated: str = ""  # why the endorser withdraws the image; "" = does not


class RuleAction(StrEnum):
    """What a rule does with the entries it matches."""

    ALLOW = "allow"
    DENY = "deny"


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One rule: it matches an entry that meets every predicate given; empty ones are not given."""

    action: RuleAction
    name: str = ""
    keys: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    younger_than_days: int | None = None
    older_than_days: int | None = None
    deprecated_too: bool = False  # without it, an `allow` leaves deprecated entries alone


class Policy(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A site's policy: the first rule that matches an entry decides about it."""

    rules: tuple[Rule, ...] = ()
    default: RuleAction = RuleAction.DENY
    any_trusted_deprecation_blocks: bool = True
