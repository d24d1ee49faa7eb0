"""Modified gradients, by surgery on a Hugging Face model: its modules run with parts detached.

The rules are written here in plain torch, module by module, as their papers have them; nothing is
taken from the package. Within the context the oracle's run of the model (`slopes.py`) has the
modified gradients and the same values.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.oracles.layouts import LAYOUTS, blocks_of
from tests.oracles.moves import _SOFTMAX

_ACTIVATIONS = ("act", "act_fn", "activation_fn")
_GATED = ("gate_proj", "up_proj", "gate_up_proj")
_SHARES = {"q": 0.25, "k": 0.25, "v": 0.5}


@contextmanager
def surgery(model: Any, family: str, rules: frozenset[str]) -> Iterator[None]:
    """Let gradients follow some rules while a tiny model runs."""
    with ExitStack() as stack:
        if "norms" in rules:
            _detach_norms(stack, model)
        if rules & {"softmax", "pattern"}:
            stack.enter_context(_Softmax(detach="pattern" in rules))
        for block in blocks_of(model, family):
            if "qkv" in rules:
                _weigh_products(stack, family, block)
            _change_mlp(stack, block.mlp, rules)
        yield


def _detach_norms(stack: ExitStack, model: Any) -> None:
    stack.enter_context(patch("tests.oracles.brute_force.shares_of_norm", _detached_shares))
    for module in filter(_is_norm, model.modules()):
        stack.enter_context(patch.object(module, "forward", _Detached(module)))


def _change_mlp(stack: ExitStack, mlp: Any, rules: frozenset[str]) -> None:
    parts = dict(mlp.named_children())
    for name in set(_GATED) & set(parts) if "gate" in rules else ():
        halve = parts[name].register_forward_hook(lambda m, args, output: _scaled(output, 0.5))
        stack.enter_context(halve)
    for name in set(_ACTIVATIONS) & set(parts) if "secant" in rules else ():
        changed = _Secant(parts[name].forward)
        stack.enter_context(patch.object(parts[name], "forward", changed))


def _is_norm(module: Any) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


class _Detached:
    """A norm whose root mean square is detached."""

    def __init__(self, norm: Any) -> None:
        self._norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        norm = self._norm
        if isinstance(norm, nn.LayerNorm):
            centred = x - x.mean(-1, keepdim=True)
            size = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt().detach()
            return centred / size * norm.weight + norm.bias
        adds_one = type(norm).__name__.startswith("Gemma")
        eps = norm.eps if adds_one else norm.variance_epsilon
        size = (x.square().mean(-1, keepdim=True) + eps).sqrt().detach()
        return x / size * (1 + norm.weight if adds_one else norm.weight)


def _detached_shares(norm: Any, parts: list[Tensor]) -> list[Tensor]:
    total = torch.stack(parts).sum(dim=0)
    scale = (total.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt().detach()
    return [part * scale * (1 + norm.weight) for part in parts]


def _scaled(values: Tensor, factor: float | Tensor) -> Tensor:
    return values * factor + (values * (1 - factor)).detach()


def _weigh_products(stack: ExitStack, family: str, block: Any) -> None:
    attention = getattr(block, LAYOUTS[family].attention)
    names = LAYOUTS[family].qkv
    for name in names:

        def hook(module: Any, args: Any, output: Tensor, name: str = name) -> Tensor:
            if len(names) == 3:
                return _scaled(output, _SHARES[name[0]])
            shares = torch.tensor(list(_SHARES.values()), dtype=output.dtype)
            return _scaled(output, shares.repeat_interleave(output.shape[-1] // 3))

        stack.enter_context(getattr(attention, name).register_forward_hook(hook))


class _Secant:
    """An activation function whose slope is its value over its input."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def __call__(self, x: Tensor) -> Tensor:
        shifted = x + 1e-6 * torch.where(x >= 0, 1.0, -1.0)
        return shifted * (self._forward(x) / shifted).detach()


class _Softmax(TorchFunctionMode):
    """A softmax with another gradient, or none."""

    def __init__(self, *, detach: bool) -> None:
        super().__init__()
        self._detach = detach

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in _SOFTMAX:
            return func(*args, **(kwargs or {}))
        scores = args[0].double()
        return scores.softmax(-1).detach() if self._detach else _Warmer.apply(scores)


class _Warmer(torch.autograd.Function):
    """A softmax whose backward pass is that of a softmax at temperature 2, without its 1/2."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            ctx.save_for_backward((scores / 2).softmax(-1))
            return scores.softmax(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        (g,) = gradients
        return t * (g - (g * t).sum(-1, keepdim=True))
