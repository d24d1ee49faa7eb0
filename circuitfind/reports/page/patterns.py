"""Attention patterns of a run's heads on some of its prompts, for the page."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.engine.full_pass import Pass, full_pass, plain_pass, sources
from circuitfind.engine.patterns import attention_patterns
from circuitfind.engine.replacement import mean_over_prompts, replacement
from circuitfind.problem import Problem
from circuitfind.prompts import PromptPairs
from circuitfind.reports.page.attention import KINDS, choose, shown_prompts, stored_patterns

N_PROMPTS = 4


def attention_data(problem: Problem, circuit: Circuit) -> dict[str, Any]:
    """Return some prompts of a problem and where heads look on them, as the page stores it.

    Args:
        problem: The run's problem, with all its prompts: means are taken over all of them.
        circuit: Its circuit.
    """
    model, graph = problem.model, problem.graph
    rows = _spread_over_templates(problem.prompts, N_PROMPTS)
    heads = [writer.name for writer in graph.writers if writer.kind == "head"]
    kept = [name for name in heads if name in set(circuit.components)]
    lengths = [int(problem.prompts.lengths[row]) for row in rows]
    choice = choose(lengths, heads, kept, causal=model.causal)
    rows, lengths = rows[: choice.n_prompts], lengths[: choice.n_prompts]
    shown = problem.prompts.select(rows)
    runs = _runs(problem, shown, rows, circuit) if choice.heads else iter(())
    return {
        "causal": model.causal,
        "prompts": shown_prompts(shown, model.vocabulary),
        "heads": {
            kind: stored_patterns(
                _by_head(replace(problem, prompts=shown), run, choice.heads),
                lengths,
                causal=model.causal,
            )
            for kind, run in runs
        },
    }


def _spread_over_templates(prompts: PromptPairs, n: int) -> list[int]:
    """Return the rows of up to n prompts, of as many templates as there are."""
    template = [0] * len(prompts) if prompts.template is None else prompts.template.tolist()
    first = {number: row for row, number in reversed(list(enumerate(template)))}
    others = [row for row in range(len(prompts)) if row not in first.values()]
    return sorted([*sorted(first.values()), *others][:n])


def _runs(
    problem: Problem, shown: PromptPairs, rows: Sequence[int], circuit: Circuit
) -> Iterator[tuple[str, Pass]]:
    """Yield the run of each kind on the prompts that are shown."""
    model, graph = problem.model, problem.graph
    with torch.no_grad():
        for kind, tokens in zip(KINDS, (shown.clean, shown.corrupted), strict=False):
            yield kind, plain_pass(model, graph, tokens, shown.real, keep_reads=True)
        embedding = sources(model, graph, shown.clean, shown.real)
        # Means are over all prompts, also those that are not shown.
        shown_problem = replace(problem, prompts=shown)
        carried = replacement(shown_problem, mean_over_prompts([problem]))
        instead = carried.of_all(*shown.clean.shape)
        mask = circuit.kept.to(embedding[0])
        yield (
            KINDS[2],
            full_pass(
                model,
                graph,
                embedding,
                instead,
                mask,
                shown.real,
                shown_problem.places,
                keep_reads=True,
            ),
        )


def _by_head(
    problem: Problem, run: Pass, heads: Sequence[str]
) -> dict[str, Float[Tensor, "batch query key"]]:
    """Return the patterns of the named heads."""
    graph, found = problem.graph, dict[str, Tensor]()
    for block in graph.with_heads:
        patterns = attention_patterns(problem.model, graph, run, block, problem.prompts.real)
        names = (graph.writers[writer].name for writer in block.writers)
        found |= dict(zip(names, patterns, strict=True))
    return {head: found[head] for head in heads}
