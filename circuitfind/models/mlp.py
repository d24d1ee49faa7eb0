"""The MLP of a TransformerLens block, as a whole and in steps: read, activate, write.

Some families need to be called otherwise than the rest.
"""

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.models.base import NeuronOutputs
from circuitfind.models.narrow import kept
from circuitfind.models.norms import FrozenNorm, linear_norm, normed_as
from circuitfind.models.readings import AffineMap, Reading, does_the_same, reading_of

_WRITTEN_OUT_GELU = "NewGELUActivation"
"""The tanh form of GELU (Hendrycks & Gimpel 2016), eight passes over the hidden layer."""


class Mlp:
    """The MLP of a block with its norms: from the residual stream to the MLP's output.

    Args:
        block: The block of a bridge.
        dtype: Type of the streams and of the weights.
    """

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self._block, self._dtype = block, dtype
        parts = block._modules
        norm = parts.get("ln2" if "ln2" in parts or "ln2_post" in parts else "ln1")
        # The module below the bridge's wrapper: the same numbers without the cost of hooks.
        self._norm = None if norm is None else norm.original_component
        self._after = parts.get("ln2_post")
        self._call = _call_of(block)

    def with_frozen_norms(self) -> "Mlp":
        """Return the same MLP, whose norms pass gradients on as with a constant scale."""
        found = Mlp(self._block, self._dtype)
        found._norm, found._after = (
            None if norm is None else FrozenNorm(norm) for norm in (self._norm, self._after)
        )
        return found

    def __call__(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        return self._normed_after(self._written(self.normed(stream, scale_of)))

    def normed(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what the MLP reads of a stream: its norm."""
        return stream if self._norm is None else normed_as(self._norm, stream, scale_of)

    def pre(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_pre"]:
        """Return the pre-activations; the normed stream where the parts are not known."""
        normed = self.normed(stream, scale_of)
        return normed if self._parts is None else self._parts.pre(normed)

    def post(self, pre: Float[Tensor, "batch pos d_pre"]) -> Float[Tensor, "batch pos d_mlp"]:
        """Return the neurons' activations; all that is written where the parts are not known."""
        return self._written(pre) if self._parts is None else self._parts.post(pre)

    def output(self, post: Float[Tensor, "batch pos d_mlp"]) -> Float[Tensor, "batch pos d_model"]:
        """Return what is added to the stream."""
        return self._normed_after(post if self._parts is None else self._parts.out(post))

    @cached_property
    def neurons(self) -> NeuronOutputs | None:
        """How the neurons write, where the parts are known."""
        if self._parts is None:
            return None
        after = None if self._after is None else linear_norm(self._after, self._like)
        return NeuronOutputs(self._parts.out, after)

    def reading(self) -> Reading | None:
        """Return how the pre-activations are read, where that is known."""
        if self._parts is None or self._norm is None:
            return None
        norm = linear_norm(self._norm, self._like)
        return reading_of(norm, self._parts.maps, self.pre)

    @cached_property
    def _parts(self) -> "Parts | None":
        """Its parts, if together they do what it does."""
        with torch.no_grad():
            if (parts := _parts_of(self._block)) is None:
                return None
            return parts if does_the_same(parts.whole, self._written, self._like) else None

    @property
    def _like(self) -> Float[Tensor, " d_model"]:
        """A vector of the streams' width, type and device."""
        weight = self._block.attn.W_Q
        return torch.zeros(weight.shape[1], dtype=self._dtype, device=weight.device)

    def _written(self, normed: Tensor) -> Tensor:
        return self._call(normed).reshape(normed.shape)

    def _normed_after(self, written: Tensor) -> Tensor:
        return (written if self._after is None else self._after(written)).to(self._dtype)


def _call_of(block: Any) -> Callable[[Tensor], Tensor]:
    """Return a function from the normed stream to what the MLP writes."""
    mlp = block.mlp
    if _is_no_module(mlp):
        activation, first = block.original_component.activation_fn, getattr(mlp, "in")
        return lambda stream: mlp.out(activation(first(stream)))
    if _adds_the_stream(mlp):
        return lambda stream: mlp(stream, torch.zeros_like(stream))
    module = _with_one_pass_gelu(mlp.original_component)
    return lambda stream: _first((module or mlp)(stream))


def _is_no_module(mlp: Any) -> bool:
    """OPT: the two linear maps sit on the layer itself, so there is no module to call."""
    return getattr(mlp, "name", "") is None


def _adds_the_stream(mlp: Any) -> bool:
    """Bloom's MLP adds the residual stream itself."""
    return type(mlp).__name__ == "BloomMLPBridge"


class Parts(NamedTuple):
    """An MLP in three steps.

    Attributes:
        maps: The maps that read the normed stream, such as a gate and what it gates.
        post: From their outputs, side by side, to the activations of the neurons.
        out: The map that writes.
    """

    maps: tuple[AffineMap, ...]
    post: Callable[[Tensor], Tensor]
    out: AffineMap

    def pre(self, normed: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_pre"]:
        """Return the pre-activations of a normed stream."""
        outputs = [each(normed) for each in self.maps]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def whole(self, normed: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """Return what is written for a normed stream."""
        return self.out(self.post(self.pre(normed)))


def _parts_of(block: Any) -> Parts | None:
    """Take the MLP of a block apart.

    Returns:
        None for a mixture of experts, and where the MLP is no module that is given the stream.
    """
    if _is_no_module(block.mlp) or _adds_the_stream(block.mlp):
        return None
    original = block.mlp.original_component
    module = _with_one_pass_gelu(original) or original
    some_stream = block.attn.W_Q.new_ones(1, 1, block.attn.W_Q.shape[1])
    calls, written = _calls_in(module, some_stream)
    reads = [call for call in calls if call.given is some_stream]
    # Dropout, which does nothing here, may follow.
    writes = [call for call in calls if torch.equal(call.returned, written)]
    maps = [_affine(call.part, some_stream.dtype) for call in reads]
    known = tuple(found for found in maps if found is not None)
    out = _affine(writes[0].part, some_stream.dtype) if writes else None
    if not known or len(known) < len(maps) or out is None:
        return None
    names = [call.name for call in reads]
    widths = [found.weight.shape[1] for found in known]

    def post(pre: Tensor) -> Tensor:
        given = zip(names, pre.split(widths, dim=-1), strict=True)
        instead: dict[str, Any] = {name: _Given(values) for name, values in given}
        return _first(_with_parts(module, instead | {writes[0].name: torch.nn.Identity()})(pre))

    return Parts(known, post, out)


class _Call(NamedTuple):
    """A call of one of a module's own parts."""

    name: str
    part: Any
    given: Tensor
    returned: Tensor


def _calls_in(module: Any, stream: Tensor) -> tuple[list[_Call], Tensor]:
    """Run a module on a stream; return how it called its parts, and what it returned."""
    calls: list[_Call] = []
    names = {part: name for name, part in module.named_children()}

    def note(part: Any, args: tuple[Any, ...], returned: Any) -> None:
        if args and isinstance(returned, Tensor):
            calls.append(_Call(names[part], part, args[0], returned))

    handles = [part.register_forward_hook(note) for part in names]
    try:
        written = _first(module(stream))
    finally:
        for handle in handles:
            handle.remove()
    return calls, written


def _affine(part: Any, dtype: torch.dtype) -> AffineMap | None:
    # A second that a name which leads to no model need not wait for.
    from transformers.pytorch_utils import Conv1D

    inner = getattr(part, "original_component", part)
    if not isinstance(inner, Conv1D | torch.nn.Linear) or inner.weight.dtype != dtype:
        return None
    weight = kept(inner)
    return AffineMap(weight if isinstance(inner, Conv1D) else weight.T, inner.bias)


class _Given(torch.nn.Module):
    """Stands for a map whose outputs are known; a module, as whoever counts operations expects."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, _: Tensor) -> Tensor:
        return self._outputs


def _with_one_pass_gelu(module: Any) -> Any | None:
    """Return a copy that shares the weights and computes the same GELU in one pass.

    The model itself stays untouched. None where there is nothing to gain.
    """
    names = [
        name for name, part in module.named_children() if type(part).__name__ == _WRITTEN_OUT_GELU
    ]
    if not names:
        return None
    return _with_parts(module, dict.fromkeys(names, torch.nn.GELU(approximate="tanh")))


def _with_parts(module: Any, parts: Mapping[str, Callable[[Tensor], Tensor]]) -> Any:
    """Return a copy of a module with some of its parts replaced; it shares the weights."""
    changed = copy.copy(module)
    changed._modules = {**module._modules, **parts}
    return changed


def _first(written: Tensor | tuple[Tensor, ...]) -> Tensor:
    return written[0] if isinstance(written, tuple) else written
