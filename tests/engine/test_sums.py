"""Gradients of sums that are formed again on the way back, and what they keep in memory."""

import gc
import weakref

import pytest
import torch

from circuitfind.engine.full_pass import embeddings, full_pass
from circuitfind.engine.sums import Reads, Sums
from circuitfind.models.norms import LinearNorm
from circuitfind.models.readings import Reading
from tests.engine.problems import engine_of

WIDTH = 5


@pytest.mark.parametrize("needed", ["all", "weights"])
@pytest.mark.parametrize("centred", [True, False])
def test_all_gradients_are_those_of_finite_differences(centred, needed):
    """Two streams are read, each by both groups, and a third is returned."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    norm = LinearNorm(centred, drawn(WIDTH), drawn(WIDTH), 1e-3)
    first, second, third = (Reading(norm, (drawn(WIDTH, 3),), drawn(3)) for _ in range(3))
    reads = Reads([[(0, first), (1, second)], [(1, third), (0, third)]])

    def run(before, after, weights, later, replacement, total):
        sums = Sums(5)
        sums.write(before, replacement[:2])
        one, two = sums.received(0, weights[:2], total, reads)
        sums.write(torch.cat((one * two, two))[:3, :, :, :1] * after, replacement[2:])
        (last,) = sums.received(1, later, total)
        return last.square().sum()

    shapes = [(2, 2, 2, WIDTH), (3, 1, 1, WIDTH), (2, 2), (4, 1), (5, 2, 2, WIDTH), (2, 2, WIDTH)]
    given = [drawn(*shape) for shape in shapes]
    for place, value in enumerate(given):
        value.requires_grad_(needed == "all" or place in (2, 3))
    assert torch.autograd.gradcheck(run, given)


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_are_those_of_autograd_where_a_norm_is_frozen_and_a_group_is_not_used(frozen):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    norm = LinearNorm(True, drawn(WIDTH), drawn(WIDTH), 1e-3, frozen)  # noqa: FBT003
    used, unused = (Reading(norm, (drawn(WIDTH, 3),), drawn(3)) for _ in range(2))
    given = [drawn(2, 1, 2, WIDTH), drawn(2, 1), drawn(1, 2, WIDTH)]
    written, weights, total = (value.requires_grad_() for value in given)
    sums = Sums(2)
    sums.write(written, torch.zeros_like(written))
    found, _ = sums.received(0, weights, total, Reads([[(0, used)], [(0, unused)]]))
    stream = torch.einsum("w,wbpd->bpd", weights[:, 0], written) + total
    centred = stream - stream.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-3).rsqrt()
    scale = scale.detach() if frozen else scale
    (weight,) = used.weights
    expected = (centred * scale * norm.gain) @ weight + used.constant
    torch.testing.assert_close(found[0], expected)
    ours, theirs = (torch.autograd.grad(out.square().sum(), given) for out in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_second_derivative_is_refused():
    sums, weights = Sums(1), torch.ones(1, 1, requires_grad=True)
    sums.write(torch.ones(1, 1, 1, WIDTH, requires_grad=True), torch.zeros(1, 1, 1, WIDTH))
    (found,) = sums.received(0, weights, torch.zeros(1, 1, WIDTH))
    (slope,) = torch.autograd.grad(found.square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("family", "options"),
    [("gpt2", {}), ("gpt2", {"merge_qkv": True}), ("llama", {}), ("gemma2", {})],
)
def test_a_pass_by_the_weights_of_heads_is_one_by_the_model_itself(family, options, monkeypatch):
    engine = engine_of(family, **options)
    model, graph, clean = engine.problem.model, engine.graph, engine.problem.prompts.clean
    shape = graph.edge_mask.shape
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def slope():
        leaf = mask.clone().requires_grad_()
        given = embeddings(model, graph, clean)
        final = full_pass(model, graph, given, engine.replacement, leaf).final
        return final.detach(), torch.autograd.grad(final.square().sum(), leaf)[0]

    assert model.reading(0, "q", 0) is not None
    by_weights = slope()
    monkeypatch.setattr(model, "reading", lambda layer, port, head=0: None)
    for found, expected in zip(by_weights, slope(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_streams_of_heads_are_not_kept_and_what_was_written_is_freed():
    """The graph of autograd refers to what was written, and nothing of that to the graph."""
    sums, n = Sums(2), 50
    norm = LinearNorm(centred=True, gain=torch.ones(WIDTH), bias=torch.zeros(WIDTH), eps=1e-3)
    reading = Reading(norm, (torch.ones(WIDTH, 1),), torch.zeros(1))
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        weights = torch.ones(2, n, requires_grad=True)
        sums.write(torch.ones(2, 1, 3, WIDTH, requires_grad=True), torch.zeros(2, 1, 3, WIDTH))
        reads = Reads([[(stream, reading) for stream in range(n)]])
        (found,) = sums.received(0, weights, torch.zeros(1, 3, WIDTH), reads)
    assert max(tensor.numel() for tensor in kept) == found.numel() == n * 3
    values = weakref.ref(sums.values.untyped_storage())
    gc.disable()
    try:
        del sums
        found.sum().backward()
        kept.clear()
        del found
        assert values() is None
    finally:
        gc.enable()
