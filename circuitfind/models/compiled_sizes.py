"""The sizes and settings of a compiled model: the checked content of its JSON.

Everything that changes what the model computes is read here or refused here. Names that
TransformerLens' configurations use for the same settings are understood as well.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from circuitfind.errors import quoted
from circuitfind.limits import Limit
from circuitfind.shape import ModelShape

ACTIVATIONS = ("relu", "gelu", "gelu_new", "silu", "solu")
ATTENTIONS = ("bidirectional", "causal")
NORMALIZATIONS = ("LN", "RMS", "LNPre", "RMSPre")

_SIZE, _WIDTH = Limit(1, 10_000_000), Limit(0, 10_000_000)
_SCALE = Limit(0, 1e30, whole=False, excluded=True)
_EPS = Limit(0, 1, whole=False)

_THEIR_NAMES = {
    "act_fn": "activation",
    "attention_dir": "attention",
    "attn_scale": "attention_scale",
    "normalization_type": "normalization",
}
"""Names of TransformerLens' configurations, and ours."""

_UNSUPPORTED = (
    "attn_scores_soft_cap", "attn_types", "final_rms", "n_key_value_heads", "num_experts",
    "output_logits_soft_cap", "parallel_attn_mlp", "per_layer_head_dim",
    "per_layer_num_key_value_heads", "positional_embedding_type", "post_embedding_ln",
    "rmsnorm_uses_offset", "scale_attn_by_inverse_layer_idx", "scale_embedding",
    "use_local_attn", "use_normalization_before_and_after", "use_qk_norm", "window_size",
)  # fmt: skip
"""Settings of TransformerLens that change what a model computes and that compiled models lack."""

