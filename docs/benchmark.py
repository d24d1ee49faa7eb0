"""Run suites of the benchmark and write their leaderboards into docs/benchmark.md.

    python docs/benchmark.py [SUITE ...] [--out DIRECTORY]

A benchmark that was stopped goes on where it was. The figure of the first kind of figures goes to
docs/images/benchmark-SUITE.svg.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from figures import ROOT, replace_between

from circuitfind.directories.ranking import FIGURES
from circuitfind.sweeps.rankings import TABLE
from circuitfind.sweeps.suite import read_suite, suite_file


def main() -> None:
    """Run every suite that is asked for, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", default=["truth"])
    parser.add_argument("--out", type=Path, default=Path("leaderboards"))
    given = parser.parse_args()
    for suite in given.suites:
        path = given.out / suite
        command = Path(sys.executable).with_name("circuitfind")
        words = ["benchmark", suite, "--out", str(path), "--workers", "1"]
        subprocess.run([command, *words], check=True)
        measure = read_suite(suite_file(suite))[0].config.measure
        drawn = ROOT / "docs" / "images" / f"benchmark-{suite}.svg"
        shutil.copyfile(path / "figures" / f"{next(iter(FIGURES[measure]))}.svg", drawn)
        text = (path / f"{TABLE}.md").read_text(encoding="utf-8").rstrip()
        replace_between("docs/benchmark.md", suite, f"![{suite}](images/{drawn.name})\n\n{text}")


if __name__ == "__main__":
    main()
