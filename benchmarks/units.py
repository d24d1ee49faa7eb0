"""What taking MLPs apart costs, and how good the ranking of units is: IOI on three models.

    python -m benchmarks.units [--small]

For each choice of units (neurons of all MLPs, or latents of the embedded transcoders): ACDC with
and without them, on one thread, processor time per tested edge; and the rank correlation between
the scores by which the units were listed and their exact effects, the rise of the loss when all
edges from a unit are cut. Results go to docs/neurons.md. `--small` leaves out SmolLM2 and writes
nothing.
"""

import argparse
from typing import NamedTuple

import torch
from scipy.stats import spearmanr

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.places import costs_of
from circuitfind.graph import UNIT_KINDS
from circuitfind.methods.shortlist import RANKINGS, unit_scores


class Setting(NamedTuple):
    """A model, its units, and what is asked of it."""

    model: str
    units: str
    n_prompts: int
    threshold: float

    @property
    def choice(self) -> dict[str, str]:
        """The argument of `make_problem` that chooses the units."""
        return {"neurons": "all"} if self.units == "neurons" else {"latents": "zoo"}


SETTINGS = (
    Setting("gpt-4l", "neurons", 64, 0.01),
    Setting("ioi-small", "neurons", 64, 0.01),
    Setting("ioi-small", "latents", 64, 0.01),
    Setting("smollm2", "neurons", 8, 0.3),
)


def main() -> None:
    """Measure, print, and write docs/neurons.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    rows = [
        "| model | units | edges | with units | tests | with units | ms a test | with units "
        "| eap | eap-ig |",
        f"|---|---{'|--:' * 8}|",
    ]
    for setting in SETTINGS[:-1] if small else SETTINGS:
        rows.append(row_of(setting))
        print(rows[-1], flush=True)
    if not small:
        write_block("units", "\n".join(rows), page="neurons.md")


def row_of(setting: Setting) -> str:
    """Measure one model."""
    model = cf.load_model(setting.model)
    problems = [
        cf.make_problem(
            model, "ioi", n_prompts=setting.n_prompts, metric="logit-difference", **units
        )
        for units in ({}, setting.choice)
    ]
    counts, per_test = costs_of(problems, setting.threshold)
    cells = [
        setting.model,
        setting.units,
        *(f"{problem.graph.n_edges:,}" for problem in problems),
        *(f"{n:,}" for n in counts),
        *(f"{each:.2f}" for each in per_test),
        *(f"{agreement(*problems, ranking):.2f}" for ranking in RANKINGS),
    ]
    return f"| {' | '.join(cells)} |"


def agreement(plain: cf.Problem, problem: cf.Problem, ranking: str) -> float:
    """Return the rank correlation between the scores of the listed units and their effects.

    Args:
        plain: The problem without units.
        problem: The problem with units.
        ranking: What the units are ranked by.
    """
    graph = problem.graph
    known = [cf.Units(u.layer, u.kind, u.numbers, error=u.error, skip=u.skip) for u in graph.units]
    with_latents = cf.with_dictionaries(plain.model, problem.model.dictionaries)
    asked = cf.Problem(with_latents, plain.graph, plain.prompts, plain.metric, plain.ablation)
    scores = torch.cat(unit_scores(asked, known, ranking))
    rows = [row for row, writer in enumerate(graph.writers) if writer.kind in UNIT_KINDS]
    masks = [graph.edge_mask]
    for row in rows:
        masks.append(graph.edge_mask.clone())
        masks[-1][row] = False
    values = cf.IncrementalEngine(problem).measure(masks).mean(dim=1)
    effects = problem.metric.sign * (values[1:] - values[0])
    return float(spearmanr(scores, effects).statistic)


if __name__ == "__main__":
    main()
