"""What each family calls its modules, and where each head's columns are in its projections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from circuitfind.shape import ModelShape
from tests.oracles.checkpoints import FAMILIES

Packing = Literal["separate", "q then k then v", "head by head", "group by group"]


def _call_mlp(block: Any, normed: Tensor) -> Tensor:
    return block.mlp(normed)


def _call_opt_mlp(block: Any, normed: Tensor) -> Tensor:
    return block.fc2(block.activation_fn(block.fc1(normed)))


def _call_bloom_mlp(block: Any, normed: Tensor) -> Tensor:
    """Bloom's MLP adds the residual stream itself, so it is given none."""
    return block.mlp(normed, torch.zeros_like(normed))


@dataclass(frozen=True)
class Layout:
    """Names of submodules (within a block, or from the model's root) and the packing of q, k, v.

    Attributes:
        qkv: The fused projection, or the three separate ones.
        output: The attention's output projection, whose input is all heads side by side.
        post_attention_norm: A norm of the attention's output before it is added, if any.
        post_mlp_norm: The same for the MLP.
        down: The MLP's down projection, whose input is the activations of its neurons; "" where
            there is no single one.
        positions: The learned position embedding, if any.
    """

    blocks: str
    attention: str
    qkv: tuple[str, ...]
    packing: Packing
    output: str
    attention_norm: str
    mlp_norm: str
    final_norm: str
    unembed: str = "lm_head"
    run_mlp: Callable[[Any, Tensor], Tensor] = _call_mlp
    post_attention_norm: str | None = None
    post_mlp_norm: str | None = None
    down: str = ""
    positions: str | None = None

    def projection(self, port: str) -> str:
        """Return the name of the projection that makes queries, keys or values."""
        return self.qkv["qkv".index(port)] if len(self.qkv) == 3 else self.qkv[0]

    def columns(self, port: str, head: int, shape: ModelShape) -> slice:
        """Return where a head's columns are in the output of its projection."""
        n_heads, n_kv_heads = shape.n_heads, shape.n_kv_heads
        per_group = n_heads // n_kv_heads
        if self.packing == "separate":
            place = head
        elif self.packing == "q then k then v":
            place = {"q": 0, "k": n_heads, "v": n_heads + n_kv_heads}[port] + head
        elif self.packing == "head by head":
            place = 3 * head + "qkv".index(port)
        elif port == "q":
            place = (per_group + 2) * (head // per_group) + head % per_group
        else:
            place = (per_group + 2) * head + per_group + "kv".index(port)
        return slice(place * shape.d_head, (place + 1) * shape.d_head)


def submodule(model: Any, family: str, path: str) -> Any:
    """Return the module at a path from the model's root."""
    found = model.original_model if FAMILIES[family].native else model
    for name in path.split("."):
        found = getattr(found, name)
    return found


def blocks_of(model: Any, family: str) -> list[Any]:
    """Return the model's blocks in order."""
    return list(submodule(model, family, LAYOUTS[family].blocks))


def _llama_like(**different: Any) -> Layout:
    return Layout(
        **{
            "blocks": "model.layers",
            "attention": "self_attn",
            "qkv": ("q_proj", "k_proj", "v_proj"),
            "packing": "separate",
            "output": "o_proj",
            "attention_norm": "input_layernorm",
            "mlp_norm": "post_attention_layernorm",
            "final_norm": "model.norm",
            "down": "mlp.down_proj",
            **different,
        }
    )


def _falcon(packing: Packing, attention_norm: str, mlp_norm: str) -> Layout:
    return Layout(
        blocks="transformer.h",
        attention="self_attention",
        qkv=("query_key_value",),
        packing=packing,
        output="dense",
        attention_norm=attention_norm,
        mlp_norm=mlp_norm,
        final_norm="transformer.ln_f",
        down="mlp.dense_4h_to_h",
    )


_NEOX = Layout(
    blocks="gpt_neox.layers",
    attention="attention",
    qkv=("query_key_value",),
    packing="head by head",
    output="dense",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    final_norm="gpt_neox.final_layer_norm",
    down="mlp.dense_4h_to_h",
)

_NATIVE = Layout(
    blocks="layers",
    attention="attn",
    qkv=("q", "k", "v"),
    packing="separate",
    output="o",
    attention_norm="ln1",
    mlp_norm="ln2",
    final_norm="ln_out",
    unembed="head",
    down="mlp.fc_out",
    positions="pos",
)

LAYOUTS = {
    "gpt2": Layout(
        blocks="transformer.h",
        attention="attn",
        qkv=("c_attn",),
        packing="q then k then v",
        output="c_proj",
        attention_norm="ln_1",
        mlp_norm="ln_2",
        final_norm="transformer.ln_f",
        down="mlp.c_proj",
        positions="transformer.wpe",
    ),
    "gpt-neox-parallel": _NEOX,
    "gpt-neox-sequential": _NEOX,
    "gpt-j": Layout(
        blocks="transformer.h",
        attention="attn",
        qkv=("q_proj", "k_proj", "v_proj"),
        packing="separate",
        output="out_proj",
        attention_norm="ln_1",
        mlp_norm="ln_1",
        final_norm="transformer.ln_f",
        down="mlp.fc_out",
    ),
    "llama": _llama_like(),
    "mistral": _llama_like(),
    "mistral-window": _llama_like(),
    "qwen2": _llama_like(),
    "qwen3": _llama_like(),
    "gemma": _llama_like(),
    "gemma2": _llama_like(
        mlp_norm="pre_feedforward_layernorm",
        post_attention_norm="post_attention_layernorm",
        post_mlp_norm="post_feedforward_layernorm",
    ),
    "phi": _llama_like(
        output="dense",
        mlp_norm="input_layernorm",
        final_norm="model.final_layernorm",
        down="mlp.fc2",
    ),
    "phi3": _llama_like(qkv=("qkv_proj",), packing="q then k then v"),
    "opt": Layout(
        blocks="model.decoder.layers",
        attention="self_attn",
        qkv=("q_proj", "k_proj", "v_proj"),
        packing="separate",
        output="out_proj",
        attention_norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",
        final_norm="model.decoder.final_layer_norm",
        run_mlp=_call_opt_mlp,
        down="fc2",
        positions="model.decoder.embed_positions",
    ),
    "bloom": Layout(
        blocks="transformer.h",
        attention="self_attention",
        qkv=("query_key_value",),
        packing="head by head",
        output="dense",
        attention_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        final_norm="transformer.ln_f",
        run_mlp=_call_bloom_mlp,
        down="mlp.dense_4h_to_h",
    ),
    "falcon": _falcon("q then k then v", "input_layernorm", "input_layernorm"),
    "falcon-grouped": _falcon("group by group", "ln_attn", "ln_mlp"),
    "mixtral": _llama_like(down=""),
    "attention-only": _NATIVE,
    "bidirectional": _NATIVE,
}
