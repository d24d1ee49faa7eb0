"""Compiled models on disk: `NAME.json` and, beside it, `NAME.safetensors`.

Every tensor of the file is either used or refused by name, so that a model which has more parts
than its JSON says is never run without them. Two kinds of names are read: those that
TransformerLens gave its weights up to version 3 (`blocks.0.attn.W_Q`), which are ours, and those
of a native bridge's state dict (`blocks.0.attn.q.weight`).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from circuitfind.errors import GraphError, ModelError, quoted, shortened
from circuitfind.files import path_of, read_text, write_whole
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.compiled_sizes import Sizes, in_our_names, read_sizes
from circuitfind.models.precision import computed_in, rounded
from circuitfind.records import parse_json
from circuitfind.stored import read_tensors

_MOST_NAMES = 3
"""Largest number of tensors that a message names."""

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_OF_AN_MLP = re.compile(r"blocks\.\d+\.mlp\..+")

_PLAIN = (bool, int, float, str, list, dict)
"""Types that JSON can hold; a setting of another type is left out."""


class CompiledFiles(NamedTuple):
    """Contents of the files of a compiled model.

    Attributes:
        content: The content of the JSON.
        sizes: The sizes that it gives.
        weights: The weights under our names, in the type to compute in. Biases may be missing.
        stored: The type to which they were rounded, or that of the file.
    """

    content: Mapping[str, Any]
    sizes: Sizes
    weights: Mapping[str, Tensor]
    stored: torch.dtype


def read_compiled(path: Path, dtype: torch.dtype | None = None) -> CompiledFiles:
    """Read a compiled model.

    Args:
        path: The JSON file.
        dtype: The type to which weights are rounded; by default their own.

    Raises:
        ModelError: A file is missing, or is not of the documented format.
    """
    weights_path = path.with_suffix(".safetensors")
    if not weights_path.is_file():
        raise ModelError(f"{path} describes a compiled model, but {weights_path.name} is missing")
    try:
        content = _parsed(read_text(path))
        sizes = read_sizes(content)
        return _in_one_type(
            content, sizes, checked_weights(sizes, read_tensors(weights_path)), dtype
        )
    except (OSError, ValueError, GraphError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a compiled model: {_reason(error)}; docs/files.md describes the format"
        ) from None


def _in_one_type(
    content: Mapping[str, Any],
    sizes: Sizes,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> CompiledFiles:
    types = {weight.dtype for weight in weights.values()}
    stored = dtype or (torch.float64 if torch.float64 in types else weights["embed.W_E"].dtype)
    computed = computed_in(stored)
    same = {name: rounded(weight, dtype, computed) for name, weight in weights.items()}
    return CompiledFiles(content, sizes, same, stored)


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"its JSON cannot be read: {shortened(str(error))}") from None


def _reason(error: Exception) -> str:
    """Return what an error says, cut short where others wrote it."""
    if isinstance(error, ValueError | GraphError):
        return str(error)
    return shortened(str(getattr(error, "strerror", None) or error))


def save_compiled(path: Path | str, weights: Mapping[str, Tensor], **settings: Any) -> Path:
    """Write a transformer of your own as a compiled model, which every command then takes.

    Args:
        path: The JSON file to write; `NAME.safetensors` is written beside it.
        weights: The weights, with the names and shapes that `docs/files.md` lists, or the state
            dict of a native TransformerBridge. Biases may be left out.
        settings: What the JSON holds: `activation`, `attention` and so on. Sizes that follow from
            the weights may be left out; `attention_scale` is the square root of `d_head` then. A
            configuration of TransformerLens can be given as it is: `**vars(bridge.cfg)`.

    Returns:
        The JSON file.

    Raises:
        ModelError: The weights are not those of such a model, or a file cannot be written.
    """
    path = path_of(path)
    if path.suffix != ".json":
        raise ModelError(f"a compiled model is saved as NAME.json, not as {quoted(path.name)}")
    given = {name: value for name, value in settings.items() if isinstance(value, _PLAIN)}
    try:
        content = {**_sizes_in(weights), **in_our_names(given)}
        content = in_our_names({"attention_scale": -1, **content})
        sizes = read_sizes(content)
        checked = checked_weights(sizes, weights)
        written = json.dumps({**content, **sizes.settings()}, indent=1, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path.with_suffix(".safetensors"), save(checked))
        write_whole(path, written)
    except (OSError, TypeError, ValueError, GraphError) as error:
        raise ModelError(f"cannot save {path} as a compiled model: {_reason(error)}") from None
    return path


def checked_weights(sizes: Sizes, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under our names, each of the right shape and kind.

    Args:
        sizes: What the JSON says.
        weights: Tensors under our names, or those of a native bridge.

    Raises:
        ValueError: A tensor is missing, is not part of such a model, has another shape, or holds
            something other than finite floating-point numbers.
        GraphError: The graph of such a model is too large.
    """
    heads_and_mlps(sizes.shape)
    if sizes.n_layers > len(weights):
        raise ValueError(f"n_layers is {sizes.n_layers:,} and there are {len(weights)} tensors")
    named = _without_buffers(sizes, _renamed(sizes, weights))
    required, biases = sizes.required(), sizes.biases()
    if missing := [name for name in required if name not in named]:
        raise ValueError(f"it lacks {_listed(missing)}{_prefix_hint(weights)}")
    if unused := sorted(name for name in named if name not in required | biases):
        raise ValueError(
            f"it holds {_listed(unused)}, which a model of its JSON does not have"
            f"{_hint(sizes, unused[0])}"
        )
    for name, shape in (required | biases).items():
        if name in named:
            _require_numbers(name, named[name], shape)
    return {name: weight.detach().contiguous() for name, weight in named.items()}


