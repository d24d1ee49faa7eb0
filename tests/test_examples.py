"""The examples run, and so does what the README shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


OTHERS = [path for path in EXAMPLES if path.stem != "refusal"]


@pytest.mark.parametrize("example", OTHERS, ids=[path.stem for path in OTHERS])
def test_the_example_runs(example, tmp_path):
    run_python(example.read_text(encoding="utf-8"), tmp_path)


def test_the_exercise_on_refusal_ends_in_heatmaps_and_a_faithful_circuit(tmp_path):
    said = run_python((ROOT / "examples" / "refusal.py").read_text(encoding="utf-8"), tmp_path)
    assert "attn_out of layer 0: 100% of the refusal goes with it" in said
    size, of = map(int, re.search(r"(\d+) of (\d+) edges", said).groups())
    assert size < of / 10
    shares = dict(re.findall(r"(\S+): faithfulness (\S+)", said))
    assert float(shares["logit-difference"]) > 0.8 and float(shares["accuracy"]) == 1
    assert (tmp_path / "refusal-heads.png").read_bytes().startswith(b"\x89PNG")
    assert "a0.h" in (tmp_path / "refusal.svg").read_text(encoding="utf-8")


def test_the_python_in_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert blocks
    for block in blocks:
        run_python(block, tmp_path)


def run_python(code: str, folder: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
