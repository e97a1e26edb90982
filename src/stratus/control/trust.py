"""Whom does the site trust, and may this image start? Policy, keys, endorsements, the verdict.

Everything in doubt is a no: a policy that cannot be read denies, a document that does not verify
does not count.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection

from stratus.control.commands import allow, commit, note
from stratus.control.requests import field_refused
from stratus.control.world import Origin, World
from stratus.decide.access import Verb, unknown
from stratus.decide.trust import Verdict, trust_decide
from stratus.images.endorse import endorsement_verify
from stratus.images.keys import fingerprint_of, public_key_load, public_key_pem
from stratus.model.image import Digests, ImageFacts
from stratus.model.limits import PAGE_ROWS_MAX, POLICY_RULES_MAX
from stratus.model.page import Page
from stratus.model.problem import Refused, refuse
from stratus.model.tenancy import Actor
from stratus.model.trust import EndorsementFacts, Policy, Rule
from stratus.store.endorsements import endorsement_list
from stratus.store.json import json_text
from stratus.store.site import policy_get, policy_set
from stratus.store.trust import (
    TrustedKey,
    trusted_key_ensure,
    trusted_key_find,
    trusted_key_list,
    trusted_key_remove,
    trusted_pems,
)

KEYS_MAX: Final = PAGE_ROWS_MAX  # so that all of them are read at once
RULE_VALUES_MAX: Final = 1000  # keys, e-mails, identifiers and digests in one rule
RULE_VALUE_CHARS_MAX: Final = 200
RULE_DAYS_MAX: Final = 36_600
EMAIL_CHARS_MAX: Final = 200
PEM_CHARS_MAX: Final = 16 * 1024
VERIFIED_MAX: Final = 4096  # documents of which we remember what they prove


class _Verified:
    """What documents prove under a set of keys. The same for everybody, for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[bytes, bytes], EndorsementFacts | None] = OrderedDict()

    def facts(
        self, document: bytes, trusted: Mapping[str, str], keys_digest: bytes
    ) -> EndorsementFacts | None:
        """Return what the document says, or None where it proves nothing."""
        mark = (hashlib.sha256(document).digest(), keys_digest)
        with self._lock:
            if mark in self._known:
                self._known.move_to_end(mark)
                return self._known[mark]
        try:
            found: EndorsementFacts | None = endorsement_verify(document, trusted=trusted)
        except Refused:
            found = None
        with self._lock:
            self._known[mark] = found
            if len(self._known) > VERIFIED_MAX:
                self._known.popitem(last=False)
        return found


_VERIFIED: Final = _Verified()


# -- the verdict ----------------------------------------------------------------------------


def image_verdict(connection: Connection, image: ImageFacts, *, now_ms: int) -> Verdict:
    """Decide whether this image may start now, from what the store holds at this moment."""
    trusted = trusted_pems(connection)
    keys_digest = hashlib.sha256("\n".join(sorted(trusted)).encode()).digest()
    documents = endorsement_list(connection, image.sha256) if image.sha256 else ()
    entries = [
        facts
        for each in documents
        if (facts := _VERIFIED.facts(each.document, trusted, keys_digest)) is not None
    ]
    digests = Digests(size_bytes=image.size_bytes, sha256=image.sha256, sha1=image.sha1)
    return trust_decide(digests, entries, policy_now(connection), now_ms=now_ms)


def policy_now(connection: Connection) -> Policy:
    """Return the site's policy; one that denies everything where there is none to be read."""
    text = policy_get(connection)
    if text is None:
        return Policy()
    try:
        return msgspec.json.decode(text, type=Policy)
    except msgspec.DecodeError:
        return Policy()


# -- the policy -----------------------------------------------------------------------------


def policy_show(world: World, actor: Actor) -> Policy:
    """Return the site's trust policy."""
    allow(actor, Verb.CATALOGUE_READ)
    return world.store.read(policy_now)


