"""Is an image started only when exactly one endorsement and one rule say so?"""

import random
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.trust import Allowed, Forbidden, trust_decide
from stratus.model.image import Digests
from stratus.model.trust import EndorsementFacts, Policy, Rule, RuleAction
from stratus.model.units import DAY_MS

NOW_MS = 1_770_000_000_000
IMAGE = Digests(size_bytes=14, sha256="a" * 64, sha1="b" * 40)
ANA, BEN, EVE = ("sha256:" + digit * 64 for digit in "123")
ALLOW, DENY = RuleAction.ALLOW, RuleAction.DENY
TRUST_ANA = Policy(rules=(Rule(action=ALLOW, name="ana", keys=(ANA,)),))
TRUST_BOTH = Policy(rules=(Rule(action=ALLOW, name="both", keys=(ANA, BEN)),))

GOOD = EndorsementFacts(
    document_sha256="d" * 64,
    key=ANA,
    email="ana@example.org",
    created_ms=NOW_MS - DAY_MS,
    valid_ms=NOW_MS + DAY_MS,
    identifier="C-KNVFIPO_aOLI74-WZIjZGRWiA",
    sha256=IMAGE.sha256,
    sha1=IMAGE.sha1,
    size_bytes=14,
    format="raw",
)


def entry(**changes: object) -> EndorsementFacts:
    return msgspec.structs.replace(GOOD, **changes)


def forbidden(
    *entries: EndorsementFacts, policy: Policy = TRUST_ANA, image: Digests = IMAGE
) -> str:
    verdict = trust_decide(image, entries, policy, now_ms=NOW_MS)
    assert isinstance(verdict, Forbidden), verdict
    assert verdict.problem.code == "policy_forbids"
    assert verdict.problem.remedy
    return verdict.problem.detail


def allowed(*entries: EndorsementFacts, policy: Policy = TRUST_ANA) -> Allowed:
    verdict = trust_decide(IMAGE, entries, policy, now_ms=NOW_MS)
    assert isinstance(verdict, Allowed), verdict
    return verdict


# -- no, unless everything is in order -------------------------------------------------------------


def test_a_good_endorsement_by_a_trusted_key_is_enough() -> None:
    verdict = allowed(GOOD)
    assert (verdict.rule, verdict.endorsement) == ("ana", GOOD)


def test_without_any_endorsement_nothing_starts() -> None:
    assert "Nobody" in forbidden()
    assert "Nobody" in forbidden(policy=Policy(default=ALLOW))


