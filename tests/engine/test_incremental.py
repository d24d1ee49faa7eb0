"""Cutting edges one after another: the same as from scratch, and no more work than needed."""

from dataclasses import replace
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitfind.engine.horizon import Horizon
from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.engine.state import spans
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    random_mask,
    watch,
)
from tests.oracles.checkpoints import FAMILIES

every_family = pytest.mark.parametrize("family", BRIDGED)
ABLATIONS = ("resample", "zero", "mean", "mean-over-positions")
thorough = settings(max_examples=6, deadline=None, derandomize=True, database=None)
masks = st.tuples(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.95]))
"""Seeds of `random_mask`, and the share of edges to keep: between none and nearly all."""


@every_family
@thorough
@given(data=st.data())
def test_any_sequence_of_cuts_is_a_pass_from_scratch_and_the_oracle(family, data):
    ablation = data.draw(st.sampled_from(ABLATIONS))
    engine, oracle = engine_of(family, ablation), oracle_of(family, ablation)
    graph = engine.graph
    start = data.draw(st.none() | masks)
    state = engine.start() if start is None else engine.start_from(random_mask(graph, *start))
    for edges in data.draw(cuts(graph)):
        state = engine.cut(state, edges)
    assert_state(engine, oracle, state)


@pytest.mark.parametrize("graph", [{"merge_qkv": True}, {"split_embedding": True}])
@thorough
@given(data=st.data())
def test_so_it_is_in_graphs_with_other_options(graph, data):
    engine, oracle = engine_of("gpt2", "zero", **graph), oracle_of("gpt2", "zero", **graph)
    state = engine.start()
    for edges in data.draw(cuts(engine.graph)):
        state = engine.cut(state, edges)
    assert_state(engine, oracle, state)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox-parallel", "llama", "gemma2", "bloom"])
