"""One run of a model with everything kept that can be patched into another run.

Streams are kept as they enter each stage, and every head's query, key, value and mixed values, so
a run can be taken up at any stage without running again what lies before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitfind.graph import Block
from circuitfind.models.base import Embedding, ResidualModel
from circuitfind.models.forward import Heads, Run, Seen, Stream


@dataclass(frozen=True)
class Recording:
    """Activations of a run.

    Attributes:
        embedding: What entered the stream before the first block.
        entering: What the blocks of each stage read, by stage; last what the logits read.
        added: What each block added to the stream, biases included, by the block's name.
        query: Each head's query, by the name of the attention's block, as all that follow.
        key: Each key/value head's key.
        value: Each key/value head's value.
        z: Each head's mixed values.
    """

    embedding: Embedding
    entering: Mapping[int, Stream]
    added: Mapping[str, Stream]
    query: Mapping[str, Heads]
    key: Mapping[str, Heads]
    value: Mapping[str, Heads]
    z: Mapping[str, Heads]

    @property
    def final(self) -> Stream:
        """The final residual stream, which the logits read."""
        return self.entering[max(self.entering)]

    def stage_after(self, block: Block) -> int:
        """Return the first stage that reads what a block adds."""
        return min(stage for stage in self.entering if stage > block.stage)


def record(
    model: ResidualModel,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Recording:
    """Run a model on some tokens and keep what can be patched."""
    entering: dict[int, Tensor] = {}
    kept: dict[Seen, dict[str, Tensor]] = {seen: {} for seen in get_args(Seen)}

    def keep(seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "entering":
            entering[block.stage] = values
        else:
            kept[seen][block.name] = values

    with torch.no_grad():
        embedding = model.embed(tokens)
        Run(model, real, keep).run(embedding.joint)
    return Recording(
        embedding,
        entering,
        added={**kept["attention"], **kept["mlp"]},
        query=kept["q"],
        key=kept["k"],
        value=kept["v"],
        z=kept["z"],
    )
