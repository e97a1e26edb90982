"""Run every check, in order, and say of each how long it took: this is `./stratus test`.

The static checks run beside each other, then pytest, whose closing line is the last thing printed.
All of them run even when one fails. `--fast` leaves out what needs a guest; everything else on the
command line goes to pytest.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CHECK_SECONDS_MAX = 600
FAST = "not guest and not slow"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One static check."""

    name: str
    command: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a check ended."""

    check: Check
    passed: bool
    seconds: float
    output: str


CHECKS = (
    Check(name="format", command=[str(BIN / "ruff"), "format", "--check", "."]),
    Check(name="lint", command=[str(BIN / "ruff"), "check", "."]),
    Check(name="types", command=[sys.executable, "-m", "mypy"]),
    Check(name="imports", command=[str(BIN / "lint-imports")]),
)


def main(arguments: list[str]) -> int:
    """Run everything; the exit code is pytest's, or 1 when only a static check failed."""
    fast = "--fast" in arguments
    rest = [argument for argument in arguments if argument != "--fast"]
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = [show(outcome) for outcome in pool.map(check_run, CHECKS)]
    failed = [outcome.check.name for outcome in outcomes if not outcome.passed]
    if failed:
        print(f"FAILED before pytest: {', '.join(failed)}", flush=True)
    chosen = ["-m", FAST] if fast and "-m" not in rest else []
    code = subprocess.call([sys.executable, "-m", "pytest", *chosen, *rest], cwd=ROOT)
    return code or int(bool(failed))


def check_run(check: Check) -> Outcome:
    """Run one check to its end or its limit."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            check.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CHECK_SECONDS_MAX,
            check=False,
        )
        passed, output = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired:
        passed, output = False, f"stopped after {CHECK_SECONDS_MAX} s"
    seconds = time.monotonic() - started
    return Outcome(check=check, passed=passed, seconds=seconds, output=output)


def show(outcome: Outcome) -> Outcome:
    """One line for a check that passed, everything it said for one that did not."""
    word = "passed" if outcome.passed else "FAILED"
    print(f"{outcome.check.name:8} {word} {outcome.seconds:6.1f} s", flush=True)
    if not outcome.passed:
        print(outcome.output.rstrip(), flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
