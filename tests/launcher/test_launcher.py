"""The launcher in a copy of the checkout whose lock is empty and whose program only tells."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TELL = """
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "prefix": sys.prefix,
                  "seconds": float(os.environ["STRATUS_SETUP_SECONDS"])}))
"""
RUN_SECONDS_MAX = 120


def checkout_make(folder: Path) -> Path:
    shutil.copy2(ROOT / "stratus", folder / "stratus")
    site = folder / "src/stratus/site"
    site.mkdir(parents=True)
    for init in (site, site.parent):
        (init / "__init__.py").touch()
    (site / "main.py").write_text(TELL)
    (folder / "tests").mkdir()
    (folder / "tests/run.py").write_text(TELL)
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (folder / lock).write_text("# nothing\n")
    (folder / "packages").mkdir()
    for name in ("runtime.txt", "test.txt"):
        (folder / "packages" / name).write_text("dpkg [build]  # is there\n")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose environment is set up."""
    checkout = checkout_make(tmp_path_factory.mktemp("checkout"))
    tell(checkout, "ps")
    return checkout


def run(checkout: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # This interpreter, as `env python3` could be any.
        [sys.executable, "-I", "-S", str(checkout / "stratus"), *arguments],
        env={**os.environ, "STRATUS_SKIP_PACKAGES": "1", **settings},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )


def tell(checkout: Path, *arguments: str, **settings: str) -> dict[str, Any]:
    done = run(checkout, *arguments, **settings)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_command_reaches_the_program_with_its_arguments(made: Path) -> None:
    told = tell(made, "run", "tiny", "--json", "a b")
    assert told["arguments"] == ["run", "tiny", "--json", "a b"]
    assert told["prefix"] == str(made / ".venv")


def test_other_peoples_modules_stay_out(made: Path, tmp_path: Path) -> None:
    (tmp_path / "stratus").mkdir()
    (tmp_path / "stratus/__init__.py").write_text("raise SystemExit('not this one')")
    assert tell(made, "ps", PYTHONPATH=str(tmp_path))["arguments"] == ["ps"]


def test_a_warm_start_says_nothing_and_does_nothing(made: Path) -> None:
    stamp = (made / ".venv/.stratus-ready").stat().st_mtime_ns
    done = run(made, "ps")
    assert done.stderr == ""
    assert (made / ".venv/.stratus-ready").stat().st_mtime_ns == stamp


def test_a_changed_lock_is_installed_at_the_next_command(made: Path) -> None:
    (made / "requirements.lock").write_text("# nothing yet\n")
    assert "locked Python packages" in run(made, "ps").stderr
    assert run(made, "ps").stderr == ""


def test_an_interrupted_set_up_heals_and_two_at_once_do_it_once(tmp_path: Path) -> None:
    checkout = checkout_make(tmp_path)
    interrupted = starting(checkout, start_new_session=True)
    while not (checkout / ".venv/bin/python").exists():
        assert interrupted.poll() is None
        time.sleep(0.01)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()
    assert not (checkout / ".venv/.stratus-ready").exists()
    both = [starting(checkout), starting(checkout)]
    words = [process.communicate(timeout=RUN_SECONDS_MAX)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], words
    assert sum("making a virtual environment" in word for word in words) == 1


def starting(checkout: Path, *, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(checkout / "stratus"), "ps"],
        env={**os.environ, "STRATUS_SKIP_PACKAGES": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def test_a_lock_that_cannot_be_installed_ends_with_the_log_and_a_remedy(made: Path) -> None:
    good = (made / "requirements.lock").read_text()
    (made / "requirements.lock").write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    done = run(made, "ps", PIP_NO_INDEX="1", PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="")
    (made / "requirements.lock").write_text(good)
    assert done.returncode == 69
    assert "setup.log" in done.stderr
    assert "Remedy: " in done.stderr
    assert tell(made, "ps")


@pytest.mark.skipif(os.geteuid() != 0, reason="the command needs root")
def test_the_checks_run_with_what_is_on_the_command_line(made: Path) -> None:
    assert tell(made, "test", "--fast", "-x")["arguments"] == ["--fast", "-x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_without_root_and_sudo_a_machine_command_is_refused_with_its_remedy(
    tmp_path: Path,
) -> None:
    checkout = checkout_make(tmp_path)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-", "demo"],
        input=(ROOT / "stratus").read_text().replace("__file__", repr(str(checkout / "stratus"))),
        env={"PATH": "/nowhere"},
        user=65534,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 69
    assert "needs root" in done.stderr
    assert "Remedy: " in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="the command needs root")
def test_somebody_elses_environment_is_used_and_never_removed(tmp_path: Path) -> None:
    checkout = checkout_make(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(checkout / ".venv")], check=True)
    tell(checkout, "demo", "--clean")
    assert (checkout / ".venv/bin/python").exists()


def test_the_package_lists_name_known_conditions_and_say_why() -> None:
    for name in ("runtime.txt", "test.txt"):
        for line in (ROOT / "packages" / name).read_text().splitlines():
            if line and not line.startswith("#"):
                entry, _, why = line.partition("#")
                assert why.strip(), line
                words = entry.replace("[", "").replace("]", "").replace(",", " ").split()[1:]
                assert set(words) <= {"build", "no-systemd", "debian-python"}, line


def test_the_launcher_starts_fast_enough_to_go_unnoticed() -> None:
    # No timed assertion: only what would make it slow. Imports beyond these are inside functions.
    top = [
        line.split()[1]
        for line in (ROOT / "stratus").read_text().splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert set(top) <= {"__future__", "sys", "os", "time"}


# Last, for it removes what the tests above share.
@pytest.mark.skipif(os.geteuid() != 0, reason="the command needs root")
def test_cleaning_removes_the_environment_that_the_launcher_made(made: Path) -> None:
    tell(made, "demo", "--clean", STRATUS_KEEP_VENV="1")
    assert (made / ".venv").exists()
    tell(made, "demo", "--clean")
    assert not (made / ".venv").exists()
