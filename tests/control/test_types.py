"""Can administrators keep the list of sizes, and nobody make an impossible one?"""

import pytest

from stratus.control.types import type_add, type_drop, type_show, types_show
from stratus.model.instance import InstanceType
from stratus.model.limits import DISK_GIB_MAX, MEMORY_MIB_MAX, SWAP_MIB_MAX, VCPUS_MAX
from stratus.model.tenancy import Role
from tests.control.sites import ORIGIN, Site, in_memory, refused

GPU = InstanceType(name="g1.large", vcpus=8, memory_mib=32768, swap_mib=0, root_gib=20)


def test_a_type_that_was_added_is_offered_to_everybody(site: Site) -> None:
    assert type_add(site.world, site.admin, GPU, origin=ORIGIN) == GPU
    ana = site.user("ana")
    assert type_show(site.world, ana, "g1.large") == GPU
    assert GPU in types_show(site.world, ana)
    event = site.events("type.added")[-1]
    assert event.actor == "admin"
    assert event.data == {
        "name": "g1.large",
        "vcpus": 8,
        "memory_mib": 32768,
        "swap_mib": 0,
        "root_gib": 20,
    }


def test_the_name_of_a_type_is_not_given_twice(site: Site) -> None:
    with refused("name_taken", "t1.micro"):
        type_add(
            site.world,
            site.admin,
            InstanceType(name="t1.micro", vcpus=64, memory_mib=1024),
            origin=ORIGIN,
        )
    assert type_show(site.world, site.admin, "t1.micro").vcpus == 1


def test_a_type_that_was_removed_is_offered_no_more(site: Site) -> None:
    type_drop(site.world, site.admin, "c1.xlarge", origin=ORIGIN)
    with refused("not_found"):
        type_show(site.world, site.admin, "c1.xlarge")
    with refused("not_found"):
        type_drop(site.world, site.admin, "c1.xlarge", origin=ORIGIN)


@in_memory
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "G1"),
        ("name", "a" * 64),
        ("name", "a/b"),
        ("name", "a\n"),
        ("vcpus", 0),
        ("vcpus", VCPUS_MAX + 1),
        ("memory_mib", 63),
        ("memory_mib", MEMORY_MIB_MAX + 1),
        ("swap_mib", -1),
        ("swap_mib", SWAP_MIB_MAX + 1),
        ("root_gib", -1),
        ("root_gib", DISK_GIB_MAX + 1),
    ],
)
def test_an_impossible_size_is_refused_by_field(site: Site, field: str, value: object) -> None:
    fields = {"name": "x1", "vcpus": 1, "memory_mib": 512} | {field: value}
    with refused("invalid_field", field=field):
        type_add(site.world, site.admin, InstanceType(**fields), origin=ORIGIN)  # type: ignore[arg-type]  # wrong on purpose


def test_only_administrators_keep_the_types(site: Site) -> None:
    for actor in (site.user("ana", Role.OWNER), site.user("aud", auditor=True)):
        with refused("forbidden"):
            type_add(site.world, actor, GPU, origin=ORIGIN)
        with refused("forbidden"):
            type_drop(site.world, actor, "t1.micro", origin=ORIGIN)
