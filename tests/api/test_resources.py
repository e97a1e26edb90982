"""Does every group of addresses do what it says, from the door to the store and back?"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.asking import instance_make, problem_of, stranger_make
from tests.api.cloud import Cloud, cloud_open

WISH = {"project": "default", "image": "tiny", "type": "t1.micro"}


def test_an_instance_is_made_shown_renamed_and_deleted(cloud: Cloud) -> None:
    client = cloud.client()
    answer = client.post(
        "/v1/instances",
        json={
            **WISH,
            "name": "web",
            "count": 2,
            "volatile_gib": 1,
            "swap_mib": 0,
            "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@home"],
            "user_data": "#!/bin/sh\ntrue\n",
            "context": {"ROLE": "web"},
            "on_halt": "release",
            "ranking": "pack",
        },
    )
    assert answer.status_code == 202
    first, second = answer.json()["items"]
    assert (first["name"], second["name"]) == ("web-1", "web-2")
    assert first["address"] != second["address"]
    assert first["project"]["name"] == "default"
    assert first["user"]["name"] == "admin"
    assert first["image"]["name"] == "tiny"
    assert first["nics"][0]["network"] == "public"
    assert (first["on_halt"], first["ranking"], first["swap_mib"]) == ("release", "pack", 0)
    shown = client.get(f"/v1/instances/{first['id']}")
    assert shown.json() == first
    renamed = client.patch(f"/v1/instances/{first['id']}", json={"name": "www"}).json()
    assert renamed["name"] == "www"
    assert renamed["operation"].startswith("opn-")
    gone = client.delete(f"/v1/instances/{first['id']}")
    assert (gone.status_code, gone.json()["phase"]) == (202, "deleting")


def test_a_dry_run_explains_and_makes_nothing(cloud: Cloud) -> None:
    client = cloud.client()
    answer = client.post("/v1/instances?dry_run=true", json={**WISH, "name": "dry"})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["fits"] is False
    assert said["count"] == 1
    assert said["problem"]["remedy"]
    assert client.get("/v1/instances?name=dry").json()["items"] == []


def test_a_quota_that_is_used_up_is_a_conflict_with_a_remedy(cloud: Cloud) -> None:
    client = cloud.client()
    body = {"name": "narrow", "quota": {"instances": 1}, "owner": "admin"}
    assert client.post("/v1/projects", json=body).status_code == 201
    answer = client.post("/v1/instances", json={**WISH, "project": "narrow", "count": 2})
    problem_of(answer, 409, "quota_exceeded")


def test_a_list_is_handed_out_in_pages(cloud: Cloud) -> None:
    client = cloud.client()
    client.post("/v1/projects", json={"name": "paged", "owner": "admin"})
    wish = {**WISH, "project": "paged", "count": 7}
    made = [item["id"] for item in client.post("/v1/instances", json=wish).json()["items"]]
    found: list[str] = []
    cursor = ""
    while True:
        answer = client.get(f"/v1/instances?project=paged&limit=3{cursor}").json()
        assert len(answer["items"]) <= 3
        found += [item["id"] for item in answer["items"]]
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert found == sorted(made)


def test_a_console_is_plain_text_of_bounded_length(cloud: Cloud) -> None:
    made = instance_make(cloud.client())["id"]
    cloud.consoles[made] = b"line one\nline two\n\xff\x00"
    answer = cloud.client().get(f"/v1/instances/{made}/console?bytes=11")
    assert answer.content == b"line two\n\xff\x00"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem_of(cloud.client().get(f"/v1/instances/{made}/console?bytes=0"), 400, "invalid_field")


def test_users_projects_members_and_tokens(cloud: Cloud) -> None:
    admin = cloud.client()
    made = admin.post("/v1/users", json={"name": "ana", "generate": True})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    password = made.json()["password"]
    assert "password" not in admin.get("/v1/users/ana").text
    assert admin.post("/v1/users", json={"name": "ana"}).json()["code"] == "name_taken"
    assert admin.post("/v1/projects", json={"name": "lab"}).status_code == 201
    put = admin.put("/v1/projects/lab/members/ana", json={"role": "member"})
    assert put.json()["role"] == "member"
    login = httpx.post(f"{cloud.url}/v1/tokens", json={}, auth=("ana", password))
    ana = cloud.client(login.json()["token"])
    me = ana.get("/v1/me").json()
    assert [(p["name"], p["role"]) for p in me["projects"]] == [("lab", "member")]
    assert [p["name"] for p in ana.get("/v1/projects").json()["items"]] == ["lab"]
    members = ana.get("/v1/projects/lab/members").json()["items"]
    assert [member["user"]["name"] for member in members] == ["ana"]
    problem_of(ana.put("/v1/projects/lab/members/ana", json={"role": "owner"}), 403, "forbidden")
    wrong = admin.put("/v1/projects/lab/members/ana", json={"role": "king"})
    problem_of(wrong, 400, "invalid_field")
    assert admin.delete("/v1/projects/lab/members/ana").status_code == 204
    problem_of(ana.get("/v1/projects/lab"), 404, "not_found")
    assert admin.delete("/v1/projects/lab").status_code == 204
    users = admin.get("/v1/users").json()["items"]
    assert "ana" in [user["name"] for user in users]


def test_ones_own_password_needs_the_old_one(cloud: Cloud) -> None:
    token = stranger_make(cloud.client(), "changer")
    changer = cloud.client(token)
    new = {"password": "another good long password"}
    problem_of(changer.patch("/v1/users/changer", json=new), 400, "invalid_field")
    wrong = changer.patch("/v1/users/changer", json={**new, "password_old": "wrong"})
    problem_of(wrong, 403, "forbidden")
    old = {"password_old": "correct horse battery staple"}
    assert changer.patch("/v1/users/changer", json={**new, **old}).status_code == 200
    problem_of(changer.patch("/v1/users/changer", json=old), 400, "invalid_field")


def test_types_are_data_on_the_server(cloud: Cloud) -> None:
    client = cloud.client()
    assert "m1.small" in [t["name"] for t in client.get("/v1/types").json()["items"]]
    body = {"name": "z1.big", "vcpus": 2, "memory_mib": 2048}
    assert client.post("/v1/types", json=body).status_code == 201
    problem_of(client.post("/v1/types", json=body), 409, "name_taken")
    assert client.get("/v1/types/z1.big").json() == {**body, "swap_mib": 0, "root_gib": 0}
    assert client.delete("/v1/types/z1.big").status_code == 204
    problem_of(client.get("/v1/types/z1.big"), 404, "not_found")


def test_hosts_pools_and_networks(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        _hosts_pools_and_networks(cloud.client())


def _hosts_pools_and_networks(client: httpx.Client) -> None:
    body = {"name": "node1", "uri": "qemu:///system", "cpu_ratio": 2.0}
    made = client.post("/v1/hosts", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["phase"] == "waiting"
    assert made.json()["pools"] == ["main"]
    changed = client.patch("/v1/hosts/node1", json={"cpu_ratio": 3, "accelerator": "tcg"}).json()
    assert (changed["cpu_ratio"], changed["accelerator_wanted"]) == (3.0, "tcg")
    assert client.post("/v1/hosts/node1/drain").json()["desired"] == "draining"
    assert client.post("/v1/hosts/node1/enable").json()["desired"] == "enabled"
    assert client.get("/v1/hosts/node1/strays").json() == {"items": [], "next": None}
    problem_of(client.post("/v1/hosts/node1/fence", json={}), 400, "invalid_field")
    problem_of(client.post("/v1/hosts/node1/fence", json={"confirm": True}), 409, "conflict")
    problem_of(client.post("/v1/hosts", json={**body, "uri": "ftp://x"}), 400, "invalid_field")
    problem_of(client.patch("/v1/hosts/node1", json={"cpu_ratio": 0}), 400, "invalid_field")
    assert client.get("/v1/hosts").json()["items"][0]["name"] == "node1"
    assert client.delete("/v1/hosts/node1").status_code == 202
    assert client.get("/v1/pools/main").json()["driver"] == "files"
    assert [pool["name"] for pool in client.get("/v1/pools").json()["items"]] == ["main"]
    network = {"name": "back", "class": "private", "ipv4_cidr": "192.168.7.0/24"}
    assert client.post("/v1/networks", json=network).status_code == 201
    shown = client.get("/v1/networks/back").json()
    assert (shown["class"], shown["ipv4_gateway"]) == ("private", "192.168.7.1")
    again = {"name": "twin", "class": "private", "ipv4_cidr": "192.168.7.128/25"}
    problem_of(client.post("/v1/networks", json=again), 409, "conflict")


# --- images ---


CONTENT = bytes(range(256)) * 12_000  # about 3 MB


def image_make(client: httpx.Client, name: str, **more: Any) -> str:  # noqa: ANN401  # JSON
    answer = client.post("/v1/images", json={"project": "default", "name": name, **more})
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["id"]
    return made


def test_an_image_is_uploaded_in_one_piece(cloud: Cloud) -> None:
    client = cloud.client()
    image = image_make(client, "whole", sha256=hashlib.sha256(CONTENT).hexdigest().upper())
    answer = client.put(f"/v1/images/{image}/content", content=CONTENT)
    assert answer.status_code == 204, answer.text
    assert answer.headers["upload-offset"] == str(len(CONTENT))
    assert bytes(cloud.uploads.bytes[image]) == CONTENT
    again = client.put(f"/v1/images/{image}/content", content=CONTENT)
    problem_of(again, 409, "conflict")


def test_an_upload_goes_on_where_it_stands(cloud: Cloud) -> None:
    client = cloud.client()
    image = image_make(client, "pieces")
    path = f"/v1/images/{image}/content"
    whole = len(CONTENT)
    half = whole // 2
    headers = {"Content-Range": f"bytes 0-{half - 1}/{whole}"}
    assert client.put(path, content=CONTENT[:half], headers=headers).status_code == 204
    assert client.head(path).headers["upload-offset"] == str(half)
    twice = client.put(path, content=CONTENT[:half], headers=headers)
    assert problem_of(twice, 409, "conflict").context["offset"] == half
    headers = {"Upload-Offset": str(half), "Content-Range": f"bytes {half}-{whole - 1}/{whole}"}
    assert client.put(path, content=CONTENT[half:], headers=headers).status_code == 204
    assert bytes(cloud.uploads.bytes[image]) == CONTENT
    events = client.get(f"/v1/events?subject={image}&limit=1000").json()["items"]
    assert "image.uploaded" in [event["kind"] for event in events]


def test_an_upload_can_be_declared_complete(cloud: Cloud) -> None:
    client = cloud.client()
    image = image_make(client, "declared")
    path = f"/v1/images/{image}/content"
    assert client.put(path, content=CONTENT, headers={"Upload-Offset": "0"}).status_code == 204
    done = client.put(path, headers={"Content-Range": f"bytes */{len(CONTENT)}"})
    assert done.status_code == 204, done.text
    events = client.get(f"/v1/events?subject={image}&limit=1000").json()["items"]
    assert "image.uploaded" in [event["kind"] for event in events]


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Offset": "-1"},
        {"Upload-Offset": "half"},
        {"Content-Range": "bytes 5"},
        {"Content-Range": "lines 1-2/3"},
    ],
)
def test_a_malformed_place_in_an_upload_is_refused(cloud: Cloud, headers: dict[str, str]) -> None:
    client = cloud.client()
    problem_of(client.put("/v1/images/tiny/content", headers=headers), 400, "bad_request")


def test_more_bytes_than_were_said_are_refused(cloud: Cloud) -> None:
    client = cloud.client()
    image = image_make(client, "toomuch")
    headers = {"Content-Range": "bytes 0-99/50"}
    answer = client.put(f"/v1/images/{image}/content", content=b"x" * 100, headers=headers)
    problem_of(answer, 400, "invalid_field")


def test_an_upload_to_an_image_of_somebody_else_is_refused_before_its_bytes(
    cloud: Cloud,
) -> None:
    image = image_make(cloud.client(), "guarded")
    stranger = cloud.client(stranger_make(cloud.client(), "uploader", "uploads"))
    answer = stranger.put(f"/v1/images/{image}/content", content=b"x" * 100_000)
    problem_of(answer, 404, "not_found")
    assert image not in cloud.uploads.bytes


def test_images_are_shown_with_the_policys_verdict(cloud: Cloud) -> None:
    client = cloud.client()
    shown = client.get("/v1/images/tiny").json()
    assert shown["phase"] == "ready"
    assert shown["trust"]["allowed"] is True
    assert shown["trust"]["endorsers"] == ["ana@example.org"]
    fetched = image_make(client, "fetched", source="https://example.org/x.qcow2")
    told = client.get(f"/v1/images/{fetched}").json()
    assert told["trust"]["allowed"] is False
    assert told["trust"]["problem"]["remedy"]
    assert client.patch("/v1/images/fetched", json={"title": "A title"}).json()["title"]
    bad = client.post(
        "/v1/images", json={"project": "default", "name": "bad", "source": "file:///etc/passwd"}
    )
    problem_of(bad, 400, "invalid_field")
    names = [i["name"] for i in client.get("/v1/images?project=default").json()["items"]]
    assert {"tiny", "fetched"} <= set(names)
    assert client.delete("/v1/images/fetched").status_code == 202


def test_endorsements_policy_and_keys(cloud: Cloud) -> None:
    client = cloud.client()
    (kept,) = client.get("/v1/images/tiny/endorsements").json()["items"]
    problem_of(
        client.post("/v1/images/tiny/endorsements", content=b"{}"), 400, "endorsement_invalid"
    )
    again = client.post("/v1/images/tiny/endorsements", content=base64.b64decode(kept["document"]))
    assert again.status_code == 201, again.text
    assert again.json()["sha256"] == kept["sha256"]
    policy = client.get("/v1/policy").json()
    assert policy["rules"][0]["action"] == "allow"
    assert client.put("/v1/policy", json=policy).json() == policy
    problem_of(client.put("/v1/policy", json={"rulez": []}), 400, "invalid_field")
    (key,) = client.get("/v1/keys").json()["items"]
    problem_of(client.post("/v1/keys", json={"pem": "nonsense"}), 400, "invalid_field")
    assert client.delete(f"/v1/keys/{key['fingerprint']}").status_code == 204
    refused = client.post("/v1/instances", json=WISH)
    problem_of(refused, 403, "policy_forbids")
    assert client.post("/v1/keys", json={"pem": key["pem"]}).status_code == 201
    assert client.post("/v1/instances", json=WISH).status_code == 202
