"""Patching with plain PyTorch hooks on Hugging Face models, one whole run per patch.

The oracle of the sweeps: it shares nothing with the package but the names of sites. Two families
are enough to tell everything apart: GPT-2 has one fused projection and learned positions, Llama
grouped key/value heads, rotary positions and RMS norms.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.oracles.checkpoints import D_HEAD, D_MODEL, N_HEADS

Change = Callable[[Tensor], Tensor]


class Hooked:
    """A Hugging Face model whose activations can be read and replaced by site, block and head."""

    def __init__(self, model: Any, family: str) -> None:
        self.model, self.is_gpt2 = model, family == "gpt2"
        self.blocks = model.transformer.h if self.is_gpt2 else model.model.layers

    def run(self, tokens: Tensor, changes: dict[tuple[str, int], Change] | None = None) -> Tensor:
        """Return the logits, with some activations replaced by a function of themselves."""
        handles = [self._hook(*where, change) for where, change in (changes or {}).items()]
        try:
            with torch.no_grad():
                return self.model(tokens).logits
        finally:
            for handle in handles:
                handle.remove()

    def read(
        self,
        tokens: Tensor,
        site: str,
        layer: int,
        changes: dict[tuple[str, int], Change] | None = None,
    ) -> Tensor:
        """Return an activation: [batch pos d_model], or [batch pos head d_head]."""
        seen = []

        def keep(activation: Tensor) -> Tensor:
            seen.append(activation.clone())
            return activation

        self.run(tokens, {**(changes or {}), (site, layer): keep})
        return seen[0]

    def _hook(self, site: str, layer: int, change: Change) -> Any:
        block = self.blocks[layer]
        attention = block.attn if self.is_gpt2 else block.self_attn
        before = {"resid_pre": block, "mlp_in": block.mlp, "unembedded": self.model.lm_head}
        after = {"resid_post": block, "attn_out": attention, "mlp_out": block.mlp}
        if site in before:
            return _before(before[site], change)
        if site in after:
            return _after(after[site], change)
        if site == "head":
            return _before(attention.c_proj if self.is_gpt2 else attention.o_proj, _by_head(change))
        if self.is_gpt2:
            first = D_MODEL * "qkv".index(site)
            return _after(attention.c_attn, _on(slice(first, first + D_MODEL), _by_head(change)))
        return _after(getattr(attention, f"{site}_proj"), _by_head(change))


def _before(module: Any, change: Change) -> Any:
    return module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))


def _after(module: Any, change: Change) -> Any:
    def hook(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return module.register_forward_hook(hook)


def _by_head(change: Change) -> Change:
    return lambda flat: change(flat.unflatten(-1, (-1, D_HEAD))).flatten(-2)


def _on(columns: slice, change: Change) -> Change:
    def changed(activation: Tensor) -> Tensor:
        activation = activation.clone()
        activation[..., columns] = change(activation[..., columns])
        return activation

    return changed


def n_heads(site: str, family: str) -> int:
    """Return how many heads of a kind there are; 0 where a site has no heads."""
    if site in ("k", "v"):
        return N_HEADS if family == "gpt2" else 2
    return N_HEADS if site in ("head", "q") else 0
