"""Compiled models: programs turned into transformer weights, whose true circuits are known.

A model is two files, `NAME.json` and `NAME.safetensors` beside it. The weights have
TransformerLens' names: `embed.W_E`, `pos_embed.W_pos`, `blocks.L.attn.W_Q` ... `b_O`,
`blocks.L.mlp.W_in` ... `b_out`, `unembed.W_U`. The JSON holds `n_layers`, `n_heads`, `d_model`,
`d_head`, `d_mlp`, `n_ctx`, `d_vocab`, `d_vocab_out`, `activation` (`relu` or `gelu`), `attention`
(`bidirectional` or `causal`), `attention_scale` (scores are divided by it), and `tokens` (symbol
to number; `BOS` starts every input and `compiler_pad` is never used). Such models have no norms
and say something at every position. Nothing is unpickled and no code is run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor

from circuitfind.errors import GraphError, ModelError
from circuitfind.files import read_text
from circuitfind.graph import ModelShape
from circuitfind.models.base import Embedding, SinglePort, Unembedding
from circuitfind.models.copies import in_copies, times
from circuitfind.models.fingerprint import weights_fingerprint
from circuitfind.models.precision import computed_in, rounded
from circuitfind.models.vocabulary import Reading, Vocabulary
from circuitfind.stored import parse_json, read_tensors

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
}

ATTENTIONS = ("bidirectional", "causal")

_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, GraphError, SafetensorError
)  # fmt: skip
"""What wrong files raise while they are read."""

_NOT_INPUTS = ("BOS", "compiler_pad")


@dataclass(frozen=True)
class SymbolVocabulary(Vocabulary):
    """The symbols of a compiled program instead of a tokenizer's words.

    Attributes:
        symbols: The number of each symbol that can be an input.
        n_positions: How many positions the program reads, the first one included.
    """

    symbols: Mapping[str, int] = field(default_factory=dict)
    n_positions: int = 1

    def encode(self, text: str) -> list[int]:
        """Return the numbers of symbols separated by spaces, after the one that starts inputs."""
        tokens, unknown = self.read(text)
        if unknown:
            raise ModelError(
                f"the program knows no symbol {unknown[0]!r}; it knows {', '.join(self.symbols)}"
            )
        return tokens

    def read(self, text: str) -> Reading:
        """Return the numbers of the symbols that the program knows, and those that it does not."""
        symbols = text.split()
        start = [] if self.bos is None else [self.bos]
        if start and symbols[:1] == ["BOS"]:
            del symbols[0]
        known = [self.symbols[symbol] for symbol in symbols if symbol in self.symbols]
        return Reading(
            [*start, *known], [symbol for symbol in symbols if symbol not in self.symbols]
        )

    def following(self, text: str, answer: str, tokens: Sequence[int] | None = None) -> list[int]:
        """Return the number of a symbol, or nothing if there is no such symbol."""
        number = self.word(answer.strip())
        return [] if number is None else [number]

    def shown(self, token: int) -> str:
        """Return a symbol, and the number of a token that is none."""
        known = token == self.bos or token in self.symbols.values()
        return self.decode([token]) if known else str(token)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the symbols of some numbers."""
        names = {number: symbol for symbol, number in self.symbols.items()}
        return " ".join(names.get(int(token), "BOS") for token in tokens)

    def word(self, word: str) -> int | None:
        """Return the number of a symbol, or None if there is no such symbol."""
        return self.symbols.get(word)


