"""Does a problem travel whole, with one status for every code?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.model.problem import CATALOGUE, Kind, Problem
from stratus.wire.problem import (
    STATUS_OF_KIND,
    problem_decode,
    problem_encode,
    status_of,
)


def test_every_kind_has_a_status() -> None:
    assert set(STATUS_OF_KIND) == set(Kind)


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_code_travels_whole(code: str) -> None:
    problem = Problem(code=code, detail="What happened.", remedy="What to do.", context={"n": 1})
    body = problem_decode(problem_encode(problem, request_id="req-1"))
    assert body is not None
    assert (body.code, body.detail, body.remedy) == (code, problem.detail, problem.remedy)
    assert (body.status, body.title) == (status_of(code), CATALOGUE[code].title)
    assert (body.request_id, body.instance) == ("req-1", "urn:stratus:request:req-1")
    assert body.type == f"urn:stratus:problem:{code}"
    assert body.context == {"n": 1}
    assert 400 <= body.status <= 599


def test_context_that_is_no_json_is_written_as_text() -> None:
    problem = Problem(code="bug", detail="d", remedy="r", context={"path": pytest})
    body = problem_decode(problem_encode(problem))
    assert body is not None
    assert "pytest" in body.context["path"]


@given(st.binary(max_size=200))
def test_what_is_no_problem_is_none_and_never_an_exception(data: bytes) -> None:
    found = problem_decode(data)
    assert found is None or found.code is not None


def test_a_proxys_page_is_no_problem() -> None:
    assert problem_decode(b"<html>502 Bad Gateway</html>") is None