def _require_numbers(name: str, weight: Shaped[Tensor, "..."], shape: Sequence[int]) -> None:
    if tuple(weight.shape) != tuple(shape):
        raise ValueError(
            f"{name} has the shape {quoted(tuple(weight.shape))} and the sizes of its JSON ask "
            f"for {tuple(shape)}"
        )
    if not weight.is_floating_point():
        raise ValueError(f"{name} holds {weight.dtype} and must hold floating-point numbers")
    if not bool(weight.isfinite().all()):
        raise ValueError(f"{name} holds numbers that are not finite")


def _listed(names: Sequence[str]) -> str:
    some = ", ".join(quoted(name)[1:-1][:60] for name in names[:_MOST_NAMES])
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{'tensors' if len(names) > 1 else 'the tensor'} {some}{rest}"


def _prefix_hint(weights: Mapping[str, Tensor]) -> str:
    """Return the prefix that wrappers of PyTorch put before all names."""
    prefixes = {name.partition(".")[0] for name in weights}
    return f"; take the prefix {quoted(prefixes.pop())} off its names" if len(prefixes) == 1 else ""


def _hint(sizes: Sizes, unused: str) -> str:
    """Return the setting of the JSON file that would use a tensor."""
    part = match[2] if (match := _BLOCK.fullmatch(unused)) else unused
    if match and int(match[1]) >= sizes.n_layers:
        return f"; its n_layers is {sizes.n_layers}"
    if part.startswith("ln"):
        return f"; its normalization is {sizes.normalization or 'null'}"
    if part.startswith("mlp."):
        return f"; its d_mlp is {sizes.d_mlp}, its gated_mlp {str(sizes.gated_mlp).lower()}"
    return ""


