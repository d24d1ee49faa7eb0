"""Compiled models: small transformers as two files, whatever they were made by.

Programs turned into weights, whose true circuits are known, come in this form, and so do small
transformers of one's own. `docs/files.md` describes the files; `compiled_files.py` reads and
checks them. The weights have TransformerLens' names: `embed.W_E`, `blocks.L.attn.W_Q` and so on.
Nothing is unpickled and no code is run.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from circuitfind.graph import SinglePort
from circuitfind.models.base import BaseModel, Embedding, NeuronOutputs, Unembedding
from circuitfind.models.compiled_files import CompiledFiles, read_compiled
from circuitfind.models.compiled_sizes import Sizes
from circuitfind.models.copies import in_copies, times
from circuitfind.models.fingerprint import weights_fingerprint
from circuitfind.models.norms import LinearNorm
from circuitfind.models.readings import AffineMap
from circuitfind.models.symbols import SymbolVocabulary as SymbolVocabulary
from circuitfind.models.symbols import symbols_of
from circuitfind.models.vocabulary import Vocabulary

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_new": lambda inner: functional.gelu(inner, approximate="tanh"),
    "silu": functional.silu,
    "solu": lambda inner: inner * inner.softmax(-1),
}


class CompiledModel(BaseModel):
    """A compiled model as a `ResidualModel`.

    Args:
        name: What the user calls it.
        files: What its files hold.
        device: Where it computes.
    """

    def __init__(self, name: str, files: CompiledFiles, device: str) -> None:
        sizes, weights = files.sizes, files.weights
        self.name = name
        self.sizes = files.content
        self.device = torch.device(device)
        self.fingerprint = weights_fingerprint(weights)
        self._sizes = sizes
        self._weights = _with_all_biases(sizes, weights, self.device)
        self.dtype: torch.dtype = self._weights["embed.W_E"].dtype
        self.n_weights = sum(weight.numel() for weight in weights.values())
        self.weight_bytes = self.n_weights * self.dtype.itemsize
        self.weights_dtype = files.stored
        self.causal = sizes.attention == "causal"
        self.n_tokens, self.n_positions = sizes.d_vocab, sizes.n_ctx
        self.vocabulary: Vocabulary | None = symbols_of(
            sizes, lambda tokens: self.own_logits(tokens.to(self.device))
        )
        self.shape = sizes.shape
        bias = self._weights["unembed.b_U"]
        weight = self._weights["unembed.W_U"].T
        # To add a bias of zeros takes time.
        self.unembedding: Unembedding | None = Unembedding(weight, bias if bias.any() else None)
        self._activation = ACTIVATIONS[sizes.activation]
        self._norms = _norms(sizes, self._weights)

    def with_frozen_norms(self) -> "CompiledModel":
        found: CompiledModel = copy.copy(self)
        found._norms = {name: norm._replace(frozen=True) for name, norm in self._norms.items()}
        return found

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Embedding:
        token = self._weights["embed.W_E"][tokens]
        position = self._weights["pos_embed.W_pos"][: tokens.shape[1]]
        return Embedding(token, position.expand_as(token))

    def project(
        self,
        layer: int,
        port: SinglePort,
        heads: Sequence[int],
        stream: Float[Tensor, "head batch pos d_model"],
        scale_of: Float[Tensor, "head batch pos d_model"] | None = None,
    ) -> Float[Tensor, "head batch pos d_head"]:
        weight = self._block(layer, f"attn.W_{port.upper()}")[list(heads)]
        bias = self._block(layer, f"attn.b_{port.upper()}")[list(heads)]
        normed = self._normed(f"blocks.{layer}.ln1", stream, scale_of)
        return torch.einsum("hbpd,hde->hbpe", normed, weight) + bias[:, None, None, :]

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        value: Float[Tensor, "head value_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last d_head"]:
        return times(self.attention_scores(layer, heads, query, key, real).softmax(-1), value)

    def attention_scores(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last pos"]:
        scores = times(query, key.transpose(-1, -2)) / self._sizes.attention_scale
        return self._hidden_masked(scores, real)

    def output(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        return torch.einsum("hbpe,hed->hbpd", z, self._block(layer, "attn.W_O")[list(heads)])

    def attention_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        return self._block(layer, "attn.b_O")

    def mlp_normed(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._normed(f"blocks.{layer}.ln2", stream, scale_of)

    def mlp_pre(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_pre"]:
        normed = self.mlp_normed(layer, stream, scale_of)
        inner = normed @ self._block(layer, "mlp.W_in")
        if self._sizes.gated_mlp:
            return torch.cat([inner, normed @ self._block(layer, "mlp.W_gate")], dim=-1)
        return inner + self._block(layer, "mlp.b_in")

    def mlp_post(
        self, layer: int, pre: Float[Tensor, "batch pos d_pre"]
    ) -> Float[Tensor, "batch pos d_mlp"]:
        if not self._sizes.gated_mlp:
            return self._activation(pre)
        inner, gate = pre.chunk(2, dim=-1)
        return self._activation(gate) * inner

    def mlp_output(
        self, layer: int, post: Float[Tensor, "batch pos d_mlp"]
    ) -> Float[Tensor, "batch pos d_model"]:
        return post @ self._block(layer, "mlp.W_out") + self._block(layer, "mlp.b_out")

    def neurons(self, layer: int) -> NeuronOutputs | None:
        weight, bias = self._block(layer, "mlp.W_out"), self._block(layer, "mlp.b_out")
        return NeuronOutputs(AffineMap(weight, bias))

    def mlp(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        pre = self.mlp_pre(layer, stream, scale_of)
        return self.mlp_output(layer, self.mlp_post(layer, pre))

    def final_norm(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._normed("ln_final", stream)

    def logits(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        columns: Int[Tensor, " column"] | None = None,
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        weight, bias = self._weights["unembed.W_U"], self._weights["unembed.b_U"]
        if columns is not None:
            weight, bias = weight[:, columns], bias[columns]
        return self._normed("ln_final", stream, scale_of) @ weight + bias

    def own_logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Run the model with whole layers at a time, apart from the functions above."""
        weights = self._weights
        stream = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"][: tokens.shape[1]]
        for layer in range(self.shape.n_layers):
            entering = stream
            stream = stream + self._whole_attention(layer, stream, real)
            if self.shape.layers[layer].has_mlp:
                parallel = self.shape.layers[layer].parallel_mlp
                stream = stream + self._whole_mlp(layer, entering if parallel else stream)
        normed = self._whole_norm("ln_final", stream)
        return functional.linear(normed, weights["unembed.W_U"].T, weights["unembed.b_U"])

    def _whole_attention(self, layer: int, stream: Tensor, real: Tensor | None) -> Tensor:
        normed = self._whole_norm(f"blocks.{layer}.ln1", stream)
        q, k, v = (
            torch.einsum("bpd,hde->bhpe", normed, self._block(layer, f"attn.W_{port}"))
            + self._block(layer, f"attn.b_{port}")[None, :, None]
            for port in "QKV"
        )
        scores = torch.einsum("bhqe,bhke->hbqk", q, k) / self._sizes.attention_scale
        pattern = self._hidden_masked(scores, real).softmax(-1)
        mixed = torch.einsum("hbqk,bhke->bhqe", pattern, v)
        heads = torch.einsum("bhqe,hed->bqd", mixed, self._block(layer, "attn.W_O"))
        return heads + self._block(layer, "attn.b_O")

    def _whole_mlp(self, layer: int, stream: Tensor) -> Tensor:
        normed = self._whole_norm(f"blocks.{layer}.ln2", stream)
        inner = functional.linear(normed, self._block(layer, "mlp.W_in").T)
        if self._sizes.gated_mlp:
            gate = functional.linear(normed, self._block(layer, "mlp.W_gate").T)
            inner = inner * self._activation(gate)
        else:
            inner = self._activation(inner + self._block(layer, "mlp.b_in"))
        out = self._block(layer, "mlp.W_out")
        return functional.linear(inner, out.T, self._block(layer, "mlp.b_out"))

    def _whole_norm(self, name: str, stream: Tensor) -> Tensor:
        kind, eps = self._sizes.normalization, self._sizes.eps
        gain, bias = self._weights.get(f"{name}.w"), self._weights.get(f"{name}.b")
        width = [self.shape.d_model]
        if kind in ("LN", "LNPre"):
            return functional.layer_norm(stream, width, gain, bias, eps)
        return stream if kind is None else functional.rms_norm(stream, width, gain, eps)

    def _normed(
        self,
        name: str,
        stream: Float[Tensor, "*any d_model"],
        scale_of: Float[Tensor, "*any d_model"] | None = None,
    ) -> Float[Tensor, "*any d_model"]:
        norm = self._norms.get(name)
        return stream if norm is None else norm.normed(stream, scale_of)

    def _hidden_masked(
        self, scores: Float[Tensor, "head batch last pos"], real: Tensor | None
    ) -> Tensor:
        if self.causal:
            later = torch.ones(scores.shape[-1], scores.shape[-1], device=self.device).triu(1)
            return scores.masked_fill(later[-scores.shape[-2] :].bool(), -torch.inf)
        if real is None:
            return scores
        padding = in_copies(~real[None, :, None, :], scores.shape[1])
        return scores.masked_fill(padding, -torch.inf)

    def _block(self, layer: int, name: str) -> Tensor:
        return self._weights[f"blocks.{layer}.{name}"]


