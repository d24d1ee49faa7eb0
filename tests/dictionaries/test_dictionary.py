"""What a dictionary computes, on its own: against the formulas written out one latent at a time."""

from dataclasses import replace

import pytest
import torch

from circuitfind.dictionaries.activations import JumpRelu, TopK, top_k
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site, site_of

ACTIVATIONS = {
    "jumprelu": JumpRelu(torch.linspace(-0.5, 0.5, 7)),
    "topk": TopK(3),
    "topk, negative too": TopK(5, rectified=False),
}


def dictionary(activation, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(7, 4), (7,), (7, 5), (5,), (5, 4)]
    encoder, bias, decoder, decoder_bias, skip = (
        torch.randn(size, generator=generator) for size in sizes
    )
    site = Site(0, "mlp.hook_in", "hook_mlp_out")
    return Dictionary("one", site, encoder, bias, activation, decoder, decoder_bias, skip)


@pytest.fixture
def x():
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))


def test_a_jumprelu_latent_is_its_pre_activation_above_its_threshold_and_0_at_it():
    found = JumpRelu(torch.tensor([0.5, 0.5, -1.0, 0.0]))(torch.tensor([0.5, 0.6, -0.5, -0.1]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.6, -0.5, 0.0]), rtol=0, atol=0)


def test_topk_keeps_the_largest_and_drops_negative_ones_only_if_rectified():
    pre = torch.tensor([[3.0, -1.0, 2.0, -2.0]])
    torch.testing.assert_close(TopK(3)(pre), torch.tensor([[3.0, 0.0, 2.0, 0.0]]))
    found = TopK(3, rectified=False)(pre)
    torch.testing.assert_close(found, torch.tensor([[3.0, -1.0, 2.0, 0.0]]))


@pytest.mark.parametrize("k", [0, 8, 2.0, True, None, "2"])
def test_a_k_that_is_no_number_of_latents_is_refused(k):
    with pytest.raises(ValueError, match="its k must be from 1 to 7"):
        top_k(k, 7, rectified=True)


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_some_latents_are_encoded_as_among_all(activation, x):
    one, some = dictionary(activation), torch.tensor([5, 0, 2])
    torch.testing.assert_close(one.pre_activations(x, some), one.pre_activations(x)[..., some])
    torch.testing.assert_close(one.encode(x, some), one.encode(x)[..., some])


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_the_output_is_the_sum_of_what_each_latent_the_bias_and_the_skip_write(activation, x):
    one = dictionary(activation)
    latents = one.encode(x)
    parts = [latents[..., i, None] * one.decoder[i] for i in range(7)]
    expected = sum(parts) + one.decoder_bias + x @ one.skip.T
    torch.testing.assert_close(one.reconstruct(x), expected)
    active = sorted({i for i in range(7) if bool(latents[..., i].any())})
    assert one.active(x).tolist() == active


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_gradients_are_those_of_the_latents_that_are_active(activation, x):
    one = dictionary(activation).to(torch.float64, torch.device("cpu"))
    x = x.double().requires_grad_()
    assert torch.autograd.gradcheck(one.reconstruct, x)


def test_equal_dictionaries_have_equal_fingerprints_and_others_others():
    jump, top = JumpRelu(torch.zeros(7)), TopK(3)
    one = dictionary(jump)
    assert dictionary(JumpRelu(torch.zeros(7))).fingerprint == one.fingerprint
    others = [
        dictionary(jump, seed=1),
        dictionary(JumpRelu(torch.ones(7))),
        dictionary(top),
        dictionary(TopK(3, rectified=False)),
        replace(one, skip=None),
        replace(one, site=Site(1, "mlp.hook_in", "hook_mlp_out")),
        replace(one, decoder_bias=one.decoder_bias + 1),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 8


def test_a_site_is_named_in_full_and_lies_within_a_block():
    assert site_of("blocks.3.hook_mlp_out") == Site(3, "hook_mlp_out", "hook_mlp_out")
    assert str(site_of("blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out")) == (
        "blocks.3.mlp.hook_in -> blocks.3.hook_mlp_out"
    )
    for names, complaint in {
        ("hook_embed",): "must be about blocks.LAYER.HOOK",
        ("blocks.1.hook_q",): "it is about 'hook_q'; dictionaries of hook_resid_pre",
        ("blocks.1.hook_resid_mid", "blocks.2.hook_mlp_out"): "reads block 1 and writes to block 2",
        ("blocks.1.hook_mlp_out", "blocks.1.mlp.hook_in"): "hook_mlp_out, which comes after",
    }.items():
        with pytest.raises(ValueError, match=complaint):
            site_of(*names)
