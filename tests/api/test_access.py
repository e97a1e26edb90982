"""Who may ask? Tokens, passwords, challenges, and what guessing costs."""

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from stratus.api.settings import ApiSettings
from stratus.model.units import DAY_MS
from stratus.store.schema import tokens
from tests.api.asking import problem_of, stranger_make
from tests.api.cloud import Cloud, cloud_open

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/me"),
        ("GET", "/v1/instances"),
        ("POST", "/v1/instances"),
        ("GET", "/v1/events"),
        ("PUT", "/v1/policy"),
        ("DELETE", "/v1/users/admin"),
        ("PUT", "/v1/images/tiny/content"),
        ("POST", "/v1/tokens"),
    ],
)
def test_without_credentials_nothing_is_answered(cloud: Cloud, method: str, path: str) -> None:
    answer = cloud.client(None).request(method, path)
    problem_of(answer, 401, "unauthenticated")
    assert "Bearer" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer nonsense",
        "Bearer st_0000000000000000_" + "A" * 43,
        "Bearer " + "x" * 5000,
        "Basic YWRtaW46YWRtaW4=",
        "Digest whatever",
        "\x80\xff",
    ],
)
def test_credentials_that_are_wrong_are_refused(cloud: Cloud, header: str) -> None:
    raw = {b"Authorization": header.encode("latin-1")}
    answer = cloud.client(None).get("/v1/me", headers=raw)
    problem_of(answer, 401, "unauthenticated")


def test_an_expired_token_says_that_it_expired(cloud: Cloud) -> None:
    token = stranger_make(cloud.client(), "late")
    client = cloud.client(token)
    token_id = client.get("/v1/me").json()["token_id"]
    expired = update(tokens).where(tokens.c.id == token_id)
    past = cloud.world.now_ms() - DAY_MS
    cloud.world.store.write(lambda c: c.execute(expired.values(expires_ms=past)))
    cloud.world.actors.forget()
    problem_of(client.get("/v1/me"), 401, "token_expired")


def test_a_revoked_token_is_worthless_at_once(cloud: Cloud) -> None:
    client = cloud.client(stranger_make(cloud.client(), "leaver"))
    token_id = client.get("/v1/me").json()["token_id"]
    assert client.delete(f"/v1/tokens/{token_id}").status_code == 204
    problem_of(client.get("/v1/me"), 401, "unauthenticated")


def test_a_disabled_users_token_is_worthless(cloud: Cloud) -> None:
    client = cloud.client(stranger_make(cloud.client(), "fired"))
    assert client.get("/v1/me").status_code == 200
    answer = cloud.client().delete("/v1/users/fired")
    assert answer.json()["disabled"] is True
    problem_of(client.get("/v1/me"), 401, "unauthenticated")


def test_a_password_buys_a_token_that_is_shown_once(cloud: Cloud) -> None:
    answer = httpx.post(
        f"{cloud.url}/v1/tokens",
        json={"name": "laptop", "scopes": ["read"], "days": 7},
        auth=("admin", cloud.secrets.password),
    )
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert cloud.client(made["token"]).get("/v1/me").json()["scopes"] == ["read"]
    listed = cloud.client().get("/v1/tokens").json()["items"]
    assert made["id"] in [token["id"] for token in listed]
    assert all("token" not in token for token in listed)


def test_a_token_that_only_reads_changes_nothing(cloud: Cloud) -> None:
    made = cloud.client().post("/v1/tokens", json={"name": "ro", "scopes": ["read"]})
    reader = cloud.client(made.json()["token"])
    assert reader.get("/v1/instances").status_code == 200
    body = {"project": "default", "image": "tiny"}
    problem_of(reader.post("/v1/instances", json=body), 403, "forbidden")


def test_a_member_is_told_what_only_administrators_may_do(cloud: Cloud) -> None:
    member = cloud.client(stranger_make(cloud.client(), "plain", "plainproject"))
    for path in ("/v1/hosts", "/v1/users", "/v1/pools"):
        problem_of(member.get(path), 403, "forbidden")
    body = {"name": "h1", "uri": "qemu:///system"}
    problem_of(member.post("/v1/hosts", json=body), 403, "forbidden")
    problem_of(member.get("/v1/instances?all_projects=true"), 403, "forbidden")


def test_guessing_passwords_gets_slow_for_one_name_from_one_address(directory: Path) -> None:
    settings = ApiSettings(login_failures_max=3, login_forgiven_seconds=3600)
    with cloud_open(directory, settings=settings) as cloud:
        client = cloud.client(None)
        for _ in range(3):
            answer = client.post("/v1/tokens", json={}, auth=("admin", "wrong"))
            problem_of(answer, 401, "unauthenticated")
            assert "Basic" in answer.headers["www-authenticate"]
        # Not even the right password helps now, and no password is looked at.
        right = ("admin", cloud.secrets.password)
        answer = client.post("/v1/tokens", json={}, auth=right)
        problem_of(answer, 429, "rate_limited")
        assert int(answer.headers["retry-after"]) > 60
        # Somebody else is not held up.
        problem_of(client.post("/v1/tokens", json={}, auth=("bob", "x")), 401, "unauthenticated")


def test_logging_in_rightly_often_is_no_guessing(directory: Path) -> None:
    settings = ApiSettings(login_failures_max=2, login_forgiven_seconds=3600)
    with cloud_open(directory, settings=settings) as cloud:
        for _ in range(5):
            right = ("admin", cloud.secrets.password)
            answer = cloud.client(None).post("/v1/tokens", json={}, auth=right)
            assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("text", ["!!!", "bm9jb2xvbg==", "YQA6Yg==", "\x80"])
def test_malformed_basic_credentials_are_refused(cloud: Cloud, text: str) -> None:
    raw = {b"Authorization": b"Basic " + text.encode("latin-1")}
    answer = cloud.client(None).post("/v1/tokens", json={}, headers=raw)
    problem_of(answer, 401, "unauthenticated")
