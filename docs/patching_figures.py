"""Draw the figures of docs/patching.md, by running its commands.

python docs/patching_figures.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
FIGURES = (
    ("patch ioi --model ioi-small --sites resid", "heatmap-resid_pre.svg", "patching-stream.svg"),
    (
        "patch ioi --model ioi-small --sites mlp,head --mode noising --discover",
        "diagram.svg",
        "patching-circuit.svg",
    ),
)


def main() -> None:
    """Run every command and keep its figure."""
    program = Path(sys.executable).with_name("circuitfind")
    for command, drawn, name in FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            words = [program, *command.split(), "--out", "run"]
            subprocess.run(words, cwd=folder, check=True, capture_output=True)
            shutil.copy(Path(folder) / "run" / drawn, IMAGES / name)


if __name__ == "__main__":
    main()
