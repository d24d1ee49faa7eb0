"""How far a circuit is from its model, by what cut edges carry.

    python -m benchmarks.constants [--stories DIRECTORY] [--write]

Circuits found by ACDC with KL on 64 pairs of prompts, seed 0, under resample and mean ablation:
KL(model || circuit) under several ablations, and with constants that are trained for the circuit,
on these prompts and on 64 others. stories260k is measured where its directory is given. `--write`
puts the table into docs/methods.md.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.rankings import HELD_OUT, N_PROMPTS, models_and_tasks
from circuitfind.evaluation.refit import divergences

THRESHOLD = 0.02
FOUND_UNDER = ("resample", "mean-over-positions")
SHOWN = ("resample", "mean-over-positions", "zero", "learned, refit")


def main() -> None:
    """Measure, print, and write docs/methods.md if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stories", help="directory of the model stories260k")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        f"| model, task | found under | edges | {' | '.join(SHOWN)} |",
        f"|---|---|--:{'|--:' * len(SHOWN)}|",
    ]
    print("\n".join(rows))
    for name, task in models_and_tasks(asked.stories):
        model = cf.load_model(name)
        for ablation in FOUND_UNDER:
            rows.append(row_of(model, task, ablation))
            print(rows[-1], flush=True)
    if asked.write:
        write_block("constants", "\n".join(rows), "methods.md")


def row_of(model: Any, task: str, ablation: str) -> str:
    """Return the row of a circuit: divergences on its prompts, and on others."""
    problem, held_out = (
        cf.make_problem(model, task, n_prompts=N_PROMPTS, seed=seed, metric="kl", ablation=ablation)
        for seed in (0, HELD_OUT)
    )
    circuit = cf.discover(problem, threshold=THRESHOLD).circuit
    refit = cf.learned_constants(problem, circuit)
    found = {each.ablation: each for each in divergences(circuit, refit, problem, held_out)}
    cells = (f"{found[name].discovery:.3g} / {found[name].held_out:.3g}" for name in SHOWN)
    return (
        f"| {Path(model.name).name}, {task} | {ablation} | {circuit.n_edges} | "
        f"{' | '.join(cells)} |"
    )


if __name__ == "__main__":
    main()
