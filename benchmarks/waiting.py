"""Measure how threads should wait: a search alone on the machine, and two at once.

    python -m benchmarks.waiting

The search is that of the other benchmarks with fewer layers. Every way of waiting has its turn in
every round; the table in docs/performance.md gives medians of times, as ratios. Two at once are
measured in one round only: threads that spin long take minutes for it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.page import ROOT, write_block
from benchmarks.setting import Size, fixed_search, read_problem, write_setting
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.threads import A_MOMENT

ROUNDS = 3
WAYS = {
    "spin a moment, then sleep (what the command line sets)": A_MOMENT,
    "spin less than half as long": A_MOMENT | {"GOMP_SPINCOUNT": "2000"},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin for milliseconds (what they do unless told)": {},
}


def main() -> None:
    """Measure and write the table, or be one of the searches measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--search", type=Path, help="only search, with the setting of a directory")
    given = parser.parse_args()
    if given.search:
        search(given.search)
        return
    with tempfile.TemporaryDirectory() as name:
        write_setting(Path(name), Size(n_layers=4))
        alone: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(ROUNDS):
            for way in WAYS:
                alone[way] += run(name, WAYS[way], together=1)
                print(number, way, alone[way][-1], file=sys.stderr)
        two = {way: max(run(name, WAYS[way], together=2)) for way in WAYS}
    write_block("waiting", table({way: statistics.median(alone[way]) for way in WAYS}, two))


def search(folder: Path) -> None:
    """Search, and print how long it took."""
    engine = IncrementalEngine(read_problem(folder, "logit-difference"))
    started = time.perf_counter()
    for _ in fixed_search(engine):
        pass
    print(time.perf_counter() - started)


def run(folder: str, variables: dict[str, str], together: int) -> list[float]:
    """Run some searches at once; return how long each of them took, in seconds."""
    rest = {name: value for name, value in os.environ.items() if name not in A_MOMENT}
    command = [sys.executable, "-m", "benchmarks.waiting", "--search", folder]
    searches = [
        subprocess.Popen(command, cwd=ROOT, env=rest | variables, stdout=subprocess.PIPE)
        for _ in range(together)
    ]
    return [float(each.communicate()[0]) for each in searches]


def table(alone: dict[str, float], two: dict[str, float]) -> str:
    """Return the rows for the page, as ratios to one search alone with the first way."""
    unit = next(iter(alone.values()))
    rows = ["| threads that wait | a search alone | two at once |", "|---|---|---|"]
    rows += [f"| {way} | {alone[way] / unit:.2f} | {two[way] / unit:.2f} |" for way in alone]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
