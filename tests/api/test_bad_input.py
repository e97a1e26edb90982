"""What does the door say to bad input of every sort? Status, code and remedy, and nothing lost."""

import json
import socket
from typing import Any

import pytest

from tests.api.asking import instance_make, problem_of, stranger_make
from tests.api.cloud import Cloud

WISH = {"project": "default", "image": "tiny", "type": "t1.micro"}
NOBODY = "ins-0000000000000000"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**WISH, "colour": "red"}, "colour"),
        ({**WISH, "count": "two"}, "count"),
        ({**WISH, "count": 0}, "count"),
        ({**WISH, "count": 1001}, "count"),
        ({**WISH, "count": 1.5}, "count"),
        ({**WISH, "count": 10**30}, "count"),
        ({**WISH, "volatile_gib": -1}, "volatile_gib"),
        ({**WISH, "volatile_gib": 10**9}, "volatile_gib"),
        ({**WISH, "swap_mib": 10**12}, "swap_mib"),
        ({**WISH, "name": "Upper Case"}, "name"),
        ({**WISH, "name": "line\n"}, "name"),
        ({**WISH, "name": "x" * 64}, "name"),
        ({**WISH, "on_halt": "explode"}, "on_halt"),
        ({**WISH, "ssh_keys": ["no key"]}, "ssh_keys"),
        ({**WISH, "ssh_keys": "no list"}, "ssh_keys"),
        ({**WISH, "ssh_keys": ["ssh-ed25519 AAAA"] * 33}, "ssh_keys"),
        ({**WISH, "context": {"1bad": "x"}}, "context"),
        ({**WISH, "context": {"k": 5}}, "context[...]"),
        ({**WISH, "user_data": "é" * 40_000}, "user_data"),
        ({**WISH, "type": "x9.nothing"}, "type"),
        ({"image": "tiny"}, "project"),
        ([WISH], ""),
    ],
)
def test_a_wrong_field_is_named(cloud: Cloud, body: Any, field: str) -> None:  # noqa: ANN401  # JSON
    answer = cloud.client().post("/v1/instances", json=body)
    problem = problem_of(answer, 400, "invalid_field")
    assert problem.context["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b"\xff\xfe",
        b'{"project": "\xff"}',
        b'{"a": 1} trailing',
        b'{"project": NaN}',
        b"[" * 100_000,
        b'{"x":' * 50_000,
        b'{"count": ' + b"9" * 10_000 + b"}",
        b'{"project": "a\\u0000b", "image": "x"}',
        b'{"project": "\\ud800", "image": "x"}',
    ],
)
def test_what_is_no_json_object_is_refused(cloud: Cloud, body: bytes) -> None:
    answer = cloud.client().post("/v1/instances", content=body)
    assert answer.json()["code"] in ("bad_request", "invalid_field")
    problem_of(answer, 400, answer.json()["code"])


def test_an_escaped_backslash_before_u0000_is_no_nul(cloud: Cloud) -> None:
    body = json.dumps({**WISH, "image": "a\\u0000"}).encode()
    problem_of(cloud.client().post("/v1/instances", content=body), 404, "not_found")


def test_another_content_type_than_json_is_refused(cloud: Cloud) -> None:
    answer = cloud.client().post("/v1/instances", data={"project": "default"})
    problem = problem_of(answer, 400, "bad_request")
    assert "application/json" in problem.remedy


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("cursor=garbage", "cursor"),
        ("cursor=" + "A" * 257, "cursor"),
        ("cursor=", "cursor"),
        ("colour=red", "colour"),
        ("all_projects=perhaps", "all_projects"),
        ("name=UPPER", "name"),
        ("project=a%20b", "project"),
    ],
)
def test_a_wrong_parameter_is_named(cloud: Cloud, query: str, field: str) -> None:
    answer = cloud.client().get(f"/v1/instances?{query}")
    assert problem_of(answer, 400, "invalid_field").context["field"] == field


@pytest.mark.parametrize(
    "query",
    ["limit=1&limit=2", "name=%00", "name=%ff", "&".join(f"a{n}=1" for n in range(40))],
)
def test_a_broken_query_string_is_refused(cloud: Cloud, query: str) -> None:
    problem_of(cloud.client().get(f"/v1/instances?{query}"), 400, "bad_request")


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/instances/{NOBODY}",
        "/v1/instances/nonsense",
        "/v1/instances/a%00b",
        "/v1/instances/%ff",
        "/v1/instances/..%2f..%2fetc",
        "/v1/instances/" + "x" * 2000,
        "/v1/images/nothing",
        "/v1/hosts/nothing",
        "/v1/pools/nothing",
        "/v1/networks/nothing",
        "/v1/projects/nothing",
        "/v1/users/nobody",
        "/v1/types/x1",
        "/v1/operations/opn-0000000000000000",
        "/v1/nowhere",
        "/",
        "/v2",
        "//v1//me//x",
    ],
)
def test_what_is_not_there_is_not_found(cloud: Cloud, path: str) -> None:
    problem_of(cloud.client().get(path), 404, "not_found")


