"""Which benchmarks shall be run? All or some, one after the other; then the table is written.

    python -m bench.run [launch scale api …] [--table]

`--table` writes bench/README.md from the results that are there, without measuring.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from bench.common import RESULTS, Result, number_text, say, target_text

NAMES: Final = ("launch", "scale", "api", "placement", "memory", "disks", "store")
README: Final = Path(__file__).parent / "README.md"
HEAD: Final = """# How fast it is, and what it costs

Written by `python -m bench.run --table` from `bench/results`; measure anew with
`python -m bench.run`, or one question with `python -m bench.<name>`. Benchmarks never decide
whether tests pass. A load near 0 before a measurement means that nothing else ran.
"""


def results_read() -> list[Result]:
    """Return what was found, in the order of the questions."""
    paths = [RESULTS / f"{name}.json" for name in NAMES]
    return [msgspec.json.decode(path.read_bytes(), type=Result) for path in paths if path.exists()]


def table_text(results: list[Result]) -> str:
    """Write the whole page."""
    parts = [HEAD]
    for result in results:
        machine = result.machine
        parts.append(f"\n## {result.name}: {result.question}\n\n")
        parts.append("| what | measured | unit | target | remark |\n|---|---:|---|---|---|\n")
        parts += [
            f"| {figure.what} | {number_text(figure.value)} | {figure.unit} |"
            f" {target_text(figure) or '-'} | {figure.note} |\n"
            for figure in result.figures
        ]
        parts.append(
            f"\nOn {result.at}: {machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB,"
            f" Linux {machine.kernel}, Python {machine.python}; load before {machine.load:g}.\n"
        )
        parts += [f"\n- {note}" for note in result.notes]
        parts.append("\n" if result.notes else "")
    return "".join(parts)


def main() -> int:
    """Measure, then write the table; the exit code says whether every benchmark came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    failed: list[str] = []
    for name in () if asked.table else asked.names or NAMES:
        say(f"--- {name}")
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False)
        if done.returncode:
            failed.append(name)
    README.write_text(table_text(results_read()))
    if failed:
        say(f"these did not come to their end: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
