"""Write the tables of docs/mib.md, by running its commands.

python docs/mib_figures.py
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from evaluation_figures import run
from figures import ROOT, replace_between

from circuitfind.evaluation.size_curve import SHARES, areas

PAGE = "docs/mib.md"
COMMAND = "mib ioi --model llama-4l --method eap-ig --points left --out runs/mib"


def main() -> None:
    """Measure a ranking, and write down what was printed and what each size weighs."""
    with tempfile.TemporaryDirectory() as folder:
        said = run(COMMAND, folder)
        lines = [line for line in said if not line.startswith("runs/")]
        write("measured", ["```", *"\n".join(lines).strip().splitlines(), "```"])
        shutil.copy(Path(folder) / "runs/mib/mib.svg", ROOT / "docs/images/mib.svg")
    write("weights", weights())


def weights() -> list[str]:
    """Return a table of what a point at each size weighs, as a share of the whole."""
    points = np.eye(len(SHARES))
    cpr = np.array([areas(SHARES, list(p), from_empty=False)[0] for p in points])
    logs = np.log(SHARES)
    acc = np.array([np.trapezoid(point, logs) for point in points]) / (logs[-1] - logs[0])
    rows = zip(SHARES, cpr / cpr.sum(), acc, cpr[::-1].cumsum()[::-1] / cpr.sum(), strict=True)
    return [
        "| size | CPR and CMD | this size and above | acc-AUC |",
        "| ---: | ---: | ---: | ---: |",
        *(
            f"| {share:.1%} | {own:.2%} | {above:.1%} | {log:.1%} |"
            for share, own, log, above in rows
        ),
    ]


def write(name: str, lines: list[str]) -> None:
    """Put lines between two markers of the page."""
    replace_between(PAGE, name, "\n".join(lines))


if __name__ == "__main__":
    main()
