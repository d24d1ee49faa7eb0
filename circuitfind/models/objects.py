"""Models that a user holds: refused unless they are plain, and never changed.

What is loaded is a copy of the model's structure that shares its weights, so that wrapping it,
switching its attention and moving it leave the user's object as it was found.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

from circuitfind.errors import ModelError
from circuitfind.models.precision import computed_in, held_in, rounded

_KNOWN_HOOKS = ("transformers.", "transformer_lens.")
"""Modules whose hooks record what passes by and change nothing."""


def require_plain(model: Any, name: str) -> None:
    """Refuse a model with adapters, hooks or wrappers, which its weights do not show.

    Raises:
        ModelError: It has one; the message names the module and says what to do.
    """
    for path, module in model.named_modules():
        for found in _findings(module):
            where = f"its module {path!r}" if path else f"the {type(module).__name__}"
            raise ModelError(f"{name!r} is not a plain model: {where} {found}")


def _findings(module: Any) -> Iterator[str]:
    """Yield what makes a module compute something else than its class and weights say."""
    for finding in (_wrapper, _adapter, _offloaded, _parametrized, _hook, _replaced):
        if (found := finding(module)) is not None:
            yield found


def _wrapper(module: Any) -> str | None:
    if "_orig_mod" in module._modules:
        return "is compiled by torch.compile; give the model below it (model._orig_mod)"
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return "wraps a model for several devices; give the model below it (model.module)"
    return None


def _adapter(module: Any) -> str | None:
    names = [*module._modules, *module._parameters]
    if type(module).__module__.startswith("peft.") or any(
        name.startswith("lora_") for name in names
    ):
        return (
            "holds an adapter (LoRA), which is not part of the model's own weights; merge it "
            "(model.merge_and_unload() of peft) and give the result"
        )
    return None


def _offloaded(module: Any) -> str | None:
    if any(weight.is_meta for weight in module._parameters.values() if weight is not None):
        return (
            "has weights that are not in memory (offloaded to disk, or never loaded); load the "
            "model without device_map, on one device"
        )
    if hasattr(module, "_hf_hook"):
        return "is spread over devices by accelerate; load the model without device_map"
    return None


def _parametrized(module: Any) -> str | None:
    if "parametrizations" in module._modules:
        return (
            "computes a weight from others (torch.nn.utils.parametrize); make it permanent "
            "with remove_parametrizations"
        )
    return None


def _hook(module: Any) -> str | None:
    if hasattr(module, "fwd_hooks"):
        # A hook point of TransformerLens.
        hooks = [handle for handle in module.fwd_hooks if not handle.is_permanent]
    else:
        both = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        hooks = [hook for hook in both if not _origin(hook).startswith(_KNOWN_HOOKS)]
    return "has a hook, which can change what passes by; remove it" if hooks else None


def _origin(hook: Callable[..., Any]) -> str:
    return str(getattr(hook, "__module__", None) or "")


def _replaced(module: Any) -> str | None:
    if "forward" in vars(module):
        return "has had its forward function replaced; give a model as its class defines it"
    return None


def own_copy(model: Any, dtype: torch.dtype | None, device: str | torch.device | None) -> Any:
    """Copy a model's structure, in evaluation mode and without gradients.

    Weights are shared where neither their type nor their device changes.

    Args:
        model: A Hugging Face model or a `TransformerBridge`.
        dtype: What weights are rounded to; by default they keep their values.
        device: Where the copy is; by default where the model is.
    """
    # The model below a bridge is hidden from the bridge's own list of weights.
    parts = (model, getattr(model, "original_model", model))
    computed = computed_in(dtype or held_in(parts[1]))
    memo: dict[int, Any] = {}
    for part in parts:
        for weight in part.parameters():
            values = rounded(weight.detach(), dtype, computed).to(device=device)
            memo[id(weight)] = torch.nn.Parameter(values, requires_grad=False)
        for buffer in part.buffers():
            # Such as the angles of rotary positions: no weights, so they are not rounded, and the
            # float32 ones of a float64 model stay what they are: the model computes with these.
            kept = buffer.dtype if buffer.dtype == torch.float32 else computed
            memo[id(buffer)] = rounded(buffer.detach(), None, kept).to(device=device)
    tokenizer = getattr(model, "tokenizer", None)
    memo[id(tokenizer)] = tokenizer
    return copy.deepcopy(model, memo).eval()
