"""Training transcoders, and the files of those that are trained."""

import json
from pathlib import Path

import pytest
import torch

from circuitfind.dictionaries.activations import JumpRelu, TopK
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.fit import measure_fit
from circuitfind.dictionaries.loading import load_dictionaries
from circuitfind.dictionaries.saelens import save_saelens
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.training import Recipe, TranscoderTraining
from circuitfind.models.loading import load_model
from circuitfind.tasks import train_transcoders
from tests.oracles.checkpoints import build

SITE = Site(0, "mlp.hook_in", "hook_mlp_out")
QUICK = Recipe(n_latents=24, n_active=4, steps=400, batch=256, peak_rate=1e-2)


@pytest.fixture(scope="module")
def sparse():
    """A layer that is a transcoder: 16 latents of which about 3 are active at a time."""
    generator = torch.Generator().manual_seed(0)
    drawn, decoder = torch.linalg.qr(torch.randn(2, 16, 16, generator=generator)).Q
    active = torch.rand(4000, 16, generator=generator) < 0.2
    strength = 1 + torch.rand(4000, 16, generator=generator)
    latents = active * strength
    return latents @ drawn, latents, latents @ decoder + 1


def test_training_finds_the_latents_that_a_layer_is_made_of(sparse):
    read, latents, written = sparse
    training = TranscoderTraining(5 * read, 0.1 * written, QUICK)
    unexplained = list(training.run())
    assert len(unexplained) == QUICK.steps
    assert unexplained[-1] < 0.05 < unexplained[0]
    made = training.trained("made", SITE, "a layer")
    found = made.encode(5 * read)
    error = (made.decode(found, 5 * read) - 0.1 * written).square().sum()
    assert error < 0.05 * (0.1 * (written - written.mean(0))).square().sum()
    torch.testing.assert_close(made.decoder.norm(dim=-1), torch.ones(24))
    both = torch.corrcoef(torch.cat([latents.T, found.T + 1e-9 * torch.rand(24, 4000)]))
    assert (both[:16, 16:].max(dim=1).values > 0.9).double().mean() > 0.8


def test_the_same_seed_gives_the_same_transcoder_and_another_seed_another(sparse):
    read, _, written = sparse

    def made(seed):
        recipe = Recipe(n_latents=8, n_active=2, steps=5, batch=32, seed=seed)
        training = TranscoderTraining(read, written, recipe)
        list(training.run())
        return training.trained("made", SITE, "a layer").encoder

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("transcodes", [False, True])
def test_what_is_written_is_read_back_to_the_last_bit(transcodes, skips, tmp_path):
    if skips and not transcodes:
        return
    generator = torch.Generator().manual_seed(0)
    sizes = [(7, 4), (7,), (7,), (7, 4), (4,), (4, 4)]
    tensors = [torch.rand(size, generator=generator) for size in sizes]
    site = SITE if transcodes else Site(2, "attn.hook_z", "attn.hook_z")
    one = Dictionary(
        "one", site, *tensors[:2], JumpRelu(tensors[2]), *tensors[3:5],
        tensors[5] if skips else None, "tiny",
    )  # fmt: skip
    save_saelens(one, tmp_path / "one")
    (back,) = load_dictionaries(tmp_path / "one")
    assert (back.site, back.trained_on) == (site, "tiny")
    x = torch.randn(5, 4, generator=generator)
    assert torch.equal(back.encode(x), one.encode(x))
    assert torch.equal(back.reconstruct(x), one.reconstruct(x))


def test_what_saelens_cannot_express_is_not_written(tmp_path):
    square = torch.eye(4)
    for activation in (TopK(2), JumpRelu(torch.full((4,), -1.0))):
        one = Dictionary("one", SITE, square, square[0], activation, square, square[0])
        with pytest.raises(ValueError, match="only a JumpReLU without negative thresholds"):
            save_saelens(one, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_a_model_writes_its_text_as_likely_as_it_takes_it_to_be():
    model = load_model(build("gpt2", n_layers=1))
    texts = torch.tensor(train_transcoders.written_by(model, 4, 0))
    assert texts.shape == (4, model.n_positions)
    assert train_transcoders.written_by(model, 4, 0) == texts.tolist()
    losses = -model.own_logits(texts).log_softmax(-1)
    chosen = losses[:, :-1].gather(-1, texts[:, 1:, None])
    entropy = (losses * (-losses).exp()).sum(-1)[:, :-1]
    assert chosen.mean() == pytest.approx(float(entropy.mean()), rel=0.15)


def test_the_script_writes_a_transcoder_for_each_mlp_and_a_card(tmp_path, monkeypatch):
    # As if it were not embedded: what the embedded models have read takes a minute to write.
    monkeypatch.setattr(train_transcoders, "TRAINED", {})
    monkeypatch.setattr(train_transcoders, "N_WRITTEN", 40)
    monkeypatch.setattr(train_transcoders, "N_TOKENS", 12)
    settings = ["--latents", "32", "--active", "4", "--steps", "3", "--seed", "1"]
    train_transcoders.main([str(tmp_path), "gpt-2l", *settings])
    model = load_model("gpt-2l")
    made = load_dictionaries(tmp_path / "gpt-2l")
    assert [one.site.layer for one in made] == [0, 1]
    card = json.loads(Path(tmp_path / "gpt-2l" / "card.json").read_text())
    assert card["fingerprint"] == model.fingerprint
    assert card["recipe"]["n_active"] == 4
    tokens = torch.ones(2, 5, dtype=torch.long)
    assert {one.n_latents for one in made} == {32}
    assert measure_fit(model, made[0], tokens).n_positions == 10
    assert card["layers"]["layer_1"]["n_positions"] == 4 * 12
    assert card["texts"] == "40 texts of 12 tokens that the model writes"
