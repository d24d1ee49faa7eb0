"""Compare what another checkout finds with what this one does: circuits, effects, faithfulness.

    python -m benchmarks.same_results CHECKOUT [TASK ...]

Every search of the gallery, and one of each kind of method beside ACDC, is run by both. The largest
difference is printed for each. Edges that only one of them keeps are listed, with their effects.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.page import ROOT

SEARCHES = {
    **{
        name: f"{name} --threshold {threshold}"
        for name, threshold in {
            "ioi": 0.02, "pronoun": 0.02, "induction": 0.03, "greater-than": 0.005,
            "docstring": 0.05, "agreement": 0.02, "capitals": 0.02, "successor": 0.02,
            "arithmetic": 0.06, "refusal": 0.2, "or-gate": 0.001, "or-gate:both": 0.001,
            "and-gate": 0.001, "backup-head": 0.001, "hist": 0.001, "reverse": 0.001,
            "xproportion": 0.001, "induction-pair": 0.001, "two-circuits": 0.001,
        }.items()
    },
    "exact": "ioi --method exact --edges 100 --prompts 16",
    "eap": "ioi --method eap --edges 100 --metric logit-difference",
    "eap-ig": "ioi --method eap-ig --edges 100",
    "hisp": "ioi --method hisp --edges 100 --metric logit-difference",
    "information-flow": "ioi --method information-flow --edges 100 --prompts 16",
    "zero": "ioi --ablation zero --threshold 0.05 --prompts 16",
    "mean": "ioi --ablation mean-over-positions --threshold 0.05 --prompts 16",
    "llama": "ioi --model llama-4l --threshold 0.05 --prompts 16",
}  # fmt: skip
"""Arguments of `circuitfind discover`; the thresholds are those of docs/gallery.py."""

Found = dict[str, Any]


def main() -> None:
    """Run all searches in both checkouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="a working tree of another version")
    parser.add_argument("searches", nargs="*", help="which; by default all")
    given = parser.parse_args()
    print("| search | edges | only there | only here | effects differ by | faithfulness by |")
    print("|---" * 6 + "|")
    for name in given.searches or SEARCHES:
        there, here = (found(tree, SEARCHES[name]) for tree in (given.checkout, ROOT))
        print(line(name, there, here), flush=True)


def found(tree: Path, arguments: str) -> Found:
    """Run a search in a checkout and return its circuit and its faithfulness."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        start = "from circuitfind.cli import main; main()"
        command = [sys.executable, "-c", start, "discover", *arguments.split()]
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
        done = subprocess.run(
            [*command, "--out", str(out)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{tree}: discover {arguments}\n{done.stderr}")
        circuit = json.loads((out / "circuit.json").read_text(encoding="utf-8"))
        card = json.loads((out / "scorecard.json").read_text(encoding="utf-8"))["scorecard"]
    effects = {edge["edge"]: edge["effect"] for edge in circuit["edges"]}
    return {"effects": effects, "card": [each["faithfulness"] for each in card["measurements"]]}


def line(name: str, there: Found, here: Found) -> str:
    """Return how two results differ, as a row of the table."""
    old, new = there["effects"], here["effects"]
    both = old.keys() & new.keys()
    effects = [abs(old[edge] - new[edge]) for edge in both if None not in (old[edge], new[edge])]
    pairs = zip(there["card"], here["card"], strict=False)
    shares = [abs(a - b) for a, b in pairs if None not in (a, b)]
    cells = [name, len(new), *(only(a, b) for a, b in ((old, new), (new, old)))]
    cells += [f"{max(each, default=0):.1e}" for each in (effects, shares)]
    return f"| {' | '.join(map(str, cells))} |"


def only(those: Found, others: Found) -> str:
    """Return the edges that only one has, with their effects."""
    alone = (f"{edge} ({those[edge]})" for edge in those.keys() - others.keys())
    return ", ".join(sorted(alone)) or "-"


if __name__ == "__main__":
    main()
