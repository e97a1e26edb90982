"""What every test of the command line stands on: a home of its own, and a way to run commands."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stratus.cli.app import app_make, run


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one command line did."""

    code: int
    out: str
    err: str


Stratus = Callable[..., Said]
APP = app_make()  # of this package alone, whatever others add to theirs


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with nothing in it, and an environment that says nothing."""
    for name in ("ENDPOINT", "TOKEN_FILE", "PROJECT", "PROFILE", "CONFIG", "DEBUG"):
        monkeypatch.delenv(f"STRATUS_{name}", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STRATUS_HOME", str(tmp_path / "site"))
    return tmp_path


@pytest.fixture
def stratus(home: Path, capfd: pytest.CaptureFixture[str]) -> Stratus:  # noqa: ARG001
    """Run a command line in this process."""

    def stratus_(*argv: str) -> Said:
        capfd.readouterr()
        code = run(APP, argv)
        out, err = capfd.readouterr()
        return Said(code=code, out=out, err=err)

    return stratus_


@pytest.fixture
def token_file(home: Path) -> Path:
    """A token that nobody checks."""
    path = home / "token"
    path.write_text("st_test_secret\n")
    path.chmod(0o600)
    return path
