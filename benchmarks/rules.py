"""Edge attribution by modified gradients, held to exact effects.

    python -m benchmarks.rules [--stories DIRECTORY] [--write]

For `eap` and `eap-ig`, without rules, by each set of rules and by each rule alone: Spearman's rank
correlation of the scores with the exact effects of all edges, on 64 pairs of prompts by logit
difference. Three seeds: the mean, and the lowest and highest value. stories260k is measured where
its directory is given. `--write` puts the table into docs/methods.md.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import torch

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.rankings import N_PROMPTS, SEEDS, models_and_tasks, spread
from circuitfind.comparison.overlap import rank_correlation
from circuitfind.comparison.rule_checks import OWN, require_rules
from circuitfind.methods.exact import sampled_effects
from circuitfind.models.rules import RULE_SETS, RULES

ASKED = (None, *RULE_SETS, *RULES)


def main() -> None:
    """Measure, print, and write docs/methods.md if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stories", help="directory of the model stories260k")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    columns: dict[str, dict[tuple[str, str], str]] = {}
    for name, task in models_and_tasks(asked.stories):
        columns[f"{Path(name).name}, {task}"] = column_of(cf.load_model(name), task)
        print(f"{name}: {columns[f'{Path(name).name}, {task}']}", flush=True)
    text = table_of(columns)
    print(text)
    if asked.write:
        write_block("rules", text, "methods.md")


def column_of(model: Any, task: str) -> dict[tuple[str, str], str]:
    """Return the cells of a model by method and rules."""
    found: dict[tuple[str, str], list[float | None]] = {}
    for seed in SEEDS:
        problem = cf.make_problem(
            model, task, n_prompts=N_PROMPTS, seed=seed, metric="logit-difference"
        )
        engine = cf.IncrementalEngine(problem)
        effects = sampled_effects(engine, None, seed)
        for name, rules in product(("eap", "eap-ig"), ASKED):
            method = require_rules(name)
            scores = method.scores(engine, method.options(rules=rules))
            value = rank_correlation(scores, effects)[0].value
            found.setdefault((name, rules or OWN), []).append(value)
    return {key: spread(values) for key, values in found.items()}


def table_of(columns: dict[str, dict[tuple[str, str], str]]) -> str:
    """Return the table, a row for each method and set of rules."""
    rows = [f"| method | rules | {' | '.join(columns)} |", f"|---|---{'|---' * len(columns)}|"]
    for method, rules in next(iter(columns.values())):
        cells = " | ".join(column[method, rules] for column in columns.values())
        rows.append(f"| {method} | {rules} | {cells} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
