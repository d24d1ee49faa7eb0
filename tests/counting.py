"""A model that counts what it is asked to compute, around any other.

Pass it wherever a model is expected. Readings are withheld, so that all work goes through whole
components and is counted in one way.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from circuitfind.graph import SinglePort
from circuitfind.models.base import Embedding, NeuronOutputs, ResidualModel

_FACTS = (
    "name", "fingerprint", "shape", "vocabulary", "causal", "n_tokens", "n_positions", "dtype",
    "weights_dtype", "device", "unembedding", "dictionaries",
)  # fmt: skip


class CountingModel:
    """Computes what the model does, and counts.

    Attributes:
        ran: Heads and MLPs that were run, by name, each in multiples of a position of a prompt.
        own: Positions of prompts that went through the model's own forward pass.
    """

    def __init__(self, model: ResidualModel) -> None:
        self.model = model
        for fact in _FACTS:
            setattr(self, fact, getattr(model, fact))
        self.ran: Counter[str] = Counter()
        self.own = 0

    def clear(self) -> None:
        """Count from 0 again."""
        self.ran.clear()
        self.own = 0

    def with_frozen_norms(self) -> "CountingModel":
        return CountingModel(self.model.with_frozen_norms())

    def neurons(self, layer: int) -> NeuronOutputs | None:
        return self.model.neurons(layer)

    def embed(self, tokens: Tensor) -> Embedding:
        return self.model.embed(tokens)

    def project(
        self,
        layer: int,
        port: SinglePort,
        heads: Sequence[int],
        stream: Tensor,
        scale_of: Tensor | None = None,
    ) -> Tensor:
        return self.model.project(layer, port, heads, stream, scale_of)

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        real: Tensor | None = None,
    ) -> Tensor:
        prompts = max(each.shape[1] for each in (query, key, value))
        for head in heads:
            self.ran[f"a{layer}.h{head}"] += prompts * query.shape[2]
        return self.model.attend(layer, heads, query, key, value, real)

    def attention_scores(
        self,
        layer: int,
        heads: Sequence[int],
        query: Tensor,
        key: Tensor,
        real: Tensor | None = None,
    ) -> Tensor:
        return self.model.attention_scores(layer, heads, query, key, real)

    def output(self, layer: int, heads: Sequence[int], z: Tensor) -> Tensor:
        return self.model.output(layer, heads, z)

    def attention_output(self, layer: int, z: Tensor) -> Tensor:
        return self.model.attention_output(layer, z)

    def attention_bias(self, layer: int) -> Tensor | None:
        return self.model.attention_bias(layer)

    def mlp_normed(self, layer: int, stream: Tensor, scale_of: Tensor | None = None) -> Tensor:
        return self.model.mlp_normed(layer, stream, scale_of)

    def mlp_pre(self, layer: int, stream: Tensor, scale_of: Tensor | None = None) -> Tensor:
        return self.model.mlp_pre(layer, stream, scale_of)

    def mlp_post(self, layer: int, pre: Tensor) -> Tensor:
        self.ran[f"m{layer}"] += pre[..., 0].numel()
        return self.model.mlp_post(layer, pre)

    def mlp_output(self, layer: int, post: Tensor) -> Tensor:
        return self.model.mlp_output(layer, post)

    def mlp(self, layer: int, stream: Tensor, scale_of: Tensor | None = None) -> Tensor:
        self.ran[f"m{layer}"] += stream[..., 0].numel()
        return self.model.mlp(layer, stream, scale_of)

    def reading(self, layer: int, port: SinglePort | None, head: int = 0) -> Any:
        return None

    def final_norm(self, stream: Tensor) -> Tensor:
        return self.model.final_norm(stream)

    def logits(
        self, stream: Tensor, columns: Tensor | None = None, scale_of: Tensor | None = None
    ) -> Tensor:
        return self.model.logits(stream, columns, scale_of)

    def own_logits(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        self.own += tokens.numel()
        return self.model.own_logits(tokens, real)

    def own_last_logits(self, tokens: Tensor, real: Tensor | None, n_positions: int) -> Tensor:
        self.own += tokens.numel()
        return self.model.own_last_logits(tokens, real, n_positions)
