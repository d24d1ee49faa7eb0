"""Write the figures of docs/evaluation.md, by running its commands.

    python docs/evaluation_figures.py

Seconds are left out: they depend on the machine.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import DEMO, ROOT, replace_between

PAGE = "docs/evaluation.md"
SMALL = "discover ioi --model ioi-small --threshold 0.05 --prompts 32 --out runs/small"
RANDOM = ("random circuits", "strongest path", "why chance")
CHARTS = {"size-curve.svg": "evaluation-sizes.svg", "knock-outs.svg": "evaluation-knock-outs.svg"}


def main() -> None:
    """Search, evaluate, repeat, and write down what was printed."""
    with tempfile.TemporaryDirectory() as folder:
        run(DEMO, folder)
        said = run("evaluate runs/demo", folder)
        write("evaluate", [line for line in said if not line.startswith(("cost", "runs/"))])
        for name, kept in CHARTS.items():
            shutil.copy(Path(folder) / "runs/demo" / name, ROOT / "docs/images" / kept)
        run("discover ioi", folder)
        said = run("evaluate runs/ioi-gpt-4l-acdc", folder)
        write("path", [line for line in said if line.startswith(RANDOM)])
        run(SMALL, folder)
        said = run("stability runs/small --repetitions 3", folder)
        write("stability", [line for line in said if not line.startswith("runs/")])


def run(command: str, folder: str) -> list[str]:
    """Return the lines that a command prints."""
    code = "from circuitfind.cli import main; main()"
    words = [sys.executable, "-c", code, *command.split()]
    done = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return [line.rstrip() for line in done.stdout.strip().splitlines()]


def write(name: str, lines: list[str]) -> None:
    """Put lines between two markers of the page."""
    text = "\n".join(lines).strip()
    replace_between(PAGE, name, f"```\n{text}\n```")


if __name__ == "__main__":
    main()