@pytest.mark.parametrize("action", ["start", "stop", "reboot", "release", "retry"])
def test_an_action_on_an_unknown_instance_is_not_found(cloud: Cloud, action: str) -> None:
    problem_of(cloud.client().post(f"/v1/instances/{NOBODY}/{action}"), 404, "not_found")


def test_another_projects_instance_is_answered_exactly_like_an_unknown_one(cloud: Cloud) -> None:
    mine = instance_make(cloud.client())["id"]
    stranger = cloud.client(stranger_make(cloud.client(), "mallory", "elsewhere"))
    for method, tail, body in [
        ("GET", "", None),
        ("PATCH", "", {"name": "stolen"}),
        ("DELETE", "", None),
        ("GET", "/console", None),
        ("GET", "/events", None),
        ("POST", "/stop", {}),
        ("POST", "/start", {}),
        ("POST", "/reboot", {}),
    ]:
        hidden = stranger.request(method, f"/v1/instances/{mine}{tail}", json=body)
        unknown = stranger.request(method, f"/v1/instances/{NOBODY}{tail}", json=body)
        told = problem_of(hidden, 404, "not_found")
        expected = problem_of(unknown, 404, "not_found")
        assert told.detail.replace(mine, NOBODY) == expected.detail
        assert told.remedy == expected.remedy
        assert told.context == expected.context
    assert cloud.client().get(f"/v1/instances/{mine}").json()["name"] != "stolen"


def test_another_project_is_answered_exactly_like_an_unknown_one(cloud: Cloud) -> None:
    stranger = cloud.client(stranger_make(cloud.client(), "eve", "evesplace"))
    hidden = problem_of(stranger.get("/v1/projects/default"), 404, "not_found")
    unknown = problem_of(stranger.get("/v1/projects/nothing"), 404, "not_found")
    assert hidden.detail.replace("default", "nothing") == unknown.detail
    for query in ("project=default", f"project={cloud.project_id}"):
        problem_of(stranger.get(f"/v1/instances?{query}"), 404, "not_found")
        problem_of(stranger.get(f"/v1/events?{query}"), 404, "not_found")
    problem_of(stranger.post("/v1/instances", json=WISH), 404, "not_found")


def test_a_method_that_an_address_does_not_know_names_those_it_does(cloud: Cloud) -> None:
    answer = cloud.client().put("/v1/instances")
    problem = problem_of(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]
    assert "POST" in problem.remedy


def test_an_unknown_method_is_refused(cloud: Cloud) -> None:
    answer = cloud.client().request("PROPFIND", "/v1/instances")
    problem_of(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("said", ["seven", '"x-y"', '"7', "W/", '"1","2"'])
def test_an_if_match_that_is_no_etag_is_refused(cloud: Cloud, said: str) -> None:
    made = instance_make(cloud.client())["id"]
    answer = cloud.client().delete(f"/v1/instances/{made}", headers={"If-Match": said})
    problem_of(answer, 400, "bad_request")


@pytest.mark.parametrize(
    "key", ["x" * 129, "two words", "ümlaut".encode("latin-1").decode("latin-1")]
)
def test_a_malformed_idempotency_key_is_refused(cloud: Cloud, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = cloud.client().post("/v1/instances", json=WISH, headers=headers)
    problem_of(answer, 400, "bad_request")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v1\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1 HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /v1 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /v1 HTTP/1.1\r\nHost: x\r\n" + b"X-Many: y\r\n" * 9000 + b"\r\n", 431),
        (b"GET /v1 HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"y" * 200_000, 431),
        (
            b"GET /" + b"y" * 60_000 + b" HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
            431,
        ),
        (b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (
            b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
            400,
        ),
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(cloud: Cloud, raw: bytes, status: int) -> None:
    port = int(cloud.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(raw)
        said = b""
        while data := sock.recv(65536):
            said += data
            if b'"remedy"' in said:
                break
    assert said.startswith(f"HTTP/1.1 {status} ".encode()), said[:300]
    assert b"application/problem+json" in said
    assert b'"remedy"' in said


def test_the_door_still_works_after_all_that(cloud: Cloud) -> None:
    assert cloud.client().get("/v1/me").status_code == 200
