"""Path patching equals a patched forward of the oracle, and TransformerLens' own."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from transformer_lens import patching as lens
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.tools.analysis.attribution_patching import (
    EdgeAttributionConfig,
    attribution_patch,
)

from circuitfind.engine.full_pass import embeddings, full_pass, plain_pass
from circuitfind.errors import CircuitfindError
from circuitfind.metrics import find_metric
from circuitfind.patching.path import PATH, linearised_edges, path_patch
from circuitfind.patching.together import patch_together
from tests.engine.problems import EXACT, oracle_of, problem_of, prompts_of
from tests.oracles.brute_force import logits_of
from tests.oracles.checkpoints import build

FAMILIES = ("gpt2", "llama", "gpt-neox-parallel", "gemma2", "attention-only")
LENGTHS = (4, 4)


def at_end(logits, tokens):
    rows = zip(logits[:, -1], tokens.answers[:, 0], tokens.wrong_answers[:, 0], strict=True)
    return torch.stack([row[right].mean() - row[wrong].mean() for row, right, wrong in rows])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_single_edge_equals_a_patched_forward(family):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    oracle, graph = oracle_of(family, lengths=LENGTHS), problem.graph
    found = path_patch(problem).values[PATH]
    assert torch.equal(found.isnan().any(-1), ~graph.edge_mask)
    generator = torch.Generator().manual_seed(0)
    edges = graph.edge_mask.nonzero()
    for writer, reader in edges[torch.randperm(len(edges), generator=generator)[:25]].tolist():
        kept = graph.edge_mask.clone()
        kept[writer, reader] = False
        expected = at_end(oracle.logits(kept), problem.prompts)
        torch.testing.assert_close(found[writer, reader], expected, **EXACT)


@pytest.mark.parametrize("crossing", [False, True])
def test_paths_are_those_of_all_positions_where_a_search_tells_places_apart(crossing):
    setting = {"metric": "logit-difference", "lengths": LENGTHS}
    placed = problem_of("gpt2", place_of=((0, 0, 1, 1),) * 2, crossing=crossing, **setting)
    found, expected = (path_patch(each, ["m0"]) for each in (placed, problem_of("gpt2", **setting)))
    assert found.labels == expected.labels
    torch.testing.assert_close(found.values[PATH], expected.values[PATH], **EXACT, equal_nan=True)
    with pytest.raises(CircuitfindError, match="a1.h2.q@p1"):
        path_patch(placed, ["m0"], ["a1.h2.q@p1"])


@pytest.mark.parametrize("mode", ["noising", "denoising"])
@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gpt2", ("embed", "a0.h1.k", "m0", "a1.h2.q", "logits")),
        ("gpt2", ("m0", "a1.h0.v", "m1")),
        ("llama", ("a0.h2", "m0", "a1.kv1.v", "m1", "logits")),
        ("gpt-neox-parallel", ("embed", "a0.h1.v", "a1.h3.q")),
        ("gemma2", ("embed", "a0.kv0.v", "a1.h2.q")),
        ("gemma2", ("embed", "a0.h3.q", "m0")),
    ],
)
def test_a_chain_equals_a_patched_forward_per_edge(family, names, mode):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    sender, *via, receiver = names
    found = path_patch(problem, [sender], [receiver], via=via, mode=mode)
    expected = chain(problem, sender, [*via, receiver], mode)
    torch.testing.assert_close(found.values[PATH][0, 0], expected, **EXACT)
    assert (found.values[PATH][0, 0] - found.base).abs().max() > 1e-6


def chain(problem, sender, readers, mode):
    """Follow a path by whole runs, in each of which one writer is replaced along one edge."""
    model, graph, prompts = problem.model, problem.graph, problem.prompts
    base, source = prompts.clean, prompts.corrupted
    if mode == "denoising":
        base, source = source, base
    own = plain_pass(model, graph, base).written
    written = plain_pass(model, graph, source).written
    writers = [graph.writer_index[sender]]
    for reader in readers:
        kept = graph.edge_mask.clone()
        kept[writers, graph.reader_index[reader]] = False
        run = full_pass(model, graph, embeddings(model, graph, base), written, kept.double())
        if reader == "logits":
            break
        writers = list(graph.feeds[graph.reader_index[reader]])
        written = own.clone()
        written[writers] = run.written[writers]
    return at_end(model.logits(run.final), prompts)


@cache
def lens_inputs(family):
    model = build(family, n_layers=2)
    bridge = build_bridge_from_module(
        model,
        architecture=type(model).__name__,
        hf_config=model.config,
        tokenizer=None,
        dtype=torch.float64,
        device="cpu",
    )
    prompts = prompts_of(lengths=LENGTHS)
    _, clean = bridge.run_with_cache(prompts.clean)
    _, corrupted = bridge.run_with_cache(prompts.corrupted)
    return bridge, prompts, clean, corrupted


@pytest.mark.parametrize(("family", "ports"), [("gpt2", "qkv"), ("llama", "q")])
def test_paths_between_heads_are_those_of_transformer_lens(family, ports):
    bridge, prompts, clean, corrupted = lens_inputs(family)

    def metric(logits):
        return at_end(logits, prompts).mean()

    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    for port in ports:
        expected = lens.get_act_patch_direct_path(
            bridge, prompts.corrupted, clean, corrupted, metric, 0, 1, port, verbose=False
        )
        receivers = [f"a1.h{head}.{port}" for head in range(4)]
        found = path_patch(problem, ["a0.h1"], receivers, mode="denoising").mean(PATH)
        torch.testing.assert_close(found[0], expected[1].double(), rtol=0, atol=1e-5)


def test_linearised_edges_are_those_of_transformer_lens():
    bridge, prompts, _, _ = lens_inputs("gpt2")
    bridge.requires_grad_(requires_grad=True)
    one = prompts.select([0])
    result = attribution_patch(
        bridge,
        one.clean,
        one.corrupted,
        lambda logits: at_end(logits, one)[0],
        EdgeAttributionConfig("edge"),
    )
    problem = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS)
    problem = replace(problem, prompts=one)
    graph = problem.graph
    expected = torch.where(graph.edge_mask, 0.0, torch.nan).double()
    for (writer, reader), score in result.edge_scores.items():
        expected[graph.writer_index[name_of(writer)], graph.reader_index[name_of(reader)]] += score
    found = linearised_edges(problem, mode="denoising")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, equal_nan=True)


def name_of(node):
    """Return our name of a writer or reader of TransformerLens' attribution patching."""
    if node.kind in ("embed", "logits"):
        return node.kind
    if node.head is None:
        return f"m{node.layer}"
    port = node.kind.partition("_input")[0]
    return f"a{node.layer}.h{node.head}" + (f".{port}" if port in "qkv" else "")


