"""What do the benchmarks stand on? A named machine, stores of their own, results as JSON."""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

RESULTS: Final = Path(__file__).parent / "results"
DISK: Final = Path("/var/tmp")  # noqa: S108  # on a disk, unlike /tmp on many machines
ENGINES: Final = ("sqlite", "postgresql")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """On what something was measured, and how busy it was before."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load: float  # one-minute average when the measurement began


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value; a target is a bound from above or from below, where there is one."""

    what: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one benchmark found."""

    name: str
    question: str
    at: str
    machine: Machine
    figures: list[Figure]
    notes: list[str] = []


def machine_read() -> Machine:
    """Name this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=round(pages / 2**30, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
    )


def finish(
    name: str, doc: str | None, machine: Machine, figures: list[Figure], notes: list[str]
) -> None:
    """Print what was found, and keep it for the table; `machine` was read before it began."""
    result = Result(
        name=name,
        question=(doc or "").splitlines()[0],
        at=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=machine,
        figures=figures,
        notes=notes,
    )
    RESULTS.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (RESULTS / f"{name}.json").write_bytes(text + b"\n")
    print(result_text(result))


def result_text(result: Result) -> str:
    """Write the result for people."""
    machine = result.machine
    lines = [
        result.question,
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, Linux {machine.kernel},"
        f" Python {machine.python}, load before {machine.load}",
    ]
    width = max(len(figure.what) for figure in result.figures)
    for figure in result.figures:
        lines.append(
            f"  {figure.what:<{width}}  {number_text(figure.value):>10} {figure.unit:<12}"
            f" {target_text(figure):<14} {figure.note}".rstrip()
        )
    return "\n".join([*lines, *(f"  - {note}" for note in result.notes)])


def number_text(value: float) -> str:
    """Write a number with three digits that count."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def target_text(figure: Figure) -> str:
    """Write the target and whether it is met; "" where there is none."""
    if figure.met is None:
        return ""
    bound = (
        f"≥ {number_text(figure.at_least)}"
        if figure.at_least is not None
        else f"≤ {number_text(figure.at_most or 0)}"
    )
    return f"{bound} {'met' if figure.met else 'MISSED'}"


def quantile(values: list[float], share: float) -> float:
    """Return the value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def say(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def directory(under: Path = DISK) -> Iterator[Path]:
    """Lend a directory on a disk."""
    with tempfile.TemporaryDirectory(prefix="stratus-bench-", dir=under) as path:
        yield Path(path)


@contextmanager
def store_lent(engine: str, under: Path) -> Iterator[str]:
    """Lend the address of a fresh store: durable on commit, on either engine."""
    if engine == "sqlite":
        yield f"sqlite:///{under / 'stratus.db'}"
        return
    from tests.fixtures_postgres import server_make

    server = server_make()
    try:
        server.start(fsync="on", full_page_writes="on")
        yield server.url(server.database_create())
    finally:
        server.close()
