"""May this image start here? Pure: callers bring verified endorsements and the site's policy.

Every entry is judged by itself, and an answer of yes names exactly one of them. Whatever is
missing, unknown or in doubt means no. Only the newest entry of each key about an image counts,
so that an endorser can withdraw a statement, or make it again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from stratus.model.image import Digests
from stratus.model.problem import Problem
from stratus.model.trust import EndorsementFacts, Policy, Rule, RuleAction
from stratus.model.units import DAY_MS

REASONS_MAX: Final = 20  # entries named in a refusal


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """The image may start, because of this one endorsement and this one rule."""

    rule: str
    endorsement: EndorsementFacts


class Forbidden(msgspec.Struct, frozen=True, kw_only=True):
    """The image must not start; the problem's context says why, entry by entry."""

    problem: Problem


Verdict = Allowed | Forbidden


class _Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one entry: the place of the rule that allows it, or the reason against it."""

    entry: EndorsementFacts
    reason: str = ""
    rule: str = ""
    rank: int = 0


def trust_decide(
    image: Digests, endorsements: Sequence[EndorsementFacts], policy: Policy, *, now_ms: int
) -> Verdict:
    """Return the one endorsement by which the policy allows the image, or why there is none."""
    about = [entry for entry in endorsements if not digest_differs(image, entry)]
    current = _current(about, now_ms=now_ms)
    blocking = _deprecation(current, policy, now_ms=now_ms)
    judged = [
        _judge(entry, image=image, current=current, policy=policy, now_ms=now_ms)
        for entry in endorsements
    ]
    allowed = [one for one in judged if not one.reason]
    if blocking is not None:
        return Forbidden(problem=_deprecated_problem(blocking))
    if not allowed:
        return Forbidden(problem=_problem(judged))
    best = min(allowed, key=_preference)
    return Allowed(rule=best.rule, endorsement=best.entry)


def digest_differs(image: Digests, entry: EndorsementFacts) -> bool:
    """Tell whether the entry is about other bytes than these; unknown digests count as other."""
    if not image.sha256 or image.sha256.lower() != entry.sha256.lower():
        return True
    if image.sha1 and image.sha1.lower() != entry.sha1.lower():
        return True
    return image.size_bytes != entry.size_bytes


def _current(entries: Sequence[EndorsementFacts], *, now_ms: int) -> dict[str, EndorsementFacts]:
    """The entry that speaks for each key: its newest one.

    Entries from the future do not count yet, except that a withdrawal counts at once. Of
    several made in the same millisecond the withdrawal counts.
    """
    newest: dict[str, EndorsementFacts] = {}
    for entry in entries:
        if entry.created_ms > now_ms and not entry.deprecated:
            continue
        known = newest.get(entry.key)
        if known is None or _recency(entry) > _recency(known):
            newest[entry.key] = entry
    return newest


def _recency(entry: EndorsementFacts) -> tuple[int, bool, str]:
    return entry.created_ms, bool(entry.deprecated), entry.document_sha256


def _preference(judged: _Judged) -> tuple[int, int, str]:
    """The earliest rule first, then the newest entry; never the order in which entries came."""
    return judged.rank, -judged.entry.created_ms, judged.entry.document_sha256


def _deprecation(
    current: dict[str, EndorsementFacts], policy: Policy, *, now_ms: int
) -> EndorsementFacts | None:
    """The withdrawal, by a key that the policy would trust, that blocks the image for all.

    It blocks also when it expired or is dated ahead: a withdrawal does not wear out.
    """
    if not policy.any_trusted_deprecation_blocks:
        return None
    blocking = [
        entry
        for entry in current.values()
        if entry.deprecated and _would_trust(entry, policy, now_ms=now_ms)
    ]
    return min(blocking, key=lambda entry: entry.document_sha256, default=None)


def _would_trust(entry: EndorsementFacts, policy: Policy, *, now_ms: int) -> bool:
    """Tell whether the policy trusts this endorser about this image, however old the entry is."""
    for rule in policy.rules:
        ageless = msgspec.structs.replace(rule, younger_than_days=None, older_than_days=None)
        if _matches(ageless, entry, now_ms=now_ms):
            if rule.action is RuleAction.ALLOW:
                return not rule.deprecated_too
            if ageless == rule:
                return False
    return policy.default is RuleAction.ALLOW


def _judge(
    entry: EndorsementFacts,
    *,
    image: Digests,
    current: dict[str, EndorsementFacts],
    policy: Policy,
    now_ms: int,
) -> _Judged:
    reason = _unfit(entry, image=image, current=current, now_ms=now_ms)
    if reason:
        return _Judged(entry=entry, reason=reason)
    for rank, rule in enumerate(policy.rules):
        if not _matches(rule, entry, now_ms=now_ms):
            continue
        label = rule.name or f"rule {rank + 1}"
        if rule.action is RuleAction.DENY:
            return _Judged(entry=entry, reason=f"{label} denies it")
        if entry.deprecated and not rule.deprecated_too:
            continue
        return _Judged(entry=entry, rule=label, rank=rank)
    if entry.deprecated:
        return _Judged(entry=entry, reason=f"its endorser withdrew the image: {entry.deprecated}")
    if policy.default is RuleAction.ALLOW:
        return _Judged(entry=entry, rule="default", rank=len(policy.rules))
    return _Judged(entry=entry, reason=f"no rule allows the key {entry.key}")


def _unfit(
    entry: EndorsementFacts,
    *,
    image: Digests,
    current: dict[str, EndorsementFacts],
    now_ms: int,
) -> str:
    """Why this entry cannot count under any policy; "" when it can."""
    if digest_differs(image, entry):
        return "it is about other bytes"
    if entry.created_ms > now_ms:
        return f"it is valid only from {_date(entry.created_ms)} on"
    if entry.valid_ms <= now_ms:
        return f"it expired on {_date(entry.valid_ms)}"
    if current[entry.key].document_sha256 != entry.document_sha256:
        return "its endorser has replaced it by a newer one"
    return ""


def _matches(rule: Rule, entry: EndorsementFacts, *, now_ms: int) -> bool:
    age_ms = now_ms - entry.created_ms
    return (
        _listed(entry.key, rule.keys)
        and _listed(entry.email, rule.emails)
        and (not rule.identifiers or entry.identifier in rule.identifiers)
        and _listed(entry.sha256, rule.sha256s)
        and (rule.younger_than_days is None or age_ms < rule.younger_than_days * DAY_MS)
        and (rule.older_than_days is None or age_ms > rule.older_than_days * DAY_MS)
    )


def _listed(value: str, wanted: Sequence[str]) -> bool:
    """Compare without regard to case: digests and addresses are written both ways."""
    return not wanted or value.casefold() in {one.casefold() for one in wanted}


def _problem(judged: Sequence[_Judged]) -> Problem:
    if not judged:
        return Problem(
            code="policy_forbids",
            detail="Nobody whom this site knows has endorsed this image.",
            remedy="Have the image endorsed by somebody whom the site's policy trusts.",
            context={"reasons": []},
        )
    reasons = sorted(
        f"endorsement {one.entry.document_sha256[:12]} by {one.entry.email}: {one.reason}"
        for one in judged
    )
    more = f" and {len(reasons) - REASONS_MAX} more" if len(reasons) > REASONS_MAX else ""
    return Problem(
        code="policy_forbids",
        detail="; ".join(reasons[:REASONS_MAX]) + more + ".",
        remedy="Have the image endorsed anew by somebody whom the site's policy trusts, or ask"
        " the administrator to allow the endorser's key.",
        context={"reasons": reasons[:REASONS_MAX]},
    )


def _deprecated_problem(entry: EndorsementFacts) -> Problem:
    reason = f"endorsement {entry.document_sha256[:12]} by {entry.email}: {entry.deprecated}"
    return Problem(
        code="policy_forbids",
        detail=f"An endorser whom this site trusts has withdrawn the image: {reason}.",
        remedy="Use a newer image.",
        context={"reasons": [reason]},
    )


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
