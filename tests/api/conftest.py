"""The cloud that most tests of the door share; those that change limits make their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cloud import Cloud, cloud_open


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A site that is set up and served on loopback."""
    with cloud_open(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for a cloud of the test's own."""
    return tmp_path
