"""Do several processes on one PostgreSQL answer as one? Here: two doors on one store each."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stratus.api.app import app_make
from stratus.api.server import server_make
from tests.api.asking import instance_make, problem_of
from tests.api.cloud import Cloud, cloud_open, world_make
from tests.api.test_streams import stream

pytestmark = pytest.mark.postgres

WISH = {"project": "default", "image": "tiny", "type": "t1.micro"}


@pytest.fixture
def two(postgres_url: str, tmp_path: Path) -> Iterator[tuple[Cloud, httpx.Client]]:
    """A cloud, and a client of another replica of its door."""
    with cloud_open(tmp_path, url=postgres_url) as cloud:
        world = world_make(postgres_url)
        api = app_make(world, console=cloud.consoles.tail, uploads=cloud.uploads, ready=lambda: ())
        server = server_make(api, host="127.0.0.1")
        server.start()
        try:
            token = {"Authorization": f"Bearer {cloud.secrets.token}"}
            with httpx.Client(base_url=server.addresses[0], headers=token, timeout=60) as other:
                yield cloud, other
        finally:
            server.stop()
            world.store.close()


def test_what_one_replica_does_another_tells(two: tuple[Cloud, httpx.Client]) -> None:
    cloud, other = two
    with stream(other) as events:
        made = instance_make(cloud.client())["id"]
        assert next(event for event in events if event["subject"] == made)
    timer = threading.Timer(0.5, cloud.runs, (made,))
    timer.start()
    started = time.monotonic()
    assert other.get(f"/v1/instances/{made}?wait=30").json()["phase"] == "running"
    assert time.monotonic() - started < 15
    timer.join()


def test_a_key_is_good_for_one_request_on_all_replicas(two: tuple[Cloud, httpx.Client]) -> None:
    cloud, other = two
    headers = {"Idempotency-Key": "everywhere"}
    body = {**WISH, "name": "everywhere"}
    answers: list[httpx.Response] = []

    def ask(client: httpx.Client) -> None:
        answers.append(client.post("/v1/instances", json=body, headers=headers))

    threads = [
        threading.Thread(target=ask, args=(client,)) for client in (cloud.client(), other) * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    assert len(other.get("/v1/instances?name=everywhere").json()["items"]) == 1


def test_text_that_postgresql_cannot_hold_is_refused(two: tuple[Cloud, httpx.Client]) -> None:
    _, other = two
    answer = other.post("/v1/images", json={"project": "default", "name": "x", "title": "a\0b"})
    problem_of(answer, 400, "bad_request")
    problem_of(other.get("/v1/images/%00"), 404, "not_found")
    problem_of(other.get("/v1/events?subject=%00"), 400, "bad_request")
