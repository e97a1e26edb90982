"""Can a request be repeated safely, and a change be made only to what was seen?"""

import hashlib
import json
import threading
from typing import Any

import httpx
import pytest

from stratus.model.units import MINUTE_MS
from stratus.store.idempotency import Claim, claim_create
from tests.api.asking import instance_make, problem_of, stranger_make
from tests.api.cloud import Cloud

WISH = {"project": "default", "image": "tiny", "type": "t1.micro"}


def count(cloud: Cloud, name: str) -> int:
    return len(cloud.client().get(f"/v1/instances?name={name}").json()["items"])


def test_the_same_request_under_one_key_is_carried_out_once(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "once-1"}
    body = {**WISH, "name": "once"}
    first = cloud.client().post("/v1/instances", json=body, headers=headers)
    again = cloud.client().post("/v1/instances", json=body, headers=headers)
    assert first.status_code == again.status_code == 202
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    assert again.headers["operation-id"] == first.headers["operation-id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert count(cloud, "once") == 1


def test_many_equal_requests_at_once_make_one_thing(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "at-once"}
    body = {**WISH, "name": "atonce"}
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(cloud.client().post("/v1/instances", json=body, headers=headers))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.status_code for answer in answers} <= {202, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert "right now" in problem_of(answer, 409, "conflict").detail
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    assert count(cloud, "atonce") == 1


def test_another_request_under_the_same_key_is_refused(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "used"}
    client = cloud.client()
    assert client.post("/v1/instances", json=WISH, headers=headers).status_code == 202
    for answer in (
        client.post("/v1/instances", json={**WISH, "count": 2}, headers=headers),
        client.post("/v1/instances?dry_run=true", json=WISH, headers=headers),
        client.post("/v1/projects", json={"name": "other"}, headers=headers),
    ):
        problem_of(answer, 409, "idempotency_mismatch")


def test_a_refused_request_does_not_use_up_its_key(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "tried"}
    client = cloud.client()
    bad = client.post("/v1/instances", json={**WISH, "image": "nothing"}, headers=headers)
    problem_of(bad, 404, "not_found")
    assert client.post("/v1/instances", json=WISH, headers=headers).status_code == 202


def test_a_claim_without_an_answer_is_not_carried_out_again(cloud: Cloud) -> None:
    # As a crash between the change and its answer leaves it.
    body = json.dumps({**WISH, "name": "crashed"}).encode()
    digest = hashlib.sha256(b"POST /v1/instances?\n" + body).hexdigest()
    user = cloud.client().get("/v1/me").json()["id"]
    before = cloud.world.now_ms() - 2 * MINUTE_MS
    claim = Claim(user_id=user, key="crash", request_sha256=digest, now_ms=before)
    cloud.world.store.write(lambda connection: claim_create(connection, claim))
    headers = {"Idempotency-Key": "crash", "Content-Type": "application/json"}
    answer = cloud.client().post("/v1/instances", content=body, headers=headers)
    assert "answer was lost" in problem_of(answer, 409, "conflict").detail
    assert count(cloud, "crashed") == 0


def test_the_key_of_one_user_means_nothing_to_another(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "shared"}
    assert cloud.client().post("/v1/instances", json=WISH, headers=headers).status_code == 202
    stranger = cloud.client(stranger_make(cloud.client(), "keyuser", "keyproject"))
    answer = stranger.post("/v1/instances", json=WISH, headers=headers)
    problem_of(answer, 404, "not_found")


def test_a_token_is_never_kept_for_a_repetition(cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "secret"}
    body = {"name": "x", "scopes": ["read"]}
    made = [cloud.client().post("/v1/tokens", json=body, headers=headers) for _ in range(2)]
    assert made[0].json()["token"] != made[1].json()["token"]


# --- versions ---


def test_a_change_of_what_has_changed_meanwhile_is_refused(cloud: Cloud) -> None:
    client = cloud.client()
    made = instance_make(client)
    path = f"/v1/instances/{made['id']}"
    etag = client.get(path).headers["etag"]
    renamed = client.patch(path, json={"name": "first"}, headers={"If-Match": etag})
    assert renamed.status_code == 200
    stale = client.patch(path, json={"name": "second"}, headers={"If-Match": etag})
    problem_of(stale, 412, "stale")
    assert client.get(path).json()["name"] == "first"
    fresh = renamed.headers["etag"]
    assert client.patch(path, json={"name": "third"}, headers={"If-Match": fresh}).is_success
    assert client.delete(path, headers={"If-Match": "*"}).status_code == 202


@pytest.mark.parametrize("form", ["{version}", '"{version}"', 'W/"{version}"'])
def test_if_match_takes_the_version_in_any_form(cloud: Cloud, form: str) -> None:
    client = cloud.client()
    made = instance_make(client)
    said = form.format(version=made["version"])
    path = f"/v1/instances/{made['id']}"
    assert client.patch(path, json={"name": "n"}, headers={"If-Match": said}).status_code == 200


def test_what_the_client_has_already_is_not_sent_again(cloud: Cloud) -> None:
    client = cloud.client()
    path = f"/v1/instances/{instance_make(client)['id']}"
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    client.patch(path, json={"name": "changed"})
    changed = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200


def test_one_project_ceiling_can_be_changed_without_saying_the_others(cloud: Cloud) -> None:
    client = cloud.client()
    made: dict[str, Any] = client.post(
        "/v1/projects", json={"name": "ceilings", "quota": {"vcpus": 7, "instances": 3}}
    ).json()
    changed = client.patch("/v1/projects/ceilings", json={"quota": {"vcpus": 8}})
    assert changed.status_code == 200, changed.text
    assert changed.json()["quota"] == {**made["quota"], "vcpus": 8}
    stale = client.patch(
        "/v1/projects/ceilings", json={"quota": {"vcpus": 9}}, headers={"If-Match": '"1"'}
    )
    problem_of(stale, 412, "stale")
