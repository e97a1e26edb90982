"""Do the native API's structs take what they should, and show what is there?"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratus.model.ids import HostId, ImageId, InstanceId, ProjectId, UserId
from stratus.model.instance import (
    Context,
    Desired,
    InstanceCreate,
    InstanceFacts,
    Nic,
    Observed,
    OnHalt,
    Ranking,
)
from stratus.model.problem import Problem
from stratus.model.tenancy import Quota
from stratus.wire import v1

FACTS = InstanceFacts(
    id=InstanceId("ins-0000000000000001"),
    project_id=ProjectId("prj-0000000000000001"),
    user_id=UserId("usr-0000000000000001"),
    name="web",
    created_ms=1_795_374_000_123,
    version=3,
    desired=Desired.RUNNING,
    desired_ms=1_795_374_000_123,
    run=1,
    resets=0,
    release=False,
    on_halt=OnHalt.KEEP,
    ranking=Ranking.SPREAD,
    image_id=ImageId("img-0000000000000001"),
    type_name="m1.small",
    vcpus=1,
    memory_mib=1536,
    swap_mib=0,
    root_gib=0,
    volatile_gib=0,
    nics=(Nic(network_id="net-0000000000000001", mac="52:54:00:00:00:01", ipv4="10.0.0.2"),),
)


def test_an_instance_without_known_names_is_shown_with_its_ids() -> None:
    view = v1.instance_view(FACTS, v1.Names())
    assert view.project.name == FACTS.project_id
    assert view.image.name == FACTS.image_id
    assert (view.address, view.address6, view.host) == ("10.0.0.2", None, None)
    assert view.created_at == "2026-11-22T19:00:00.123Z"
    assert (view.placed_at, view.observed_at) == (None, None)


def test_an_instance_on_an_unreachable_host_says_since_when() -> None:
    lost = msgspec.structs.replace(
        FACTS,
        host_id=HostId("hst-0000000000000001"),
        host_name="node1",
        generation=1,
        observed=Observed.RUNNING,
        observed_generation=1,
        observed_run=1,
        host_unreachable_ms=1_795_374_060_000,
    )
    view = v1.instance_view(lost, v1.Names())
    assert (view.phase, view.reason, view.host) == ("unknown", "host_unreachable", "node1")
    assert view.host_unreachable_since == "2026-11-22T19:01:00.000Z"


def test_a_view_can_be_read_back() -> None:
    waiting = Problem(code="no_room_now", detail="12 hosts: 12 are full.", remedy="Wait.")
    view = v1.instance_view(msgspec.structs.replace(FACTS, waiting=waiting), v1.Names())
    page = v1.Page(items=[view], next="c")
    assert msgspec.json.decode(msgspec.json.encode(page), type=v1.Page[v1.InstanceView]) == page


def test_answers_may_gain_fields_and_bodies_may_not() -> None:
    assert msgspec.json.decode(b'{"id": "i", "name": "n", "new": 1}', type=v1.NameView).id == "i"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"name": "n", "new": 1}', type=v1.InstanceChange)


def test_a_body_becomes_the_wish_it_says() -> None:
    body = v1.InstanceCreateBody(
        project="lab",
        image="tiny",
        count=3,
        ssh_keys=("ssh-ed25519 AAAA me",),
        user_data="#!/bin/sh",
        context={"A": "b"},
    )
    assert v1.instance_create(body, project_id=ProjectId("prj-1")) == InstanceCreate(
        project_id=ProjectId("prj-1"),
        image="tiny",
        type="m1.small",
        count=3,
        context=Context(ssh_keys=("ssh-ed25519 AAAA me",), user_data="#!/bin/sh", pairs={"A": "b"}),
    )


def test_ceilings_left_out_stay() -> None:
    quota = Quota(instances=5, vcpus=6)
    assert v1.quota_changed(quota, v1.QuotaBody()) == quota
    assert v1.quota_changed(quota, v1.QuotaBody(vcpus=-1)) == msgspec.structs.replace(
        quota, vcpus=-1
    )


@given(st.from_regex(r"\A[a-z0-9-]{0,70}\n?\Z"))
def test_names_end_where_the_text_ends(name: str) -> None:
    data = msgspec.json.encode({"name": name})
    inner = name.replace("-", "")
    right = 1 <= len(name) <= 63 and name[0] != "-" and name[-1] != "-" and inner.isalnum()
    try:
        msgspec.json.decode(data, type=v1.InstanceChange)
    except msgspec.ValidationError:
        assert not right
    else:
        assert right


def test_a_type_may_be_asked_for_with_the_largest_memory_and_no_more() -> None:
    top = {"name": "x", "vcpus": 1, "memory_mib": 16 * 1024 * 1024}
    assert msgspec.convert(top, v1.TypeCreate).memory_mib == 16 * 1024 * 1024
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(top | {"memory_mib": 16 * 1024 * 1024 + 1}, v1.TypeCreate)