def _sizes_in(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes that follow from weights under our names."""

    def axes(name: str, **places: int) -> dict[str, int]:
        shape = weights[name].shape if name in weights else ()
        return {size: shape[axis] for size, axis in places.items() if axis < len(shape)}

    blocks = {int(match[1]) for name in weights if (match := _BLOCK.fullmatch(name))} | {0}

    def by_block(name: str, axis: int) -> dict[int, int]:
        shapes = {block: weights.get(f"blocks.{block}.{name}") for block in sorted(blocks)}
        return {b: w.shape[axis] for b, w in shapes.items() if w is not None and axis < w.ndim}

    heads, widths = by_block("attn.W_Q", 0), by_block("mlp.W_in", 1)
    # A block that lacks a tensor of a part that it has is taken to be like the first one.
    n_heads = [heads.get(block, min(heads.values())) for block in sorted(blocks) if heads]
    with_mlp = {int(name.split(".")[1]) for name in weights if _OF_AN_MLP.fullmatch(name)}
    first = next(iter(widths.values()), 0)
    d_mlp = [widths.get(block, first if block in with_mlp else 0) for block in sorted(blocks)]
    return {
        "n_layers": max(blocks) + 1,
        **axes("embed.W_E", d_vocab=0, d_model=1),
        **axes("pos_embed.W_pos", n_ctx=0),
        **axes("unembed.W_U", d_vocab_out=1),
        **axes("blocks.0.attn.W_Q", d_head=2),
        **_one_or_each("n_heads", n_heads),
        **_one_or_each("d_mlp", d_mlp),
        "gated_mlp": any(name.endswith(".mlp.W_gate") for name in weights),
    }


def _one_or_each(name: str, values: Sequence[int]) -> dict[str, Any]:
    """Return a size: one number where all blocks have the same."""
    if not values:
        return {}
    return {name: values[0] if len(set(values)) == 1 else list(values)}


def _without_buffers(sizes: Sizes, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what state dicts hold beside weights, after a look at what it says."""
    kept = {}
    for name, tensor in weights.items():
        if name.endswith(".attn.mask"):
            seen = torch.ones(sizes.n_ctx, sizes.n_ctx, dtype=torch.bool)
            seen = seen.tril() if sizes.attention == "causal" else seen
            if tensor.shape != seen.shape or not torch.equal(tensor.bool(), seen):
                raise ValueError(f"{name} is not the mask of {sizes.attention} attention")
        elif name.endswith(".mlp.b_in") and sizes.gated_mlp and not bool(tensor.any()):
            continue  # TransformerLens gives gated MLPs this bias, of zeros.
        elif not name.endswith(".attn.IGNORE"):
            kept[name] = tensor
    return kept


_BRIDGE = {
    "embed.weight": "embed.W_E",
    "pos_embed.weight": "pos_embed.W_pos",
    "unembed.weight": "unembed.W_U",
    "unembed.bias": "unembed.b_U",
    **{f"attn.{port}.weight": f"attn.W_{port.upper()}" for port in "qkvo"},
    **{f"attn.{port}.bias": f"attn.b_{port.upper()}" for port in "qkvo"},
    **{f"mlp.{map_}.weight": f"mlp.W_{map_}" for map_ in ("in", "out", "gate")},
    **{f"mlp.{map_}.bias": f"mlp.b_{map_}" for map_ in ("in", "out")},
    **{f"{norm}.weight": f"{norm}.w" for norm in ("ln1", "ln2", "ln_final")},
    **{f"{norm}.bias": f"{norm}.b" for norm in ("ln1", "ln2", "ln_final")},
}
"""Names in a native bridge's state dict, the block's left out, and ours."""


def _renamed(sizes: Sizes, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape the tensors of a native bridge; leave others as they are."""
    named = {}
    for name, tensor in weights.items():
        match = _BLOCK.fullmatch(name)
        start, part = (f"blocks.{match[1]}.", match[2]) if match else ("", name)
        ours = _BRIDGE.get(part)
        if ours is None:
            named[name] = tensor
        else:
            layer = min(int(match[1]), sizes.n_layers - 1) if match else 0
            named[start + ours] = _in_our_axes(sizes, sizes.heads_of(layer), ours, tensor)
    return named


def _in_our_axes(
    sizes: Sizes, n_heads: int, name: str, tensor: Shaped[Tensor, "..."]
) -> Shaped[Tensor, "..."]:
    """Turn a weight of a linear layer, outputs first, into one of ours."""
    heads = (n_heads, sizes.d_head)
    if name.startswith(("mlp.W_", "unembed.W_")):
        return tensor.mT if tensor.ndim == 2 else tensor  # noqa: PLR2004
    if not name.startswith("attn.") or name == "attn.b_O" or tensor.numel() % math.prod(heads):
        return tensor
    if name == "attn.W_O":
        return tensor.mT.reshape(*heads, -1)
    by_head = tensor.reshape(*heads, -1)
    return by_head.mT if name.startswith("attn.W_") else by_head[..., 0]