def policy_put(world: World, actor: Actor, policy: Policy, *, origin: Origin) -> Policy:
    """Replace the site's trust policy; it holds from the next start on."""
    allow(actor, Verb.TRUST_ADMIN)
    if len(policy.rules) > POLICY_RULES_MAX:
        raise field_refused(
            "rules",
            f"{len(policy.rules)} rules are more than {POLICY_RULES_MAX}.",
            "Put several keys or images into one rule.",
        )
    for number, rule in enumerate(policy.rules, start=1):
        _rule_check(rule, number)
    text = json_text(policy)

    def put(connection: Connection) -> Policy:
        policy_set(connection, text)
        note(
            connection,
            world,
            actor,
            origin,
            "policy.changed",
            "policy",
            rules=len(policy.rules),
            default=policy.default.value,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        return policy

    return commit(world, put)


def _rule_check(rule: Rule, number: int) -> None:
    field = f"rules[{number - 1}]"
    lists = (rule.keys, rule.emails, rule.identifiers, rule.sha256s)
    values = [value for each in lists for value in each] + [rule.name]
    if len(values) > RULE_VALUES_MAX:
        raise field_refused(
            field, f"It names more than {RULE_VALUES_MAX} things.", "Make several rules of it."
        )
    if any(len(value) > RULE_VALUE_CHARS_MAX or not value.isprintable() for value in values):
        raise field_refused(
            field,
            f"A value is longer than {RULE_VALUE_CHARS_MAX} characters, or not printable.",
            "Write fingerprints as sha256:…, digests in hexadecimal.",
        )
    if any(value == "" for each in lists for value in each):
        raise field_refused(field, "A value is empty.", "Leave the list out instead.")
    for days in (rule.younger_than_days, rule.older_than_days):
        if days is not None and not 0 <= days <= RULE_DAYS_MAX:
            raise field_refused(
                field,
                f"{days} days are not between 0 and {RULE_DAYS_MAX}.",
                "Choose an age within.",
            )


# -- the keys -------------------------------------------------------------------------------


def key_add(world: World, actor: Actor, *, pem: str, email: str = "", origin: Origin) -> TrustedKey:
    """Know this endorser's public key from now on; one that is known stays as it is."""
    allow(actor, Verb.TRUST_ADMIN)
    if len(pem) > PEM_CHARS_MAX:
        raise field_refused("pem", "It is too long for a public key.", "Give one key in PEM.")
    if len(email) > EMAIL_CHARS_MAX or not email.isprintable():
        raise field_refused("email", "It is no e-mail address.", "Give the endorser's address.")
    try:
        key = public_key_load(pem)
    except Refused as refused:
        raise field_refused("pem", refused.problem.detail, refused.problem.remedy) from refused
    fingerprint = fingerprint_of(key)

    def add(connection: Connection) -> TrustedKey:
        # One more than allowed must not be readable, or the oldest would be forgotten silently.
        if len(trusted_key_list(connection, rows_max=KEYS_MAX).items) >= KEYS_MAX:
            raise refuse(
                "conflict",
                f"The site knows {KEYS_MAX} keys already.",
                remedy="Remove keys that are no longer used.",
            )
        new = trusted_key_ensure(
            connection,
            fingerprint=fingerprint,
            pem=public_key_pem(key),
            email=email,
            now_ms=world.now_ms(),
        )
        if new:
            note(
                connection, world, actor, origin, "key.added", _subject(fingerprint),
                fingerprint=fingerprint, email=email,
            )  # fmt: skip
        found = trusted_key_find(connection, fingerprint)
        assert found is not None
        return found

    return commit(world, add)


def key_page(
    world: World, actor: Actor, *, cursor: str | None = None, rows_max: int
) -> Page[TrustedKey]:
    """Return a page of the endorsers' keys that the site knows."""
    allow(actor, Verb.CATALOGUE_READ)
    return world.store.read(
        lambda connection: trusted_key_list(connection, rows_max=rows_max, cursor=cursor)
    )


def key_remove(world: World, actor: Actor, fingerprint: str, *, origin: Origin) -> None:
    """Know this key no longer: what only it endorsed starts no more."""
    allow(actor, Verb.TRUST_ADMIN)

    def remove(connection: Connection) -> None:
        if not trusted_key_remove(connection, fingerprint):
            raise Refused(unknown("key", fingerprint))
        note(
            connection, world, actor, origin, "key.removed", _subject(fingerprint),
            fingerprint=fingerprint,
        )  # fmt: skip

    commit(world, remove)


def _subject(fingerprint: str) -> str:
    # The column holds an id; the whole fingerprint is in the event's data.
    return "key-" + fingerprint.removeprefix("sha256:")[:20]