def load_compiled(path: Path, device: str, dtype: torch.dtype | None) -> CompiledModel:
    """Read a compiled model.

    Raises:
        ModelError: A file is missing, or is not of the documented format.
    """
    return CompiledModel(path.stem, read_compiled(path, dtype), device)


def _with_all_biases(
    sizes: Sizes, weights: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Return the weights on a device, with zeros for the biases that are missing."""
    like = weights["embed.W_E"]
    zeros = {name: like.new_zeros(shape) for name, shape in sizes.biases().items()}
    return {name: weight.to(device) for name, weight in (zeros | dict(weights)).items()}


def _norms(sizes: Sizes, weights: Mapping[str, Tensor]) -> dict[str, LinearNorm]:
    """Return every norm of a model by the name of its weights."""
    kind, like = sizes.normalization, weights["pos_embed.W_pos"][0]
    if kind is None:
        return {}
    blocks = [
        f"blocks.{layer}.{norm}" for layer in range(sizes.n_layers) for norm in ("ln1", "ln2")
    ]
    return {
        name: LinearNorm(
            centred=kind.startswith("LN"),
            gain=weights.get(f"{name}.w", torch.ones_like(like)),
            bias=weights.get(f"{name}.b", torch.zeros_like(like)),
            eps=sizes.eps,
        )
        for name in [*blocks, "ln_final"]
    }
