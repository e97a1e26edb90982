"""Does the door keep its own description, whatever is thrown at it, and never fail? Never a 5xx."""

from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stratus.api.documents import REFERENCE
from tests.api.asking import instance_make
from tests.api.cloud import Cloud

EXAMPLES_MAX: Final = 6  # for each operation
WAIT_SECONDS_MAX: Final = 0.05
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


# What the door serves is what this file holds: another test compares them.
SCHEMA: Final = schemathesis.openapi.from_path(REFERENCE / "openapi.json")
REAL: Final = {
    "project": "default",
    "image": "tiny",
    "pool": "main",
    "network": "public",
    "type": "t1.micro",
}


@pytest.fixture(scope="module", autouse=True)
def _real(cloud: Cloud) -> None:
    made = instance_make(cloud.client())
    REAL["instance"] = made["id"]
    REAL["user"] = made["user"]["id"]


@SCHEMA.hook
def map_path_parameters(_context: Any, values: Any) -> Any:  # noqa: ANN401  # schemathesis' own
    """Name real things in half of the requests."""
    for name, value in (values or {}).items():
        if isinstance(value, str) and sum(value.encode("utf-8", "replace")) % 2:
            values[name] = REAL.get(name, value)
    return values


@SCHEMA.hook
def map_query(_context: Any, values: Any) -> Any:  # noqa: ANN401  # schemathesis' own
    """Wait, but not for long."""
    wait = (values or {}).get("wait")
    if isinstance(wait, int | float) and wait > WAIT_SECONDS_MAX:
        values["wait"] = WAIT_SECONDS_MAX
    return values


@SCHEMA.hook
def map_body(_context: Any, values: Any) -> Any:  # noqa: ANN401  # schemathesis' own
    """Ask for what there is in half of the requests."""
    if isinstance(values, dict) and "project" in values and len(str(values)) % 2:
        values |= {"project": "default", "image": "tiny", "type": "t1.micro"}
        values["count"] = min(20, values.get("count", 1)) if _is_int(values) else 1
    return values


def _is_int(values: dict[str, Any]) -> bool:
    return isinstance(values.get("count", 1), int)


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES_MAX,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_the_door_keeps_its_description(case: schemathesis.Case[Any], cloud: Cloud) -> None:
    # The administrator who asks must stay able to.
    if case.method in ("DELETE", "PATCH") and case.path == "/v1/users/{user}":
        case.path_parameters = {"user": "nobody"}
    case.call_and_validate(
        base_url=cloud.url,
        headers={"Authorization": f"Bearer {cloud.secrets.token}"},
        checks=CHECKS,
    )
