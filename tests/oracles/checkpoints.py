"""Tiny random models of every supported family, built in memory from a seed.

Weights are drawn from a generator of their own, in float64, and large enough that every edge has a
visible effect; the same seed gives the same model in any dtype. Families are Hugging Face
models, except those that TransformerLens builds itself (`native`), which come as a bridge.

Hugging Face computes norms, softmax and rotary angles in float32 whatever the weights' dtype. Where
sums taken in another order must agree to 1e-9, `float64_throughout` turns those casts off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circuitfind.shape import ModelShape

N_LAYERS, N_HEADS, D_MODEL, D_HEAD, D_MLP, D_VOCAB, N_CONTEXT = 3, 4, 32, 8, 48, 67, 32


@dataclass(frozen=True)
class Family:
    """How to configure a family's tiny model, and the facts of it that fix its graph.

    Attributes:
        native: Whether TransformerLens builds the model itself, so that it is a bridge.
        bridge_is_right: Whether TransformerLens' bridge computes what Hugging Face does. It does
            not for Falcon's grouped heads, whose fused projection it unpacks in the wrong order.
        embedding_scale: Standard deviation of the embedding's weights.
    """

    name: str
    config: Callable[[int], Any]
    n_kv_heads: int = N_HEADS
    has_mlp: bool = True
    parallel_mlp: bool = False
    heads_share_norm: bool = False
    learned_positions: bool = False
    native: bool = False
    bridge_is_right: bool = True
    embedding_scale: float = 0.5

    def shape(self, n_layers: int = N_LAYERS) -> ModelShape:
        """Return the sizes that a graph of this family's tiny model must have."""
        return ModelShape(
            n_layers=n_layers,
            n_heads=N_HEADS,
            n_kv_heads=self.n_kv_heads,
            d_model=D_MODEL,
            d_head=D_HEAD,
            d_vocab=D_VOCAB,
            has_mlp=self.has_mlp,
            parallel_mlp=self.parallel_mlp,
            heads_share_norm=self.heads_share_norm,
            learned_positions=self.learned_positions,
        )


def build(
    family: str, seed: int = 0, dtype: torch.dtype = torch.float64, n_layers: int = N_LAYERS
) -> Any:
    """Return the tiny model of a family: a Hugging Face model, or a bridge if it is native."""
    facts = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        model = _native(facts, n_layers, dtype) if facts.native else _hugging_face(facts, n_layers)
    _draw_weights(model, facts, seed, dtype)
    return model.eval().requires_grad_(requires_grad=False)


def random_pairs(seed: int, n_prompts: int = 2, n_tokens: int = 6) -> tuple[Tensor, Tensor]:
    """Return clean and corrupted tokens that differ in about half of their positions."""
    generator = torch.Generator().manual_seed(1000 + seed)
    clean = torch.randint(3, D_VOCAB, (n_prompts, n_tokens), generator=generator)
    other = torch.randint(3, D_VOCAB, (n_prompts, n_tokens), generator=generator)
    differs = torch.rand(n_prompts, n_tokens, generator=generator) < 0.5
    differs[:, 1] = differs[0, -1] = True
    return clean, torch.where(differs, other, clean)


def _hugging_face(facts: Family, n_layers: int) -> Any:
    config = facts.config(n_layers)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    # The default for mixtures of experts, torch's grouped matmul, refuses float64.
    if hasattr(config, "num_local_experts"):
        model.set_experts_implementation("eager")
    return model


def _native(facts: Family, n_layers: int, dtype: torch.dtype) -> Any:
    from transformer_lens import TransformerBridge

    return TransformerBridge.boot_native(facts.config(n_layers), dtype=dtype)


def _draw_weights(model: Any, facts: Family, seed: int, dtype: torch.dtype) -> None:
    """Draw every parameter; buffers (rotary frequencies) stay as `from_pretrained` leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if weight.ndim >= 2:
            # The smaller side, because GPT-2's matrices lie the other way round.
            scale = 1.3 * min(weight.shape[-2:]) ** -0.5
            scale = facts.embedding_scale if _is_embedding(name) else scale
            drawn = scale * noise
        elif name.endswith("bias"):
            drawn = 0.1 * noise
        else:
            drawn = weight.data.double() + 0.2 * noise
        # A copy and no cast, because casts do nothing inside `float64_throughout`.
        weight.data = torch.empty_like(weight, dtype=dtype).copy_(drawn)
    if not facts.native:
        model.config.dtype = dtype


def _is_embedding(name: str) -> bool:
    return any(part in name for part in ("embed", "wte", "wpe", "pos."))


class _KeepFloat64(TorchFunctionMode):
    """Ignores casts of float64 tensors to float32."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        if function is Tensor.to and args[0].dtype == torch.float64:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if not kwargs:
            return function(*args)
        if kwargs.get("dtype") is torch.float32 and _is_float64(args):
            kwargs = {**kwargs, "dtype": torch.float64}
        return function(*args, **kwargs)