@pytest.mark.parametrize("family", FAMILIES)
def test_linearised_edges_are_finite_differences(family):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    model, graph, prompts = problem.model, problem.graph, problem.prompts
    written = plain_pass(model, graph, prompts.corrupted).written
    found = linearised_edges(problem)
    generator = torch.Generator().manual_seed(1)
    edges = graph.edge_mask.nonzero()
    for writer, reader in edges[torch.randperm(len(edges), generator=generator)[:5]].tolist():
        values = []
        for step in (-1e-5, 1e-5):
            kept = graph.edge_mask.double()
            kept[writer, reader] -= step
            run = full_pass(model, graph, embeddings(model, graph, prompts.clean), written, kept)
            values.append(at_end(model.logits(run.final), prompts).mean())
        difference = (values[1] - values[0]) / 2e-5
        torch.testing.assert_close(found[writer, reader], difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_paths_do_not_depend_on_how_much_runs_at_once(family):
    problem = problem_of(family, metric="logit-difference", lengths=(5, 3, 6))
    together, apart = (path_patch(problem, rows=rows).values[PATH] for rows in (1000, 2))
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-10, equal_nan=True)


def test_a_path_into_merged_inputs_changes_all_three():
    merged = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS, merge_qkv=True)
    found = path_patch(merged, ["m0"], ["a1.h2.qkv"])
    apart = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS)
    kept = apart.graph.edge_mask.clone()
    for port in "qkv":
        kept[apart.graph.writer_index["m0"], apart.graph.reader_index[f"a1.h2.{port}"]] = False
    expected = at_end(oracle_of("gpt2", lengths=LENGTHS).logits(kept), apart.prompts)
    torch.testing.assert_close(found.values[PATH][0, 0], expected, **EXACT)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("mode", ["noising", "denoising"])
