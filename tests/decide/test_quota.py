"""Does the quota hold, and does its refusal say by how much?"""

from hypothesis import given
from hypothesis import strategies as st

from stratus.decide.quota import UNLIMITED, WORDS, quota_decide, quota_excess, usage_sum
from stratus.model.tenancy import Quota, Usage

AMOUNTS = st.integers(min_value=0, max_value=100)
USAGES = st.builds(Usage, **dict.fromkeys(WORDS, AMOUNTS))
QUOTAS = st.builds(Quota, **{what: st.one_of(st.just(UNLIMITED), AMOUNTS) for what in WORDS})
NO_CEILING = Quota(**dict.fromkeys(WORDS, UNLIMITED))


@given(QUOTAS, USAGES, USAGES)
def test_what_is_granted_breaks_no_ceiling_it_touches(
    quota: Quota, usage: Usage, wanted: Usage
) -> None:
    problem = quota_decide(quota, usage, wanted, project_name="lab-7")
    after = usage_sum(usage, wanted)
    over = {
        what
        for what in WORDS
        if getattr(wanted, what) > 0
        and getattr(quota, what) != UNLIMITED
        and getattr(after, what) > getattr(quota, what)
    }
    assert {excess.what for excess in quota_excess(quota, usage, wanted)} == over
    assert (problem is None) == (not over)
    if problem is not None:
        assert set(problem.context["ceilings"]) == over
        assert all(f"{getattr(after, what)} of " in problem.detail for what in over)


@given(USAGES, USAGES)
def test_without_ceilings_everything_is_granted(usage: Usage, wanted: Usage) -> None:
    assert quota_decide(NO_CEILING, usage, wanted, project_name="lab-7") is None


@given(QUOTAS, USAGES)
def test_asking_for_nothing_is_granted_even_over_a_lowered_ceiling(
    quota: Quota, usage: Usage
) -> None:
    assert quota_decide(quota, usage, Usage(), project_name="lab-7") is None


def test_the_refusal_names_the_numbers() -> None:
    problem = quota_decide(Quota(vcpus=32), Usage(vcpus=30), Usage(vcpus=10), project_name="lab-7")
    assert problem is not None
    assert problem.code == "quota_exceeded"
    assert problem.detail == "Project lab-7 would use 40 of 32 vCPUs."
    assert problem.context == {"ceilings": {"vcpus": {"limit": 32, "used": 30, "wanted": 10}}}


def test_every_broken_ceiling_is_named_at_once() -> None:
    problem = quota_decide(
        Quota(instances=2, vcpus=2, memory_mib=512),
        Usage(instances=2, vcpus=2, memory_mib=512),
        Usage(instances=1, vcpus=1, memory_mib=512),
        project_name="lab-7",
    )
    assert problem is not None
    assert problem.detail == (
        "Project lab-7 would use 3 of 2 instances, 3 of 2 vCPUs and 1024 of 512 MiB of memory."
    )