_NEUTRAL = (None, False, -1, "standard")
"""Values with which such a setting does nothing."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a compiled model, read off its weights.

    Attributes:
        n_layers: Number of blocks.
        n_heads: Heads of a block: one number, or one for each block.
        d_model: Width of the residual stream.
        d_head: Width of one head.
        d_mlp: Hidden width of the MLPs, or one for each block; 0 for none.
        n_ctx: How many positions the model reads.
        d_vocab: How many tokens it reads.
        d_vocab_out: How many numbers it gives at each position.
        activation: One of `ACTIVATIONS`.
        gated_mlp: Whether MLPs multiply their hidden layer by an activated gate.
        parallel_mlp: Whether MLPs read the same stream as the attention, or this for each block.
        normalization: One of `NORMALIZATIONS`, or None.
        eps: What norms add to the variance or mean square.
        attention: One of `ATTENTIONS`.
        attention_scale: Attention scores are divided by it.
        tokens: The number of each input symbol; numbers themselves if the JSON names none.
        output_labels: The name of each output.
    """

    n_layers: int
    n_heads: int | tuple[int, ...]
    d_model: int
    d_head: int
    d_mlp: int | tuple[int, ...]
    n_ctx: int
    d_vocab: int
    d_vocab_out: int
    activation: str
    gated_mlp: bool
    parallel_mlp: bool | tuple[bool, ...]
    normalization: str | None
    eps: float
    attention: str
    attention_scale: float
    tokens: Mapping[str, int]
    output_labels: Sequence[str]

    @property
    def shape(self) -> ModelShape:
        """The sizes that fix the graph."""
        return ModelShape(
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            d_model=self.d_model,
            d_head=self.d_head,
            d_vocab=self.d_vocab_out,
            has_mlp=tuple(d_mlp > 0 for d_mlp in self.d_mlp)
            if isinstance(self.d_mlp, tuple)
            else self.d_mlp > 0,
            parallel_mlp=self.parallel_mlp,
            learned_positions=True,
        )

    def settings(self) -> dict[str, Any]:
        """Return what a JSON says of the model besides the names of tokens and outputs."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("tokens", "output_labels")
        }

    def required(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that must be there."""
        d_model, d_head = self.d_model, self.d_head
        whole: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, d_model),
            "pos_embed.W_pos": (self.n_ctx, d_model),
            "unembed.W_U": (d_model, self.d_vocab_out),
        }
        if self._norms_have_gains:
            whole["ln_final.w"] = (d_model,)
        for layer in range(self.n_layers):
            heads, d_mlp, block = self.heads_of(layer), self.d_mlp_of(layer), f"blocks.{layer}"
            whole |= {f"{block}.attn.W_{port}": (heads, d_model, d_head) for port in "QKV"}
            whole[f"{block}.attn.W_O"] = (heads, d_head, d_model)
            if d_mlp:
                names = ("W_in", "W_gate") if self.gated_mlp else ("W_in",)
                whole |= {f"{block}.mlp.{name}": (d_model, d_mlp) for name in names}
                whole[f"{block}.mlp.W_out"] = (d_mlp, d_model)
            whole |= {f"{block}.{norm}.w": (d_model,) for norm in self._norms_of(layer)}
        return whole

    def biases(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that may be left out and are zero then."""
        whole: dict[str, tuple[int, ...]] = {"unembed.b_U": (self.d_vocab_out,)}
        with_bias = self.normalization == "LN"
        if with_bias:
            whole["ln_final.b"] = (self.d_model,)
        for layer in range(self.n_layers):
            heads, d_mlp, block = self.heads_of(layer), self.d_mlp_of(layer), f"blocks.{layer}"
            whole |= {f"{block}.attn.b_{port}": (heads, self.d_head) for port in "QKV"}
            whole[f"{block}.attn.b_O"] = (self.d_model,)
            if d_mlp:
                whole[f"{block}.mlp.b_out"] = (self.d_model,)
            if d_mlp and not self.gated_mlp:
                whole[f"{block}.mlp.b_in"] = (d_mlp,)
            if with_bias:
                whole |= {f"{block}.{norm}.b": (self.d_model,) for norm in self._norms_of(layer)}
        return whole

    @property
    def _norms_have_gains(self) -> bool:
        return self.normalization in ("LN", "RMS")

    def heads_of(self, layer: int) -> int:
        """Return how many heads a block has."""
        return self.n_heads[layer] if isinstance(self.n_heads, tuple) else self.n_heads

    def d_mlp_of(self, layer: int) -> int:
        """Return the hidden width of a block's MLP; 0 if it has none."""
        return self.d_mlp[layer] if isinstance(self.d_mlp, tuple) else self.d_mlp

    def _norms_of(self, layer: int) -> tuple[str, ...]:
        if not self._norms_have_gains:
            return ()
        return ("ln1", "ln2") if self.d_mlp_of(layer) else ("ln1",)


def read_sizes(content: Any) -> Sizes:
    """Check what a JSON says and return it.

    Args:
        content: A JSON value.

    Raises:
        ValueError: A setting is missing, impossible, or of a kind that compiled models lack; the
            message names it and what is possible.
    """
    if not isinstance(content, Mapping):
        raise ValueError("its JSON is not an object of sizes")
    given = in_our_names(content)
    _refuse_unsupported(given)
    without_mlp = _flag(given, "attn_only")
    d_vocab = _number(given, "d_vocab", _SIZE)
    sizes = {
        name: _number(given, name, _SIZE) for name in ("n_layers", "d_model", "d_head", "n_ctx")
    }
    n_layers = sizes["n_layers"]
    d_vocab_out = _number({"d_vocab_out": d_vocab, **given}, "d_vocab_out", _SIZE)
    normalization = given.get("normalization")
    return Sizes(
        **sizes,
        n_heads=_by_layer(given, "n_heads", n_layers, partial(_number, limit=_SIZE)),
        d_mlp=0
        if without_mlp
        else _by_layer(given, "d_mlp", n_layers, partial(_number, limit=_WIDTH)),
        d_vocab=d_vocab,
        d_vocab_out=d_vocab_out,
        activation=_choice(given, "activation", ACTIVATIONS),
        gated_mlp=_flag(given, "gated_mlp"),
        parallel_mlp=_by_layer(given, "parallel_mlp", n_layers, _flag),
        normalization=(
            None if normalization is None else _choice(given, "normalization", NORMALIZATIONS)
        ),
        eps=float(_number({"eps": 1e-5, **given}, "eps", _EPS)),
        attention=_choice(given, "attention", ATTENTIONS),
        attention_scale=float(_number(given, "attention_scale", _SCALE)),
        tokens=_tokens(given.get("tokens"), d_vocab),
        output_labels=_labels(given.get("output_labels"), d_vocab_out),
    )


def in_our_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under our names where they have those of TransformerLens' configurations.

    Raises:
        ValueError: A setting is given under both names, with two values.
    """
    given = dict(content)
    for theirs, ours in _THEIR_NAMES.items():
        if theirs in given:
            value = given.pop(theirs)
            if ours in given and given[ours] != value:
                raise ValueError(f"it gives {ours} and, under the name {theirs}, another value")
            given[ours] = value
    if given.get("d_vocab_out") == -1:
        given["d_vocab_out"] = given.get("d_vocab")
    if given.get("use_attn_scale") is False:
        given["attention_scale"] = 1.0
    elif given.get("attention_scale") == -1 and _SIZE.holds(given.get("d_head")):
        given["attention_scale"] = math.sqrt(given["d_head"])
    return given


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        value = given.get(name)
        shared_out = name == "n_key_value_heads" and value == given.get("n_heads")
        if value not in _NEUTRAL and not shared_out:
            raise ValueError(
                f"{name} is {quoted(value)}, and compiled models have no such part; "
                "load the model as a Hugging Face model or a TransformerBridge"
            )


def _by_layer(
    given: Mapping[str, Any],
    name: str,
    n_layers: int,
    read: Callable[[Mapping[str, Any], str], Any],
) -> Any:
    """Return a setting that is given once for all blocks or as a list with a value for each."""
    values = given.get(name)
    if not isinstance(values, list | tuple):
        return read(given, name)
    if len(values) != n_layers:
        raise ValueError(
            f"{name} has {len(values)} values and n_layers is {n_layers:,}; give one value, or one "
            "for each block"
        )
    checked = tuple(read({name: value}, name) for value in values)
    return checked[0] if len(set(checked)) == 1 else checked


def _number(given: Mapping[str, Any], name: str, limit: Limit) -> Any:
    if name not in given:
        raise ValueError(f"its JSON lacks {name}, which must be {limit}")
    if not limit.holds(given[name]):
        raise ValueError(f"{name} must be {limit}, not {quoted(given[name])}")
    return given[name]


def _choice(given: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    value = given.get(name)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {quoted(value)}")
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {quoted(value)}")
    return value


def _tokens(tokens: Any, d_vocab: int) -> Mapping[str, int]:
    if tokens is None:
        return {str(number): number for number in range(d_vocab)}
    if not isinstance(tokens, Mapping):
        raise ValueError(f"tokens must be an object from symbols to numbers, not {quoted(tokens)}")
    names: dict[int, str] = {}
    for name, number in tokens.items():
        if type(number) is not int or not 0 <= number < d_vocab:
            raise ValueError(
                f"tokens holds {quoted({name: number})}, and numbers must be whole and from 0 to "
                f"{d_vocab - 1:,}"
            )
        if number in names:
            raise ValueError(
                f"tokens gives the same number to two symbols, {quoted((names[number], name))}"
            )
        names[number] = name
    return dict(tokens)


def _labels(labels: Any, d_vocab_out: int) -> Sequence[str]:
    if labels is None:
        return ()
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"output_labels must be a list of texts, not {quoted(labels)}")
    if len(labels) != d_vocab_out:
        raise ValueError(f"it has {len(labels)} output_labels for {d_vocab_out:,} outputs")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"it has the output label {quoted(twice)} twice")
    return tuple(labels)