def test_edges_patched_together_equal_a_patched_forward(family, mode):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    senders, receivers = ["embed", "a0.h1"], ["m0", "a1.kv0.k", "a1.h2.q"]
    found = patch_together(problem, senders, receivers, mode=mode, rows=1)
    graph, prompts = problem.graph, problem.prompts
    kept = graph.edge_mask.clone()
    for writer in senders:
        for reader in receivers:
            kept[graph.writer_index[writer], graph.reader_index[reader]] = False
    tokens = (prompts.clean, prompts.corrupted)
    clean, corrupted = tokens if mode == "noising" else tokens[::-1]
    expected = logits_of(build(family, n_layers=2), family, clean, corrupted, graph, kept)
    torch.testing.assert_close(found.values[PATH][0, 0], at_end(expected, prompts), **EXACT)


def test_edges_patched_together_say_how_far_they_are():
    seen = []
    problem = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS)
    patch_together(problem, ["embed"], ["m0"], rows=1, on_progress=seen.append)
    assert [(each.done, each.total) for each in seen] == [(1, 2), (2, 2)]


def test_edges_that_do_not_exist_are_not_patched_together():
    problem = problem_of("gpt2", metric="logit-difference")
    with pytest.raises(CircuitfindError, match="no edge leads from m1 into m0, a0.h1.q"):
        patch_together(problem, ["m1"], ["m0", "a0.h1.q"])


def test_token_and_position_can_be_sent_apart():
    problem = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS, split_embedding=True)
    found = path_patch(problem, ["embed", "pos_embed"], ["m0"])
    assert (found.effect(PATH)[0] != 0).all()
    # Both prompts of a pair have the same positions.
    assert (found.effect(PATH)[1] == 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"senders": ["a0.h9"]}, "no writer named 'a0.h9' in this model"),
        ({"receivers": ["a1.h0"]}, "no reader named 'a1.h0' in this model"),
        ({"senders": ["m1"], "receivers": ["m0"]}, "there is no path m1 -> m0"),
        ({"senders": ["m0", "m0"]}, "'m0' is given twice"),
        ({"via": ["logits"]}, "no path leads through the logits"),
        ({"via": ["m1", "m0"]}, "there is no path embed -> m1 -> m0"),
        ({"rows": 0}, "rows must be a whole number from 1"),
    ],
)
def test_what_is_no_path_is_refused(options, said):
    with pytest.raises(CircuitfindError, match=said):
        path_patch(problem_of("gpt2", metric="logit-difference"), **options)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_edges_are_linearised_where_gradients_are_off(off):
    problem = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS)
    expected = linearised_edges(problem)
    with off():
        found = linearised_edges(problem)
    assert torch.equal(found.nan_to_num(99.0), expected.nan_to_num(99.0))


@pytest.mark.parametrize(
    ("metric", "mode", "said"),
    [
        (find_metric("kl"), "noising", "'kl' has no slope on the clean run"),
        (replace(find_metric("kl"), name="mine"), "noising", "'mine' has no slope on the clean"),
        (find_metric("accuracy"), "denoising", "'accuracy' has no slope anywhere"),
    ],
)
def test_a_metric_without_slope_is_not_linearised(metric, mode, said):
    with pytest.raises(CircuitfindError, match=said):
        linearised_edges(problem_of("gpt2", metric=metric), mode=mode)
