"""Search whole models that were trained, edge by edge with full passes and with our engine.

    python -m benchmarks.trained [--stories DIRECTORY]

Both must decide alike about every edge and measure the same effects; the ratio of their times is
written to docs/performance.md. Brute force runs the whole model once for every edge of the graph.
The row for stories260k needs that model's directory.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import circuitfind as cf
from benchmarks.page import write_block
from circuitfind.graph import Edge
from circuitfind.methods.acdc import AcdcOptions, search_with
from circuitfind.methods.base import Decision
from circuitfind.methods.order import visits
from circuitfind.models.base import ResidualModel

ZOO = ("ioi-small", "gpt-2l", "gpt-4l", "llama-4l", "attn-2l")
METRICS = ("kl", "logit-difference")
THRESHOLD, PROMPTS = 0.02, 16

ALLOWED = 1e-4
"""Largest difference of effects, in the metric's unit; a wrong engine is off by far more."""


class Row(NamedTuple):
    """One search, done both ways."""

    model: str
    task: str
    metric: str
    edges: int
    kept: int
    tested: int
    difference: float
    drift: float
    per_test: float
    whole: float


def main() -> None:
    """Search all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", help="directory of the model stories260k")
    stories = parser.parse_args().stories
    questions = [(name, name, "ioi") for name in ZOO]
    if stories is not None:
        questions.insert(0, ("stories260k", stories, "pronoun"))
    rows = [
        searched(name, cf.load_model(source), task, metric)
        for name, source, task in questions
        for metric in METRICS
    ]
    write_block("trained", "\n".join(table(rows)))


def searched(name: str, model: ResidualModel, task: str, metric: str) -> Row:
    """Search both ways and compare."""
    problem = cf.make_problem(model, task, n_prompts=PROMPTS, metric=metric)
    engine, options = cf.IncrementalEngine(problem), AcdcOptions(THRESHOLD)
    # What is slower the first time is left out.
    list(islice(search_with(engine, options, engine.start()), 3))
    started = time.perf_counter()
    engine = cf.IncrementalEngine(problem)
    steps = list(search_with(engine, options, engine.start()))
    ours = time.perf_counter() - started
    decisions = [decision for step in steps for decision in step.decisions]
    started = time.perf_counter()
    theirs = list(brute_force(engine, options))
    brute = time.perf_counter() - started
    tested = sum(decision.reason == "tested" for decision in decisions)
    row = Row(
        model=name,
        task=task,
        metric=metric,
        edges=len(decisions),
        kept=sum(decision.kept for decision in decisions),
        tested=tested,
        difference=difference(decisions, theirs),
        drift=steps[-1].drift or 0.0,
        per_test=(brute / len(theirs)) / (ours / tested),
        whole=brute / ours,
    )
    print(row, flush=True)
    return row


def brute_force(engine: cf.IncrementalEngine, options: AcdcOptions) -> Iterator[Decision]:
    """Yield the decision about each edge, from a pass of the whole model with it cut."""
    graph, kept = engine.graph, engine.graph.edge_mask.clone()
    before = engine.readout.loss(engine.recomputed(kept))
    for reader, writers in visits(graph, options.order, options.seed):
        for writer in writers:
            kept[writer, reader] = False
            after = engine.readout.loss(engine.recomputed(kept))
            name, effect = Edge(graph.writers[writer], graph.readers[reader]).name, after - before
            stays = not options.is_cut(name, effect)
            yield Decision(name, stays, "tested", before, after, effect)
            kept[writer, reader] = stays
            before = before if stays else after


def difference(ours: Sequence[Decision], theirs: Sequence[Decision]) -> float:
    """Return the largest difference of effects; stop if it is no rounding, or a decision differs.

    An edge that was cut untested must have no effect.
    """
    worst = 0.0
    for one, other in zip(ours, theirs, strict=True):
        if one.edge != other.edge or one.kept != other.kept:
            raise SystemExit(f"the searches differ: {one} and {other}")
        assert other.effect is not None
        worst = max(worst, abs((one.effect or 0.0) - other.effect))
        if worst > ALLOWED:
            raise SystemExit(f"{one.edge}: brute force has an effect of {other.effect}, we {one}")
    return worst


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield (
        "| model | task | metric | edges | tested | kept | brute force, per tested edge "
        "| brute force, whole search | largest difference of effects | drift |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row.model} | {row.task} | `{row.metric}` | {row.edges} | {row.tested} "
            f"| {row.kept} | {row.per_test:.1f}x | {row.whole:.1f}x | {row.difference:.1g} "
            f"| {row.drift:.1g} |"
        )


if __name__ == "__main__":
    main()
