"""Write the page on a real model: circuits of SmolLM2-135M-Instruct, their figures and pictures.

    circuitfind models get smollm2
    python docs/smollm2.py [PART ...] [--runs DIRECTORY]

The parts are `first` and `methods`; by default both. Text between `<!-- PART -->` and
`<!-- /PART -->` of docs/smollm2.md is replaced. Runs are kept in a directory, where an interrupted
one is taken up and a finished one is read. Seconds are left out: they depend on the machine.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from figures import ROOT, replace_between, shown

PAGE = "docs/smollm2.md"

FIRST = "ioi --threshold 0.05"
METHODS = (FIRST, "ioi --method eap-ig --target-faithfulness 0.8")


def main() -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="first, methods; by default both")
    parser.add_argument("--runs", type=Path, default=Path("runs/smollm2"), help="where runs are")
    given = parser.parse_args()
    for part, written in (("first", first), ("methods", methods)):
        if not given.parts or part in given.parts:
            replace_between(PAGE, part, written(given.runs))


def first(runs: Path) -> str:
    """Return what the first command prints, and keep its picture."""
    folder = ran(runs, FIRST)
    lines = [line.rstrip() for line in said(runs, FIRST).strip().splitlines()[:-1]]
    lines = [line for line in lines if not line.startswith("seconds")]
    shutil.copy(folder / "diagram.svg", ROOT / "docs/images/smollm2-ioi.svg")
    return "```\n" + "\n".join(lines) + "\n```"


def methods(runs: Path) -> str:
    """Return a table of methods."""
    return table([row(command, results(runs, command)) for command in METHODS])


def ran(runs: Path, command: str) -> Path:
    """Run a command unless it is finished, and return its directory."""
    said(runs, command)
    return runs / name_of(command)


def name_of(command: str) -> str:
    """Return the name of a command's directory."""
    return command.replace(" --", "-").replace(" ", "-").replace("=", "-")


def said(runs: Path, command: str, *more: str) -> str:
    """Return what a command prints."""
    program = Path(sys.executable).with_name("circuitfind")
    words = ["discover", *command.split(), "--model", "smollm2", "--prompts", "16"]
    words += ["--out", str(runs / name_of(command)), *more]
    return subprocess.run([program, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def results(runs: Path, command: str) -> dict[str, Any]:
    """Return a command's results."""
    found: dict[str, Any] = json.loads(said(runs, command, "--json"))
    return found


def table(rows: list[str]) -> str:
    """Return rows under their heading."""
    heading = (
        "`discover ...` | edges | heads and MLPs | faithfulness (KL) | held out | "
        "faithfulness (logit difference) | accuracy, circuit (model)"
    )
    return "\n".join([f"| {heading} |", "|---" * 7 + "|", *rows])


def row(command: str, found: dict[str, Any]) -> str:
    """Return one circuit's figures."""
    card = found["scorecard"]
    by_metric = {each["metric"]: each for each in card["measurements"]}
    held_out, accuracy = card["held_out"], by_metric.get("accuracy")
    difference = by_metric.get("logit-difference")
    cells = (
        f"`{command}`",
        str(card["n_edges"]),
        str(card["n_components"]),
        shown(by_metric["kl"]["faithfulness"]) if "kl" in by_metric else "-",
        shown(held_out and held_out["faithfulness"]),
        shown(difference and difference["faithfulness"]),
        "-" if accuracy is None else f"{accuracy['circuit']:.2f} ({accuracy['full']:.2f})",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
