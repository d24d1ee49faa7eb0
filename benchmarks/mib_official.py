"""Hold `circuitfind mib` to the code of MIB's circuit track, on the same weights and prompts.

    python -m benchmarks.mib_official [CHECKOUT] --python PYTHON

CHECKOUT is a checkout of https://github.com/hannamw/MIB-circuit-track with its submodule EAP-IG
(b759df3 with 7af394a). PYTHON is that of an environment with what `mib-official.txt` lists, since
that code needs the HookedTransformer that TransformerLens 4 no longer has. Nothing is fetched.
Without a checkout, the tests' own evaluation (`tests/oracles/mib.py`), which is written from the
description of the protocol, is run on that HookedTransformer. Without PYTHON nothing is compared.

Random models of the shapes of GPT-2 and of a Llama with shared key/value heads, with their weights
as they are and as TransformerLens processes them by default; random prompts and random scores; f at
ten sizes, CPR and CMD, ranked by value and by size. They may differ by 1e-4.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.evaluation.mib import MibResult, MibScores, mib, mib_problem
from circuitfind.evaluation.size_curve import SizeCurve
from circuitfind.formats.submission import importances
from circuitfind.metrics import LOGIT_DIFFERENCE
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate

HERE = Path(__file__).parent
ROOT = HERE.parent
TOLERANCE = 1e-4
N_PROMPTS, LENGTH, N_TOKENS = 6, 9, 101
SHAPES = {
    "gpt2": transformers.GPT2Config(
        vocab_size=N_TOKENS,
        n_positions=32,
        n_embd=64,
        n_layer=4,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "llama": transformers.LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
    ),
}


def main(words: list[str] | None = None) -> int:
    """Compare, print a table, and return 1 if anything differs by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, nargs="?")
    parser.add_argument("--python", type=Path)
    given = parser.parse_args(words)
    parts = [] if given.checkout is None else ["MIB_circuit_track", "EAP-IG/src"]
    missing = [given.checkout / part for part in parts if not (given.checkout / part).is_dir()]
    if missing or given.python is None:
        print(f"skipped: there is no {missing[0] if missing else 'other Python (--python)'}")
        return 0
    worst = 0.0
    for name, config in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            ours = measured(Path(folder), config)
            for weights in ("raw", "processed"):
                theirs = official(Path(folder), given.checkout, given.python, weights)
                for by, curve in (("value", ours.signed), ("size", ours.absolute)):
                    differ = distance(curve, theirs[by])
                    worst = max(worst, differ)
                    areas = f"CPR {curve.cpr:.4f}, CMD {curve.cmd:.4f}"
                    print(f"{name}, {weights} weights, by {by}: {areas}, off by {differ:.1e}")
    return int(worst > TOLERANCE)


def distance(curve: SizeCurve, theirs: dict[str, Any]) -> float:
    """Return the largest difference in f, CPR and CMD."""
    found = [*(point.faithfulness for point in curve.points), curve.cpr, curve.cmd]
    expected = [*theirs["f"], theirs["cpr"], theirs["cmd"]]
    return max(abs(a - b) for a, b in zip(found, expected, strict=True))


def measured(folder: Path, config: transformers.PretrainedConfig) -> MibResult:
    """Measure random scores of a random model, and write down what the other side needs."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.ndim >= 2:
            weight.data.normal_(0, 1.3 * min(weight.shape) ** -0.5)
    model.eval().save_pretrained(folder)
    clean, corrupted = torch.randint(3, N_TOKENS, (2, N_PROMPTS, LENGTH)).tolist()
    answers = [torch.randperm(N_TOKENS)[:2].tolist() for _ in range(N_PROMPTS)]
    prompts = {"clean": clean, "corrupted": corrupted, "answers": answers}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    pairs = [
        Pair(c, d, [[right]], [[wrong]])
        for c, d, (right, wrong) in zip(clean, corrupted, answers, strict=True)
    ]
    problem = mib_problem(assemble(load_model(model), collate(pairs), LOGIT_DIFFERENCE))
    values = torch.randn(problem.graph.edge_mask.shape).double()
    values[0] *= 3
    values[:, -1] *= 3
    circuit = Circuit(problem.graph, problem.graph.edge_mask, values)
    for name, text in importances(circuit).items():
        (folder / name).write_text(text)
    return mib(problem, MibScores(EdgeScores(problem.graph, values, "", "drawn")))


def official(
    folder: Path, checkout: Path | None, python: Path, weights: str
) -> dict[str, dict[str, Any]]:
    """Measure the same in the other environment."""
    places = [] if checkout is None else [checkout, checkout / "EAP-IG" / "src"]
    path = map(str, [*places, ROOT])
    how = "described" if checkout is None else "official"
    done = subprocess.run(
        [python, HERE / "mib_official_worker.py", folder, how, weights],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    raise SystemExit(main())
