"""Write the figures of the section on rivals in docs/evaluation.md, by running its commands.

    python docs/rivals_figures.py [MODEL ...] [--runs DIRECTORY]

By default of the embedded models; SmolLM2 (`circuitfind models get smollm2`) takes an hour or two.
Runs are kept in the directory, if one is given, and read from there. Seconds depend on the machine.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from evaluation_figures import run
from figures import replace_between

SEARCHES = {
    "gpt-4l": "discover ioi --prompts 32 --out runs/a",
    "ioi-small": "discover ioi --model ioi-small --threshold 0.05 --prompts 32 --out runs/a",
    "smollm2": "discover ioi --model smollm2 --threshold 0.05 --prompts 16 --out runs/a",
}
TABLES = {
    "rivals": (("gpt-4l", "ioi-small"), ("--tolerance 0", "--tolerance 0.02")),
    "rivals-smollm2": (("smollm2",), ("--tolerance 0.15 --restarts 2",)),
}
"""Of each table the models, and the options of the search for rivals."""

HEADING = (
    "model", "edges", "faithfulness", "tolerance", "met a rival: ACDC", "learned masks", "rivals",
    "shared edges", "in every rival", "in none", "seconds",
)  # fmt: skip


def main() -> None:
    """Search, look for rivals, and write down a row for each run and tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(TABLES["rivals"][0]))
    parser.add_argument("--runs", type=Path, help="where runs are kept")
    given = parser.parse_args()
    for name, (models, options) in TABLES.items():
        if not set(models) <= set(given.models):
            continue
        with tempfile.TemporaryDirectory() as folder:
            place = given.runs or Path(folder)
            rows = [row for model in models for row in _rows(model, options, place / model)]
        lines = [f"| {' | '.join(HEADING)} |", "|---" * len(HEADING) + "|", *rows]
        replace_between("docs/evaluation.md", name, "\n".join(lines))


def _rows(model: str, every: tuple[str, ...], folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    run(SEARCHES[model], folder)
    for number, options in enumerate(every):
        out = f"runs/rivals-{number}"
        run(f"rivals runs/a {options} --out {out}", folder)
        yield _row(
            model, options.split()[1], json.loads((folder / out / "rivals.json").read_text())
        )


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
        *["-"] * (2 - len(found["kinds"])),
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
