"""The examples run, and so does what the README shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from circuitfind.api import discover
from circuitfind.circuit import load_circuit
from circuitfind.models.loading import load_model
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from tests.oracles.compiled import CompiledOracle
from tests.oracles.search import acdc

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


OTHERS = [path for path in EXAMPLES if path.stem not in ("own_transformer", "refusal")]


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


def test_the_circuit_of_a_transformer_of_ones_own_is_that_of_the_naive_search(tmp_path):
    said = run_python((ROOT / "examples" / "own_transformer.py").read_text("utf-8"), tmp_path)
    assert "right after training: 100.0%" in said
    assert "accuracy: full 1.00, circuit 1.00, empty 0.00" in said
    circuit = load_circuit(tmp_path / "again-circuit.json")
    found = {edge.name for edge in circuit.edges}
    # Both prompts begin with the same letter, so what position 0 reads of itself cannot matter.
    assert not found & {"embed->logits", "embed->m0", "embed->a0.h0.q", "embed->a0.h1.q"}
    assert found & {"embed->a0.h0.v", "embed->a0.h1.v", "embed->a0.h0.k", "embed->a0.h1.k"}
    clean = torch.tensor([(0, 2, 0, 4, 1), (3, 3, 1, 0, 5), (5, 0, 1, 2, 5), (1, 4, 1, 1, 0)])
    corrupted = torch.where(clean == clean[:, :1], (clean + 1) % 6, clean)
    corrupted[:, 0] = clean[:, 0]
    graph, model = circuit.graph, load_model(tmp_path / "again.json")
    oracle = CompiledOracle(tmp_path / "again.json", graph, clean, corrupted, "resample")

    def loss(logits):
        return float((logits[:, 0, 0] - logits[:, 0, 1]).mean())

    def logits_of(kept):
        return oracle.outputs(edge.name for edge in graph.edges(kept))

    pairs = [
        Pair(*both, [[1]], [[0]], steps=[0])
        for both in zip(clean.tolist(), corrupted.tolist(), strict=True)
    ]
    problem = make_problem(model, collate(pairs), metric="logit-difference")
    ours = discover(problem, threshold=0.2).decisions
    naive = acdc(logits_of, graph, loss, 0.2).decisions
    assert [(d.edge, d.kept) for d in ours] == [(d.edge, d.kept) for d in naive]


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
