"""The tiny appliance, built once for the whole run."""

from pathlib import Path

import pytest

from stratus.drivers.appliance.tiny import ApplianceBuilt, tiny_build


@pytest.fixture(scope="session")
def appliance_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, fetched once."""
    return tmp_path_factory.mktemp("appliance-cache")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, appliance_cache: Path) -> ApplianceBuilt:
    """A bootable image, as `stratus image build tiny` makes it."""
    target = tmp_path_factory.mktemp("appliance") / "tiny.img"
    return tiny_build(target, cache=appliance_cache, progress=lambda _line: None)
