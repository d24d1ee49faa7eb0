"""MIB's protocol, held to an evaluation of its own that is written from its description."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.normed_pass import NormedEngine
from circuitfind.errors import MethodError
from circuitfind.evaluation.mib import (
    MibScores,
    component_scores,
    interp_bench_area,
    mib,
    mib_problem,
    scoring_problem,
    ungrouped_scores,
)
from circuitfind.evaluation.roc import truth_of
from circuitfind.evaluation.size_curve import (
    MIB,
    SHARES,
    CurvePoint,
    areas,
    log_mean,
    ranked_by_score,
)
from circuitfind.formats.eap_ig import edge_names
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.eap import Eap, EapOptions
from circuitfind.metrics import KL
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.shape import ModelShape
from tests.engine.problems import model_of
from tests.oracles.checkpoints import D_VOCAB, build, float64_throughout, random_pairs
from tests.oracles.mib import Official, area_under_roc, hooked

N_LAYERS = 4
GPT2_SMALL = ModelShape(12, 12, 12, 768, 64, 50257, learned_positions=True)
GPT2_SIZES = (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491)


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    with float64_throughout():
        yield


@cache
def official_of(family):
    clean, corrupted = random_pairs(0, 3)
    generator = torch.Generator().manual_seed(0)
    right, wrong = torch.randperm(D_VOCAB, generator=generator)[:6].view(2, 3)
    return Official(hooked(build(family, n_layers=N_LAYERS)), clean, corrupted, right, wrong)


def question_of(family):
    official = official_of(family)
    _, corrupted = random_pairs(0, 3)
    rows = zip(official.clean, corrupted, official.right, official.wrong, strict=True)
    pairs = [
        Pair(clean.tolist(), other.tolist(), [[int(right)]], [[int(wrong)]])
        for clean, other, right, wrong in rows
    ]
    return assemble(model_of(family, n_layers=N_LAYERS), collate(pairs), KL)


@cache
def problem_of(family):
    return mib_problem(question_of(family))


def scores_of(graph, seed=0):
    """Return scores of both signs, large out of the embedding and into the logits."""
    shape, generator = graph.edge_mask.shape, torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    values[0] *= 3
    values[:, -1] *= 3
    return EdgeScores(graph, values, "logits", "drawn")


def by_name(scores):
    graph = scores.graph
    return {edge_names(edge, graph)[0]: scores.score(edge) for edge in graph.edges()}


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_f_at_all_ten_sizes_is_that_of_the_official_evaluation(family):
    problem, official = problem_of(family), official_of(family)
    assert problem.graph.n_edges == len(official.edges)
    scores = scores_of(problem.graph)
    found = mib(problem, MibScores(scores))
    assert found.full == pytest.approx(float(official.full.mean()), abs=1e-9)
    assert found.empty == pytest.approx(float(official.empty.mean()), abs=1e-9)
    for curve, signed in ((found.signed, True), (found.absolute, False)):
        expected = official.curve(by_name(scores), signed=signed)
        assert [point.asked for point in curve.points] == list(SHARES)
        assert [p.faithfulness for p in curve.points] == pytest.approx(expected, abs=1e-9)
        assert len({round(f, 6) for f in expected}) > 4
        circuits = official.circuits(by_name(scores), signed=signed)
        assert [point.n_edges for point in curve.points] == list(map(len, circuits))
        cpr = sum(
            (b - a) * (f + g) / 2
            for a, b, f, g in zip(SHARES, SHARES[1:], expected, expected[1:], strict=False)
        )
        assert curve.cpr == pytest.approx(cpr, abs=1e-9)


def test_heads_of_gemma_are_cut_before_the_norm_of_their_sum():
    problem, official = problem_of("gemma2"), official_of("gemma2")
    scores = scores_of(problem.graph)
    found = mib(problem, MibScores(scores))
    # Gemma's logits by TransformerLens are 8e-8 off those of its own modules here.
    assert found.full == pytest.approx(float(official.full.mean()), abs=1e-6)
    assert found.empty == pytest.approx(float(official.empty.mean()), abs=1e-6)
    for curve, signed in ((found.signed, True), (found.absolute, False)):
        expected = official.curve(by_name(scores), signed=signed)
        assert [p.faithfulness for p in curve.points] == pytest.approx(expected, abs=1e-5)
        assert len({round(f, 4) for f in expected}) > 4
    # Cutting each head's share of the normed sum, as everywhere else, is something else.
    shares = scoring_problem(question_of("gemma2"))
    masks = [scores.top(n).connected().kept for n in (60, 120, 240)]
    ours, theirs = (
        engine.measure(masks).mean(1)
        for engine in (IncrementalEngine(shares), NormedEngine(problem))
    )
    assert (ours - theirs).abs().max() > 0.01


@pytest.mark.parametrize("signed", [True, False])
def test_circuits_of_components_keep_all_that_leads_out_of_them(signed):
    problem, official = problem_of("gpt2"), official_of("gpt2")
    drawn = torch.randn(len(problem.graph.writers), generator=torch.Generator().manual_seed(3))
    scores = drawn.double()
    scores[[0, 7]] = torch.nan
    found = mib(problem, MibScores(scores_of(problem.graph), scores))
    names = ["input", *(writer.name for writer in problem.graph.writers[1:])]
    named = dict(zip(names, scores.tolist(), strict=True))
    expected = official.node_curve(
        {name: score for name, score in named.items() if score == score}, signed=signed
    )
    curve = found.signed if signed else found.absolute
    assert (found.level, found.n_ranked) == ("components", len(names) - 2)
    assert [p.faithfulness for p in curve.points] == pytest.approx(expected, abs=1e-9)
    assert len({round(f, 6) for f in expected}) > 3


def test_acc_auc_counts_the_prompts_on_which_the_right_answer_is_ahead():
    problem, official = problem_of("gpt2"), official_of("gpt2")
    scores = scores_of(problem.graph)
    curve = mib(problem, MibScores(scores)).signed
    positive = [
        float((official.values(circuit) > 0).double().mean())
        for circuit in official.circuits(by_name(scores), signed=True)
    ]
    assert [point.positive for point in curve.points] == positive
    assert len(set(positive)) > 1
    logs = [math.log(share) for share in SHARES]
    area = sum(
        (b - a) * (p + q) / 2
        for a, b, p, q in zip(logs, logs[1:], positive, positive[1:], strict=False)
    )
    assert curve.acc_auc == pytest.approx(area / (logs[-1] - logs[0]))


def test_a_curve_that_is_one_everywhere_and_one_that_is_nothing_until_the_end():
    assert areas(SHARES, [1.0] * 10, from_empty=False) == (pytest.approx(0.999), 0)
    nothing = areas(SHARES, [0.0] * 9 + [1.0], from_empty=False)
    assert nothing == (pytest.approx(0.25), pytest.approx(0.749))
    weights = [
        areas(SHARES, [float(place == number) for place in range(10)], from_empty=False)[0]
        for number in range(10)
    ]
    known = [0.0005, 0.002, 0.004, 0.0075, 0.02, 0.04, 0.075, 0.2, 0.4, 0.25]
    assert weights == pytest.approx(known)
    points = [CurvePoint(share, 0, 0.0, None, 1.0) for share in SHARES]
    assert log_mean(points) == pytest.approx(1)
    # From 2 % on, and half of the step from 1 % to 2 %: ln 50 + ln(2) / 2 of ln 1000.
    late = [replace(point, positive=float(point.asked >= 0.02)) for point in points]
    assert log_mean(late) == pytest.approx((math.log(50) + math.log(2) / 2) / math.log(1000))


def test_gpt2_small_has_the_official_sizes():
    graph = heads_and_mlps(GPT2_SMALL)
    assert (len(graph.writers), len(graph.writers) + 1, graph.n_edges) == (157, 158, 32491)
    ranking = ranked_by_score(scores_of(graph))
    assert tuple(int(share * len(ranking.order)) for share in MIB.shares) == GPT2_SIZES
    assert tuple(ranking.first(n).n_edges for n in GPT2_SIZES) == GPT2_SIZES


def test_the_empty_graph_is_the_corrupted_run_and_the_full_graph_the_clean_one():
    problem, official = problem_of("llama"), official_of("llama")
    last = mib(problem, MibScores(scores_of(problem.graph))).signed.points[-1]
    assert (last.n_edges, last.faithfulness) == (problem.graph.n_edges, 1.0)
    assert official.f([]) == pytest.approx(0, abs=1e-12)


def test_scores_of_shared_inputs_are_divided_among_the_heads_that_share_them():
    grouped, graph = question_of("llama").graph, problem_of("llama").graph
    scores = scores_of(grouped)
    found = ungrouped_scores(scores, graph)
    edges = [edge for edge in grouped.edges() if edge.reader.kind == "kv group"]
    for edge in edges:
        names = [name.replace("<", ".").rstrip(">") for name in edge_names(edge, grouped)]
        parts = [found.score(name.replace("input->", "embed->")) for name in names]
        assert len(parts) == 2
        assert parts == pytest.approx([scores.score(edge) / 2] * 2)
    total = scores.values[grouped.edge_mask].sum()
    assert float(found.values[graph.edge_mask].sum()) == pytest.approx(float(total))
    assert torch.equal(ungrouped_scores(found, graph).values, found.values)
    merged = heads_and_mlps(problem_of("gpt2").model.shape, merge_qkv=True)
    thirds = ungrouped_scores(scores_of(merged), problem_of("gpt2").graph)
    whole = scores_of(merged).score("embed->a1.h2.qkv")
    assert thirds.score("embed->a1.h2.k") == pytest.approx(whole / 3)


def test_components_are_worth_the_attribution_of_their_output():
    problem = problem_of("gpt2")
    found = component_scores(Eap().scores(IncrementalEngine(problem), EapOptions()))
    expected = official_of("gpt2").attributions()
    names = ["input", *(writer.name for writer in problem.graph.writers[1:])]
    assert found.tolist() == pytest.approx([expected[name] for name in names], abs=1e-9)


def test_the_area_against_a_known_circuit_is_that_of_interp_bench():
    graph = small_graph()
    names = [edge_names(edge, graph)[0] for edge in graph.edges()]
    generator = torch.Generator().manual_seed(4)
    true = graph.edge_mask & (torch.rand(graph.edge_mask.shape, generator=generator) < 0.2)
    scores = scores_of(graph, seed=5)
    known = {edge_names(edge, graph)[0] for edge in graph.edges(true)}
    truth = truth_of(Circuit(graph, true), "drawn")
    expected = area_under_roc(names, by_name(scores), known)
    assert interp_bench_area(scores, truth) == pytest.approx(expected)
    # A circuit from the embedding to the logits, ranked first, and last.
    right = graph.mask_of(["embed->a0.h1.v", "a0.h1->m1", "m1->logits", "embed->logits"])
    path = truth_of(Circuit(graph, right), "path")
    first = EdgeScores(graph, scores.values.abs() + 90 * right, "", "")
    # No size that is asked for has just its four edges, so a line leads past the corner.
    assert 0.98 < interp_bench_area(first, path) < 1
    last = EdgeScores(graph, scores.values.abs() + 90 * ~right, "", "")
    assert interp_bench_area(last, path) < 0.4
    with pytest.raises(MethodError, match="drawn 0 of .* edges are known"):
        interp_bench_area(scores, truth_of(Circuit(graph, torch.zeros_like(true)), "drawn"))


def small_graph():
    return heads_and_mlps(ModelShape(2, 2, 2, 8, 4, 10))


def test_scores_of_parts_that_mib_does_not_know_are_refused():
    graph = problem_of("gpt2").graph
    split = heads_and_mlps(graph.shape, split_embedding=True)
    with pytest.raises(MethodError, match="MIB knows one embedding, heads and MLPs"):
        ungrouped_scores(scores_of(split), graph)
    with pytest.raises(MethodError, match="MIB knows no places"):
        ungrouped_scores(scores_of(graph.at_places(["a", "b"])), graph)
