"""How much comes in at once? Bodies, rates, queues, connections: each with its refusal."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stratus.api.pools import Lane
from stratus.api.settings import ApiSettings
from stratus.model.units import MIB
from tests.api.asking import problem_of
from tests.api.cloud import Cloud, cloud_open


def test_a_body_that_announces_too_much_is_not_read(cloud: Cloud) -> None:
    answer = cloud.client().post("/v1/instances", content=b" " * (1 * MIB + 1))
    problem = problem_of(answer, 413, "body_too_large")
    assert problem.context["bytes_max"] == 1 * MIB


def test_a_body_of_unknown_length_is_cut_at_the_limit(cloud: Cloud) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 * MIB:
            sent += 65536
            yield b" " * 65536

    try:
        answer = cloud.client().post("/v1/instances", content=endless())
    except httpx.HTTPError:
        pass  # cut while writing: as good, as long as little was taken
    else:
        problem_of(answer, 413, "body_too_large")
    assert sent < 32 * MIB
    assert cloud.client().get("/v1/me").status_code == 200


def test_a_length_that_is_no_number_is_refused(cloud: Cloud) -> None:
    port = int(cloud.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(
            b"POST /v1/instances HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 99999999999999999999\r\n\r\n"
        )
        said = sock.recv(65536)
    assert said.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400")), said


def test_a_token_that_asks_too_often_is_told_when_to_come_back(directory: Path) -> None:
    settings = ApiSettings(token_rate=1, token_burst=5)
    with cloud_open(directory, settings=settings) as cloud:
        client = cloud.client()
        answers = [client.get("/v1/me") for _ in range(10)]
        assert [a.status_code for a in answers].count(200) >= 5
        problem_of(answers[-1], 429, "rate_limited")
        assert int(answers[-1].headers["retry-after"]) >= 1
        # Another caller has a bucket of their own.
        assert cloud.client(None).get("/healthz").status_code == 200


def test_strangers_share_the_bucket_of_their_address(directory: Path) -> None:
    settings = ApiSettings(address_rate=0.5, address_burst=4)
    with cloud_open(directory, settings=settings) as cloud:
        bad = [cloud.client(f"st_{n}").get("/v1/me").status_code for n in range(8)]
        assert bad[:4] == [401] * 4
        assert bad[-1] == 429


def test_a_known_token_is_not_held_up_by_strangers(directory: Path) -> None:
    settings = ApiSettings(address_rate=0.5, address_burst=4)
    with cloud_open(directory, settings=settings) as cloud:
        client = cloud.client()
        assert client.get("/v1/me").status_code == 200
        for n in range(8):
            cloud.client(f"st_{n}").get("/v1/me")
        assert client.get("/v1/me").status_code == 200


def test_when_too_much_waits_for_a_thread_the_rest_is_told_to_come_back(directory: Path) -> None:
    settings = ApiSettings(slow_threads=1, queue_calls_max=1)
    held = threading.Event()
    with cloud_open(directory, settings=settings) as cloud:
        made = cloud.client().post(
            "/v1/instances", json={"project": "default", "image": "tiny", "type": "t1.micro"}
        )
        path = f"/v1/instances/{made.json()['items'][0]['id']}/console"

        waiting = [
            threading.Thread(target=lambda: cloud.client().get(path), daemon=True) for _ in range(2)
        ]
        cloud.consoles.hold = held
        for thread in waiting:
            thread.start()
        pools = cloud.api.pools
        for _ in range(500):
            if pools.under_way[Lane.SLOW] == 2:
                break
            time.sleep(0.01)
        answer = cloud.client().get(path)
        held.set()
        problem_of(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        for thread in waiting:
            thread.join(10)
        # Reads have threads of their own and were never held up.
        assert cloud.client().get("/v1/me").status_code == 200


def test_a_head_that_never_ends_is_cut(directory: Path) -> None:
    settings = ApiSettings(head_seconds_max=0.3)
    with cloud_open(directory, settings=settings) as cloud:
        port = int(cloud.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"GET /v1 HTTP/1.1\r\nHost: x\r\n")
            assert sock.recv(100) == b""


def test_a_body_that_does_not_come_is_not_waited_for(directory: Path) -> None:
    settings = ApiSettings(body_seconds_max=0.3)
    with cloud_open(directory, settings=settings) as cloud:
        port = int(cloud.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(
                b"POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n"
                b"Authorization: Bearer " + cloud.secrets.token.encode() + b"\r\n\r\n{"
            )
            said = sock.recv(65536)
        assert said.startswith(b"HTTP/1.1 400 "), said
        assert b"bad_request" in said


def test_more_connections_than_there_may_be_are_told_so(directory: Path) -> None:
    settings = ApiSettings(connections_max=3)
    with cloud_open(directory, settings=settings) as cloud:
        port = int(cloud.url.rsplit(":", 1)[1])
        held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            assert sock.recv(65536).startswith(b"HTTP/1.1 503 ")
        for sock in held:
            sock.close()
        for _ in range(100):
            try:
                if cloud.client().get("/v1/me").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.05)
        else:
            pytest.fail("the door stayed shut")
