"""How do the tests look at answers?"""

from typing import Any

import httpx

from stratus.wire.problem import ProblemBody, problem_decode


def problem_of(answer: httpx.Response, status: int, code: str) -> ProblemBody:
    """Return the problem that this answer is, which must be complete and say nothing internal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = problem_decode(answer.content)
    assert found is not None
    assert (found.status, found.code) == (status, code), answer.text
    assert found.remedy
    assert found.detail
    assert found.request_id == answer.headers["x-request-id"]
    for internal in ("Traceback", "sqlalchemy", "sqlite", ".py", "msgspec"):
        assert internal not in answer.text
    return found


def instance_make(client: httpx.Client, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """Make one instance and return it."""
    body = {"project": "default", "image": "tiny", "type": "t1.micro"} | more
    answer = client.post("/v1/instances", json=body)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()["items"][0]
    return made


def stranger_make(client: httpx.Client, name: str, project: str = "") -> str:
    """Make a user with a project of their own; return a token of theirs."""
    password = "correct horse battery staple"
    assert client.post("/v1/users", json={"name": name, "password": password}).status_code == 201
    if project:
        made = client.post("/v1/projects", json={"name": project, "owner": name})
        assert made.status_code == 201, made.text
    body = {"scopes": ["read", "write", "admin"], "days": 1}
    bare = httpx.Client(base_url=client.base_url)
    answer = bare.post("/v1/tokens", json=body, auth=(name, password))
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token
