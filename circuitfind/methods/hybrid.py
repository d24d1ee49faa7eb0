"""The hybrid: attribution keeps the top share of all edges, and ACDC searches what is left.

Most edges go by their score, untested, which is what makes it fast; the rest are tested one by one,
each against a graph that lacks the first ones. What attribution is blind to is lost, so this is not
ACDC, and its circuits say so.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.acdc import AcdcOptions, search_with
from circuitfind.methods.base import Decision, Progress, StepwiseMethod, circuit_of
from circuitfind.methods.eap_ig import EapIg, EapIgOptions


@dataclass(frozen=True)
class HybridOptions(AcdcOptions):
    """Settings of the hybrid: those of `acdc`, and of the attribution before it.

    Attributes:
        share: Share of all edges that attribution hands on to ACDC, the largest scores in size.
        steps: Number of gradients of the attribution (`eap-ig`, variant `inputs`).
        batch: Prompts at a time in the attribution.
    """

    share: float = 0.2
    steps: int = 5
    batch: int | None = None

    @property
    def attribution(self) -> EapIgOptions:
        return EapIgOptions(steps=self.steps, batch=self.batch)


class Hybrid(StepwiseMethod):
    """Attribution followed by ACDC as an entry of the table of methods."""

    name = "hybrid"
    summary = "cut all but the top share of edges by their eap-ig score, then acdc on what is left"
    paper = "Hanna et al. 2024, arXiv 2403.17806, and Conmy et al. 2023, arXiv 2304.14997"
    knows_moves = True
    options = HybridOptions

    def run(
        self, engine: IncrementalEngine, options: HybridOptions, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Score all edges, then search; a resumed search repeats the scores, not the tests."""
        method, graph = EapIg(), engine.graph
        scored: list[Decision] = []
        for step in method.run(engine, options.attribution):
            scored += step.decisions
            if step.checkpoint is not None:
                shown = replace(step.checkpoint, state=None)
                yield Progress(len(resume), graph.n_edges, (), checkpoint=shown)
        scores = method.scores_in(engine, circuit_of(graph, scored))
        left = scores.top(math.ceil(options.share * graph.n_edges))
        by_name = {edge.name: score for edge, score in scores.ranked()}
        for progress in search_with(engine, options, engine.start_from(left.kept), resume):
            decisions = (replace(each, score=by_name[each.edge]) for each in progress.decisions)
            yield replace(progress, decisions=tuple(decisions))