def _is_float64(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Let float64 models compute in float64 even where their code asks for float32."""
    with _KeepFloat64():
        yield


def _common(n_layers: int) -> dict[str, Any]:
    """Settings that most configuration classes share by name."""
    return {
        "vocab_size": D_VOCAB,
        "hidden_size": D_MODEL,
        "num_hidden_layers": n_layers,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": N_CONTEXT,
        **_tokens(),
    }


def _tokens() -> dict[str, Any]:
    return {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "use_cache": False}


def _grouped(n_layers: int) -> dict[str, Any]:
    return {**_common(n_layers), "num_key_value_heads": 2, "intermediate_size": D_MLP}


def _gpt2(n_layers: int) -> Any:
    return transformers.GPT2Config(
        vocab_size=D_VOCAB,
        n_positions=N_CONTEXT,
        n_embd=D_MODEL,
        n_layer=n_layers,
        n_head=N_HEADS,
        **_tokens(),
    )


def _gpt_neox(n_layers: int, *, parallel: bool) -> Any:
    return transformers.GPTNeoXConfig(
        **_common(n_layers),
        intermediate_size=D_MLP,
        rotary_pct=0.5,
        use_parallel_residual=parallel,
    )


def _gptj(n_layers: int) -> Any:
    return transformers.GPTJConfig(
        vocab_size=D_VOCAB,
        n_positions=N_CONTEXT,
        n_embd=D_MODEL,
        n_layer=n_layers,
        n_head=N_HEADS,
        rotary_dim=4,
        tie_word_embeddings=False,
        **_tokens(),
    )


def _llama(n_layers: int) -> Any:
    return transformers.LlamaConfig(**_grouped(n_layers), attention_bias=True)


def _mistral(n_layers: int, *, window: int | None) -> Any:
    return transformers.MistralConfig(**_grouped(n_layers), sliding_window=window)


def _qwen2(n_layers: int) -> Any:
    return transformers.Qwen2Config(**_grouped(n_layers))


def _qwen3(n_layers: int) -> Any:
    return transformers.Qwen3Config(**_grouped(n_layers), head_dim=D_HEAD)


def _gemma(n_layers: int) -> Any:
    return transformers.GemmaConfig(**_grouped(n_layers), head_dim=D_HEAD)


def _gemma2(n_layers: int) -> Any:
    return transformers.Gemma2Config(
        **_grouped(n_layers),
        head_dim=D_HEAD,
        query_pre_attn_scalar=6,
        sliding_window=3,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    )


def _phi(n_layers: int) -> Any:
    return transformers.PhiConfig(
        **_common(n_layers), intermediate_size=D_MLP, partial_rotary_factor=0.5
    )


def _phi3(n_layers: int) -> Any:
    return transformers.Phi3Config(**_grouped(n_layers))


def _opt(n_layers: int) -> Any:
    return transformers.OPTConfig(
        **_common(n_layers), ffn_dim=D_MLP, word_embed_proj_dim=D_MODEL, dropout=0.0
    )


def _bloom(n_layers: int) -> Any:
    return transformers.BloomConfig(
        vocab_size=D_VOCAB, hidden_size=D_MODEL, n_layer=n_layers, n_head=N_HEADS, **_tokens()
    )


def _falcon(n_layers: int, **architecture: Any) -> Any:
    return transformers.FalconConfig(
        **_common(n_layers), ffn_hidden_size=D_MLP, alibi=False, **architecture
    )


def _mixtral(n_layers: int) -> Any:
    return transformers.MixtralConfig(
        **_grouped(n_layers), num_local_experts=3, num_experts_per_tok=2, sliding_window=None
    )


def _native_config(n_layers: int, **choices: Any) -> Any:
    from transformer_lens import TransformerBridgeConfig

    return TransformerBridgeConfig(
        d_model=D_MODEL,
        n_layers=n_layers,
        n_heads=N_HEADS,
        d_head=D_HEAD,
        d_mlp=D_MLP,
        n_ctx=N_CONTEXT,
        d_vocab=D_VOCAB,
        act_fn="gelu_new",
        normalization_type="LN",
        seed=0,
        **choices,
    )


FAMILIES = {
    family.name: family
    for family in (
        Family("gpt2", _gpt2, learned_positions=True),
        Family("gpt-neox-parallel", lambda n: _gpt_neox(n, parallel=True), parallel_mlp=True),
        Family("gpt-neox-sequential", lambda n: _gpt_neox(n, parallel=False)),
        Family("gpt-j", _gptj, parallel_mlp=True),
        Family("llama", _llama, n_kv_heads=2),
        Family("mistral", lambda n: _mistral(n, window=None), n_kv_heads=2),
        Family("mistral-window", lambda n: _mistral(n, window=3), n_kv_heads=2),
        Family("qwen2", _qwen2, n_kv_heads=2),
        Family("qwen3", _qwen3, n_kv_heads=2),
        Family("gemma", _gemma, n_kv_heads=2, embedding_scale=0.2),
        Family("gemma2", _gemma2, n_kv_heads=2, heads_share_norm=True, embedding_scale=0.2),
        Family("phi", _phi, parallel_mlp=True),
        Family("phi3", _phi3, n_kv_heads=2),
        Family("opt", _opt, learned_positions=True),
        Family("bloom", _bloom),
        Family(
            "falcon",
            lambda n: _falcon(n, multi_query=True, parallel_attn=True),
            n_kv_heads=1,
            parallel_mlp=True,
        ),
        Family(
            "falcon-grouped",
            lambda n: _falcon(n, new_decoder_architecture=True, num_kv_heads=2, multi_query=False),
            n_kv_heads=2,
            parallel_mlp=True,
            bridge_is_right=False,
        ),
        Family("mixtral", _mixtral, n_kv_heads=2),
        Family(
            "attention-only",
            lambda n: _native_config(n, attn_only=True),
            has_mlp=False,
            learned_positions=True,
            native=True,
        ),
        Family(
            "bidirectional",
            lambda n: _native_config(n, attention_dir="bidirectional"),
            learned_positions=True,
            native=True,
        ),
    )
}
"""Every family by name; `FAMILIES[name].shape()` gives the sizes of its tiny model."""