def test_an_empty_policy_forbids() -> None:
    assert "no rule allows" in forbidden(GOOD, policy=Policy())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": EVE}, f"no rule allows the key {EVE}"),
        ({"sha256": "c" * 64}, "it is about other bytes"),
        ({"sha1": "c" * 40}, "it is about other bytes"),
        ({"size_bytes": 15}, "it is about other bytes"),
        ({"created_ms": NOW_MS + 1}, "it is valid only from"),
        ({"valid_ms": NOW_MS}, "it expired on"),
        ({"deprecated": "CVE-2026-1"}, "CVE-2026-1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_one_flaw_is_enough_to_forbid(changes: dict[str, object], reason: str) -> None:
    assert reason in forbidden(entry(**changes))
    open_site = Policy(default=ALLOW)
    if "key" not in changes:
        forbidden(entry(**changes), policy=open_site)
    allowed(GOOD, policy=open_site)


def test_an_image_whose_digest_is_unknown_never_starts() -> None:
    unknown = Digests(size_bytes=14, sha256="")
    forbidden(entry(sha256="", sha1=""), image=unknown, policy=Policy(default=ALLOW))


def test_digests_are_compared_without_regard_to_case() -> None:
    shouting = Digests(size_bytes=14, sha256=IMAGE.sha256.upper(), sha1=IMAGE.sha1.upper())
    verdict = trust_decide(shouting, [GOOD], TRUST_ANA, now_ms=NOW_MS)
    assert isinstance(verdict, Allowed)
    # Upper case must not get past a rule that denies (7.2 of the reference).
    banned = Policy(rules=(Rule(action=DENY, sha256s=("A" * 64,)), *TRUST_ANA.rules))
    assert "denies" in forbidden(GOOD, policy=banned)
    banned = Policy(rules=(Rule(action=DENY, emails=("ANA@Example.ORG",)), *TRUST_ANA.rules))
    assert "denies" in forbidden(GOOD, policy=banned)


# -- rules -----------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides() -> None:
    allow = Rule(action=ALLOW, name="yes", keys=(ANA,))
    deny = Rule(action=DENY, name="no", emails=("ana@example.org",))
    assert allowed(GOOD, policy=Policy(rules=(allow, deny))).rule == "yes"
    assert "no denies it" in forbidden(GOOD, policy=Policy(rules=(deny, allow)))


@pytest.mark.parametrize(
    "predicate",
    [
        {"keys": (BEN,)},
        {"emails": ("ben@example.org",)},
        {"identifiers": ("KmZPjZHBoFquj4lcXhQwmyc0Nid",)},
        {"sha256s": ("c" * 64,)},
        {"younger_than_days": 1},
        {"older_than_days": 1},
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_rule_matches_only_when_every_predicate_does(predicate: dict[str, object]) -> None:
    whole = Rule(
        action=ALLOW,
        keys=(BEN, ANA),
        emails=("ana@example.org",),
        identifiers=(GOOD.identifier,),
        sha256s=(IMAGE.sha256,),
        younger_than_days=2,
        older_than_days=0,
    )
    allowed(GOOD, policy=Policy(rules=(whole,)))
    narrower = msgspec.structs.replace(whole, **predicate)
    forbidden(GOOD, policy=Policy(rules=(narrower,)))


def test_a_rule_without_a_name_is_named_by_its_place() -> None:
    rules = (Rule(action=DENY, keys=(BEN,)), Rule(action=ALLOW, keys=(ANA,)))
    assert allowed(GOOD, policy=Policy(rules=rules)).rule == "rule 2"
    assert allowed(GOOD, policy=Policy(rules=rules[:1], default=ALLOW)).rule == "default"


# -- withdrawal ------------------------------------------------------------------------------------


def test_a_withdrawal_ends_the_older_statement_of_its_endorser() -> None:
    withdrawn = entry(document_sha256="e" * 64, created_ms=NOW_MS, deprecated="old")
    alone = Policy(rules=TRUST_ANA.rules, any_trusted_deprecation_blocks=False)
    assert "replaced it by a newer one" in forbidden(GOOD, withdrawn, policy=alone)
    assert "withdrawn the image" in forbidden(GOOD, withdrawn)


def test_a_newer_statement_ends_a_withdrawal() -> None:
    withdrawn = entry(document_sha256="e" * 64, created_ms=GOOD.created_ms - 1, deprecated="old")
    assert allowed(withdrawn, GOOD).endorsement == GOOD


def test_in_the_same_millisecond_the_withdrawal_counts() -> None:
    for document in ("0" * 64, "f" * 64):
        forbidden(GOOD, entry(document_sha256=document, deprecated="old"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"created_ms": NOW_MS + DAY_MS, "valid_ms": NOW_MS + 2 * DAY_MS},
        {"created_ms": NOW_MS - 9 * DAY_MS, "valid_ms": NOW_MS - 8 * DAY_MS},
    ],
    ids=["present", "future", "expired"],
)
def test_a_withdrawal_by_any_trusted_endorser_blocks_if_the_site_says_so(
    changes: dict[str, object],
) -> None:
    theirs = entry(key=BEN, document_sha256="e" * 64, deprecated="broken", **changes)
    assert "broken" in forbidden(GOOD, theirs, policy=TRUST_BOTH)
    lenient = msgspec.structs.replace(TRUST_BOTH, any_trusted_deprecation_blocks=False)
    assert allowed(GOOD, theirs, policy=lenient).endorsement == GOOD


def test_a_stranger_cannot_block_an_image() -> None:
    allowed(GOOD, entry(key=EVE, document_sha256="e" * 64, deprecated="I say so"))
    denied = Policy(rules=(Rule(action=DENY, keys=(EVE,)), Rule(action=ALLOW)))
    theirs = entry(key=EVE, document_sha256="e" * 64, deprecated="I say so")
    allowed(GOOD, theirs, policy=denied)


def test_a_rule_may_allow_what_was_withdrawn() -> None:
    rule = Rule(action=ALLOW, keys=(ANA,), deprecated_too=True)
    withdrawn = entry(deprecated="old")
    assert allowed(withdrawn, policy=Policy(rules=(rule,))).endorsement == withdrawn


def test_a_withdrawal_counts_however_old_the_rule_lets_entries_be() -> None:
    young = Rule(action=ALLOW, keys=(BEN,), younger_than_days=2)
    policy = Policy(rules=(*TRUST_ANA.rules, young))
    theirs = entry(
        key=BEN, document_sha256="e" * 64, created_ms=NOW_MS - 99 * DAY_MS, deprecated="broken"
    )
    assert "broken" in forbidden(GOOD, theirs, policy=policy)


# -- properties ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    entries: list[EndorsementFacts]
    policy: Policy


KEYS = st.sampled_from([ANA, BEN, EVE])
TIMES = st.integers(-5, 5).map(lambda days: NOW_MS + days * DAY_MS)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(0, 6))
    entries = [
        entry(
            document_sha256=f"{number:064x}",
            key=draw(KEYS),
            created_ms=draw(TIMES),
            valid_ms=draw(TIMES),
            sha256=draw(st.sampled_from([IMAGE.sha256, "c" * 64])),
            deprecated=draw(st.sampled_from(["", "", "", "old"])),
        )
        for number in range(count)
    ]
    rules = draw(
        st.lists(
            st.builds(
                Rule,
                action=st.sampled_from(RuleAction),
                keys=st.lists(KEYS, max_size=2).map(tuple),
                younger_than_days=st.none() | st.integers(0, 5),
                older_than_days=st.none() | st.integers(0, 5),
                deprecated_too=st.booleans(),
            ),
            max_size=4,
        )
    )
    policy = Policy(
        rules=tuple(rules),
        default=draw(st.sampled_from(RuleAction)),
        any_trusted_deprecation_blocks=draw(st.booleans()),
    )
    return Case(entries, policy)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_endorsements_changes_nothing(case: Case, chance: random.Random) -> None:
    before = trust_decide(IMAGE, case.entries, case.policy, now_ms=NOW_MS)
    mixed = list(case.entries)
    chance.shuffle(mixed)
    assert trust_decide(IMAGE, mixed, case.policy, now_ms=NOW_MS) == before


@given(cases())
def test_a_yes_names_an_entry_that_is_good_by_itself(case: Case) -> None:
    verdict = trust_decide(IMAGE, case.entries, case.policy, now_ms=NOW_MS)
    if isinstance(verdict, Forbidden):
        return
    named = verdict.endorsement
    assert named in case.entries
    assert named.sha256 == IMAGE.sha256
    assert named.created_ms <= NOW_MS < named.valid_ms
    alone = trust_decide(IMAGE, [named], case.policy, now_ms=NOW_MS)
    assert alone == verdict


@given(cases())
def test_entries_that_are_no_good_never_survive_beside_each_other(case: Case) -> None:
    """The old engine removed entries while it walked the list: of two bad neighbours one stayed."""
    bad = [
        one
        for one in case.entries
        if isinstance(trust_decide(IMAGE, [one], case.policy, now_ms=NOW_MS), Forbidden)
    ]
    assert isinstance(trust_decide(IMAGE, bad, case.policy, now_ms=NOW_MS), Forbidden)
    assert isinstance(trust_decide(IMAGE, bad + bad, case.policy, now_ms=NOW_MS), Forbidden)


@given(cases())
def test_more_denials_never_allow_more(case: Case) -> None:
    verdict = trust_decide(IMAGE, case.entries, case.policy, now_ms=NOW_MS)
    stricter = msgspec.structs.replace(
        case.policy, rules=(Rule(action=DENY, keys=(EVE,)), *case.policy.rules), default=DENY
    )
    after = trust_decide(IMAGE, case.entries, stricter, now_ms=NOW_MS)
    if isinstance(after, Allowed):
        assert after.endorsement.key != EVE
        assert isinstance(verdict, Allowed) or case.policy.any_trusted_deprecation_blocks


@given(cases())
def test_bytes_that_nobody_endorsed_never_start(case: Case) -> None:
    other = Digests(size_bytes=14, sha256="f" * 64, sha1=IMAGE.sha1)
    verdict = trust_decide(other, case.entries, case.policy, now_ms=NOW_MS)
    assert isinstance(verdict, Forbidden)
