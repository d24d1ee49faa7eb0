"""The MLP of a TransformerLens block, as a whole and in steps.

Some families need to be called otherwise than the rest.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.models.readings import AffineMap, Reading, linear_norm, normed_as, reading_of

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

    def __call__(
        self,
        stream: Float[Tensor, "batch pos _"],
        scale_of: Float[Tensor, "batch pos _"] | None = None,
    ) -> Float[Tensor, "batch pos _"]:
        normed = stream if self._norm is None else normed_as(self._norm, stream, scale_of)
        return self._normed_after(self._call(normed).reshape(stream.shape)).to(self._dtype)

    def _normed_after(self, written: Tensor) -> Tensor:
        return written if self._after is None else self._after(written)

    def reading(self) -> Reading | None:
        """Return the steps by which it reads a stream, where they are known."""
        halves = _halves_of(self._block)
        if halves is None or self._norm is None:
            return None
        norm = linear_norm(self._norm, halves.maps[0].weight[:, 0])
        return reading_of(
            norm, halves.maps, lambda inner: self._normed_after(halves.finish(inner)), self
        )


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


class Halves(NamedTuple):
    """An MLP, taken apart after the maps that read its input.

    Attributes:
        maps: Those maps, such as a gate and what it gates.
        finish: Makes what the MLP writes from their outputs, side by side.
    """

    maps: tuple[AffineMap, ...]
    finish: Callable[[Tensor], Tensor]


def _halves_of(block: Any) -> Halves | None:
    """Take the MLP of a block apart.

    Returns:
        None for a mixture of experts, and where the MLP is no module that is given the stream.
    """
    if _is_no_module(block.mlp) or _adds_the_stream(block.mlp):
        return None
    original = block.mlp.original_component
    module = _with_one_pass_gelu(original) or original
    some_stream = block.attn.W_Q.new_ones(1, 1, block.attn.W_Q.shape[1])
    maps: dict[str, AffineMap] = {}
    for name, part in _called_with(some_stream, module):
        if (found := _affine(part, some_stream.dtype)) is None:
            return None
        maps[name] = found
    if not maps:
        return None
    widths = [found.weight.shape[1] for found in maps.values()]

    def finish(products: Tensor) -> Tensor:
        given = dict(zip(maps, products.split(widths, dim=-1), strict=True))
        instead = {name: _Given(values) for name, values in given.items()}
        return _first(_with_parts(module, instead)(products))

    return Halves(tuple(maps.values()), finish)


def _called_with(stream: Tensor, module: Any) -> list[tuple[str, Any]]:
    """Run a module on a stream and return its parts that read just that."""
    found = []
    names = {part: name for name, part in module.named_children()}

    def note(part: Any, args: tuple[Any, ...]) -> None:
        if args and args[0] is stream:
            found.append((names[part], part))

    handles = [part.register_forward_pre_hook(note) for part in names]
    try:
        module(stream)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _affine(part: Any, dtype: torch.dtype) -> AffineMap | None:
    # A second that a name which leads to no model need not wait for.
    from transformers.pytorch_utils import Conv1D

    inner = getattr(part, "original_component", part)
    if not isinstance(inner, Conv1D | torch.nn.Linear) or inner.weight.dtype != dtype:
        return None
    weight = inner.weight if isinstance(inner, Conv1D) else inner.weight.T
    return AffineMap(weight, inner.bias)


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
