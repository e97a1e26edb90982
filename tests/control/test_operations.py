"""Does an operation follow what was asked to its end, for those who may see it?"""

from collections.abc import Iterator

import pytest

from stratus.control.instances import (
    instance_delete,
    instance_rename,
    instance_start,
    instance_stop,
    instances_create,
)
from stratus.control.operations import operation_page, operation_show
from stratus.model.ids import OperationId
from stratus.model.operation import OperationStatus
from stratus.model.tenancy import Role
from stratus.store.engine import store_open
from tests.control.sites import ORIGIN, refused
from tests.support import Cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A cloud in memory."""
    store = store_open("sqlite://")
    yield Cloud(store)
    store.close()


def status(cloud: Cloud, operation_id: OperationId) -> tuple[OperationStatus, int]:
    found = operation_show(cloud.world, cloud.admin, operation_id)
    return found.status, found.subjects_done


def test_an_operation_runs_until_all_its_subjects_do(cloud: Cloud) -> None:
    operation_id, made = instances_create(
        cloud.world, cloud.admin, cloud.wish(count=3), origin=ORIGIN
    )
    assert status(cloud, operation_id) == (OperationStatus.RUNNING, 0)
    cloud.host(cpus=2)
    cloud.settle()
    assert status(cloud, operation_id) == (OperationStatus.RUNNING, 2)
    cloud.host("node2")
    cloud.after(6)
    assert status(cloud, operation_id) == (OperationStatus.DONE, 3)
    found = operation_show(cloud.world, cloud.admin, operation_id)
    assert (found.kind, found.subjects) == ("instance.create", tuple(facts.id for facts in made))


def test_a_later_wish_supersedes_an_earlier_one(cloud: Cloud) -> None:
    first, (made,) = instances_create(cloud.world, cloud.admin, cloud.wish(), origin=ORIGIN)
    second, _ = instance_stop(cloud.world, cloud.admin, made.id, origin=ORIGIN)
    assert status(cloud, first)[0] is OperationStatus.SUPERSEDED
    assert status(cloud, second)[0] is OperationStatus.DONE
    cloud.host()
    third, _ = instance_start(cloud.world, cloud.admin, made.id, origin=ORIGIN)
    assert status(cloud, second)[0] is OperationStatus.SUPERSEDED
    cloud.settle()
    assert status(cloud, third)[0] is OperationStatus.DONE
    last, _ = instance_delete(cloud.world, cloud.admin, made.id, origin=ORIGIN)
    assert status(cloud, last)[0] is OperationStatus.RUNNING
    cloud.settle()
    assert status(cloud, last)[0] is OperationStatus.DONE


def test_a_rename_is_done_when_it_is_answered(cloud: Cloud) -> None:
    (made,) = cloud.create()
    operation_id, _ = instance_rename(cloud.world, cloud.admin, made.id, name="new", origin=ORIGIN)
    assert status(cloud, operation_id)[0] is OperationStatus.DONE


def test_another_projects_operation_is_answered_like_one_that_is_not_there(cloud: Cloud) -> None:
    operation_id, _ = instances_create(cloud.world, cloud.admin, cloud.wish(), origin=ORIGIN)
    cloud.project("other")
    ana = cloud.user("ana", Role.OWNER, on="other")
    nobodys = OperationId("opn-0000000000000000")
    with refused("not_found") as hidden:
        operation_show(cloud.world, ana, operation_id)
    with refused("not_found") as missing:
        operation_show(cloud.world, ana, nobodys)
    assert hidden.problem.detail.replace(operation_id, nobodys) == missing.problem.detail
    assert operation_page(cloud.world, ana, cursor=None, rows_max=10).items == ()


def test_operations_are_listed_page_by_page(cloud: Cloud) -> None:
    for _ in range(3):
        cloud.create()
    first = operation_page(cloud.world, cloud.admin, cursor=None, rows_max=2)
    assert (len(first.items), first.next is None) == (2, False)
    second = operation_page(cloud.world, cloud.admin, cursor=first.next, rows_max=2)
    assert (len(second.items), second.next) == (1, None)