class CompiledModel:
    """A compiled program as a `ResidualModel`."""

    def __init__(
        self, name: str, sizes: Mapping[str, Any], weights: Mapping[str, Tensor], device: str
    ) -> None:
        self.name = name
        self.sizes = sizes
        self.device = torch.device(device)
        self._weights = {key: value.to(self.device) for key, value in weights.items()}
        self.dtype: torch.dtype = self._weights["embed.W_E"].dtype
        self.weights_dtype = self.dtype
        self.causal = sizes["attention"] == "causal"
        self.n_tokens = int(sizes["d_vocab"])
        self.n_positions = int(sizes["n_ctx"])
        self.fingerprint = weights_fingerprint(self._weights)
        self.vocabulary: Vocabulary | None = _vocabulary(sizes)
        self.shape = _shape(sizes)
        self.unembedding: Unembedding | None = Unembedding(self._weights["unembed.W_U"].T, None)
        self._activation = ACTIVATIONS[sizes["activation"]]

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
    ) -> Float[Tensor, "head batch pos d_head"]:
        weight = self._block(layer, f"attn.W_{port.upper()}")[list(heads)]
        bias = self._block(layer, f"attn.b_{port.upper()}")[list(heads)]
        return torch.einsum("hbpd,hde->hbpe", stream, weight) + bias[:, None, None, :]

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        value: Float[Tensor, "head value_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last d_head"]:
        scores = times(query, key.transpose(-1, -2)) / self.sizes["attention_scale"]
        return times(self._hidden_masked(scores, real).softmax(-1), value)

    def output(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        return torch.einsum("hbpe,hed->hbpd", z, self._block(layer, "attn.W_O")[list(heads)])

    def attention_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        return self._block(layer, "attn.b_O")

    def mlp(
        self, layer: int, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        inner = stream @ self._block(layer, "mlp.W_in") + self._block(layer, "mlp.b_in")
        return self._activation(inner) @ self._block(layer, "mlp.W_out") + self._block(
            layer, "mlp.b_out"
        )

    def reading(self, layer: int, port: SinglePort | None, head: int = 0) -> None:
        """Return None: these models have no norms, and are small."""

    def final_norm(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        return stream

    def logits(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        columns: Int[Tensor, " column"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        weight = self._weights["unembed.W_U"]
        return stream @ (weight if columns is None else weight[:, columns])

    def own_logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Run the program with whole layers at a time, apart from the functions above."""
        stream = self.embed(tokens).joint
        for layer in range(self.shape.n_layers):
            q, k, v = (
                torch.einsum("bpd,hde->bhpe", stream, self._block(layer, f"attn.W_{port}"))
                + self._block(layer, f"attn.b_{port}")[None, :, None]
                for port in "QKV"
            )
            scores = torch.einsum("bhqe,bhke->hbqk", q, k) / self.sizes["attention_scale"]
            pattern = self._hidden_masked(scores, real).softmax(-1)
            mixed = torch.einsum("hbqk,bhke->bhqe", pattern, v)
            heads = torch.einsum("bhqe,hed->bqd", mixed, self._block(layer, "attn.W_O"))
            stream = stream + heads + self._block(layer, "attn.b_O")
            if self.shape.has_mlp:
                stream = stream + self.mlp(layer, stream)
        return self.logits(stream)

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
    weights_path = path.with_suffix(".safetensors")
    if not weights_path.is_file():
        raise ModelError(f"{path} describes a compiled model, but {weights_path.name} is missing")
    try:
        sizes = parse_json(read_text(path))
        weights = read_tensors(weights_path)
        stored = dtype or weights["embed.W_E"].dtype
        computed = computed_in(stored)
        weights = {name: rounded(weight, dtype, computed) for name, weight in weights.items()}
        _require_sizes(sizes, weights)
        model = CompiledModel(path.stem, sizes, weights, device)
        model.weights_dtype = stored
        return model
    except _UNREADABLE as error:
        raise ModelError(
            f"{path} is not a compiled model: {type(error).__name__}: {error}; "
            "docs/files.md describes the format"
        ) from None


def _require_sizes(sizes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse a description that its weights do not fit, with the first thing that is wrong."""
    if sizes.get("normalization") is not None:
        raise ValueError("compiled models have no norms and this one says it has")
    if sizes["attention"] not in ATTENTIONS:
        raise ValueError(f"attention is {sizes['attention']!r}, not one of {', '.join(ATTENTIONS)}")
    if not sizes["attention_scale"] > 0:
        raise ValueError(f"scores cannot be divided by {sizes['attention_scale']}")
    outside = [name for name, n in sizes["tokens"].items() if not 0 <= n < sizes["d_vocab"]]
    if outside:
        raise ValueError(f"the token {outside[0]!r} lies outside a vocabulary of d_vocab")
    for name, expected in expected_shapes(sizes).items():
        if tuple(weights[name].shape) != expected:
            found = tuple(weights[name].shape)
            raise ValueError(f"{name} has shape {found} where the sizes ask for {expected}")


def expected_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a compiled model of some sizes."""
    n_heads, d_model, d_head = sizes["n_heads"], sizes["d_model"], sizes["d_head"]
    shapes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (sizes["d_vocab"], d_model),
        "pos_embed.W_pos": (sizes["n_ctx"], d_model),
        "unembed.W_U": (d_model, sizes["d_vocab_out"]),
    }
    block: dict[str, tuple[int, ...]] = {
        **{f"attn.W_{port}": (n_heads, d_model, d_head) for port in "QKV"},
        **{f"attn.b_{port}": (n_heads, d_head) for port in "QKV"},
        "attn.W_O": (n_heads, d_head, d_model),
        "attn.b_O": (d_model,),
    }
    if d_mlp := sizes["d_mlp"]:
        block |= {"mlp.W_in": (d_model, d_mlp), "mlp.b_in": (d_mlp,)}
        block |= {"mlp.W_out": (d_mlp, d_model), "mlp.b_out": (d_model,)}
    for layer in range(sizes["n_layers"]):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _shape(sizes: Mapping[str, Any]) -> ModelShape:
    return ModelShape(
        n_layers=sizes["n_layers"],
        n_heads=sizes["n_heads"],
        n_kv_heads=sizes["n_heads"],
        d_model=sizes["d_model"],
        d_head=sizes["d_head"],
        d_vocab=sizes["d_vocab_out"],
        has_mlp=bool(sizes["d_mlp"]),
        learned_positions=True,
    )


def _vocabulary(sizes: Mapping[str, Any]) -> SymbolVocabulary:
    tokens = sizes["tokens"]
    symbols = {name: number for name, number in tokens.items() if name not in _NOT_INPUTS}
    return SymbolVocabulary(None, tokens.get("BOS"), symbols, int(sizes["n_ctx"]))
