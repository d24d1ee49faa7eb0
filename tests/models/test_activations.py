"""Activations by name are those of TransformerLens' hook points, read and changed."""

from functools import cache

import pytest
import torch

from circuitfind.errors import ModelError
from circuitfind.models.activations import (
    CHANGEABLE,
    HOOKS,
    READ_BY_MLP,
    Activations,
    read_by_mlp,
)
from circuitfind.models.loading import load_model
from circuitfind.models.zoo import zoo_path
from tests.oracles.checkpoints import build, float64_throughout, random_pairs

GATED = "hook_mlp_in"
"""TransformerLens computes it on request only; it is compared with another hook point below."""

ABSENT = {
    "gpt2": {"ln2.hook_normalized"},
    "gpt-neox-parallel": {"ln2.hook_normalized", "hook_resid_mid"},
    "llama": set(),
    "gemma2": {"attn.hook_out", "mlp.hook_out"},
    "mixtral": {"ln2.hook_normalized"},
    "opt": {"ln2.hook_normalized", "mlp.hook_in", "mlp.hook_out"},
    "phi": {"ln2.hook_normalized", "hook_resid_mid"},
}
"""Families, and the hook points that TransformerLens does not have, or that mean something else."""

PLACES = [
    (family, hook) for family in ABSENT for hook in HOOKS if hook not in {GATED, *ABSENT[family]}
]

TOKENS = random_pairs(0)[0]


@cache
def run_of(family):
    with float64_throughout(), torch.no_grad():
        model = load_model(build(family, n_layers=2))
        return model, Activations(model, TOKENS)


@pytest.mark.parametrize(("family", "hook"), PLACES)
def test_what_is_read_is_what_the_hook_point_sees(family, hook):
    model, run = run_of(family)
    with float64_throughout(), torch.no_grad():
        expected = model.hooks.read(TOKENS, None, f"blocks.1.{hook}")
        expected = expected.flatten(2) if hook == "attn.hook_z" else expected
        torch.testing.assert_close(run.at(1, hook), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("family", "hook"), [each for each in PLACES if each[1] in CHANGEABLE])
def test_what_is_changed_goes_through_the_rest_of_the_model(family, hook):
    def change(values):
        return 0.5 * values + 0.1

    model, run = run_of(family)
    with float64_throughout(), torch.no_grad():
        expected = model.hooks.run(TOKENS, None, {f"blocks.0.{hook}": change})
        found = run.logits_with(0, hook, change(run.at(0, hook)))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        unchanged = run.logits_with(0, hook, run.at(0, hook))
        torch.testing.assert_close(unchanged, run.logits, rtol=0, atol=1e-9)
        assert not torch.equal(unchanged, found)


@pytest.mark.parametrize("family", ABSENT)
def test_the_mlp_reads_the_stream_in_the_middle_or_in_parallel_the_one_before(family):
    model, run = run_of(family)
    hook = "hook_resid_pre" if model.shape.parallel_mlp else "hook_resid_mid"
    assert torch.equal(run.at(1, GATED), run.at(1, hook))


def test_of_a_layer_norm_the_normalized_stream_is_what_the_mlp_reads():
    with torch.no_grad():
        run = Activations(load_model(build("gpt2", n_layers=1)), random_pairs(0)[0])
    found, expected = run.at(0, "ln2.hook_normalized"), run.at(0, "mlp.hook_in")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("hook", READ_BY_MLP)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_with_a_frozen_scale_what_the_mlp_reads_is_affine_in_the_stream(family, hook):
    with float64_throughout(), torch.no_grad():
        model = load_model(build(family, n_layers=1))
        generator = torch.Generator().manual_seed(0)
        one, other = torch.randn(2, 1, 3, 32, generator=generator, dtype=torch.float64)
        read = {
            name: read_by_mlp(model, 0, hook, stream, one)
            for name, stream in {
                "one": one,
                "other": other,
                "sum": one + other,
                "none": 0 * one,
            }.items()
        }
        torch.testing.assert_close(read["one"], read_by_mlp(model, 0, hook, one))
        torch.testing.assert_close(read["sum"], read["one"] + read["other"] - read["none"])


def test_what_a_model_does_not_compute_is_refused_with_what_it_has():
    tokens = random_pairs(0)[0]
    for family, layer, hook, complaint in (
        ("gpt2", 2, "hook_mlp_out", "the model has no layer 2; its layers are 0 to 1"),
        ("attention-only", 1, "hook_mlp_out", "layer 1 of the model has no MLP"),
        ("gemma2", 0, "mlp.hook_out", "norms what is found at mlp.hook_out before it adds it"),
        ("mixtral", 0, "ln2.hook_normalized", "not known how the MLP of layer 0 norms"),
    ):
        with torch.no_grad():
            run = Activations(load_model(build(family, n_layers=2)), tokens)
        with pytest.raises(ModelError, match=complaint):
            run.at(layer, hook)


def test_models_wired_by_hand_have_their_activations_too():
    model = load_model(zoo_path("hist"))
    run = Activations(model, torch.tensor([[0, 1, 2]]))
    middle = run.at(0, "hook_resid_pre") + run.at(0, "hook_attn_out")
    torch.testing.assert_close(run.at(0, "hook_resid_mid"), middle)
    torch.testing.assert_close(run.at(0, "mlp.hook_in"), middle)
