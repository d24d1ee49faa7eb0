"""What the engine takes for granted of a model's parts is tried, and what is not so is named."""

import pytest
import torch
import transformers

from circuitfind.errors import PromptError, SelfCheckError
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.models.self_check import component_logits
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from tests.oracles.checkpoints import D_VOCAB, build


class ByPosition(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, stream):
        ramp = torch.linspace(1, 1.1, stream.shape[1])
        return self.inner(stream) * ramp[:, None]


class Mixing(ByPosition):
    def forward(self, stream):
        return self.inner(stream) + 0.1 * stream.mean(1, keepdim=True)


class AcrossPrompts(ByPosition):
    def forward(self, stream):
        return self.inner(stream) + 0.1 * stream[:1]


class Counting(ByPosition):
    calls = 0

    def forward(self, stream):
        self.calls += 1
        return self.inner(stream) * (1 + 0.01 * self.calls)


class Drawing(ByPosition):
    def forward(self, stream):
        return self.inner(stream) * (1 + 0.01 * torch.rand(()))


ALIKE = "does not treat each position of each prompt by itself"


@pytest.mark.parametrize("kind", [ByPosition, AcrossPrompts])
def test_an_mlp_that_looks_beyond_its_position_is_named(kind):
    model = build("gpt2", dtype=torch.float32, n_layers=2)
    model.transformer.h[1].mlp.act = kind(model.transformer.h[1].mlp.act)
    with pytest.raises(SelfCheckError, match=f"the MLP of block 1 of 'GPT2LMHeadModel' {ALIKE}"):
        load_model(model)


def test_an_mlp_that_mixes_positions_is_refused():
    model = build("gpt2", dtype=torch.float32, n_layers=2)
    model.transformer.h[1].mlp.act = Mixing(model.transformer.h[1].mlp.act)
    with pytest.raises(SelfCheckError, match=f"the MLP of block 1 .* {ALIKE}"):
        load_model(model)


@pytest.mark.parametrize("kind", [Counting, Drawing])
def test_an_mlp_that_changes_from_call_to_call_is_refused(kind):
    model = build("llama", dtype=torch.float32, n_layers=1)
    model.model.layers[0].mlp.act_fn = kind(model.model.layers[0].mlp.act_fn)
    with pytest.raises(SelfCheckError, match="is not the same when it is run again|cannot be deco"):
        load_model(model)


@pytest.mark.parametrize("named", ["norm and q projection of block 0", "final norm and unembed"])
def test_a_norm_that_depends_on_where_it_is_is_named(named):
    class NormByPosition(type(build("llama", dtype=torch.float32, n_layers=1).model.norm)):
        def forward(self, stream):
            return super().forward(stream) * torch.linspace(1, 1.1, stream.shape[-2])[:, None]

    model = build("llama", dtype=torch.float32, n_layers=1)
    norm = model.model.norm if "final" in named else model.model.layers[0].input_layernorm
    norm.__class__ = NormByPosition
    with pytest.raises(SelfCheckError, match=f"the {named}.* {ALIKE}"):
        load_model(model)


def test_a_model_that_sees_ahead_and_does_not_say_so_is_refused():
    bridge = build("bidirectional", dtype=torch.float32, n_layers=1)
    bridge.cfg.attention_dir = "causal"
    with pytest.raises(SelfCheckError, match="sees later tokens, though its attention is said"):
        load_model(bridge)


# ------------------------------------------------------------------------------- lengths


@pytest.fixture(scope="module")
def longrope():
    """A model whose positions are others in prompts of more than 16 tokens."""
    config = transformers.Phi3Config(
        vocab_size=D_VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        original_max_position_embeddings=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        rope_scaling={
            "rope_type": "longrope", "rope_theta": 10_000.0,
            "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0],
        },
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    return model


def test_lengths_on_both_sides_of_a_switch_cannot_share_a_batch(longrope):
    model = load_model(longrope)
    line = "computes a prompt of 6 tokens otherwise beside one of 40"
    with pytest.raises(PromptError, match=line):
        problem(model, 6, 40)
    for lengths in ((6, 12), (20, 40), (6, 6), (40, 40)):
        assert len(problem(model, *lengths).prompts) == 2


def test_attention_is_right_at_lengths_on_both_sides_of_a_switch(longrope):
    model = load_model(longrope)
    for length in (6, 40, 12, 20, 6):
        tokens = torch.randint(3, D_VOCAB, (2, length), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = longrope(tokens).logits
            found = component_logits(model, tokens)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "mistral-window", "bidirectional"])
def test_other_models_take_prompts_of_any_lengths_together(family):
    assert problem(load_model(build(family, n_layers=1)), 6, 20).prompts.padded


def problem(model, *lengths):
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for length in lengths:
        clean, corrupted = torch.randint(3, D_VOCAB, (2, length), generator=generator).tolist()
        pairs.append(Pair(clean, corrupted, answers=[[1]], wrong_answers=[[2]]))
    return assemble(model, collate(pairs), find_metric("kl"))
