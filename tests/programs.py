"""Compiled models with random weights, as files: models that load in milliseconds."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SYMBOLS = ("a", "b", "c")


def write_program(
    folder: Path,
    name: str = "scramble",
    *,
    n_layers: int = 2,
    n_heads: int = 2,
    n_ctx: int = 5,
    n_outputs: int = 3,
) -> Path:
    """Write a program of random weights in float64 and return its .json file."""
    sizes = {
        "n_layers": n_layers,
        "n_heads": n_heads,
        "d_model": 8,
        "d_head": 4,
        "d_mlp": 8,
        "n_ctx": n_ctx,
        "d_vocab": len(SYMBOLS) + 2,
        "d_vocab_out": n_outputs,
        "activation": "gelu",
        "normalization": None,
        "attention": "bidirectional",
        "attention_scale": 2.0,
        "tokens": {"BOS": 0, **{symbol: i for i, symbol in enumerate(SYMBOLS, 1)}},
    }
    sizes["tokens"]["compiler_pad"] = len(SYMBOLS) + 1
    generator = torch.Generator().manual_seed(len(name))
    weights = {
        key: torch.randn(shape, generator=generator, dtype=torch.float64) / 3
        for key, shape in _shapes(sizes).items()
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(sizes))
    save_file(weights, file.with_suffix(".safetensors"))
    return file


def _shapes(sizes: dict) -> dict[str, tuple[int, ...]]:
    d_model, d_head, d_mlp, heads = (sizes[k] for k in ("d_model", "d_head", "d_mlp", "n_heads"))
    shapes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (sizes["d_vocab"], d_model),
        "pos_embed.W_pos": (sizes["n_ctx"], d_model),
        "unembed.W_U": (d_model, sizes["d_vocab_out"]),
    }
    for layer in range(sizes["n_layers"]):
        block = f"blocks.{layer}"
        for port in "QKV":
            shapes[f"{block}.attn.W_{port}"] = (heads, d_model, d_head)
            shapes[f"{block}.attn.b_{port}"] = (heads, d_head)
        shapes[f"{block}.attn.W_O"] = (heads, d_head, d_model)
        shapes[f"{block}.attn.b_O"] = (d_model,)
        shapes[f"{block}.mlp.W_in"] = (d_model, d_mlp)
        shapes[f"{block}.mlp.b_in"] = (d_mlp,)
        shapes[f"{block}.mlp.W_out"] = (d_mlp, d_model)
        shapes[f"{block}.mlp.b_out"] = (d_model,)
    return shapes
