"""TransformerLens models: a `TransformerBridge` with raw weights as a `ResidualModel`.

circuitfind keeps the bookkeeping of the residual stream; the model's own modules do the
arithmetic: norms, attention, MLPs, final norm and unembedding. Nothing is read off the bridge's
configuration that its weights or modules can tell, because several of those fields are wrong for
some families. Whether the parts add up to the model is not assumed either: see `self_check.py`.

In models that norm the sum of a block's heads before adding it (Gemma 2), each head writes its
share of the normed sum: its raw output times the scale that the norm applied to the whole sum.
The shares add up to what the model adds, and the scale is recomputed whenever any head changes.

Everything is computed in float32, or in float64 where the weights are; a bridge in half precision
is converted before it gets here (`precision.py`).
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import ModelError, quoted
from circuitfind.graph import Input, SinglePort
from circuitfind.models.attention import (
    AttentionCall,
    AttentionCore,
    DirectAttention,
    ReplayedAttention,
    capture_calls,
    direct_or_replayed,
    with_frozen_norms,
)
from circuitfind.models.base import BaseModel, Embedding, NeuronOutputs, Unembedding
from circuitfind.models.fingerprint import weights_fingerprint
from circuitfind.models.hooks import HookPoints
from circuitfind.models.mlp import Mlp
from circuitfind.models.narrow import narrow
from circuitfind.models.norms import FrozenNorm, LinearNorm, linear_norm, normed_as
from circuitfind.models.readings import AffineMap, Reading, reading_of
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.shape import ModelShape

_EMBEDDING_HOOKS = ("hook_embed", "hook_pos_embed")

_REMEMBERED_CALLS = 8
"""Number of prompt lengths (in a replay, and batch sizes) whose attention calls are cached."""


class TransformerLensModel(BaseModel):
    """A `TransformerBridge`, seen as components that read from and write to one stream."""

    quantisation: str | None = None
    """In which type a GGUF file keeps the weights, which are dequantised."""

    _frozen = False
    """Whether norms pass gradients on as with a constant scale."""

    def __init__(
        self,
        bridge: Any,
        name: str,
        vocabulary: Vocabulary | None = None,
        weights_dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.vocabulary = vocabulary
        self._bridge = bridge
        weights = bridge.blocks[0].attn.W_Q
        self.device: torch.device = weights.device
        self.dtype: torch.dtype = weights.dtype
        self.weights_dtype = weights_dtype or self.dtype
        self.n_positions = int(bridge.cfg.n_ctx)
        self.n_tokens = int(bridge.cfg.d_vocab)
        self.causal = getattr(bridge.cfg, "attention_dir", "causal") == "causal"
        self.shape = _shape(bridge, learned_positions=self._learns_positions())
        affine = _leaves_logits_alone(bridge, self.dtype)
        self._unembedding = _unembedding(bridge)
        self.unembedding = self._unembedding if affine else None
        self.fingerprint = weights_fingerprint(bridge.original_model.state_dict())
        self.hooks = HookPoints(bridge, self.shape, self._with_hooks)
        self._projections = [_projections(block.attn) for block in bridge.blocks]
        has_mlp = self.shape.has_mlp
        narrow([block.mlp for block in bridge.blocks] if has_mlp else [], self.weights_dtype)
        held = [(weight.numel(), weight.nbytes) for weight in bridge.original_model.parameters()]
        self.n_weights, self.weight_bytes = map(sum, zip(*held, strict=True))
        self._mlps = [Mlp(block, self.dtype) for block in bridge.blocks] if has_mlp else []
        self._calls = lru_cache(_REMEMBERED_CALLS)(self._captured_calls)
        self._cores = lru_cache(_REMEMBERED_CALLS * self.shape.n_layers)(self._chosen_core)
        self._readings = lru_cache(maxsize=None)(self._found_reading)
        self._norms = lru_cache(maxsize=None)(self._found_norm)

    def __reduce__(self) -> Any:
        if self.loaded_by is None:
            raise ModelError(
                f"the model {quoted(self.name)} was given in Python and cannot be sent to another "
                "process; save it with its tokenizer (save_pretrained) and load that directory"
            )
        return super().__reduce__()

    def with_frozen_norms(self) -> "TransformerLensModel":
        found: TransformerLensModel = copy.copy(self)
        found._frozen = True
        found._mlps = [mlp.with_frozen_norms() for mlp in self._mlps]
        found._cores = lru_cache(_REMEMBERED_CALLS * self.shape.n_layers)(
            lambda layer, pos: with_frozen_norms(self._cores(layer, pos))
        )
        found._readings = lru_cache(maxsize=None)(found._found_reading)
        found._norms = lru_cache(maxsize=None)(found._found_norm)
        return found

    def _norm(self, bridged: Any) -> Callable[[Tensor], Tensor]:
        """Return the module below the bridge's wrapper: the same without the cost of hooks."""
        module: Callable[[Tensor], Tensor] = bridged.original_component
        return FrozenNorm(module) if self._frozen else module

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Embedding:
        parts = self._embedding_parts(tokens)
        position = parts.get("hook_pos_embed")
        if position is not None:
            position = position.expand_as(parts["hook_embed"])
        return Embedding(parts["hook_embed"], position)

    def _embedding_parts(self, tokens: Int[Tensor, "batch pos"]) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}

        def keep(part: str) -> Callable[..., Tensor]:
            # Closed over, because a hook point's own name differs between modes of the bridge.
            def hook(tensor: Tensor, hook: Any) -> Tensor:
                parts[part] = tensor.detach().to(self.dtype)
                return tensor

            return hook

        names = [name for name in _EMBEDDING_HOOKS if name in self._bridge.hook_dict]
        hooks = [(name, keep(name)) for name in names]
        self._bridge.run_with_hooks(tokens, fwd_hooks=hooks, stop_at_layer=1)
        return parts

    def _learns_positions(self) -> bool:
        """Rotary models have the hook of a position embedding too, but it never fires."""
        tokens = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        with torch.no_grad():
            return "hook_pos_embed" in self._embedding_parts(tokens)

    def project(
        self,
        layer: int,
        port: SinglePort,
        heads: Sequence[int],
        stream: Float[Tensor, "head batch pos d_model"],
        scale_of: Float[Tensor, "head batch pos d_model"] | None = None,
    ) -> Float[Tensor, "head batch pos d_head"]:
        weight, bias = self._projections[layer][port]
        normed = self._normed_once(layer, stream, scale_of).flatten(1, 2)
        projected = _by_head(normed, weight, heads).view(*stream.shape[:3], -1)
        if bias is not None:
            projected += bias[list(heads), None, None]
        return projected.to(self.dtype)

    def _normed_once(
        self,
        layer: int,
        stream: Float[Tensor, "head batch pos d_model"],
        scale_of: Float[Tensor, "head batch pos d_model"] | None,
    ) -> Float[Tensor, "head batch pos d_model"]:
        """Norm what each head's port reads; once where all of them read one and the same."""
        if scale_of is not None or stream.stride(0) or stream.is_leaf and stream.requires_grad:
            return self._normed(layer, stream, scale_of)
        return self._normed(layer, stream[:1]).expand_as(stream)

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        value: Float[Tensor, "head value_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last d_head"]:
        core = self._cores(layer, key.shape[2])
        return core(heads, query, key, value, None if self.causal else real)

    def attention_scores(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last pos"]:
        core = self._cores(layer, key.shape[2])
        if not isinstance(core, DirectAttention):
            return super().attention_scores(layer, heads, query, key, real)
        return core.scores(query, key, None if self.causal else real)

    def output(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        raw, norm = self.raw_output(layer, heads, z), self._norms(layer, "ln1_post")
        return raw if norm is None else raw * (norm.gain * norm.factor(raw.sum(0)))

    def raw_output(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        """Return what each head gives to the norm of their sum, or adds where there is none."""
        weight = self._bridge.blocks[layer].attn.W_O
        return _by_head(z.flatten(1, 2), weight, heads).view(*z.shape[:3], -1)

    def head_norm(
        self, layer: int, total: Float[Tensor, "reader batch pos d_model"]
    ) -> Float[Tensor, "reader batch pos d_model"]:
        """Apply the norm of the heads' sum to some sums of heads."""
        return self._norm(self._bridge.blocks[layer].ln1_post)(total)

    def attention_output(
        self, layer: int, z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "batch pos d_model"]:
        if self.shape.heads_share_norm:
            return super().attention_output(layer, z)
        # One product for all heads, whose weights lie below one another.
        weight, bias = self._bridge.blocks[layer].attn.W_O, self.attention_bias(layer)
        joined = z.permute(1, 2, 0, 3).flatten(2)
        return torch.nn.functional.linear(joined, weight.flatten(0, 1).T, bias)

    def attention_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        bias: Tensor | None = self._bridge.blocks[layer].attn.b_O
        return bias

    def mlp_normed(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._mlps[layer].normed(stream, scale_of)

    def mlp_pre(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_pre"]:
        return self._mlps[layer].pre(stream, scale_of)

    def mlp_post(
        self, layer: int, pre: Float[Tensor, "batch pos d_pre"]
    ) -> Float[Tensor, "batch pos d_mlp"]:
        return self._mlps[layer].post(pre)

    def mlp_output(
        self, layer: int, post: Float[Tensor, "batch pos d_mlp"]
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._mlps[layer].output(post)

    def neurons(self, layer: int) -> NeuronOutputs | None:
        return self._mlps[layer].neurons

    def mlp(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._mlps[layer](stream, scale_of)

    def reading(self, layer: int, port: Input, head: int = 0) -> Reading | None:
        return self._readings(layer, port, head)

    def _found_reading(self, layer: int, port: Input, head: int) -> Reading | None:
        with torch.no_grad():
            if port is None:
                return self._mlps[layer].reading() if self._mlps else None
            if (norm := self._norms(layer, "ln1")) is None:
                return None
            weight, bias = self._projections[layer][port]
            own = AffineMap(weight[head], None if bias is None else bias[head])
            return reading_of(
                norm, [own], lambda stream: self.project(layer, port, [head], stream[None])[0]
            )

    def _found_norm(self, layer: int, name: str) -> LinearNorm | None:
        """Read off one of a block's norms; that before its attention serves all heads."""
        norm = self._bridge.blocks[layer]._modules.get(name)
        if norm is None:
            return None
        like = torch.zeros(self.shape.d_model, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            return linear_norm(self._norm(norm), like)

    def final_norm(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._norm(self._bridge.ln_final)(stream)

    def logits(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        columns: Int[Tensor, " column"] | None = None,
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        normed = normed_as(self._norm(self._bridge.ln_final), stream, scale_of)
        weight, bias = self._unembedding
        if columns is not None:
            weight, bias = weight[columns], None if bias is None else bias[columns]
        logits = torch.nn.functional.linear(normed, weight, bias).to(self.dtype)
        return self._bridge.adapter.apply_output_logits_transform(logits)  # type: ignore[no-any-return]

    def own_logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        return self._with_hooks(tokens, real)

    def own_last_logits(
        self,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"] | None,
        n_positions: int,
    ) -> Float[Tensor, "batch last d_vocab"]:
        only: dict[str, Any] = {"logits_to_keep": n_positions} if self._leaves_logits_out else {}
        return self._with_hooks(tokens, real, **only)[:, -n_positions:]

    @cached_property
    def _leaves_logits_out(self) -> bool:
        """Whether the model can leave out the logits of earlier positions."""
        forward = self._bridge.original_model.forward
        return "logits_to_keep" in inspect.signature(forward).parameters

    def _with_hooks(
        self,
        tokens: Tensor,
        real: Tensor | None,
        hooks: Sequence[tuple[str, Any]] = (),
        **arguments: Any,
    ) -> Tensor:
        if not self.causal and real is not None:
            arguments["attention_mask"] = real.long()
        with torch.no_grad():
            logits: Tensor = self._bridge.run_with_hooks(tokens, fwd_hooks=list(hooks), **arguments)
        return logits.to(self.dtype)

    def _normed(self, layer: int, stream: Tensor, scale_of: Tensor | None = None) -> Tensor:
        """Norm what the attention of a block reads."""
        norm = self._bridge.blocks[layer]._modules.get("ln1")
        return stream if norm is None else normed_as(self._norm(norm), stream, scale_of)

    def _captured_calls(self, batch: int, pos: int) -> tuple[AttentionCall, ...]:
        tokens = torch.zeros(batch, pos, dtype=torch.long, device=self.device)
        with torch.no_grad():
            return capture_calls(self._bridge, tokens, self._bridge)

    def _chosen_core(self, layer: int, pos: int) -> AttentionCore:
        replayed = ReplayedAttention(
            call_for=lambda batch, pos: self._calls(batch, pos)[layer],
            n_heads=self.shape.layers[layer].n_heads,
            n_kv_heads=self.shape.layers[layer].n_kv_heads,
            d_model=self.shape.d_model,
            dtype=self.dtype,
        )
        with torch.no_grad():
            call = self._calls(1, pos)[layer]
            return direct_or_replayed(call, replayed, self.shape.d_head, self.dtype)


def _shape(bridge: Any, *, learned_positions: bool) -> ModelShape:
    # One block tells the sizes of all: TransformerLens refuses models whose layers differ.
    block = bridge.blocks[0]
    n_heads, d_model, d_head = block.attn.W_Q.shape
    post_norm = "ln1_post" in block._modules
    if post_norm and block.attn.b_O is not None:
        raise ModelError(
            "this model adds an attention bias before a norm of the heads' sum, which no head "
            "can be given a share of; it cannot be decomposed into heads"
        )
    return ModelShape(
        n_layers=len(bridge.blocks),
        n_heads=n_heads,
        n_kv_heads=block.attn.W_K.shape[0],
        d_model=d_model,
        d_head=d_head,
        d_vocab=bridge.unembed.original_component.weight.shape[0],
        has_mlp="mlp" in block._modules,
        parallel_mlp=bool(getattr(bridge.cfg, "parallel_attn_mlp", False)),
        heads_share_norm=post_norm,
        learned_positions=learned_positions,
    )


def _projections(attention: Any) -> dict[str, tuple[Tensor, Tensor | None]]:
    return {
        port: (getattr(attention, f"W_{port.upper()}"), getattr(attention, f"b_{port.upper()}"))
        for port in "qkv"
    }


def _unembedding(bridge: Any) -> Unembedding:
    unembed = bridge.unembed.original_component
    bias = unembed.bias
    # TransformerLens gives a model that has none a bias of zeros, and to add it takes time.
    return Unembedding(unembed.weight, bias if bias is not None and bool(bias.any()) else None)


def _leaves_logits_alone(bridge: Any, dtype: torch.dtype) -> bool:
    """Some families scale their logits or cap them softly."""
    probe = torch.linspace(-100, 100, 9, dtype=dtype)
    return torch.equal(bridge.adapter.apply_output_logits_transform(probe.clone()), probe)


def _by_head(
    values: Float[Tensor, "head row inner"],
    weight: Float[Tensor, "any_head inner outer"],
    heads: Sequence[int],
) -> Float[Tensor, "head row outer"]:
    """Multiply by each head's weights.

    Some heads are multiplied one by one: to gather their weights takes longer.
    """
    if list(heads) == list(range(weight.shape[0])):
        return torch.bmm(values, weight)
    products = [each @ weight[head] for each, head in zip(values, heads, strict=True)]
    return products[0][None] if len(products) == 1 else torch.stack(products)
