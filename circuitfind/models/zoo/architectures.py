"""The networks that the zoo is made of, untrained, and how they are kept on disk.

GPT-2 (learned positions, LayerNorm, MLPs) and Llama (rotary positions, RMSNorm, gated MLPs, two
query heads to a key/value head) are Hugging Face models and saved as such. Hugging Face has no
attention-only transformer; that one is TransformerLens' native model, a `native.json` with its
sizes beside the weights.
"""

import json
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from circuitfind.files import read_text, write_whole
from circuitfind.records import parse_json
from circuitfind.stored import read_tensors

NATIVE = "native.json"
"""Marks the directory of a native model."""

WEIGHTS = "model.safetensors"

_SIZES = (
    "n_layers", "n_heads", "d_model", "d_head", "n_ctx", "d_vocab", "attn_only", "act_fn",
    "normalization_type",
)  # fmt: skip


def new_network(
    architecture: str,
    *,
    n_tokens: int,
    n_layers: int,
    n_heads: int,
    d_model: int,
    n_positions: int,
) -> Any:
    """Make an untrained network from torch's global generator."""
    import transformers

    if architecture == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=n_tokens,
                n_positions=n_positions,
                n_embd=d_model,
                n_layer=n_layers,
                n_head=n_heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    if architecture == "llama":
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=n_tokens,
                max_position_embeddings=n_positions,
                hidden_size=d_model,
                intermediate_size=8 * d_model // 3,
                num_hidden_layers=n_layers,
                num_attention_heads=n_heads,
                num_key_value_heads=n_heads // 2,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )
    return new_native(
        {
            "n_layers": n_layers,
            "n_heads": n_heads,
            "d_model": d_model,
            "d_head": d_model // n_heads,
            "n_ctx": n_positions,
            "d_vocab": n_tokens,
            "attn_only": True,
            "act_fn": "gelu",
            "normalization_type": "LN",
        }
    )


def new_native(sizes: dict[str, Any]) -> Any:
    """Make TransformerLens' native model of the given sizes."""
    from transformer_lens import TransformerBridge, TransformerBridgeConfig

    return TransformerBridge.boot_native(TransformerBridgeConfig(**sizes))


def predicted(model: Any, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
    """Return the logits of a network of any of these kinds."""
    output = model(tokens)
    logits: Tensor = getattr(output, "logits", output)
    return logits


def save_network(model: Any, folder: Path) -> None:
    """Write a network's sizes and weights to a directory."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: getattr(model.cfg, name) for name in _SIZES}
    write_whole(folder / NATIVE, json.dumps(sizes, indent=2) + "\n")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_whole(folder / WEIGHTS, save(weights))


def load_native(folder: Path) -> Any:
    """Read a native model that `save_network` wrote."""
    model = new_native(parse_json(read_text(folder / NATIVE)))
    model.load_state_dict(read_tensors(folder / WEIGHTS))
    return model.eval()
