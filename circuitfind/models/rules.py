"""Modified gradients: rules by which a model passes gradients on, its values unchanged.

A gradient says what a small change does, and cutting an edge is a large one. Where the slope at a
point misleads (a norm that undoes what a head adds, a softmax or an activation function that is
flat, two factors that both claim the whole of their product), these rules take another:

    norms     what a norm divides by is a constant, in query and key norms and norms after a block
              too; the mean that a layer norm subtracts is not
    softmax   through attention's softmax at temperature 2: t (g - sum g t), t = softmax(scores / 2)
    qkv       1/4 of the gradient at queries and keys, 1/2 of that at values: shares of products
    gate      1/2 of the gradient at both factors of a gated MLP; others are left alone
    secant    the activation function f(x) has the slope f(x) / x; a ReLU is left alone
    pattern   attention patterns are constants, so that only values carry a gradient

GIM (arXiv 2505.17630), RelP (arXiv 2508.21258) and AttnLRP (arXiv 2402.05602) are sets of them.
Soft caps, and what transcoders compute, keep their own gradients.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.errors import MethodError, ModelError, quoted
from circuitfind.models.base import ResidualModel
from circuitfind.models.copies import times
from circuitfind.models.slopes import scaled_slope, with_slope_of

RULES = ("norms", "softmax", "qkv", "gate", "secant", "pattern")

RULE_SETS = {
    "gim": ("norms", "softmax", "qkv", "gate"),
    "relp": ("norms", "gate", "secant"),
    "attnlrp": ("norms", "qkv", "gate", "secant"),
}
"""Rules that have a name together."""

_TEMPERATURE = 2
_LEAST = 1e-6
"""Added to the size of pre-activations, by which the secant divides."""

_SAME = 1e-4
"""Largest distance of a gated MLP from the product of its two factors, relative to its norm."""


@dataclass(frozen=True)
class Rules:
    """Some rules; none are the model's own gradient.

    Attributes:
        names: Their names.
    """

    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, text: str | None) -> "Rules":
        """Return the rules that a text lists: names of rules and of sets, separated by commas.

        Raises:
            MethodError: There is no such rule, or two exclude one another.
        """
        given = [] if text is None else [name.strip() for name in text.split(",")]
        for name in given:
            if name not in RULES and name not in RULE_SETS:
                raise MethodError(
                    f"no rule named {quoted(name)}; give some of "
                    f"{', '.join((*RULE_SETS, *RULES))}, separated by commas"
                )
        names = {rule for name in given for rule in RULE_SETS.get(name, (name,))}
        if {"softmax", "pattern"} <= names:
            raise MethodError(
                "the rules 'softmax' and 'pattern' exclude one another: no gradient reaches the "
                "softmax of a pattern that is constant; leave one out"
            )
        return cls(frozenset(names))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __bool__(self) -> bool:
        return bool(self.names)


NO_RULES = Rules()


def ruled(model: Any, rules: Rules) -> Any:
    """Return a model with the same weights and values that passes gradients on by some rules.

    Args:
        model: A `ResidualModel`; returned as it is if there are no rules.
        rules: The rules.

    Raises:
        ModelError: It is not known how the model norms, or how an MLP is built.
    """
    if not rules:
        return model
    known = model.with_frozen_norms() if "norms" in rules else model
    found, view = copy.copy(known), _Ruled(known, rules)
    changed: dict[str, Any] = {"dictionaries": model.dictionaries}
    if rules.names & {"softmax", "qkv", "pattern"}:
        changed["attend"] = view.attend
    if rules.names & {"gate", "secant"}:
        _require_known_mlps(model)
        changed |= {"mlp_post": view.mlp_post, "mlp": view.mlp}
    found.__dict__.update(changed)
    return found


def _require_known_mlps(model: ResidualModel) -> None:
    for number, layer in enumerate(model.shape.layers):
        if layer.has_mlp and model.neurons(number) is None:
            raise ModelError(
                f"it is not known how the MLP of layer {number} of {quoted(model.name, 60)} is "
                "built, so the rules 'gate' and 'secant' cannot be applied; choose other rules"
            )


class _Ruled:
    """The parts of a model through which gradients go by rules."""

    def __init__(self, model: ResidualModel, rules: Rules) -> None:
        self._model, self._rules = model, rules
        self._gate_first = cache(self._found_gate_first)

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        value: Float[Tensor, "head value_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last d_head"]:
        if "qkv" in self._rules:
            query, key = scaled_slope(query, 1 / 4), scaled_slope(key, 1 / 4)
            value = scaled_slope(value, 1 / 2)
        mixed = self._model.attend(layer, heads, query, key, value, real)
        if not self._rules.names & {"softmax", "pattern"}:
            return mixed
        return with_slope_of(
            mixed, lambda: times(self._pattern(layer, heads, query, key, real), value)
        )

    def _pattern(
        self,
        layer: int,
        heads: Sequence[int],
        query: Tensor,
        key: Tensor,
        real: Tensor | None,
    ) -> Float[Tensor, "head _ last pos"]:
        try:
            scores = self._model.attention_scores(layer, heads, query, key, real)
        except ModelError:
            raise ModelError(
                f"the attention of {quoted(self._model.name, 60)} is computed as a whole in layer "
                f"{layer}, so the rules 'softmax' and 'pattern' cannot be applied; choose other "
                "rules"
            ) from None
        pattern = scores.softmax(-1)
        if "pattern" in self._rules:
            return pattern.detach()
        # The factor takes back that by which the softmax divides its slope.
        return with_slope_of(pattern, lambda: _TEMPERATURE * (scores / _TEMPERATURE).softmax(-1))

    def mlp_post(
        self, layer: int, pre: Float[Tensor, "batch pos d_pre"]
    ) -> Float[Tensor, "batch pos d_mlp"]:
        post = self._model.mlp_post(layer, pre)
        return with_slope_of(post, lambda: self._activated(layer, pre, post.shape[-1]))

    def mlp(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        def in_steps() -> Tensor:
            pre = self._model.mlp_pre(layer, stream, scale_of)
            return self._model.mlp_output(layer, self.mlp_post(layer, pre))

        return with_slope_of(self._model.mlp(layer, stream, scale_of), in_steps)

    def _activated(self, layer: int, pre: Tensor, width: int) -> Tensor:
        gated = pre.shape[-1] == 2 * width
        if gated and "gate" in self._rules:
            pre = scaled_slope(pre, 1 / 2)
        if "secant" not in self._rules:
            return self._model.mlp_post(layer, pre)
        if not gated:
            return _along_secant(lambda inner: self._model.mlp_post(layer, inner), pre)
        gate_first = self._gate_first(layer, width)
        gate, up = _split(pre, gate_first=gate_first)
        return (
            _along_secant(lambda inner: self._gated(layer, inner, gate_first=gate_first), gate) * up
        )

    def _gated(self, layer: int, gate: Tensor, *, gate_first: bool) -> Tensor:
        """Return the activation function of a gated MLP's gate."""
        ones = torch.ones_like(gate)
        parts = (gate, ones) if gate_first else (ones, gate)
        return self._model.mlp_post(layer, torch.cat(parts, dim=-1))

    @torch.no_grad()
    def _found_gate_first(self, layer: int, width: int) -> bool:
        """Return whether pre-activations hold the gate before what it gates.

        Raises:
            ModelError: The MLP is not the product of the two.
        """
        generator = torch.Generator().manual_seed(0)
        probe = 3 * torch.randn(1, 8, 2 * width, generator=generator, dtype=self._model.dtype)
        probe = probe.to(self._model.device)
        expected = self._model.mlp_post(layer, probe)
        for gate_first in (True, False):
            gate, up = _split(probe, gate_first=gate_first)
            found = self._gated(layer, gate, gate_first=gate_first) * up
            if (found - expected).norm() <= _SAME * expected.norm():
                return gate_first
        raise ModelError(
            f"the MLP of layer {layer} of {quoted(self._model.name, 60)} is not a product of a "
            "gate and what it gates, so the rule 'secant' cannot be applied; leave it out"
        )


def _split(pre: Tensor, *, gate_first: bool) -> tuple[Tensor, Tensor]:
    one, other = pre.chunk(2, dim=-1)
    return (one, other) if gate_first else (other, one)


def _along_secant(activation: Callable[[Tensor], Tensor], inner: Tensor) -> Tensor:
    """Return the activations, with the slope of the line from zero to each."""
    found = activation(inner)
    if torch.equal(found, inner.relu()):
        return found
    shifted = inner + torch.where(inner < 0, -_LEAST, _LEAST)
    return shifted * (found / shifted).detach()
