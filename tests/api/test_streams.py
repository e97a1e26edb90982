"""Does the event stream lose nothing, repeat nothing, and show nobody what is not theirs?"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from stratus.api.settings import ApiSettings
from stratus.control.events import events_newest
from stratus.store.events import EventDraft, event_append_many
from tests.api.asking import instance_make, problem_of, stranger_make
from tests.api.cloud import Cloud, cloud_open

SSE = {"Accept": "text/event-stream"}


@contextmanager
def stream(
    client: httpx.Client, query: str = "", after: str = ""
) -> Iterator[Iterator[dict[str, Any]]]:
    """Follow the events."""
    headers = SSE | ({"Last-Event-ID": after} if after else {})
    with client.stream("GET", f"/v1/events{query}", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield frames(answer.iter_lines())


def frames(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    found: dict[str, str] = {}
    for line in lines:
        if not line and "data" in found:
            yield {"id": found.get("id"), "event": found["event"]} | json.loads(found["data"])
            found = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


def newest(cloud: Cloud) -> str:
    return events_newest(cloud.world)


def told(cloud: Cloud, count: int, kind: str = "test.told", project: str = "") -> None:
    """Write events as other processes do."""
    drafts = [
        EventDraft(kind=kind, subject="x", project_id=project, data={"n": n}) for n in range(count)
    ]
    now = cloud.world.now_ms()
    cloud.world.store.write(lambda c: event_append_many(c, drafts, now_ms=now))
    cloud.world.store.hints.send("events")


def test_what_happens_is_told_while_it_happens(cloud: Cloud) -> None:
    with stream(cloud.client(headers={})) as events:
        made = instance_make(cloud.client())["id"]
        event = next(event for event in events if event["subject"] == made)
    assert event["event"] == event["kind"] == "instance.created"
    assert event["id"] == event["cursor"]
    assert event["actor"] == "admin"
    assert event["request_id"].startswith("req-")


def test_a_stream_goes_on_where_it_broke(cloud: Cloud) -> None:
    begin = newest(cloud)
    told(cloud, 450)
    with stream(cloud.client(), after=begin) as events:
        first = [next(events) for _ in range(100)]
    told(cloud, 50)
    with stream(cloud.client(), after=first[-1]["id"]) as events:
        rest = [next(events) for _ in range(400)]
    numbers = [event["data"]["n"] for event in first + rest]
    assert numbers == [*range(450), *range(50)]


def test_pages_and_the_stream_tell_the_same(cloud: Cloud) -> None:
    begin = newest(cloud)
    told(cloud, 25)
    paged: list[str] = []
    cursor: str | None = begin
    while cursor is not None:
        page = cloud.client().get(f"/v1/events?limit=10&cursor={cursor}").json()
        paged += [event["cursor"] for event in page["items"]]
        cursor = page["next"]
    with stream(cloud.client(), query=f"?after={begin}") as events:
        streamed = [next(events)["cursor"] for _ in range(25)]
    assert streamed == paged


def test_nothing_is_lost_between_replay_and_present(cloud: Cloud) -> None:
    begin = newest(cloud)
    total = 600

    def write() -> None:
        for _ in range(total // 20):
            told(cloud, 20)

    writer = threading.Thread(target=write)
    writer.start()
    with stream(cloud.client(), after=begin) as events:
        found = [next(events) for _ in range(total)]
    writer.join()
    assert [event["data"]["n"] for event in found] == [*range(20)] * (total // 20)
    assert len({event["id"] for event in found}) == total


def test_a_stranger_sees_only_their_own_projects(cloud: Cloud) -> None:
    stranger = cloud.client(stranger_make(cloud.client(), "watcher", "watched"))
    mine = stranger.get("/v1/projects").json()["items"][0]["id"]
    begin = newest(cloud)
    told(cloud, 5, kind="test.theirs", project=cloud.project_id)
    told(cloud, 5, kind="test.nobodys")
    told(cloud, 1, kind="test.mine", project=mine)
    with stream(stranger, after=begin) as events:
        assert next(events)["kind"] == "test.mine"
        told(cloud, 5, kind="test.theirs", project=cloud.project_id)
        told(cloud, 1, kind="test.mine", project=mine)
        assert next(events)["kind"] == "test.mine"
    listed = stranger.get(f"/v1/events?after={begin}").json()["items"]
    assert {event["kind"] for event in listed} == {"test.mine"}


def test_a_subject_can_be_followed_alone(cloud: Cloud) -> None:
    made = instance_make(cloud.client())["id"]
    with stream(cloud.client(), query=f"?subject={made}") as events:
        instance_make(cloud.client())
        cloud.runs(made)
        assert next(events)["subject"] == made
    history = cloud.client().get(f"/v1/instances/{made}/events").json()["items"]
    assert [event["kind"] for event in history] == ["instance.created", "instance.observed"]


@pytest.mark.parametrize("cursor", ["nonsense", "1", "-", "9" * 30 + "-1"])
def test_a_cursor_that_nobody_gave_out_is_refused_before_the_stream(
    cloud: Cloud, cursor: str
) -> None:
    answer = cloud.client().get("/v1/events", headers={**SSE, "Last-Event-ID": cursor})
    problem_of(answer, 400, "invalid_field")


def test_a_quiet_stream_says_that_it_lives(directory: Path) -> None:
    with (
        cloud_open(directory, settings=ApiSettings(heartbeat_seconds=0.2)) as cloud,
        cloud.client().stream("GET", "/v1/events", headers=SSE) as answer,
    ):
        assert next(line for line in answer.iter_lines() if line.startswith(":")) == ": alive"


def test_a_stream_ends_with_its_token(directory: Path) -> None:
    with cloud_open(directory, settings=ApiSettings(heartbeat_seconds=0.2)) as cloud:
        client = cloud.client(stranger_make(cloud.client(), "short", "shortproject"))
        token_id = client.get("/v1/me").json()["token_id"]
        with client.stream("GET", "/v1/events", headers=SSE) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert cloud.client().delete(f"/v1/tokens/{token_id}").status_code == 204
            rest = list(lines)
        assert "event: problem" in rest
        assert any('"unauthenticated"' in line for line in rest)


def test_streams_are_counted(directory: Path) -> None:
    settings = ApiSettings(streams_max=3, streams_per_user_max=2)
    with cloud_open(directory, settings=settings) as cloud:
        other = cloud.client(stranger_make(cloud.client(), "other", "otherproject"))
        client = cloud.client()
        with stream(client), stream(client):
            refused = client.get("/v1/events", headers=SSE)
            problem_of(refused, 429, "rate_limited")
            with stream(other):
                problem_of(other.get("/v1/events", headers=SSE), 503, "overloaded")
                metrics = client.get("/metrics").text
                assert "stratus_http_streams 3.0" in metrics
        for _ in range(100):
            if cloud.api.watch.streams == 0:
                break
            time.sleep(0.05)
        assert cloud.api.watch.streams == 0


def test_who_does_not_take_their_events_is_cut_off(directory: Path) -> None:
    with cloud_open(directory, settings=ApiSettings(consumer_seconds_max=0.5)) as cloud:
        port = int(cloud.url.rsplit(":", 1)[1])
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.sendall(
                b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
                b"Authorization: Bearer " + cloud.secrets.token.encode() + b"\r\n\r\n"
            )
            while cloud.api.watch.streams == 0:
                time.sleep(0.01)
            for _ in range(60):
                told(cloud, 500)
                if cloud.api.watch.streams == 0:
                    break
                time.sleep(0.1)
            assert cloud.api.watch.streams == 0
        assert cloud.client().get("/v1/me").status_code == 200


def test_a_stop_ends_streams_and_waits_soon(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        made = instance_make(cloud.client())["id"]
        ended: list[float] = []

        def follow() -> None:
            with cloud.client().stream("GET", "/v1/events", headers=SSE) as answer:
                for _ in answer.iter_lines():
                    pass
            ended.append(time.monotonic())

        def wait() -> None:
            assert cloud.client().get(f"/v1/instances/{made}?wait=60").status_code == 200
            ended.append(time.monotonic())

        threads = [threading.Thread(target=follow), threading.Thread(target=wait)]
        for thread in threads:
            thread.start()
        while cloud.api.watch.streams == 0 or cloud.api.watch.waiting == 0:
            time.sleep(0.01)
        assert cloud.server is not None
        started = time.monotonic()
        cloud.server.stop()
        for thread in threads:
            thread.join(10)
        assert len(ended) == 2
        assert time.monotonic() - started < 8
