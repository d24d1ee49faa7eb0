"""Passes with some edges cut: the definition, from either run, and no component too many."""

from dataclasses import replace

import networkx as nx
import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from tests.counting import CountingModel
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    random_mask,
)
from tests.engine.unit_cases import CASES
from tests.oracles.full_pass import final_stream

ABLATIONS = ("resample", "zero", "mean", "mean-over-positions")
STARTS = ("clean", "replaced", None)
every_family = pytest.mark.parametrize("family", BRIDGED)


@every_family
def test_from_either_run_any_mask_gives_what_the_definition_gives(family):
    cases = zip(ABLATIONS, (0.03, 0.3, 0.6, 0.95), strict=True)
    for seed, (ablation, share) in enumerate(cases):
        lengths = (6, 4) if ablation == "mean-over-positions" else (6, 6)
        engine = engine_of(family, ablation, lengths=lengths)
        assert_is_the_definition(engine, random_mask(engine.graph, seed, share))


@pytest.mark.parametrize("graph", [{"merge_qkv": True}, {"split_embedding": True}])
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_so_it_is_in_graphs_with_other_options(ablation, graph):
    engine = engine_of("gpt2", ablation, **graph)
    for seed in range(4):
        assert_is_the_definition(engine, random_mask(engine.graph, seed, 0.2 + 0.2 * seed))


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("resid")])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_so_it_is_where_blocks_are_taken_apart(family, case):
    if (family, case) == ("gemma2", "attention-z"):
        return  # A norm behind the heads leaves latents of their z without rows.
    for seed, ablation in enumerate(ABLATIONS):
        engine = engine_of(family, ablation, **CASES[case])
        assert_is_the_definition(engine, random_mask(engine.graph, seed, 0.2 + 0.2 * seed))


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_the_limits_are_the_two_runs_from_whichever_a_pass_starts(family):
    for ablation in ABLATIONS:
        engine = engine_of(family, ablation)
        everything = engine.graph.edge_mask
        for kept in (everything, torch.zeros_like(everything)):
            assert_is_the_definition(engine, kept)


@pytest.mark.parametrize("floats", [1, 1000])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_prompts_taken_some_at_a_time_give_the_same(family, floats):
    engine = engine_of(family, "mean", lengths=(6, 6, 6))
    masks = [random_mask(engine.graph, seed, 0.3 * seed) for seed in range(4)]
    (chunk,) = engine.chunks
    together = [chunk.passes().final(kept) for kept in masks]
    passes = replace(chunk.passes(), most=floats)
    for kept, expected in zip(masks, together, strict=True):
        torch.testing.assert_close(passes.final(kept), expected, **EXACT)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-parallel"])
@pytest.mark.parametrize("seed", range(4))
def test_a_circuit_runs_what_leads_from_the_embedding_to_the_logits_and_nothing_else(family, seed):
    engine, model = counting(family, "resample")
    kept = random_mask(engine.graph, seed, 0.08)
    engine.recomputed(kept, "replaced")
    assert_ran(model, engine, between(engine.graph.network(kept), "embed", "logits"))


@pytest.mark.parametrize("seed", range(3))
def test_where_no_run_has_every_edge_cut_all_that_leads_to_the_logits_is_run(seed):
    engine, model = counting("gpt2", "zero")
    kept = random_mask(engine.graph, seed, 0.08)
    engine.recomputed(kept, "replaced")
    assert_ran(model, engine, {*nx.ancestors(engine.graph.network(kept), "logits")})


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-parallel"])
@pytest.mark.parametrize("seed", range(4))
def test_a_few_cuts_run_what_lies_behind_them_and_nothing_else(family, seed):
    engine, model = counting(family, "resample")
    cut = random_mask(engine.graph, seed, 0.01)
    network = engine.graph.network(engine.graph.edge_mask & ~cut)
    behind = set()
    for _, reader in engine.graph.edges(cut):
        behind |= between(network, reader.component, "logits")
    engine.recomputed(engine.graph.edge_mask & ~cut, "clean")
    assert_ran(model, engine, behind)


def test_the_run_with_less_work_is_chosen():
    engine, model = counting("gpt2", "resample")
    everything = engine.graph.edge_mask
    for kept in (everything, torch.zeros_like(everything)):
        engine.recomputed(kept)
    assert not model.ran
    for seed, share in enumerate((0.02, 0.5, 0.98)):
        kept = random_mask(engine.graph, seed, share)
        counts = []
        for start in STARTS:
            model.clear()
            engine.recomputed(kept, start)
            counts.append(model.ran.total())
        assert counts[2] == min(counts)


# ------------------------------------------------------------------------------- helpers


def assert_is_the_definition(engine, kept):
    expected = final_stream(engine.problem, kept)
    for start in STARTS:
        torch.testing.assert_close(engine.recomputed(kept, start), expected, **EXACT)


def counting(family, ablation):
    problem = problem_of(family, ablation, n_layers=3)
    model = CountingModel(problem.model)
    engine = IncrementalEngine(replace(problem, model=model))
    model.clear()
    return engine, model


def between(network, source, target):
    """Return the components on any path, both ends included."""
    if not network.has_node(source):
        return set()
    after, before = nx.descendants(network, source), nx.ancestors(network, target)
    return (after | {source}) & (before | {target})


def assert_ran(model, engine, components):
    writers = {writer.name for writer in engine.graph.heads_and_mlps}
    assert set(model.ran) == components & writers
    # Each once, on whole prompts.
    assert {*model.ran.values()} <= {engine.problem.prompts.clean.numel()}


def test_what_receives_nothing_is_exact_where_norms_would_enlarge_rounding():
    # Zeros that are left over from sums are not quite 0, and Gemma 2 has two norms in a row.
    options = {"seed": 2, "n_layers": 3}
    engine, oracle = (each("gemma2", "zero", **options) for each in (engine_of, oracle_of))
    graph = engine.graph
    masks = [graph.mask_of([edge]) for edge in graph.edges() if edge.reader.name == "logits"]
    for kept, final in zip(masks, engine.finals(masks), strict=True):
        expected = oracle.logits(kept)[:, -1:]
        torch.testing.assert_close(logits_at_steps(engine, final), expected, **EXACT)
    kept = masks[0] | masks[-1]
    [(_, values)] = engine.measure_cuts(kept)
    torch.testing.assert_close(values, engine.measure([masks[-1], masks[0]]), **EXACT)
