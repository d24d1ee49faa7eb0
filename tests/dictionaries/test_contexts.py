"""What makes latents active: latents that each read one neuron of the residual stream."""

import pytest
import torch

from circuitfind.dictionaries.activations import JumpRelu, TopK
from circuitfind.dictionaries.contexts import latent_uses
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.models.activations import Activations
from circuitfind.models.loading import load_model
from tests.oracles.checkpoints import D_MODEL, D_VOCAB, build

SITE = Site(1, "hook_resid_post", "hook_resid_post")


@pytest.fixture(scope="module")
def model():
    return load_model(build("gpt2", n_layers=2))


@pytest.mark.parametrize("activation", [JumpRelu(torch.full((D_MODEL,), 0.5)), TopK(9)])
def test_tokens_and_contexts_are_those_of_the_largest_activations(model, activation):
    eye, zeros = torch.eye(D_MODEL), torch.zeros(D_MODEL)
    one = Dictionary("one", SITE, eye, zeros, activation, eye, zeros)
    tokens = torch.randint(3, 9, (7, 8), generator=torch.Generator().manual_seed(0))
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[2:4, 5:] = False
    with torch.no_grad():
        active = one.to(model.dtype, model.device).encode(
            Activations(model, tokens, real).at(1, "hook_resid_post")
        )
    for use in latent_uses(model, one, [4, 20], tokens, real, n_shown=3):
        everywhere = [
            (float(active[row, at, use.latent]), row, at)
            for row in range(7) for at in range(8) if real[row, at] and active[row, at, use.latent]
        ]  # fmt: skip
        assert use.frequency == pytest.approx(len(everywhere) / int(real.sum()))
        rows = {row for _, row, _ in everywhere}
        best = [max(each for each in everywhere if each[1] == row) for row in rows]
        texts = {}
        for _, row, at in sorted(best, key=lambda each: (-each[0], each[1])):
            texts.setdefault(tuple(tokens[row, : at + 1].tolist()), (row, at))
        expected = list(texts.values())[:3]
        assert [(each.prompt, each.position) for each in use.contexts] == expected
        sums = {}
        for value, row, at in everywhere:
            sums.setdefault(int(tokens[row, at]), []).append(value)
        most = sorted(sums, key=lambda token: -sum(sums[token]))[:3]
        assert [t.token for t in use.tokens] == most
        for found in use.tokens:
            values = sums[found.token]
            assert found.activation == pytest.approx(sum(values) / len(values))
            whole = sum(map(sum, sums.values()))
            assert found.share == pytest.approx(sum(values) / whole)


def test_a_latent_that_is_never_active_has_no_context(model):
    eye, zeros = torch.eye(D_MODEL), torch.zeros(D_MODEL)
    one = Dictionary("one", SITE, eye, zeros, JumpRelu(zeros + 1e9), eye, zeros)
    tokens = torch.arange(3, min(11, D_VOCAB))[None]
    (use,) = latent_uses(model, one, [0], tokens)
    assert (use.frequency, use.tokens, use.contexts) == (0, (), ())
