"""Activations of a TransformerLens model by name, and runs in which some of them are changed.

A name is that of a hook point (`blocks.3.attn.hook_z`, `hook_embed`), such a name without its block
(`mlp.hook_pre`, `ln1.hook_scale`), which then stands for the activation of every block, or what
TransformerLens abbreviates it to (`post`, `attn_scores`, `embed`).

Which axes an activation has, and whether the model goes on from what a hook returns, cannot be told
from its name and differs between families. So the first time one is asked for it is looked at in
a run, and changed in another, whose logits must differ.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import MethodError, quoted
from circuitfind.shape import ModelShape

Change = Callable[[Tensor], Tensor]
"""From an activation to what the run goes on with."""

Forward = Callable[..., Tensor]
"""From tokens, `real` and the hooks of a run to its logits."""

_STREAM_IN_BETWEEN = "hook_resid_mid"
_INNER = ("hook_in", "hook_out")


class Activation(NamedTuple):
    """Where an activation is found.

    Attributes:
        points: The hook point of every block, or the only one.
        by_layer: Whether there is one in every block.
        head_axis: The axis of heads, 1 or 2, the other one being that of positions; None where
            there are none, and positions are axis 1.
        n_heads: How many of them.
    """

    points: tuple[str, ...]
    by_layer: bool
    head_axis: int | None
    n_heads: int


class HookPoints:
    """The hook points of a bridge.

    Args:
        bridge: The model.
        shape: Its sizes.
        forward: Runs it with hooks.
    """

    def __init__(self, bridge: Any, shape: ModelShape, forward: Forward) -> None:
        self._bridge, self._shape, self._forward = bridge, shape, forward
        self.find = lru_cache(maxsize=None)(self._found)

    @property
    def names(self) -> list[str]:
        """The names of the usual activations, without their blocks."""
        short = (_without_block(name) for name in self._bridge.hook_dict)
        usual = (name for name in short if name.rpartition(".")[2] not in _INNER)
        return list(dict.fromkeys(usual))

    def run(
        self,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"] | None,
        changes: Mapping[str, Change],
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the logits of a run in which the activations at some hook points are changed."""
        hooks = [(point, _hook(point, change)) for point, change in changes.items()]
        with warnings.catch_warnings():
            # TransformerLens warns of some hooks that change nothing; `find` refuses all of them.
            warnings.simplefilter("ignore", UserWarning)
            return self._forward(tokens, real, hooks)

    def read(
        self,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"] | None,
        point: str,
    ) -> Tensor:
        """Return the activation at a hook point."""
        seen: list[Tensor] = []

        def keep(activation: Tensor) -> Tensor:
            seen.append(activation.clone())
            return activation

        self.run(tokens, real, {point: keep})
        if not seen:
            raise MethodError(f"the model does not compute {quoted(point)}; choose another site")
        return seen[0]

    def _found(self, name: str) -> Activation | None:
        """Return where an activation is found; None if there is none of this name.

        Raises:
            MethodError: It cannot be patched in this model; the message says why.
        """
        points, by_layer = self._points(name), True
        if not points and (point := _full_name(name, None)) in self._bridge.hook_dict:
            points, by_layer = (point,), False
        if not points:
            return None
        tokens = torch.ones(2, self._n_probed, dtype=torch.long, device=self._bridge.cfg.device)
        try:
            seen = self.read(tokens, None, points[0])
        except ValueError as error:
            # TransformerLens names the flag that a hook point waits for.
            raise MethodError(f"{quoted(name)} cannot be patched: {error}") from None
        found = Activation(points, by_layer, *self._heads(name, seen))
        if not self._goes_on_from(points[0], tokens):
            raise MethodError(
                f"{quoted(name)} can be read in this model and not changed: its logits do not "
                "follow; choose another site"
            )
        return found

    def _goes_on_from(self, point: str, tokens: Tensor) -> bool:
        """Return whether the logits follow what a hook returns."""
        changed = self.run(tokens, None, {point: lambda activation: 1.5 * activation + 0.1})
        return not torch.equal(self.run(tokens, None, {}), changed)

    def _points(self, name: str) -> tuple[str, ...]:
        known, layers = self._bridge.hook_dict, range(self._shape.n_layers)
        for full_name in (lambda name, layer: f"blocks.{layer}.{name}", _full_name):
            points = tuple(full_name(name, layer) for layer in layers)
            # An abbreviation may hold a layer, as `k6` does.
            if len(set(points)) == len(layers) and all(point in known for point in points):
                return points
        return ()

    @property
    def _n_probed(self) -> int:
        """A number of positions that is not the length of another axis."""
        sizes = self._shape.layers[0]
        lengths = {sizes.n_heads, sizes.n_kv_heads, self._shape.d_head, self._shape.d_model}
        return next(n for n in range(3, 8) if n not in lengths)

    def _heads(self, name: str, seen: Tensor) -> tuple[int | None, int]:
        """Return the axis of heads and how many there are, if each has an entry of its own."""
        sizes, (batch, *rest) = self._shape.layers[0], seen.shape
        counts = (sizes.n_heads, sizes.n_kv_heads)
        if seen.is_floating_point() and batch == 2:
            if len(rest) == 3 and rest[1] == self._n_probed and rest[0] in counts:
                return 1, rest[0]
            if rest and rest[0] == self._n_probed:
                return (2, rest[1]) if len(rest) == 3 and rest[1] in counts else (None, 0)
        raise MethodError(
            f"{quoted(name)} is of type {seen.dtype} and has axes of {tuple(seen.shape)} on 2 "
            f"prompts of {self._n_probed} tokens; only numbers for every prompt and position can "
            "be patched"
        )


def _hook(point: str, change: Change) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:
        changed = change(activation)
        if not point.endswith(_STREAM_IN_BETWEEN):
            return changed
        # Its point is what the MLP reads: only in place does the change reach the stream as well.
        return activation.copy_(changed)

    return hook


def _full_name(name: str, layer: int | None) -> str:
    from transformer_lens.utilities import get_act_name

    full: str = get_act_name(name, layer)
    return full


def _without_block(name: str) -> str:
    return name.split(".", 2)[2] if name.startswith("blocks.") else name
