"""The service itself: is it alive, ready, measured, described; do its faults stay inside?"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stratus.api.documents import PAGES, REFERENCE
from stratus.wire.v1 import ReadyPart
from tests.api.asking import instance_make, problem_of
from tests.api.cloud import Cloud, cloud_open


def test_alive_ready_and_metrics_need_no_login(cloud: Cloud) -> None:
    client = cloud.client(None)
    assert client.get("/healthz").json() == {"alive": True}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_what_is_not_ready_is_named(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        cloud.parts[:] = [ReadyPart(name="hosts", ready=False, detail="No round for 90 s.")]
        answer = cloud.client(None).get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "ready": False,
            "parts": [
                {"name": "store", "ready": True, "detail": ""},
                {"name": "hosts", "ready": False, "detail": "No round for 90 s."},
            ],
        }


def test_a_store_that_does_not_answer_is_not_ready_and_a_503(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        cloud.world.store.close()
        answer = cloud.client(None).get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["parts"][0]["name"] == "store"
        assert answer.json()["parts"][0]["ready"] is False
        assert "/" not in answer.json()["parts"][0]["detail"]
        assert cloud.client(None).get("/healthz").status_code == 200
        problem_of(cloud.client().get("/v1/me"), 503, "store_unreachable")


def test_metrics_count_by_template_not_by_address(cloud: Cloud) -> None:
    client = cloud.client()
    made = instance_make(client)["id"]
    for _ in range(3):
        client.get(f"/v1/instances/{made}")
    client.get("/v1/some-nonsense-nobody-knows")
    text = client.get("/metrics").text
    assert re.search(
        r'stratus_http_requests_total\{method="GET",route="/v1/instances/\{instance\}",'
        r'status="200"\} \d+',
        text,
    )
    assert 'route="unknown",status="404"' in text
    assert made not in text
    assert "nonsense" not in text
    assert "stratus_hosts 0.0" in text
    assert "process_resident_memory_bytes" in text


def test_a_request_id_is_echoed_or_made(cloud: Cloud) -> None:
    client = cloud.client()
    said = client.get("/v1/me", headers={"X-Request-Id": "mine-1"})
    assert said.headers["x-request-id"] == "mine-1"
    made = client.get("/v1/me").headers["x-request-id"]
    assert made.startswith("req-")
    for bad in ("x" * 65, "two words", "quote\"'"):
        answer = client.get("/v1/me", headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"].startswith("req-")
    refused = client.get("/v1/nowhere", headers={"X-Request-Id": "mine-2"})
    assert problem_of(refused, 404, "not_found").request_id == "mine-2"


def test_a_request_id_is_found_again_in_the_events(cloud: Cloud) -> None:
    client = cloud.client(headers={"X-Request-Id": "find-me-again"})
    made = instance_make(client)["id"]
    events = client.get(f"/v1/instances/{made}/events").json()["items"]
    assert events[0]["request_id"] == "find-me-again"


def test_a_fault_of_ours_says_so_without_internals(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        made = instance_make(cloud.client())["id"]

        def broken(*_: object) -> bytes:
            raise RuntimeError("a secret inside")

        object.__setattr__(cloud.api.services, "console", broken)
        answer = cloud.client().get(f"/v1/instances/{made}/console")
        problem = problem_of(answer, 500, "bug")
        assert "secret" not in answer.text
        assert problem.request_id
        assert cloud.client().get("/v1/me").status_code == 200


def test_head_is_get_without_a_body(cloud: Cloud) -> None:
    client = cloud.client()
    for path in ("/v1/me", "/healthz", "/v1/instances", "/v1/events"):
        got, headed = client.get(path), client.head(path)
        assert headed.status_code == got.status_code
        assert headed.content == b""
        assert headed.headers["content-type"] == got.headers["content-type"]


def test_the_service_says_what_it_is(cloud: Cloud) -> None:
    said = cloud.client(None).get("/v1").json()
    assert said["product"] == "StratusLab"
    for path in said["links"].values():
        assert cloud.client().get(path).status_code == 200


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_is_what_the_code_makes(name: str) -> None:
    remedy = "run: python -m stratus.api.documents (PYTHONPATH=src), and review the difference"
    assert (REFERENCE / name).read_bytes() == PAGES[name](), remedy


def test_the_description_is_served(cloud: Cloud) -> None:
    answer = cloud.client(None).get("/v1/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == (REFERENCE / "openapi.json").read_bytes()


def test_every_operation_is_described() -> None:
    document: dict[str, Any] = json.loads((REFERENCE / "openapi.json").read_text())
    names: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            names.append(operation["operationId"])
            assert operation["description"].endswith("."), where
            assert operation["summary"], where
            assert operation["tags"], where
            assert {"400", "429", "500", "503"} <= set(operation["responses"]), where
    assert len(names) == len(set(names))


def test_every_reference_in_the_description_leads_somewhere() -> None:
    text = (REFERENCE / "openapi.json").read_text()
    document = json.loads(text)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found = document
        for part in reference.split("/"):
            found = found[part]
