"""Is a wish held to its limits, field by field, before anything is looked up?"""

import pytest

from stratus.control.requests import name_check, request_check
from stratus.model.ids import ProjectId
from stratus.model.instance import Context, InstanceCreate
from stratus.model.limits import (
    CONTEXT_PAIRS_MAX,
    CONTEXT_VALUE_BYTES_MAX,
    COUNT_MAX,
    DISK_GIB_MAX,
    NAME_CHARS_MAX,
    SSH_KEY_CHARS_MAX,
    SSH_KEYS_MAX,
    SWAP_MIB_MAX,
    USER_DATA_BYTES_MAX,
)
from tests.control.sites import refused

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO ana@example.org"


def wish(**more: object) -> InstanceCreate:
    return InstanceCreate(project_id=ProjectId("p"), image="tiny", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"count": COUNT_MAX, "name": "a" * (NAME_CHARS_MAX - 5)},
        {"name": "a" * NAME_CHARS_MAX},
        {"volatile_gib": DISK_GIB_MAX, "swap_mib": SWAP_MIB_MAX},
        {"swap_mib": 0},
        {"context": Context(ssh_keys=(KEY,) * SSH_KEYS_MAX)},
        {"context": Context(user_data="x" * USER_DATA_BYTES_MAX)},
        {"context": Context(pairs={f"k{n}": "" for n in range(CONTEXT_PAIRS_MAX)})},
        {"context": Context(pairs={"_A9": "é" * (CONTEXT_VALUE_BYTES_MAX // 2)})},
    ],
)
def test_what_is_within_the_limits_is_taken(more: dict[str, object]) -> None:
    request_check(wish(**more))


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("count", {"count": 0}),
        ("count", {"count": -1}),
        ("count", {"count": COUNT_MAX + 1}),
        ("name", {"name": "Web"}),
        ("name", {"name": "-web"}),
        ("name", {"name": "web-"}),
        ("name", {"name": "web.1"}),
        ("name", {"name": "web\n"}),
        ("name", {"name": "a" * (NAME_CHARS_MAX + 1)}),
        ("name", {"count": 2, "name": "a" * (NAME_CHARS_MAX - 4)}),
        ("volatile_gib", {"volatile_gib": -1}),
        ("volatile_gib", {"volatile_gib": DISK_GIB_MAX + 1}),
        ("swap_mib", {"swap_mib": -1}),
        ("swap_mib", {"swap_mib": SWAP_MIB_MAX + 1}),
        ("ssh_keys", {"context": Context(ssh_keys=(KEY,) * (SSH_KEYS_MAX + 1))}),
        ("ssh_keys", {"context": Context(ssh_keys=("",))}),
        ("ssh_keys", {"context": Context(ssh_keys=("ssh-ed25519",))}),
        ("ssh_keys", {"context": Context(ssh_keys=("ssh-dss AAAA",))}),
        ("ssh_keys", {"context": Context(ssh_keys=(f"{KEY}\n{KEY}",))}),
        ("ssh_keys", {"context": Context(ssh_keys=("ssh-rsa " + "A" * SSH_KEY_CHARS_MAX,))}),
        ("user_data", {"context": Context(user_data="é" * (USER_DATA_BYTES_MAX // 2 + 1))}),
        ("context", {"context": Context(pairs=dict.fromkeys(map("k{}".format, range(65)), ""))}),
        ("context", {"context": Context(pairs={"9a": ""})}),
        ("context", {"context": Context(pairs={"a b": ""})}),
        ("context", {"context": Context(pairs={"a": "\0"})}),
        ("context", {"context": Context(pairs={"a": "x" * (CONTEXT_VALUE_BYTES_MAX + 1)})}),
    ],
)
def test_a_field_beyond_its_limits_is_refused_by_name(field: str, more: dict[str, object]) -> None:
    with refused("invalid_field", field=field) as refusal:
        request_check(wish(**more))
    assert refusal.problem.remedy


def test_a_long_wrong_name_is_not_repeated_in_full() -> None:
    with refused("invalid_field", field="name") as refusal:
        name_check("A" * 10_000)
    assert len(refusal.problem.detail) < 200
