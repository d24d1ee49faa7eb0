"""How well a dictionary reconstructs a model: against dictionaries that are known to be exact."""

from dataclasses import replace

import pytest
import torch

from circuitfind.dictionaries import fit
from circuitfind.dictionaries.activations import JumpRelu, relu
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.fit import measure_fit
from circuitfind.dictionaries.sites import Site
from circuitfind.errors import DictionaryError
from circuitfind.models.activations import Activations
from circuitfind.models.loading import load_model
from tests.oracles.checkpoints import D_MODEL, D_VOCAB, build

SITE = Site(1, "mlp.hook_in", "hook_mlp_out")


@pytest.fixture(scope="module")
def hugging_face():
    """The MLPs of OPT are a linear map, a ReLU and a linear map, as transcoders are."""
    return build("opt", n_layers=2)


@pytest.fixture(scope="module")
def model(hugging_face):
    return load_model(hugging_face)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, D_VOCAB, (5, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exact(hugging_face):
    layer = hugging_face.model.decoder.layers[1]
    encoder, bias = layer.fc1.weight.data, layer.fc1.bias.data
    decoder = layer.fc2.weight.data.T.contiguous()
    return Dictionary("own", SITE, encoder, bias, relu(len(encoder)), decoder, layer.fc2.bias.data)


def test_an_mlp_of_relus_is_a_transcoder_that_explains_all_and_adds_no_loss(
    hugging_face, model, exact, tokens
):
    found = measure_fit(model, exact, tokens)
    assert found.n_positions == tokens.numel()
    assert found.variance_explained == pytest.approx(1, abs=1e-10)
    assert found.loss_added == pytest.approx(0, abs=1e-10)
    inner: list[torch.Tensor] = []
    first = hugging_face.model.decoder.layers[1].fc1
    handle = first.register_forward_hook(lambda module, given, returned: inner.append(returned))
    hugging_face(tokens)
    handle.remove()
    active = inner[0].view(tokens.numel(), -1) > 0
    assert found.mean_active == pytest.approx(float(active.sum(-1).double().mean()))
    assert found.alive == pytest.approx(float(active.any(0).double().mean()))
    assert not found.is_poor
    assert found.warning(exact) is None


def test_a_dictionary_that_writes_the_mean_explains_nothing(model, exact, tokens):
    with torch.no_grad():
        written = Activations(model, tokens).at(1, "hook_mlp_out")
    never = JumpRelu(torch.full((exact.n_latents,), 1e9))
    mean = replace(exact, activation=never, decoder_bias=written.flatten(0, 1).mean(0))
    found = measure_fit(model, mean, tokens)
    assert found.variance_explained == pytest.approx(0, abs=1e-10)
    assert (found.mean_active, found.alive, found.is_poor) == (0, 0, True)
    said = found.warning(replace(mean, trained_on="gpt2"))
    assert "the dictionary 'own' reconstructs blocks.1.mlp.hook_in -> blocks.1.hook_mlp" in said
    assert "explains 0.0% of the variance with 0.0 latents" in said.replace("-0.0%", "0.0%")
    assert "trained on this model (its file says 'gpt2')" in said
    zeros = measure_fit(model, replace(mean, decoder_bias=torch.zeros(D_MODEL)), tokens)
    assert zeros.loss_added == pytest.approx(zeros.loss_added_by_zero)
    assert zeros.loss_added_by_zero == pytest.approx(found.loss_added_by_zero)


def test_the_loss_added_is_that_of_the_model_with_another_mlp(hugging_face, model, exact, tokens):
    """The reconstruction is the MLP's own output of half the size, so halving fc2 does the same."""
    half = replace(exact, decoder=exact.decoder / 2, decoder_bias=exact.decoder_bias / 2)
    found = measure_fit(model, half, tokens)
    outer = hugging_face.model.decoder.layers[1].fc2
    weights = outer.weight.data.clone(), outer.bias.data.clone()

    def loss():
        logits = hugging_face(tokens).logits[:, :-1].flatten(0, 1)
        return float(torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()))

    before = loss()
    try:
        outer.weight.data, outer.bias.data = weights[0] / 2, weights[1] / 2
        after = loss()
    finally:
        outer.weight.data, outer.bias.data = weights
    assert found.loss_added == pytest.approx(after - before, abs=1e-5)


def test_padding_and_the_size_of_chunks_change_nothing(model, exact, tokens, monkeypatch):
    worse = replace(exact, encoder_bias=exact.encoder_bias - 0.1)
    expected = measure_fit(model, worse, tokens)
    padded = torch.cat([tokens, torch.ones_like(tokens[:, :2])], dim=1)
    real = torch.ones_like(padded, dtype=torch.bool)
    real[:, -2:] = False
    monkeypatch.setattr(fit, "_POSITIONS", 24)
    found = measure_fit(model, worse, padded, real)
    for name in ("n_positions", "variance_explained", "mean_active", "alive", "loss_added"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-10)


def test_a_model_that_sees_later_tokens_has_no_loss(tokens):
    model = load_model(build("bidirectional", n_layers=2))
    own = Dictionary(
        "own", Site(1, "hook_mlp_out", "hook_mlp_out"),
        torch.eye(D_MODEL), torch.full((D_MODEL,), 1e3), relu(D_MODEL),
        torch.eye(D_MODEL), torch.full((D_MODEL,), -1e3),
    )  # fmt: skip
    found = measure_fit(model, own, tokens)
    assert found.variance_explained == pytest.approx(1, abs=1e-6)
    assert found.loss_added is None
    assert "loss" not in str(found)


@pytest.mark.parametrize("reads", ["attn.hook_z", "hook_resid_post", "hook_attn_out"])
def test_a_dictionary_of_any_site_that_shifts_and_shifts_back_is_exact(reads, model, tokens):
    width = D_MODEL
    own = Dictionary(
        "own", Site(0, reads, reads),
        torch.eye(width), torch.full((width,), 1e3), relu(width),
        torch.eye(width), torch.full((width,), -1e3),
    )  # fmt: skip
    found = measure_fit(model, own, tokens)
    assert found.variance_explained == pytest.approx(1, abs=1e-6)
    assert found.loss_added == pytest.approx(0, abs=1e-6)
    assert abs(found.loss_added_by_zero) > 0.01


def test_a_dictionary_of_another_width_or_layer_is_refused(model, exact, tokens):
    narrow = replace(exact, encoder=exact.encoder[:, :-1])
    with pytest.raises(DictionaryError, match="its mlp.hook_in has the width 31 and that of the"):
        measure_fit(model, narrow, tokens)
    narrow = replace(exact, decoder=exact.decoder[:, :-1], decoder_bias=exact.decoder_bias[:-1])
    with pytest.raises(DictionaryError, match="its hook_mlp_out has the width 31 and that of the"):
        measure_fit(model, narrow, tokens)
    late = replace(exact, site=replace(SITE, layer=2))
    with pytest.raises(DictionaryError, match="the model has no layer 2; its layers are 0 to 1"):
        measure_fit(model, late, tokens)
