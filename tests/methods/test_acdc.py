"""ACDC held to a naive search that runs the whole model for every edge."""

import math
from functools import cache
from itertools import islice, pairwise
from typing import Any

import pytest
import torch

import circuitfind as cf
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import LimitError, MethodError
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.methods.acdc import Acdc, AcdcOptions, search_from
from circuitfind.methods.base import Decision, Progress
from circuitfind.methods.order import Order, visits
from circuitfind.methods.search import search
from circuitfind.metrics import custom_metric, find_metric
from circuitfind.models.handmade import WIRED
from circuitfind.models.loading import load_model
from circuitfind.problem import assemble
from tests.engine.problems import (
    BRIDGED,
    engine_of,
    model_of,
    oracle_of,
    prompts_of,
)
from tests.evaluation.wired import wired
from tests.methods.searches import (
    assert_right_where_made,
    assert_same_decisions,
    assert_same_search,
    decided,
)
from tests.oracles import search as oracle_search
from tests.oracles.checkpoints import FAMILIES, build

SEEDS = (0, 1, 2)
THRESHOLDS = (0.003, 0.01, 0.05)
ABLATIONS = ("resample", "zero", "mean")


def rotated() -> list[Any]:
    """Every family under every ablation; seeds and thresholds take turns in all combinations."""
    cases = [(i, family, j) for i, family in enumerate(BRIDGED) for j in range(3)]
    return [
        pytest.param(family, ABLATIONS[j], SEEDS[(i + j) % 3], THRESHOLDS[(i // 3 + 2 * j) % 3])
        for i, family, j in cases
    ]


@pytest.mark.parametrize(("family", "ablation", "seed", "threshold"), rotated())
def test_every_decision_is_that_of_a_search_that_runs_the_whole_model_for_every_edge(
    family, ablation, seed, threshold
):
    assert_same_search(family, ablation, threshold, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("family", BRIDGED)
def test_the_same_with_three_layers_for_every_seed_and_threshold(family, ablation, seed, threshold):
    assert_same_search(family, ablation, threshold, seed=seed, n_layers=3)


@pytest.mark.parametrize("family", ["llama", "bidirectional"])
def test_the_same_with_means_over_positions(family):
    assert_same_search(family, "mean-over-positions", 0.01)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox-parallel", "qwen3", "attention-only"])
def test_the_same_for_a_metric_of_which_higher_is_better(family):
    assert_same_search(family, "zero", 0.02, metric="logit-difference", lengths=(6, 6, 6))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_same_comparing_absolute_effects(family):
    found = assert_same_search(family, "zero", 0.02, metric="logit-difference", absolute=True)
    assert any(d.kept and d.effect < 0 for d in found if d.effect is not None)


@pytest.mark.parametrize("family", ["gpt2", "llama", "falcon"])
def test_the_same_with_heads_visited_from_the_first(family):
    assert_same_search(family, "resample", 0.01, order="forward-index")


@pytest.mark.parametrize(
    ("family", "ablation", "seed", "threshold"),
    [
        ("gpt2", "resample", 0, 0.003),
        ("gpt2", "zero", 1, 0.01),
        ("llama", "resample", 2, 0.02),
        ("falcon", "mean", 0, 0.01),
        ("gemma2", "resample", 0, 0.02),
        ("gpt-neox-parallel", "resample", 1, 0.01),
        ("bidirectional", "resample", 1, 0.02),
        ("attention-only", "resample", 2, 0.02),
    ],
)
def test_the_same_with_all_groups_of_a_layer_tested_before_its_first_single_edge(
    family, ablation, seed, threshold
):
    found = assert_same_search(family, ablation, threshold, seed=seed, group_qkv=True)
    assert {decision.reason for decision in found} >= {"group", "tested"}


@pytest.mark.parametrize("threshold", [1e-9, 1e-4, 0.3])
@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", [*WIRED])
def test_the_same_groups_on_models_wired_by_hand(name, ablation, threshold):
    engine = IncrementalEngine(wired(name, ablation))
    expected = oracle_search.acdc(
        engine.recomputed, engine.graph, engine.readout.loss, threshold, group_qkv=True
    )
    found = decided(engine, AcdcOptions(threshold=threshold, group_qkv=True))
    assert_same_decisions(found, expected.decisions)


def test_groups_are_tested_by_value_key_and_query_from_the_last_head_and_not_where_a_head_is_dead():
    engine, tried = engine_of("gpt2"), []
    heads = [f"a1.h{head}" for head in reversed(range(engine.graph.shape.n_heads))]

    def goes(name, effect):
        tried.append(name)
        return not name.startswith("every edge into") and name not in ("a1.h0->logits", "m0->m1")

    plan = visits(engine.graph, "backward-index", seed=0)
    list(search_from(engine, engine.start(), plan, goes, group_ports=True))
    groups = [name.removeprefix("every edge into ") for name in tried if name.startswith("every")]
    assert groups[:3] == ["a1.h0.v", "a1.h0.k", "a1.h0.q"]
    tried.clear()
    list(search_from(engine, engine.start(), plan, everything_stays(tried), group_ports=True))
    first = tried.index("every edge into " + heads[0] + ".v")
    ports = [f"{head}.{port}" for port in "vkq" for head in heads]
    assert tried[first : first + len(ports)] == [f"every edge into {name}" for name in ports]


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox-parallel", "bloom", "bidirectional"])
def test_the_same_with_a_heads_ports_merged(family):
    assert_same_search(family, "resample", 0.02, merge_qkv=True)


@pytest.mark.parametrize("family", ["gpt2", "opt", "attention-only", "bidirectional"])
def test_the_same_with_the_position_embedding_split_off(family):
    assert_same_search(family, "zero", 0.01, split_embedding=True)


def test_a_merged_group_test_and_a_split_embedding_go_together():
    options = {"merge_qkv": True, "split_embedding": True}
    assert_same_search("gpt2", "zero", 0.02, group_qkv=True, order="forward-index", **options)


@pytest.mark.parametrize(("family", "seed"), [("gpt2", 0), ("llama", 1), ("gemma2", 2)])
def test_every_decision_of_a_random_order_is_right_where_it_was_made(family, seed):
    options = AcdcOptions(threshold=0.02, order="random", seed=seed)
    assert_right_where_made(engine_of(family), oracle_of(family), options)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt-j", "bidirectional"])
def test_a_gpu_finds_the_same_circuit(family):
    on_cpu = decided(engine_of(family), AcdcOptions(threshold=0.02))
    model = load_model(build(family, n_layers=2), device="cuda")
    problem = assemble(model, prompts_of(), find_metric("kl"))
    on_gpu = decided(IncrementalEngine(problem), AcdcOptions(threshold=0.02))
    assert [(d.edge, d.kept) for d in on_gpu] == [(d.edge, d.kept) for d in on_cpu]
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        # Hugging Face's rotary angles are of float32, and a GPU rounds their sines otherwise.
        assert found.effect == pytest.approx(expected.effect, abs=1e-7)


def test_a_random_order_is_fixed_by_its_seed():
    graph = heads_and_mlps(FAMILIES["gpt2"].shape())
    first, again, other = (edge_order(graph, "random", seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("order", ["backward-index", "forward-index", "random"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-parallel", "attention-only"])
def test_every_order_visits_each_edge_once_and_each_reader_after_all_that_it_leads_to(
    family, order
):
    graph = heads_and_mlps(FAMILIES[family].shape())
    names = edge_order(graph, order, seed=3)
    assert sorted(names) == sorted(edge.name for edge in graph.edges())
    place = {name: number for number, name in enumerate(names)}
    into: dict[str, list[str]] = {}
    for edge in graph.edges():
        for writer in graph.fed_by(edge.reader):
            into.setdefault(writer.name, []).append(edge.name)
    for edge in graph.edges():
        earlier = [place[name] for name in into.get(edge.writer.name, [])]
        assert place[edge.name] < min(earlier, default=len(names))


@pytest.mark.parametrize("stop", [0, 1, 9, 1000])
@pytest.mark.parametrize(
    ("family", "ablation", "options"),
    [
        ("gpt2", "resample", {}),
        ("gpt2", "mean", {"order": "random", "seed": 2}),
        ("llama", "zero", {"absolute": True}),
        ("gemma2", "resample", {"group_qkv": True}),
        ("llama", "zero", {"group_qkv": True}),
    ],
)
def test_a_resumed_search_decides_bit_for_bit_as_an_uninterrupted_one(
    family, ablation, options, stop
):
    engine, options = engine_of(family, ablation), AcdcOptions(threshold=0.02, **options)
    whole = list(uninterrupted(family, ablation, options))
    first = [d for p in islice(Acdc().run(engine, options), stop) for d in p.decisions]
    assert first == whole[: len(first)]
    rest = decided(engine, options, resume=first)
    assert first + rest == whole


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_search_by_groups_resumes_after_any_of_its_decisions(family):
    engine, options = engine_of(family), AcdcOptions(threshold=0.02, group_qkv=True)
    whole = list(uninterrupted(family, "resample", options))
    assert any(d.reason == "group" for d in whole)
    for stop in range(0, len(whole) + 1, 17):
        found = search(engine, Acdc(), options, resume=whole[:stop])
        assert list(found.decisions) == whole


@pytest.mark.parametrize("cut_short_by", [1, 2, 3])
def test_a_reader_whose_decisions_are_incomplete_is_decided_again(cut_short_by):
    engine, options = engine_of("gpt2"), AcdcOptions(threshold=0.02)
    whole = list(uninterrupted("gpt2", "resample", options))
    first = [d for p in islice(Acdc().run(engine, options), 3) for d in p.decisions]
    found = search(engine, Acdc(), options, resume=first[:-cut_short_by])
    assert list(found.decisions) == whole


def test_a_search_resumed_from_its_own_end_decides_nothing_and_still_checks_its_drift():
    engine, options = engine_of("llama"), AcdcOptions(threshold=0.02)
    whole = decided(engine, options)
    (last,) = Acdc().run(engine, options, resume=whole)
    assert last.decisions == () and last.done == last.total == len(whole)
    assert last.drift is not None and last.drift < 1e-12


def test_decisions_of_another_search_are_refused():
    engine = engine_of("gpt2")
    decisions = decided(engine, AcdcOptions(threshold=0.02))
    forward = AcdcOptions(threshold=0.02, order="forward-index")
    with pytest.raises(MethodError, match="do not fit this search: 'm1->logits' stands where"):
        decided(engine, forward, resume=decisions)


def test_progress_counts_every_edge_and_ends_with_the_drift():
    engine = engine_of("gpt2")
    *steps, last = Acdc().run(engine, AcdcOptions(threshold=0.02))
    counts = [len(step.decisions) for step in steps]
    assert [step.done for step in steps] == torch.tensor(counts).cumsum(0).tolist()
    assert {step.total for step in steps} == {engine.graph.n_edges}
    assert [step.drift for step in steps] == [None] * len(steps)
    assert last == Progress(engine.graph.n_edges, engine.graph.n_edges, (), last.drift)
    assert last.drift is not None and last.drift < 1e-12


@pytest.mark.parametrize("name", ["ioi-small", "llama-4l", "attn-2l"])
def test_a_whole_search_in_float32_drifts_by_less_than_a_millionth(name):
    problem = cf.make_problem(load_model(name), "ioi", n_prompts=8, metric="kl")
    assert problem.model.weights_dtype == torch.float32
    found = cf.discover(problem, threshold=0.02)
    assert found.drift is not None and found.drift < 1e-6


def test_the_metric_is_read_once_beside_the_tests(monkeypatch):
    engine, read = engine_of("gpt2"), []
    monkeypatch.setattr(engine, "loss", lambda state: read.append(state) or 1.0)
    decided(engine, AcdcOptions(threshold=0.02))
    assert len(read) == 1


def test_each_test_starts_from_the_loss_that_the_cut_before_it_left():
    every = decided(engine_of("llama"), AcdcOptions(threshold=0.02))
    decisions = [decision for decision in every if decision.effect is not None]
    assert {decision.kept for decision in decisions} == {True, False}
    for earlier, later in pairwise(decisions):
        assert later.before == (earlier.before if earlier.kept else earlier.after)


def test_an_effect_of_exactly_the_threshold_keeps_the_edge():
    engine = engine_of("gpt2")
    first = decided(engine, AcdcOptions(threshold=0.0))[0]
    assert first.effect is not None and first.effect > 0
    at, above = first.effect, math.nextafter(first.effect, math.inf)
    assert decided(engine, AcdcOptions(threshold=at))[0].kept
    assert not decided(engine, AcdcOptions(threshold=above))[0].kept


def test_edges_without_any_effect_stay_at_a_threshold_of_zero_and_go_at_the_least_above():
    constant = custom_metric(lambda logits, prompts: logits.new_full((len(prompts),), 2.5))
    engine = engine_of("gpt2", metric=constant)
    assert all(d.kept and d.effect == 0 for d in decided(engine, AcdcOptions(threshold=0.0)))
    assert not any(d.kept for d in decided(engine, AcdcOptions(threshold=5e-324)))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_no_number_names_the_edge(value):
    def spoilt(logits, prompts):
        changed = (logits - full).abs().amax((1, 2)) > 1e-12
        return torch.where(changed, float(value), 0.0).double()

    prompts = prompts_of()
    full = prompts.at_steps(model_of("gpt2").own_logits(prompts.clean))
    engine = engine_of("gpt2", metric=custom_metric(spoilt, better="lower"))
    with pytest.raises(MethodError, match=f"became {value} when m1->logits was cut"):
        decided(engine, AcdcOptions(threshold=0.1))


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(LimitError, match="threshold must be a number from"):
        AcdcOptions(threshold=threshold)


def test_an_unknown_order_lists_the_known_ones():
    line = "no order named 'up'; choose one of backward-index"
    with pytest.raises(MethodError, match=line):
        AcdcOptions(threshold=0.1, order="up")


# ------------------------------------------------------------------------------- helpers


def everything_stays(tried: list[str]) -> Any:
    def goes(name: str, effect: float) -> bool:
        tried.append(name)
        return False

    return goes


@cache
def uninterrupted(family: str, ablation: str, options: AcdcOptions) -> tuple[Decision, ...]:
    return tuple(decided(engine_of(family, ablation), options))


def edge_order(graph: Graph, order: Order, seed: int) -> list[str]:
    return [
        f"{graph.writers[writer].name}->{graph.readers[reader].name}"
        for reader, writers in visits(graph, order, seed)
        for writer in writers
    ]
