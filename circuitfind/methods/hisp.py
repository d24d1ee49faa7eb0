"""Head importance score for pruning: how steeply the loss falls as a component fades in.

Each component has a mask: at 1 it writes what it writes, at 0 what its cut edges would carry. Its
importance is |d loss / d mask| at 1, summed over prompts one by one, divided by the root of the sum
of squares over the components of its layer. The circuit is made of the edges between the most
important components. Papers: Michel et al. 2019, arXiv 1905.10650, for heads; with MLPs in the same
layer's norm, as in the comparison of Conmy et al. 2023, arXiv 2304.14997. There each of a head's
query, key and value has a mask; here the mask is on what the head writes. Where edges tell places
apart, a component has a mask at each place, and all of a layer count in its norm.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.graph import Graph
from circuitfind.methods.attribution import Batch, batches_of
from circuitfind.methods.components import by_place, edges_between, require_finite
from circuitfind.methods.eap import CLEAN, BatchOptions
from circuitfind.methods.scored import Scored
from circuitfind.methods.slopes import require_slope
from circuitfind.progress import Checkpoint, State

PerWriter = Float[Tensor, "writer place"]


class Hisp(Scored):
    """Head importance as an entry of the table of methods."""

    name = "hisp"
    summary = "keep the edges between the components whose masks have the steepest gradients"
    paper = "Michel et al. 2019, arXiv 1905.10650"
    options = BatchOptions

    def scoring(
        self, engine: IncrementalEngine, options: BatchOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield after each batch of prompts."""
        problem, graph = engine.problem, engine.graph
        require_slope(problem.metric, self.name, at_clean_only=True)
        n_batches = -(-len(problem.prompts) // options.limits.batch_for(problem))
        importance = torch.zeros(len(graph.writers), graph.n_places, dtype=torch.float64)
        earlier = 0
        if state is not None:
            importance, earlier = state["importance"].view_as(importance), int(state["done"])
        batches = batches_of(engine, options.limits, skip=earlier)
        for done, batch in enumerate(batches, earlier + 1):
            importance = importance + _mask_slopes(graph, batch)
            require_finite(graph, importance)
            yield Checkpoint(
                done,
                n_batches,
                "gradients",
                {"importance": importance, "done": torch.tensor(done)}
                | {"scores": edges_between(graph, _by_layer(graph, importance), 1.0)},
            )

    def unit(self, engine: IncrementalEngine) -> str:
        return "share of the layer's norm"


def _mask_slopes(graph: Graph, batch: Batch) -> PerWriter:
    """Return each writer's |d loss / d mask|, added up over prompts."""
    slopes = torch.zeros(len(graph.writers), graph.n_places, dtype=torch.float64)
    for found in batch.gradients([CLEAN]):
        if writers := list(found.block.writers):
            by_position = (batch.differences.of(found.block) * found.written).sum(3)
            by_prompt = by_place(by_position, batch.problem.places)
            slopes[writers] = by_prompt.abs().double().sum(2).cpu()
    return slopes


def _by_layer(graph: Graph, importance: PerWriter) -> PerWriter:
    """Divide each component's importance by the norm of its layer's."""
    normed = torch.zeros_like(importance)
    for layer in {writer.layer for writer in graph.heads_and_mlps}:
        rows = [index for index, writer in enumerate(graph.writers) if writer.layer == layer]
        norm = importance[rows].norm()
        normed[rows] = importance[rows] / norm if norm > 0 else 0.0
    return normed
