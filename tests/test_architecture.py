"""Is ARCHITECTURE.md true? Every name in it must exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
NAMES = sorted(set(re.findall(r"`(stratus(?:\.\w+)+)`", TEXT)))
PATHS = sorted(set(re.findall(r"`((?:src|docs)/[\w./-]+)`", TEXT)))


def test_the_page_names_things() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_every_module_and_name_in_the_page_exists(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return
    raise AssertionError(f"{name} does not exist")


@pytest.mark.parametrize("path", PATHS)
def test_every_path_in_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists()
