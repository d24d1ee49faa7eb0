"""Write the figures of the section on rivals in docs/evaluation.md, by running its commands.

    python docs/rivals_figures.py

Seconds depend on the machine.
"""

import json
import tempfile
from pathlib import Path

from evaluation_figures import run
from figures import replace_between

RUNS = (
    ("gpt-4l", "discover ioi --prompts 32 --out runs/a"),
    ("ioi-small", "discover ioi --model ioi-small --threshold 0.05 --prompts 32 --out runs/a"),
)
TOLERANCES = ("0", "0.02")


def main() -> None:
    """Search, look for rivals, and write down a row for each run and tolerance."""
    rows = [
        "| model | edges | faithfulness | tolerance | met a rival: ACDC | learned masks | rivals "
        "| shared edges | in every rival | in none | seconds |",
        "|---" * 11 + "|",
    ]
    for name, command in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            run(command, folder)
            for tolerance in TOLERANCES:
                out = f"runs/rivals-{tolerance}"
                run(f"rivals runs/a --tolerance {tolerance} --out {out}", folder)
                found = json.loads((Path(folder) / out / "rivals.json").read_text())
                rows.append(_row(name, tolerance, found))
    replace_between("docs/evaluation.md", "rivals", "\n".join(rows))


def _row(name: str, tolerance: str, found: dict) -> str:
    rivals = found["rivals"]
    shared = [each["jaccard"] for each in rivals]
    chance = [each["by_chance"] for each in rivals]
    cells = [
        f"`{name}`",
        str(found["n_edges"]),
        f"{found['faithfulness']:.3f}",
        tolerance,
        *(_met(each) for each in found["kinds"]),
        str(len(rivals)),
        f"{min(shared):.2f} to {max(shared):.2f} (chance {min(chance):.2f} to {max(chance):.2f})"
        if rivals
        else "-",
        str(len(found["core"])) if rivals else "-",
        str(len(found["spared"])) if rivals else "-",
        f"{found['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _met(kind: dict) -> str:
    least = "" if kind["least"] is None else f", least overlap {kind['least']:.2f}"
    return f"{kind['n_met']} of {kind['n']}{least}"


if __name__ == "__main__":
    main()
