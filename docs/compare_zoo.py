"""Compare circuits of the embedded models, and write the tables and figures of comparison.md.

    python docs/compare_zoo.py [--runs DIRECTORY] [--models NAME ...]

Searches that are finished in DIRECTORY are not repeated.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from figures import ROOT, replace_between
from rich.table import Table

from circuitfind.comparison.result import Comparison
from circuitfind.directories.comparison import ComparisonConfig
from circuitfind.directories.config import RunConfig
from circuitfind.models.zoo import ZOO
from circuitfind.reports.comparison import circuits_table, pairs_table, roles_table, summary_table
from circuitfind.verbs.compare import compare_files
from circuitfind.verbs.discover import run_discovery

PAGE = "docs/comparison.md"
MODELS = ("gpt-2l", "gpt-2l-b", "gpt-4l", "gpt-4l-b")
"""Two sizes, two seeds each, as far as they ship."""

FAMILIES = ("gpt-4l", "llama-4l")
TASKS = ("ioi", "pronoun", "agreement", "successor")
THRESHOLD = 0.02


def main() -> None:
    """Search, compare, and write everything down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="where searches are kept")
    parser.add_argument("--models", nargs="+", default=_shipped(), help="names or directories")
    given = parser.parse_args()
    kept = given.runs
    with tempfile.TemporaryDirectory() as folder:
        runs = kept or Path(folder)
        of_ioi = [found_in(runs, "ioi", name) for name in given.models]
        seeds = compared(of_ioi, Path(folder) / "seeds")
        write("zoo-circuits", circuits_table(seeds))
        write("zoo-pairs", summary_table(seeds))
        write("zoo-roles", roles_table(seeds))
        keep(Path(folder) / "seeds" / "matrix.svg", "comparison-seeds.svg")
        pair = [found_in(runs, "ioi", name) for name in FAMILIES]
        families = compared(pair, Path(folder) / "families")
        write("families", pairs_table(families))
        write("families-roles", roles_table(families))
        keep(next((Path(folder) / "families").glob("matched-*.svg")), "comparison-families.svg")
        of_tasks = [found_in(runs, name, FAMILIES[0]) for name in TASKS]
        tasks = compared(of_tasks, Path(folder) / "tasks")
        write("tasks", summary_table(tasks))
        keep(Path(folder) / "tasks" / "matrix.svg", "comparison-tasks.svg")


def _shipped() -> list[str]:
    return [name for name in MODELS if name in ZOO]


def found_in(runs: Path, task: str, model: str) -> Path:
    """Return the directory of a search, made if it is not there; it is named after the model."""
    name = Path(model).name
    path = runs / (f"{task}-{name}" if task != "ioi" else name)
    if not (path / "circuit.json").is_file():
        print(f"{task} in {model}", flush=True)
        run_discovery(path, RunConfig(task, model, "acdc", {"threshold": THRESHOLD}))
    return path


def compared(runs: Sequence[Path], out: Path) -> Comparison:
    """Compare finished searches."""
    settings = ComparisonConfig()
    return compare_files(runs, out, settings, tell=lambda line: print(line, flush=True))[0]


def write(name: str, table: Table) -> None:
    """Write a table as Markdown between two markers of the page."""
    headers = [str(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [headers, ["---"] * len(headers), *([str(cell) for cell in row] for row in rows)]
    text = "\n".join(
        f"| {' | '.join(cell.replace('|', 'and') for cell in line)} |" for line in lines
    )
    replace_between(PAGE, name, text)


def keep(drawing: Path, name: str) -> None:
    """Copy a drawing to the page's images."""
    shutil.copy(drawing, ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main()
