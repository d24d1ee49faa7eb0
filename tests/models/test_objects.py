"""Adapters, hooks and wrappers on a model are found and named; half precision hides none."""

import re

import pytest
import torch
import transformers

from circuitfind.errors import ModelError, SelfCheckError
from circuitfind.models.loading import load_model
from tests.oracles.checkpoints import FAMILIES, build

TYPES = [torch.float32, torch.bfloat16]


class LowRank(torch.nn.Module):
    """A low-rank adapter beside a linear map, as adapter libraries put it in its place."""

    def __init__(self, base):
        super().__init__()
        self.base_layer, self.weight, self.bias = base, base.weight, base.bias
        width = base.in_features
        self.lora_A = torch.nn.Linear(width, 2, bias=False, dtype=base.weight.dtype)
        self.lora_B = torch.nn.Linear(2, base.out_features, bias=False, dtype=base.weight.dtype)

    def forward(self, x):
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


@pytest.mark.parametrize("dtype", TYPES)
def test_an_adapter_is_found(dtype):
    model = build("llama", dtype=dtype, n_layers=2)
    attention = model.model.layers[1].self_attn
    attention.q_proj = LowRank(attention.q_proj)
    line = "its module 'model.layers.1.self_attn.q_proj' holds an adapter .LoRA.*; merge it"
    with pytest.raises(ModelError, match=line):
        load_model(model)


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_hook_is_found(kind, dtype):
    model = build("gpt2", dtype=dtype, n_layers=2)
    getattr(model.transformer.h[1].mlp, f"register_{kind}_hook")(lambda *_: None)
    with pytest.raises(ModelError, match=r"module 'transformer.h.1.mlp' has a hook.*; remove it"):
        load_model(model)


def test_a_hook_on_a_hook_point_of_a_bridge_is_found():
    bridge = build("attention-only", n_layers=1)
    bridge.add_hook("blocks.0.hook_resid_pre", lambda tensor, hook: tensor * 2)
    with pytest.raises(ModelError, match="'blocks.0.hook_in' has a hook"):
        load_model(bridge)


def test_a_weight_that_is_computed_from_others_is_found():
    model = build("llama", dtype=torch.float32, n_layers=1)
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[0].mlp.up_proj)
    with pytest.raises(ModelError, match="'model.layers.0.mlp.up_proj' computes a weight from"):
        load_model(model)


def test_a_forward_function_that_was_replaced_is_found():
    model = build("gpt2", dtype=torch.float32, n_layers=1)
    mlp = model.transformer.h[0].mlp
    own = mlp.forward
    mlp.forward = lambda stream: 2 * own(stream)
    with pytest.raises(ModelError, match="'transformer.h.0.mlp' has had its forward function"):
        load_model(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_named_with_what_to_give_instead():
    model = torch.compile(build("gpt2", dtype=torch.float32, n_layers=1))
    with pytest.raises(ModelError, match=r"is compiled by torch.compile; give.*_orig_mod"):
        load_model(model)


def test_a_model_for_several_devices_is_named_with_what_to_give_instead():
    model = torch.nn.DataParallel(build("gpt2", dtype=torch.float32, n_layers=1))
    with pytest.raises(ModelError, match=r"wraps a model for several devices; give.*model.module"):
        load_model(model)


def test_weights_that_are_not_in_memory_are_named():
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(FAMILIES["gpt2"].config(1))
    with pytest.raises(ModelError, match="has weights that are not in memory .offloaded to disk"):
        load_model(model)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_transformers_itself_hangs_on_a_model_is_no_hook_of_the_user(family):
    model = build(family, dtype=torch.float32, n_layers=1)
    model(torch.arange(5)[None], output_hidden_states=True, output_attentions=True)
    load_model(model)


@pytest.mark.parametrize("dtype", [*TYPES, torch.float16])
@pytest.mark.parametrize("config", ["granite", "falcon-alibi"])
def test_a_wrong_decomposition_is_refused_in_every_number_type(config, dtype):
    """Reported of other tools: parts that miss a multiplier or ALiBi pass a loose check."""
    model = transformers.AutoModelForCausalLM.from_config(WRONG[config])
    with pytest.raises((SelfCheckError, ModelError), match="cannot be") as refusal:
        load_model(model.to(dtype))
    found = re.search(r"by up to ([0-9.e+-]+) \(allowed: 1e-04", str(refusal.value))
    assert found is not None or config == "falcon-alibi"


WRONG = {
    "granite": transformers.GraniteConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        residual_multiplier=0.22,
        attention_multiplier=0.35,
        embedding_multiplier=12.0,
        logits_scaling=8.0,
    ),
    "falcon-alibi": transformers.FalconConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
    ),
}
"""Architectures that TransformerLens takes apart wrongly."""
