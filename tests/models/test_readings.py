"""The steps by which components read are theirs, or there are none."""

from functools import partial

import pytest
import torch
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm

from circuitfind.models.loading import load_model
from circuitfind.models.norms import linear_norm
from circuitfind.models.readings import AffineMap, reading_of
from tests.oracles.checkpoints import FAMILIES, build, float64_throughout

BRIDGED = [name for name, family in FAMILIES.items() if family.bridge_is_right]
WHOLE = {
    "opt": "its MLP is no module of its own",
    "bloom": "its MLP is given the stream a second time, to add to",
    "mixtral": "its MLP is a mixture of experts",
    "attention-only": "it has no MLP",
}
"""Families whose MLPs have no steps, and why."""

D_MODEL = 12


@pytest.mark.parametrize("size", [1, 1e-4])
@pytest.mark.parametrize("family", BRIDGED)
def test_what_is_read_of_a_sum_follows_from_what_is_read_of_its_parts(family, size):
    with float64_throughout(), torch.no_grad():
        model = load_model(build(family, n_layers=2))
        for read, reading in inputs(model):
            first, second = size * streams(model), size * streams(model, seed=1)
            centre = reading.norm.centre
            product = reading.linear(centre(first)) + reading.linear(centre(second))
            factor = reading.norm.factor(centre(first) + centre(second))
            found = reading.read(product, factor)
            torch.testing.assert_close(found, read(first + second), rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", BRIDGED)
def test_a_gradient_is_pulled_back_to_the_stream_as_through_the_model(family):
    with float64_throughout():
        model = load_model(build(family, n_layers=2))
        for read, reading in inputs(model):
            stream = streams(model).requires_grad_()
            outputs = read(stream)
            arrived = torch.randn_like(outputs)
            (expected,) = torch.autograd.grad(outputs, stream, arrived)
            normed = reading.norm.apart(stream.detach())
            found = reading.pulled(arrived, normed)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", BRIDGED)
def test_with_the_scale_of_another_stream_weights_read_linearly(family):
    with float64_throughout(), torch.no_grad():
        model = load_model(build(family, n_layers=2))
        first, second = streams(model), streams(model, seed=1)
        reads = [
            lambda *each, port=port: model.project(1, port, [0], *(one[None] for one in each))[0]
            for port in "qkv"
        ]
        if model.reading(1, None) is not None:
            reads.append(partial(model.mlp_pre, 1))
        for read in reads:
            torch.testing.assert_close(read(first, first), read(first))
            parts = (read(each, first) for each in (first, second, 0 * first))
            found = read(first + second, first)
            torch.testing.assert_close(found, sum(parts) - 2 * read(0 * first, first))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("family", [name for name in BRIDGED if name != "attention-only"])
def test_the_steps_of_an_mlp_are_the_whole(family, scaled):
    with float64_throughout(), torch.no_grad():
        model = load_model(build(family, n_layers=2))
        for layer in range(2):
            stream = streams(model)
            scale_of = streams(model, seed=1) if scaled else None
            pre = model.mlp_pre(layer, stream, scale_of)
            found = model.mlp_output(layer, model.mlp_post(layer, pre))
            expected = model.mlp(layer, stream, scale_of)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", sorted(set(BRIDGED) - set(WHOLE)))
def test_what_neurons_write_adds_up_to_what_the_mlp_writes(family):
    """Each by itself, the others as if they were 0; the bias belongs to none."""
    with float64_throughout(), torch.no_grad():
        model = load_model(build(family, n_layers=2))
        if model.shape.heads_share_norm:
            pytest.skip("the norm after its MLPs takes all neurons together")
        post = model.mlp_post(1, model.mlp_pre(1, streams(model)))
        bias = model.mlp_output(1, torch.zeros_like(post))
        alone = torch.diag_embed(post).movedim(-1, 0)
        written = sum(model.mlp_output(1, each) - bias for each in alone)
        torch.testing.assert_close(written + bias, model.mlp(1, streams(model)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", BRIDGED)
def test_all_heads_and_most_mlps_read_in_steps(family, dtype):
    with float64_throughout():
        model = load_model(build(family, dtype=dtype, n_layers=2))
        for layer in range(2):
            assert all(model.reading(layer, port) is not None for port in "qkv")
            assert (model.reading(layer, None) is None) == (family in WHOLE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_like_the_float32_that_it_is_computed_in(dtype):
    model = load_model(build("gpt2", dtype=dtype, n_layers=1))
    assert model.reading(0, "q") is not None and model.reading(0, None) is not None


def test_norms_that_round_in_between_are_left_to_the_model():
    """Those of Hugging Face take float32 in float64 models too."""
    model = load_model(build("llama", dtype=torch.float64, n_layers=1))
    assert model.reading(0, "q") is None and model.reading(0, None) is None


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_norm_is_read_off(bias):
    norm = torch.nn.LayerNorm(D_MODEL, eps=1e-3, bias=bias, dtype=torch.float64)
    for part in norm.parameters():
        torch.nn.init.normal_(part, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = linear_norm(norm, norm.weight)
    assert found.centred and found.eps == pytest.approx(1e-3, rel=1e-9)
    torch.testing.assert_close(found.gain, norm.weight.detach(), rtol=0, atol=1e-12)
    expected = norm.bias.detach() if bias else torch.zeros(D_MODEL, dtype=torch.float64)
    torch.testing.assert_close(found.bias, expected, rtol=0, atol=1e-12)


def test_a_root_mean_square_norm_is_read_off():
    norm = torch.nn.RMSNorm(D_MODEL, eps=1e-3, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = linear_norm(norm, norm.weight)
    assert not found.centred and not found.bias.any()
    assert found.eps == pytest.approx(1e-3, rel=1e-9)
    torch.testing.assert_close(found.gain, norm.weight.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [12, 768])
@pytest.mark.parametrize("eps", [1e-12, 1e-8, 1e-6, 1e-5, 1e-2])
def test_what_a_norm_adds_to_the_mean_square_is_measured_in_float32(eps, width):
    norm = torch.nn.LayerNorm(width, eps=eps)
    torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # Below the mean squares of streams, the digits of a number this small do not matter.
        assert linear_norm(norm, norm.weight).eps == pytest.approx(eps, rel=1e-4, abs=1e-13)


def test_a_norm_that_does_not_say_what_it_adds_is_read_off():
    with torch.no_grad():
        found = linear_norm(OlmoLayerNorm(D_MODEL), torch.zeros(D_MODEL))
    assert found.centred and found.eps == pytest.approx(1e-5, rel=1e-4)
    torch.testing.assert_close(found.gain, torch.ones(D_MODEL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("error", ["norm", "weight", "bias"])
def test_steps_that_are_not_the_models_are_refused(error, dtype):
    norm = torch.nn.LayerNorm(D_MODEL, dtype=dtype)
    layer = torch.nn.Linear(D_MODEL, 5, dtype=dtype)
    own = AffineMap(layer.weight.T, layer.bias)

    def read(stream):
        return layer(norm(stream))

    def told(error):
        read_off = linear_norm(norm, norm.weight)
        wrong = own._replace(weight=own.weight * 1.001) if error == "weight" else own
        wrong = own._replace(bias=None) if error == "bias" else wrong
        return (
            read_off._replace(eps=0.0) if error == "norm" else read_off,
            [wrong],
        )

    with torch.no_grad():
        assert reading_of(*told(None), read) is not None
        assert reading_of(*told(error), read) is None


def inputs(model):
    """Yield what each input of a component reads from a stream, and how, where that is known."""
    for layer in range(model.shape.n_layers):
        for port in "qkv":
            n_heads = model.shape.n_heads if port == "q" else model.shape.n_kv_heads
            for head in range(n_heads):

                def project(stream, layer=layer, port=port, head=head):
                    return model.project(layer, port, [head], stream[None])[0]

                yield project, model.reading(layer, port, head)
        if (reading := model.reading(layer, None)) is not None:
            yield partial(model.mlp_pre, layer), reading


def streams(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.randn(2, 4, model.shape.d_model, generator=generator, dtype=torch.float64)
