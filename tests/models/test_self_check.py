"""The check that every model passes before anything is said about it."""

import pytest
import torch

from circuitfind.errors import SelfCheckError
from circuitfind.models.fingerprint import weights_fingerprint
from circuitfind.models.loading import load_model
from circuitfind.models.self_check import TOLERANCE, random_tokens, require_faithful, self_check
from tests.oracles.checkpoints import D_VOCAB, build

PARTS = (
    "project", "attend", "output", "attention_output", "attention_bias",
    "mlp", "mlp_pre", "mlp_post", "mlp_output", "logits",
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("part", PARTS)
def test_a_wrong_part_is_refused_with_the_difference(part, dtype, monkeypatch):
    model = load_model(build("gpt2", dtype=dtype, n_layers=2))
    tokens = random_tokens(D_VOCAB, 32)
    expected = model.own_logits(tokens)
    original = getattr(model, part)
    monkeypatch.setattr(model, part, lambda *args: original(*args) * 3)
    with pytest.raises(SelfCheckError, match="differ from its own by up to"):
        require_faithful(model, tokens, expected)


def test_the_difference_is_measured_relative_to_the_largest_logit():
    model = load_model(build("gpt2", n_layers=1))
    tokens = random_tokens(D_VOCAB, 32)
    expected = model.own_logits(tokens)
    scale = float(expected.abs().max())
    for share, passes in ((0.9, True), (1.1, False)):
        shifted = expected.clone()
        shifted[1, 2, 3] += share * TOLERANCE[torch.float64] * scale
        check = self_check(model, tokens, shifted)
        assert check.passed == passes
        assert check.scale == pytest.approx(scale, rel=1e-4)
        assert check.difference == pytest.approx(share * 1e-5 * scale, rel=0.01)


def test_logits_that_are_no_numbers_do_not_pass():
    model = load_model(build("gpt2", n_layers=1))
    tokens = random_tokens(D_VOCAB, 32)
    assert not self_check(model, tokens, torch.nan * model.own_logits(tokens)).passed


def test_models_are_checked_on_the_same_tokens_every_time():
    assert torch.equal(random_tokens(67, 32), random_tokens(67, 32))
    assert random_tokens(67, 32).shape == (2, 12)
    assert random_tokens(67, 5).shape == (2, 5)


def test_equal_weights_have_equal_fingerprints_and_others_others():
    assert load_model(build("gpt2", seed=0)).fingerprint == load_model(build("gpt2")).fingerprint
    others = [("gpt2", 1, torch.float64), ("gpt2", 0, torch.float32), ("opt", 0, torch.float64)]
    prints = {load_model(build(name, seed, dtype)).fingerprint for name, seed, dtype in others}
    assert len(prints | {load_model(build("gpt2")).fingerprint}) == 4


def test_a_fingerprint_sees_one_changed_entry_of_a_small_tensor():
    weights = {"a": torch.zeros(4096), "b": torch.ones(3, dtype=torch.bfloat16)}
    changed = {**weights, "a": weights["a"].clone()}
    changed["a"][1234] = 1e-30
    renamed = {"a": weights["a"], "c": weights["b"]}
    reshaped = {**weights, "a": weights["a"].reshape(64, 64)}
    prints = [weights_fingerprint(w) for w in (weights, changed, renamed, reshaped)]
    assert len(set(prints)) == 4
    assert prints[0] == weights_fingerprint(dict(reversed(weights.items())))


def test_a_fingerprint_samples_large_tensors_from_end_to_end():
    weight = torch.zeros(100_000)
    for entry in (0, -1):
        changed = weight.clone()
        changed[entry] = 1.0
        assert weights_fingerprint({"w": weight}) != weights_fingerprint({"w": changed})
