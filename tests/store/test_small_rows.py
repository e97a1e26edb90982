"""Site values, types, idempotency and operations: kept once, found again, forgotten in time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from stratus.model.ids import OperationId, ProjectId, UserId
from stratus.model.instance import InstanceType
from stratus.store.engine import Store
from stratus.store.idempotency import (
    ANSWER_LIFE_MS,
    UNANSWERED,
    Claim,
    ClaimingStore,
    ClaimTaken,
    GivenAnswer,
    answer_find,
    answer_keep,
    claim_create,
)
from stratus.store.operations import (
    OperationRow,
    operation_create,
    operation_find,
    operation_list,
)
from stratus.store.site import (
    policy_get,
    policy_set,
    site_epoch,
    site_epoch_raise,
    site_get,
    site_set,
)
from stratus.store.types import type_by_name, type_ensure, type_list, type_remove
from tests.store.worlds import NOW_MS, id_new

ADA = UserId("usr-1")


def test_a_site_value_is_what_was_set_last(store: Store) -> None:
    assert store.read(lambda c: site_get(c, "name", str)) is None
    store.write(lambda c: site_set(c, "name", "lab"))
    store.write(lambda c: site_set(c, "name", "lab ä"))
    assert store.read(lambda c: site_get(c, "name", str)) == "lab ä"


def test_epochs_count_from_nothing(store: Store) -> None:
    assert store.read(site_epoch) == 0
    assert store.write(site_epoch_raise) == 1
    assert store.write(site_epoch_raise) == 2
    assert store.read(site_epoch) == 2


def test_the_policy_comes_back_letter_by_letter(store: Store) -> None:
    assert store.read(policy_get) is None
    store.write(lambda c: policy_set(c, '{"rules": [\n]}'))
    assert store.read(policy_get) == '{"rules": [\n]}'


def test_types_are_listed_from_small_to_large(store: Store) -> None:
    small = InstanceType(name="small", vcpus=1, memory_mib=512)
    large = InstanceType(name="large", vcpus=4, memory_mib=512, swap_mib=1, root_gib=2)
    for one in (large, small):
        store.write(lambda c, one=one: type_ensure(c, one))  # type: ignore[misc]  # mypy cannot infer it
    assert store.read(type_list) == (small, large)
    grown = InstanceType(name="small", vcpus=8, memory_mib=512)
    store.write(lambda c: type_ensure(c, grown))
    assert store.read(type_list) == (large, grown)
    assert store.read(lambda c: type_by_name(c, "small")) == grown
    assert store.write(lambda c: type_remove(c, "small"))
    assert not store.write(lambda c: type_remove(c, "small"))
    assert store.read(lambda c: type_by_name(c, "small")) is None


def claim(key: str, *, sha256: str = "00", now_ms: int = NOW_MS) -> Claim:
    return Claim(user_id=ADA, key=key, request_sha256=sha256, now_ms=now_ms)


def test_an_answer_is_found_again_by_its_user_until_it_is_old(store: Store) -> None:
    assert store.read(lambda c: answer_find(c, claim("k"))) is None
    store.write(lambda c: claim_create(c, claim("k")))
    assert store.read(lambda c: answer_find(c, claim("k"))) == GivenAnswer(
        "00", UNANSWERED, b"", NOW_MS
    )
    store.write(lambda c: answer_keep(c, claim("k", sha256="other"), 500, b"no"))
    store.write(lambda c: answer_keep(c, claim("k"), 201, b"{}"))
    assert store.read(lambda c: answer_find(c, claim("k"))) == GivenAnswer("00", 201, b"{}", NOW_MS)
    stranger = Claim(user_id=UserId("usr-2"), key="k", request_sha256="00", now_ms=NOW_MS)
    assert store.read(lambda c: answer_find(c, stranger)) is None
    later = claim("k", now_ms=NOW_MS + ANSWER_LIFE_MS)
    assert store.read(lambda c: answer_find(c, later)) is None
    store.write(lambda c: claim_create(c, later))


def test_of_many_requests_with_one_key_one_takes_effect(store: Store) -> None:
    barrier = threading.Barrier(8)

    def go(number: int) -> bool:
        barrier.wait()

        def function(c: Connection) -> None:
            site_set(c, f"effect-{number}", 1)
            claim_create(c, claim("k"))

        try:
            store.write(function)
        except ClaimTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(go, range(8)))
    assert sum(done) == 1
    effects = [
        number
        for number in range(8)
        if store.read(lambda c, key=f"effect-{number}": site_get(c, key, int))  # type: ignore[misc]  # mypy cannot infer it
    ]
    assert effects == [done.index(True)]


def test_a_claim_is_durable_only_with_the_change(store: Store) -> None:
    claiming = ClaimingStore(store, claim("k"))

    def fail(_: Connection) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        claiming.write(fail)
    assert store.read(lambda c: answer_find(c, claim("k"))) is None
    claiming.write(lambda c: site_set(c, "one", 1))
    claiming.write(lambda c: site_set(c, "two", 2))
    assert claiming.read(lambda c: answer_find(c, claim("k"))) is not None
    with pytest.raises(ClaimTaken):
        ClaimingStore(store, claim("k")).write(lambda c: site_set(c, "three", 3))
    assert store.read(lambda c: site_get(c, "three", int)) is None


def operation(project: str | None, user: UserId = ADA) -> OperationRow:
    return OperationRow(
        id=OperationId(id_new("operation")),
        kind="instance.create",
        user_id=user,
        subjects=("ins-1", "ins-2"),
        goal={"phase": "running"},
        created_ms=NOW_MS,
        project_id=None if project is None else ProjectId(project),
    )


@pytest.mark.parametrize("project", ["prj-1", None])
def test_an_operation_comes_back_as_it_was(store: Store, project: str | None) -> None:
    one = operation(project)
    store.write(lambda c: operation_create(c, one))
    assert store.read(lambda c: operation_find(c, one.id)) == one
    assert store.read(lambda c: operation_find(c, OperationId("opn-none"))) is None


def test_operations_are_listed_by_project_and_user(store: Store) -> None:
    made = [operation("prj-1"), operation("prj-2"), operation(None, UserId("usr-2"))]
    for one in made:
        store.write(lambda c, one=one: operation_create(c, one))  # type: ignore[misc]  # mypy cannot infer it

    def listed(projects: list[ProjectId] | None, user: UserId | None = None) -> list[OperationRow]:
        page = store.read(
            lambda c: operation_list(c, project_ids=projects, user_id=user, rows_max=9)
        )
        return list(page.items)

    assert listed(None) == made
    assert listed([ProjectId("prj-2")]) == made[1:2]
    assert listed([]) == []
    assert listed(None, UserId("usr-2")) == made[2:]
