"""Information-flow routes: how much of what a reader reads each writer contributed.

At each position, writer w contributes to a reader that receives y

    max(0, |y|_1 - |y - a_w|_1)

and its share is that over the sum of all writers' contributions. An edge's score is the mean of its
shares over the positions of a prompt, and over prompts. Only clean runs are needed: neither the
metric nor corrupted prompts count, so the scores say what flows, not what it is good for. All ports
of a block read one stream and so have the same scores. Where edges tell places apart, an edge has
the part of the score that the positions of its place contribute. Paper: Ferrando & Voita 2024,
arXiv 2403.00824.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.replacement import Runs
from circuitfind.engine.written import Written, writing_blocks
from circuitfind.graph import Block, Graph
from circuitfind.methods.components import by_place
from circuitfind.methods.eap import BatchOptions
from circuitfind.methods.scored import Scored
from circuitfind.places import Places
from circuitfind.progress import Checkpoint, State

Shares = Float[Tensor, "writer batch pos"]


class InformationFlow(Scored):
    """Information-flow routes as an entry of the table of methods."""

    name = "information-flow"
    summary = "score edges by their share of what each reader reads on clean prompts"
    paper = "Ferrando & Voita 2024, arXiv 2403.00824"
    options = BatchOptions

    def scoring(
        self, engine: IncrementalEngine, options: BatchOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield after each batch of prompts."""
        n_prompts, graph = len(engine.problem.prompts), engine.graph
        size = options.limits.batch_for(engine.problem)
        rows = [slice(first, first + size) for first in range(0, n_prompts, size)]
        sums = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
        earlier = 0
        if state is not None:
            sums, earlier = state["sums"], int(state["done"])
        for done, some in enumerate(rows[earlier:], earlier + 1):
            places = engine.problem.prompts.rows(some).places if graph.places else None
            sums = sums + _shares(graph, engine.runs(some), places)
            now = {"sums": sums, "done": torch.tensor(done), "scores": sums / n_prompts}
            yield Checkpoint(done, len(rows), "batches of prompts", now)

    def unit(self, engine: IncrementalEngine) -> str:
        return "share"


@torch.no_grad()
def _shares(graph: Graph, runs: Runs, places: Places | None) -> Float[Tensor, "writer reader"]:
    """Return each edge's share, averaged over positions and added up over prompts."""
    real = runs.real
    scores = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    for stage, stream in runs.entering.items():
        readers = [i for i, reader in enumerate(graph.readers) if reader.stage == stage]
        since = graph.readers[readers[0]].since
        blocks = [block for block in writing_blocks(graph) if since <= block.stage < stage]
        shares = _of_stream(runs.clean, blocks, stream)
        by_prompt = by_place(shares.masked_fill(~real, 0), places) / real.sum(1)
        summed = by_prompt.double().sum(2).cpu().repeat(1, len(readers) // graph.n_places)
        scores[np.ix_([i for block in blocks for i in block.writers], readers)] = summed
    return scores


def _of_stream(written: Written, blocks: Sequence[Block], stream: Tensor) -> Shares:
    """Return the share of each writer of some blocks in their sum, at every position."""
    size = stream.abs().sum(-1)
    contributed = torch.cat(
        [
            torch.stack([size - (stream - one).abs().sum(-1) for one in written.of(block)])
            for block in blocks
        ]
    ).clamp(min=0)
    all_of_it = contributed.sum(0)
    # Where nothing contributes, nothing has a share.
    return contributed / all_of_it.where(all_of_it > 0, 1)
