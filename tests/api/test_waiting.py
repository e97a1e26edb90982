"""Does ?wait= answer when things have come true, cheaply and not too late?"""

import asyncio
import threading
import time
from pathlib import Path

import httpx
import pytest

from stratus.api.settings import ApiSettings
from tests.api.asking import instance_make, problem_of
from tests.api.cloud import Cloud, cloud_open

WISH = {"project": "default", "image": "tiny", "type": "t1.micro"}


def later(seconds: float, function: object, *args: object) -> threading.Timer:
    timer = threading.Timer(seconds, function, args)  # type: ignore[arg-type]  # any callable
    timer.start()
    return timer


def test_a_wait_ends_as_soon_as_the_instance_runs(cloud: Cloud) -> None:
    made = instance_make(cloud.client())["id"]
    timer = later(0.3, cloud.runs, made)
    started = time.monotonic()
    answer = cloud.client().get(f"/v1/instances/{made}?wait=20")
    timer.join()
    assert answer.json()["phase"] == "running"
    assert time.monotonic() - started < 10


def test_a_wait_that_is_over_answers_with_what_is_there(cloud: Cloud) -> None:
    made = instance_make(cloud.client())["id"]
    answer = cloud.client().get(f"/v1/instances/{made}?wait=0.2")
    assert answer.status_code == 200
    assert answer.json()["phase"] == "pending"


def test_a_request_can_wait_for_its_own_operation(cloud: Cloud) -> None:
    def play() -> None:
        client = cloud.client()
        for _ in range(100):
            found = client.get("/v1/instances?name=waited").json()["items"]
            if found:
                cloud.runs(found[0]["id"])
                return
            time.sleep(0.05)

    player = threading.Thread(target=play)
    player.start()
    answer = cloud.client().post("/v1/instances?wait=20", json={**WISH, "name": "waited"})
    player.join()
    assert answer.status_code == 202
    assert [item["phase"] for item in answer.json()["items"]] == ["running"]
    operation = answer.json()["operation"]
    assert answer.headers["operation-id"] == operation
    assert cloud.client().get(f"/v1/operations/{operation}").json()["status"] == "done"


def test_an_operation_can_be_waited_for(cloud: Cloud) -> None:
    answer = cloud.client().post("/v1/instances", json=WISH).json()
    made, operation = answer["items"][0]["id"], answer["operation"]
    assert cloud.client().get(f"/v1/operations/{operation}").json()["done"] is False
    timer = later(0.2, cloud.runs, made)
    found = cloud.client().get(f"/v1/operations/{operation}?wait=20").json()
    timer.join()
    assert (found["status"], found["done"], found["subjects"]) == ("done", True, [made])
    listed = cloud.client().get("/v1/operations?limit=1000").json()["items"]
    assert operation in [each["id"] for each in listed]


def test_an_action_that_waits_shows_what_has_become_of_it(cloud: Cloud) -> None:
    made = instance_make(cloud.client())["id"]
    cloud.runs(made)
    timer = later(0.2, lambda: cloud.instances_set([made], observed="halted", observed_run=1))
    answer = cloud.client().post(f"/v1/instances/{made}/stop?wait=20", json={})
    timer.join()
    assert answer.status_code == 202
    assert answer.json()["phase"] == "stopped"


@pytest.mark.parametrize("wait", ["-1", "301", "soon", "inf", "nan"])
def test_a_wait_that_cannot_be_is_refused(cloud: Cloud, wait: str) -> None:
    made = instance_make(cloud.client())["id"]
    problem_of(cloud.client().get(f"/v1/instances/{made}?wait={wait}"), 400, "invalid_field")


def test_a_thousand_may_wait_at_once_and_are_all_told(directory: Path) -> None:
    # Bare connections: a client library would need longer than the door.
    async def wait_all(port: int, token: str, ids: list[str]) -> list[bool]:
        async def one(id_: str) -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET /v1/instances/{id_}?wait=100 HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
            )
            said = await reader.read()
            writer.close()
            return b'"phase":"running"' in said

        return await asyncio.gather(*(one(id_) for id_ in ids))

    with cloud_open(directory) as cloud:
        answer = cloud.client().post("/v1/instances", json={**WISH, "count": 1000})
        ids = [item["id"] for item in answer.json()["items"]]

        def play() -> None:
            while cloud.api.watch.waiting < len(ids):
                time.sleep(0.05)
            threads = threading.active_count()
            assert threads < 100, "no thread per waiter"
            for begin in range(0, len(ids), 100):
                cloud.runs(*ids[begin : begin + 100])

        player = threading.Thread(target=play)
        player.start()
        port = int(cloud.url.rsplit(":", 1)[1])
        running = asyncio.run(wait_all(port, cloud.secrets.token, ids))
        player.join()
        assert running == [True] * 1000
        assert cloud.api.watch.waiting == 0


def test_more_waiters_than_there_may_be_are_told_so(directory: Path) -> None:
    with cloud_open(directory, settings=ApiSettings(waiters_max=0)) as cloud:
        made = instance_make(cloud.client())["id"]
        problem_of(cloud.client().get(f"/v1/instances/{made}?wait=1"), 503, "overloaded")
        assert cloud.client().get(f"/v1/instances/{made}").status_code == 200


def test_who_goes_away_is_waited_for_no_longer(cloud: Cloud) -> None:
    made = instance_make(cloud.client())["id"]
    with pytest.raises(httpx.ReadTimeout):
        cloud.client().get(f"/v1/instances/{made}?wait=30", timeout=0.3)
    for _ in range(100):
        if cloud.api.watch.waiting == 0:
            return
        time.sleep(0.05)
    pytest.fail("the door still waits for a client that is gone")
