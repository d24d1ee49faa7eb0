"""Write every figure that README and docs show, by running the tool.

    python docs/figures.py [--stories DIRECTORY]

Text between `<!-- NAME -->` and `<!-- /NAME -->` is replaced by what the run printed. Seconds
are left out: they depend on the machine. The table for stories260k needs that model's directory.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from circuitfind.directories.config import RunConfig
from circuitfind.verbs.discover import RunResult, run_discovery

ROOT = Path(__file__).parents[1]
DEMO = "discover ioi --model ioi-small --threshold 0.02 --out runs/demo"
THRESHOLDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


def main() -> None:
    """Run everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=Path, help="directory of the model stories260k")
    stories = parser.parse_args().stories
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder))
        rows = threshold_rows("ioi", "ioi-small", Path(folder))
        rows += threshold_rows("pronoun", "ioi-small", Path(folder))
        rows += threshold_rows("induction", "ioi-small", Path(folder))
        if stories is not None:
            rows += threshold_rows("pronoun", str(stories), Path(folder))
    if stories is not None:
        header = (
            "| model | task | threshold (nats) | edges | faithfulness (KL) | held-out prompts | "
            "faithfulness (logit difference) | accuracy, circuit (full) |\n"
            "|---|---|---|---|---|---|---|---|\n"
        )
        replace_between("docs/methods.md", "thresholds", header + "\n".join(rows))


def write_demo(folder: Path) -> None:
    """Run the demo's command; put its table and picture in the README and on the start page."""
    program = Path(sys.executable).with_name("circuitfind")
    run = subprocess.run(
        [program, *DEMO.split()], cwd=folder, check=True, capture_output=True, text=True
    )
    lines = [line.rstrip() for line in run.stdout.strip().splitlines()]
    shown = "\n".join(line for line in lines if not line.startswith("seconds"))
    for page in ("README.md", "docs/index.md"):
        replace_between(page, "demo", f"```\n{shown}\n```")
    shutil.copy(folder / "runs/demo/diagram.svg", ROOT / "docs/images/ioi-small.svg")


def threshold_rows(task: str, model: str, folder: Path) -> list[str]:
    """Return a table row per threshold."""
    name = Path(model).name
    return [
        table_row(
            name,
            task,
            threshold,
            run_discovery(
                folder / f"{task}-{name}-{threshold}",
                RunConfig(task, model, "acdc", {"threshold": threshold}, metric="kl"),
            ),
        )
        for threshold in THRESHOLDS
    ]


def table_row(model: str, task: str, threshold: float, result: RunResult) -> str:
    """Return one circuit's figures as a row of Markdown."""
    card = result.card
    by_metric = {row.metric: row for row in card.measurements}
    held_out = card.held_out.faithfulness if card.held_out else None
    accuracy = by_metric["accuracy"]
    cells = (
        model,
        task,
        f"{threshold:g}",
        f"{card.n_edges} of {card.n_edges_full}",
        shown(by_metric["kl"].faithfulness),
        shown(held_out),
        shown(by_metric["logit-difference"].faithfulness),
        f"{accuracy.circuit:.2f} ({accuracy.full:.2f})",
    )
    return f"| {' | '.join(cells)} |"


def shown(value: float | None) -> str:
    """Return a share with two digits."""
    return "-" if value is None else f"{value:.2f}"


def replace_between(path: str, name: str, text: str) -> None:
    """Replace what stands between two markers of a file."""
    file = ROOT / path
    pattern = rf"(<!-- {name} -->\n).*?(\n?<!-- /{name} -->)"
    content = file.read_text(encoding="utf-8")
    changed = re.sub(
        pattern, lambda match: f"{match[1]}{text}\n<!-- /{name} -->", content, flags=re.S
    )
    file.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main()
