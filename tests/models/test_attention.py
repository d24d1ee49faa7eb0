"""Which of the two ways to compute attention is used for whom, and that both leave no trace."""

import pytest
import torch
import transformers

from circuitfind.errors import ModelError
from circuitfind.models.attention import DirectAttention, ReplayedAttention
from circuitfind.models.loading import load_model
from tests.oracles.checkpoints import D_HEAD, D_VOCAB, FAMILIES, N_HEADS, build

BRIDGED = [name for name, family in FAMILIES.items() if family.bridge_is_right]
REPLAYED = {
    "gpt-j": "rotates neighbouring pairs, from tables that it looks up itself",
    "bloom": "adds a bias by distance (ALiBi) that its module is given apart",
}
"""Families whose attention is not written out, and why."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", [name for name in BRIDGED if name not in REPLAYED])
def test_most_families_compute_single_heads_directly(family, dtype):
    for core in cores_of(build(family, dtype=dtype, n_layers=2)):
        assert isinstance(core, DirectAttention)


@pytest.mark.parametrize("family", REPLAYED)
def test_unusual_attention_is_left_to_the_models_own_module(family):
    for core in cores_of(build(family, n_layers=2)):
        assert isinstance(core, ReplayedAttention)


def test_the_unscaled_attention_of_gpt_neo_is_replayed_and_right():
    config = transformers.GPTNeoConfig(
        vocab_size=D_VOCAB,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=3,
        max_position_embeddings=32,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    for core in cores_of(model):
        assert isinstance(core, ReplayedAttention)


@pytest.mark.parametrize("family", ["llama", "mistral-window", "gemma2", "qwen3", "phi", "opt"])
def test_direct_and_replayed_attention_agree_at_any_length_and_for_any_heads(family):
    model = load_model(build(family, n_layers=2))
    for length in (1, 4, 11):
        direct = model._cores(1, length)  # type: ignore[attr-defined]
        replayed = replayed_core(model, 1)
        for heads in ([0, 1, 2, 3], [2], [3, 1]):
            streams = random_heads(len(heads), 2, length), random_heads(len(heads), 2, length)
            # Heads of a group share their key and value.
            shared = FAMILIES[family].n_kv_heads < N_HEADS and heads == [0, 1, 2, 3]
            key, value = (s[[0, 0, 2, 2]] if shared else s for s in streams)
            query = random_heads(len(heads), 2, length)
            torch.testing.assert_close(
                direct(heads, query, key, value, None),
                replayed(heads, query, key, value, None),
                # Softmax and rotary angles of Hugging Face are float32.
                rtol=0,
                atol=1e-5,
            )


def test_the_window_of_a_mistral_is_seen_at_lengths_beyond_it_alone():
    model = load_model(build("mistral-window", n_layers=1))
    query, key, value = (random_heads(4, 1, 6) for _ in range(3))
    mixed = model.attend(0, range(4), query, key, value)
    changed = value.clone()
    changed[:, :, 0] += 1
    moved = (model.attend(0, range(4), query, key, changed) - mixed).abs().amax((0, 1, 3))
    assert (moved[:3] > 1e-3).all() and (moved[3:] == 0).all()


@pytest.mark.parametrize("family", ["gpt-j", "bloom"])
def test_no_hook_outlives_an_attention_call_that_fails(family):
    model = load_model(build(family, n_layers=2))
    attention = model._bridge.blocks[1].attn  # type: ignore[attr-defined]
    query, key, value = (random_heads(4, 1, 6) for _ in range(3))
    before = model.attend(1, range(4), query, key, value)
    points = (attention.hook_q, attention.hook_k, attention.hook_v, attention.hook_z)
    assert not any(hooks_of(point) for point in points)

    def fail(module, args):
        assert all(hooks_of(point) for point in points)
        raise MemoryError("no room")

    with (
        attention.hook_z.register_forward_pre_hook(fail),
        pytest.raises(MemoryError, match="no room"),
    ):
        model.attend(1, range(4), query, key, value)
    assert not any(hooks_of(point) for point in points)
    assert torch.equal(model.attend(1, range(4), query, key, value), before)


def test_no_hook_outlives_loading_or_embedding():
    model = load_model(build("gpt2", n_layers=1))
    model.embed(torch.zeros(1, 3, dtype=torch.long))
    bridge = model._bridge  # type: ignore[attr-defined]
    assert not any(hooks_of(point) for point in bridge.hook_dict.values())
    assert not any(block.attn._forward_pre_hooks for block in bridge.blocks)


def test_a_replay_cannot_leave_padding_out_and_says_so():
    core = replayed_core(load_model(build("bidirectional", n_layers=1)), 0)
    heads = random_heads(4, 1, 3)
    with pytest.raises(ModelError, match="cannot leave out padding; give prompts of one length"):
        core([0, 1, 2, 3], heads, heads, heads, torch.tensor([[True, True, False]]))


# ------------------------------------------------------------------------------- helpers


def cores_of(hugging_face):
    model = load_model(hugging_face)
    tokens = torch.randint(D_VOCAB, (2, 7), generator=torch.Generator().manual_seed(0))
    model.embed(tokens)
    return [model._cores(layer, 7) for layer in range(2)]  # type: ignore[attr-defined]


def replayed_core(model, layer):
    return ReplayedAttention(
        call_for=lambda batch, pos: model._calls(batch, pos)[layer],
        n_heads=model.shape.n_heads,
        n_kv_heads=model.shape.n_kv_heads,
        d_model=model.shape.d_model,
        dtype=model.weights_dtype,
    )


def random_heads(n_heads, n_prompts, length):
    return torch.randn(n_heads, n_prompts, length, D_HEAD, dtype=torch.float64)


def hooks_of(point):
    return [*point.fwd_hooks, *point._forward_hooks.values()]