def test_cutting_every_edge_in_a_random_order_ends_at_the_empty_graph(family):
    engine, oracle = engine_of(family), oracle_of(family)
    edges = engine.graph.edge_mask.nonzero()
    order = edges[torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))]
    state = engine.start()
    for number, edge in enumerate(order.tolist()):
        state = engine.cut(state, [tuple(edge)])
        if number in (len(order) // 3, len(order) - 1):
            assert_state(engine, oracle, state)
    assert not state.kept.any()


def test_the_engine_of_a_problem_starts_at_the_full_graph():
    engine = IncrementalEngine(problem_of("gpt2"))
    start = engine.start()
    assert torch.equal(start.mask, engine.graph.edge_mask)
    assert torch.equal(start.final, engine.clean_final)
    scratch = engine.start_from(engine.graph.edge_mask)
    torch.testing.assert_close(scratch.final, start.final, **EXACT)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bidirectional", "bloom"])
def test_old_states_stay_usable(family):
    engine, oracle = engine_of(family), oracle_of(family)
    start = engine.start()
    edges = random_mask(engine.graph, seed=0, share=0.1).nonzero().tolist()
    before = start.final.clone()
    states = [engine.cut(start, [tuple(edge)]) for edge in edges]
    further = [engine.cut(state, [tuple(edges[0])]) for state in states]
    assert torch.equal(start.final, before) and start.kept.sum() == engine.graph.n_edges
    for state in (states[0], states[-1], further[-1], engine.cut(start, [tuple(edges[-1])])):
        assert_state(engine, oracle, state)


def test_cutting_an_edge_twice_or_none_changes_nothing():
    engine = engine_of("gpt2")
    pair = engine.graph.index("a0.h1->m1")
    once = engine.cut(engine.start(), [pair])
    for again in (engine.cut(once, [pair]), engine.cut(once, []), engine.cut(once, [pair, pair])):
        assert torch.equal(again.final, once.final)
        assert (again.kept == once.kept).all()


def test_cutting_edges_together_is_cutting_them_in_turn():
    engine = engine_of("llama")
    pairs = [tuple(pair) for pair in random_mask(engine.graph, 1, 0.2).nonzero().tolist()]
    together = engine.cut(engine.start(), pairs)
    in_turn = engine.start()
    for pair in pairs:
        in_turn = engine.cut(in_turn, [pair])
    torch.testing.assert_close(together.final, in_turn.final, **EXACT)
    assert (together.kept == in_turn.kept).all()


# ------------------------------------------------------------------------------- work


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt-neox-parallel"])
def test_cutting_an_edge_into_the_logits_runs_no_component(family, work):
    engine = engine_of(family)
    state, calls = engine.start(), work(engine)
    for writer in engine.graph.writers:
        engine.cut(state, [engine.graph.index(f"{writer.name}->logits")])
    assert calls == []


@pytest.mark.parametrize("port", ["q", "k", "v"])
def test_cutting_an_edge_into_a_port_projects_that_port_of_one_head_and_runs_it_alone(port, work):
    engine = engine_of("gpt2", n_layers=3)
    state, calls = engine.start(), work(engine)
    engine.cut(state, [engine.graph.index(f"m0->a2.h1.{port}")])
    assert calls == [
        ("project", 2, port, [1]),
        ("attend", 2, [1]),
        ("mlp", 2),
    ]


def test_a_merged_port_projects_query_key_and_value_of_one_head(work):
    engine = engine_of("gpt2", merge_qkv=True)
    state, calls = engine.start(), work(engine)
    engine.cut(state, [engine.graph.index("m0->a1.h3.qkv")])
    projected = [("project", 1, port, [3]) for port in "qkv"]
    assert calls == [*projected, ("attend", 1, [3]), ("mlp", 1)]


def test_a_shared_key_runs_the_heads_of_its_group_alone(work):
    engine = engine_of("llama")
    state, calls = engine.start(), work(engine)
    engine.cut(state, [engine.graph.index("embed->a1.kv1.k")])
    assert calls == [
        ("project", 1, "k", [1]),
        ("attend", 1, [2, 3]),
        ("mlp", 1),
    ]


def test_the_mlp_of_a_parallel_block_is_not_run_for_its_heads(work):
    engine = engine_of("gpt-neox-parallel")
    state, calls = engine.start(), work(engine)
    engine.cut(state, [engine.graph.index("embed->a1.h0.v")])
    assert [call[0] for call in calls] == ["project", "attend"]
    calls.clear()
    engine.cut(state, [engine.graph.index("embed->m1")])
    assert calls == [("mlp", 1)]


def test_only_what_a_path_of_kept_edges_leads_to_runs(work):
    """embed -> a0.h2 -> a2.h1.v -> logits, with a0.h2 and m1 leading nowhere else."""
    engine = engine_of("gpt2", n_layers=3)
    kept = ["embed->a0.h2.q", "embed->a0.h2.v", "a0.h2->a2.h1.v", "a2.h1->logits", "embed->m1"]
    state, calls = engine.start_from(engine.graph.mask_of(kept)), work(engine)
    engine.cut(state, [engine.graph.index("embed->a0.h2.q")])
    assert calls == [
        ("project", 0, "q", [2]),
        ("attend", 0, [2]),
        ("project", 2, "v", [1]),
        ("attend", 2, [1]),
    ]
    calls.clear()
    engine.cut(state, [engine.graph.index("embed->m1")])
    assert calls == []


def test_where_heads_share_a_norm_only_the_changed_head_attends_and_all_are_scaled_anew(work):
    engine = engine_of("gemma2")
    state, calls = engine.start(), work(engine)
    engine.cut(state, [engine.graph.index("m0->a1.h3.q")])
    assert calls == [
        ("project", 1, "q", [3]),
        ("attend", 1, [3]),
        ("mlp", 1),
    ]


# ------------------------------------------------------------------------------- what is alive


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt-neox-parallel"])
@thorough
@given(mask=masks)
def test_a_writer_is_alive_iff_networkx_finds_a_path_to_the_logits(family, mask):
    graph = heads_and_mlps(FAMILIES[family].shape(2))
    kept = random_mask(graph, *mask)
    alive = spans(graph, kept.numpy(), Horizon(steps=1, changes=3)).writers > 0
    leading = nx.ancestors(graph.network(kept), "logits")
    assert [writer.name for writer, lives in zip(graph.writers, alive, strict=True) if lives] == [
        writer.name for writer in graph.writers if writer.name in leading
    ]


def test_drift_is_the_distance_from_a_pass_from_scratch():
    engine = engine_of("gpt2")
    state = engine.cut(engine.start(), [engine.graph.index("a0.h1->m1")])
    assert engine.drift(state) < 1e-14
    (chunk,) = state.chunks
    shifted = {**chunk.read, len(engine.graph.readers) - 1: state.final * (1 + 1e-5)}
    drift = engine.drift(EngineState((replace(chunk, read=shifted),)))
    assert drift == pytest.approx(1e-5, rel=0.2) and drift > engine.drift_allowed


# ------------------------------------------------------------------------------- helpers


def assert_state(engine: IncrementalEngine, oracle: Any, state: Any) -> None:
    found = logits_at_steps(engine, state.final)
    scratch = logits_at_steps(engine, engine.recomputed(state.mask))
    torch.testing.assert_close(found, scratch, **EXACT)
    expected = engine.problem.prompts.at_steps(oracle.logits(state.mask))
    torch.testing.assert_close(found, expected, **EXACT)


def cuts(graph: Graph) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """One to six cuts of one to five edges each."""
    edges = [(writer, reader) for writer, reader in graph.edge_mask.nonzero().tolist()]
    at_once = st.lists(st.sampled_from(edges), min_size=1, max_size=5)
    return st.lists(at_once, min_size=1, max_size=6)


@pytest.fixture
def work(monkeypatch) -> Any:
    """Writes down which parts of a model are run from now on, and for which heads."""

    def recording(engine: IncrementalEngine) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def note(name: str, *args: Any) -> None:
            said = [list(a) if isinstance(a, list | range) else a for a in args]
            calls.append((name, *(a for a in said if isinstance(a, int | str | list))))

        # Not `output`, which also forms what the cut edge itself carries.
        parts = ("embed", "project", "attend", "mlp", "logits")
        watch(engine.problem.model, parts, note, monkeypatch)
        return calls

    return recording
