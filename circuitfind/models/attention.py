"""The attention core of one block: from each head's query, key and value to its mixed values.

Two ways to the same numbers. `ReplayedAttention` runs the model's own attention module with the
projections replaced, which is exact for every family and computes all heads at once.
`DirectAttention` does the arithmetic itself for just the heads that are asked for, from the mask
and the rotary tables that the module was called with. It is used only where it has been compared
with the replay, on the user's own model and at the prompt length in use (`direct_or_replayed`).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.errors import ModelError
from circuitfind.models.copies import in_copies, times
from circuitfind.models.norms import FrozenNorm

Heads = Float[Tensor, "head _ pos d_head"]
Queries = Float[Tensor, "head _ last d_head"]
"""Queries of the last positions, or of all."""

_CACHE_ARGUMENTS = frozenset(
    {"past_key_values", "layer_past", "use_cache", "cache_position", "past_kv_cache_entry"}
)
_STREAM_ARGUMENTS = frozenset({"hidden_states", "query_input", "key_input", "value_input"})
_TOLERANCE = 1e-5
"""Largest distance between both ways, relative to the norm."""

_UNDERSTOOD = _STREAM_ARGUMENTS | {"attention_mask", "position_ids", "position_embeddings"}


@dataclass(frozen=True)
class AttentionCall:
    """Arguments of the model's call of one block's attention: masks, rotary tables, positions.

    Attributes:
        module: The TransformerLens attention bridge.
        args: Positional arguments.
        kwargs: Keyword arguments, without any key/value cache: replaying one would append to it.
        shape: Number of prompts and positions of the call.
    """

    module: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, int]


@runtime_checkable
class AttentionCore(Protocol):
    """Computes the mixed values of some heads; queries may be those of the last positions only."""

    def __call__(
        self,
        heads: Sequence[int],
        query: Queries,
        key: Heads,
        value: Heads,
        real: Bool[Tensor, "batch pos"] | None,
    ) -> Queries: ...


def capture_calls(
    bridge: Any, tokens: Tensor, run: Callable[[Tensor], Any]
) -> tuple[AttentionCall, ...]:
    """Run a forward pass and return how each block called its attention."""
    calls: list[AttentionCall] = []
    shape = (tokens.shape[0], tokens.shape[1])

    def grab(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept = {name: value for name, value in kwargs.items() if name not in _CACHE_ARGUMENTS}
        calls.append(AttentionCall(module, args, kept, shape))

    handles = [
        block.attn.register_forward_pre_hook(grab, with_kwargs=True) for block in bridge.blocks
    ]
    try:
        run(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(calls)


@dataclass(frozen=True)
class ReplayedAttention:
    """The model's own attention module with its projections replaced.

    Attributes:
        call_for: Returns how the module is called for a number of prompts and positions.
        n_heads: Query heads of the block.
        n_kv_heads: Key/value heads of the block.
        d_model: Width of the stream.
        dtype: Type in which the module computes.
    """

    call_for: Callable[[int, int], AttentionCall]
    n_heads: int
    n_kv_heads: int
    d_model: int
    dtype: torch.dtype

    @property
    def has_norms(self) -> bool:
        """Whether the module norms queries or keys."""
        module = self.call_for(1, 1).module.original_component
        return any(getattr(module, name, None) is not None for name in ("q_norm", "k_norm"))

    def __call__(
        self,
        heads: Sequence[int],
        query: Queries,
        key: Heads,
        value: Heads,
        real: Bool[Tensor, "batch pos"] | None,
    ) -> Queries:
        if real is not None:
            raise ModelError(
                "this model's attention is bidirectional and computed by its own module, which "
                "cannot leave out padding; give prompts of one length"
            )
        group = self.n_heads // self.n_kv_heads
        kv_heads = [head // group for head in heads]
        most = max(query.shape[1], key.shape[1], value.shape[1])
        query, key, value = (in_copies(values, most) for values in (query, key, value))
        missing = key.shape[2] - query.shape[2]
        query = torch.nn.functional.pad(query, (0, 0, missing, 0))
        z = self._run(
            self._all_heads(self.n_heads, heads, query),
            self._all_heads(self.n_kv_heads, kv_heads, key),
            self._all_heads(self.n_kv_heads, kv_heads, value),
        )
        return z.permute(2, 0, 1, 3)[list(heads), :, missing:].to(query.dtype)

    def _all_heads(
        self, n: int, heads: Sequence[int], values: Heads
    ) -> Float[Tensor, "batch pos all_heads d_head"]:
        """Fill in zeros for the heads that were not asked for; their results are not used."""
        _, batch, pos, d_head = values.shape
        filled = values.new_zeros(batch, pos, n, d_head, dtype=self.dtype)
        filled[:, :, list(heads)] = values.permute(1, 2, 0, 3).to(self.dtype)
        return filled

    def _run(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, pos = query.shape[:2]
        call = self.call_for(batch, pos)
        stream = query.new_zeros(batch, pos, self.d_model)
        mixed: list[Tensor] = []

        def keep(tensor: Tensor, hook: Any) -> Tensor:
            mixed.append(tensor.clone())
            return tensor

        hooks = [
            (call.module.hook_q, lambda tensor, hook: query),
            (call.module.hook_k, lambda tensor, hook: key),
            (call.module.hook_v, lambda tensor, hook: value),
            (call.module.hook_z, keep),
        ]
        with _hooked(hooks):
            call.module(*_with_stream(call.args, stream), **_with_stream_named(call.kwargs, stream))
        return mixed[0]


class _hooked:  # noqa: N801  (reads as a phrase: `with _hooked(...)`)
    """Holds hooks on TransformerLens hook points for the duration of a block."""

    def __init__(self, hooks: Sequence[tuple[Any, Callable[..., Any]]]) -> None:
        self._hooks = hooks

    def __enter__(self) -> None:
        self._handles = [(point, point.add_hook(hook)) for point, hook in self._hooks]

    def __exit__(self, *_: object) -> None:
        for point, handle in self._handles:
            handle.hook.remove()
            point.fwd_hooks = [kept for kept in point.fwd_hooks if kept is not handle]


def _with_stream(args: tuple[Any, ...], stream: Tensor) -> tuple[Any, ...]:
    def is_stream(value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.ndim == stream.ndim
            and value.shape[-1] == stream.shape[-1]
        )

    return tuple(stream if is_stream(value) else value for value in args)


def _with_stream_named(kwargs: Mapping[str, Any], stream: Tensor) -> dict[str, Any]:
    return {name: stream if name in _STREAM_ARGUMENTS else value for name, value in kwargs.items()}


@dataclass(frozen=True)
class DirectAttention:
    """Softmax attention written out, one row per head.

    Attributes:
        scale: Factor on the scores.
        mask: Added to the scores; minus infinity, or nearly, where a position is not seen.
        rotary: Cosine and sine tables, or None.
        soft_cap: Bound on the scores (Gemma 2), or None.
        query_norm: Norm of each head's query (Qwen 3, Gemma 3), or None.
        key_norm: Norm of each head's key, or None.
    """

    scale: float
    mask: Float[Tensor, "pos pos"]
    rotary: tuple[Float[Tensor, "pos d_rotary"], Float[Tensor, "pos d_rotary"]] | None = None
    soft_cap: float | None = None
    query_norm: Callable[[Tensor], Tensor] | None = None
    key_norm: Callable[[Tensor], Tensor] | None = None

    def __call__(
        self,
        heads: Sequence[int],
        query: Queries,
        key: Heads,
        value: Heads,
        real: Bool[Tensor, "batch pos"] | None,
    ) -> Queries:
        return times(self.scores(query, key, real).softmax(-1), value)

    def scores(
        self, query: Queries, key: Heads, real: Bool[Tensor, "batch pos"] | None
    ) -> Float[Tensor, "head _ last pos"]:
        """Return what the softmax is taken of, minus infinity where a position is not seen."""
        query, key = self._placed(query, self.query_norm), self._placed(key, self.key_norm)
        scores = times(query * self.scale, key.transpose(-1, -2))
        if self.soft_cap is not None:
            scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
        scores = scores + self.mask[-scores.shape[-2] :]
        if real is not None:
            padding = in_copies(~real[None, :, None, :], scores.shape[1])
            scores = scores.masked_fill(padding, -torch.inf)
        return scores

    def _placed(self, values: Heads, norm: Callable[[Tensor], Tensor] | None) -> Heads:
        if norm is not None:
            values = norm(values).to(values.dtype)
        if self.rotary is None:
            return values
        # Queries may be those of the last positions only.
        cos, sin = (table[-values.shape[2] :] for table in self.rotary)
        return _rotated(values, cos, sin)


def _rotated(values: Heads, cos: Tensor, sin: Tensor) -> Heads:
    """Rotate pairs half a width apart (Su et al. 2021, in the layout of GPT-NeoX and Llama)."""
    width = cos.shape[-1]
    turned, rest = values[..., :width], values[..., width:]
    half = width // 2
    swapped = torch.cat((-turned[..., half:], turned[..., :half]), dim=-1)
    return torch.cat((turned * cos + swapped * sin, rest), dim=-1)


def with_frozen_norms(core: AttentionCore) -> AttentionCore:
    """Return attention whose norms of queries and keys pass gradients on as with a constant scale.

    Raises:
        ModelError: It has such norms, and is computed by the model's own module.
    """
    if isinstance(core, DirectAttention):
        query, key = (
            None if norm is None else FrozenNorm(norm) for norm in (core.query_norm, core.key_norm)
        )
        return replace(core, query_norm=query, key_norm=key)
    if isinstance(core, ReplayedAttention) and core.has_norms:
        raise ModelError(
            "this model norms its queries and keys inside an attention module that is run as a "
            "whole, so the rule 'norms' cannot be applied; leave it out"
        )
    return core


def direct_attention(call: AttentionCall, d_head: int, dtype: torch.dtype) -> DirectAttention:
    """Read the arithmetic of an attention module off the way it was called and what it holds.

    A good guess for the common families and no more than that: the caller must compare.
    """
    module = call.module.original_component
    arguments = _named_arguments(module, call)
    unknown = {name for name, value in arguments.items() if isinstance(value, Tensor)} - _UNDERSTOOD
    if unknown:
        raise ValueError(f"the attention module is also given {sorted(unknown)}")
    return DirectAttention(
        scale=_scale(module, d_head),
        mask=_mask(arguments.get("attention_mask"), module, call.shape[1]).to(dtype),
        rotary=_rotary_tables(arguments.get("position_embeddings"), dtype),
        soft_cap=getattr(module, "attn_logit_softcapping", None),
        query_norm=getattr(module, "q_norm", None),
        key_norm=getattr(module, "k_norm", None),
    )


def _named_arguments(module: Any, call: AttentionCall) -> dict[str, Any]:
    names = list(inspect.signature(module.forward).parameters)
    return {**dict(zip(names, call.args, strict=False)), **call.kwargs}


def _scale(module: Any, d_head: int) -> float:
    if hasattr(module, "scaling"):
        return float(module.scaling)
    # TransformerLens' native modules divide by `scale`.
    return 1 / float(getattr(module, "scale", d_head**0.5))


def _mask(mask: Any, module: Any, pos: int) -> Float[Tensor, "pos pos"]:
    device = next(module.parameters()).device
    if isinstance(mask, Tensor) and mask.ndim == 4 and mask.is_floating_point():
        return mask[0, 0].to(device)
    nothing = torch.zeros(pos, pos, device=device)
    if not getattr(module, "causal", True):
        return nothing
    return nothing.masked_fill(torch.ones_like(nothing).triu(1).bool(), -torch.inf)


def _rotary_tables(tables: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    if tables is None:
        return None
    cos, sin = tables
    return cos[0].to(dtype), sin[0].to(dtype)


def direct_or_replayed(
    call: AttentionCall, replayed: ReplayedAttention, d_head: int, dtype: torch.dtype
) -> AttentionCore:
    """Return direct attention if it reproduces the module at this length, otherwise the replay.

    The two are compared on random queries, keys and values, large enough that masks, rotary
    tables and soft caps show.

    Raises:
        ModelError: The module's heads depend on one another before attention (a norm over the
            queries of all heads), so that no head can be run alone.
    """
    probe = _Probe(call, replayed, d_head, dtype)
    expected = probe.run(replayed)
    alone = probe.run(replayed, heads=[0])
    if not _close(alone, expected[:1]):
        raise ModelError(
            "this model's attention heads depend on one another before they attend, by a norm "
            "over the queries of all heads; it cannot be decomposed into heads"
        )
    try:
        direct = direct_attention(call, d_head, dtype)
        found = probe.run(direct)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return replayed
    return direct if _close(found, expected) else replayed


class _Probe:
    """Random queries, keys and values for the heads of one block."""

    def __init__(
        self, call: AttentionCall, replayed: ReplayedAttention, d_head: int, dtype: torch.dtype
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (replayed.n_heads, *call.shape, d_head)
        device = next(call.module.original_component.parameters()).device
        self._query = 3 * torch.randn(shape, generator=generator, dtype=dtype).to(device)
        self._key = _shared_by_group(self._query.roll(1, dims=-1), replayed)
        self._value = _shared_by_group(self._query.roll(2, dims=-2), replayed)

    def run(self, core: AttentionCore, heads: Sequence[int] | None = None) -> Heads:
        heads = range(self._query.shape[0]) if heads is None else heads
        rows = list(heads)
        return core(heads, self._query[rows], self._key[rows], self._value[rows], None)


def _close(found: Heads, expected: Heads) -> bool:
    """Compare root mean squares: a few rounded entries are no error, a missing term is one."""
    return bool((found - expected).norm() <= _TOLERANCE * expected.norm())


def _shared_by_group(values: Heads, replayed: ReplayedAttention) -> Heads:
    group = replayed.n_heads // replayed.n_kv_heads
    first = torch.arange(replayed.n_heads, device=values.device) // group * group
    return values[first]
