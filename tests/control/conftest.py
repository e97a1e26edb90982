"""Fixtures for the tests of commands."""

from collections.abc import Iterator

import pytest

from stratus.store.engine import Store, store_open
from tests.control.sites import Site
from tests.fixtures_postgres import ENGINES


@pytest.fixture(params=ENGINES)
def bare(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store, in memory and on PostgreSQL in turn."""
    on_server = request.param == "postgresql"
    opened = store_open(request.getfixturevalue("postgres_url") if on_server else "sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def site(bare: Store) -> Site:
    """A site that has just been set up, on each engine in turn."""
    return Site(bare)
