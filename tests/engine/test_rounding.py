"""Where rounding could grow, cutting edges in float32 is still the plain definition."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from circuitfind.metrics import find_metric
from circuitfind.models.dictionaries import with_dictionaries
from circuitfind.models.loading import load_model
from circuitfind.problem import Problem, assemble
from tests.engine.problems import logits_at_steps, oracle_of, prompts_of, random_mask
from tests.engine.unit_cases import CASES
from tests.oracles.checkpoints import build
from tests.oracles.full_pass import final_stream

ROUNDING = {"rtol": 0, "atol": 3e-5}
"""Logits are about 3; sums in float32 that are taken in another order."""

every_ablation = pytest.mark.parametrize(
    "ablation", ["resample", "zero", "mean", "mean-over-positions"]
)


def in_float32(
    family: str,
    ablation: str,
    n_layers: int,
    units: tuple[Units, ...] = (),
    dictionaries: tuple[Dictionary, ...] = (),
) -> Problem:
    model = load_model(build(family, dtype=torch.float32, n_layers=n_layers))
    model = with_dictionaries(model, [with_narrow_tensors(each) for each in dictionaries])
    graph = heads_and_mlps(model.shape, units=units)
    metric = find_metric("logit-difference")
    return assemble(model, prompts_of(), metric, ablation, graph=graph)


def with_narrow_tensors(given: Any) -> Any:
    """Return a copy in float32; casts do nothing inside `float64_throughout`."""
    changed = {}
    for field in fields(given):
        value = getattr(given, field.name)
        if isinstance(value, torch.Tensor):
            changed[field.name] = torch.empty(value.shape, dtype=torch.float32).copy_(value)
        elif is_dataclass(value):
            changed[field.name] = with_narrow_tensors(value)
    return replace(given, **changed)


@every_ablation
@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_a_circuit_of_one_edge_is_the_full_pass_in_whatever_way_it_is_reached(family, ablation):
    engine = IncrementalEngine(in_float32(family, ablation, n_layers=2))
    for edge in engine.graph.edges()[::11]:
        kept = engine.graph.mask_of([edge])
        expected = logits_at_steps(engine, final_stream(engine.problem, kept))
        for final in (engine.start_from(kept).final, engine.recomputed(kept)):
            torch.testing.assert_close(logits_at_steps(engine, final), expected, **ROUNDING)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama"])
@pytest.mark.parametrize("case", ["neurons", "jumprelu", "topk", "sae", "attention", "both"])
def test_so_it_is_where_units_are_writers(family, case, ablation):
    engine = IncrementalEngine(in_float32(family, ablation, 2, **CASES[case]))
    oracle = oracle_of(family, ablation, **CASES[case])
    for edge in engine.graph.edges()[::11]:
        kept = engine.graph.mask_of([edge])
        expected = oracle.logits(kept)[:, -1:]
        for final in (engine.start_from(kept).final, engine.recomputed(kept)):
            found = logits_at_steps(engine, final).to(expected)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@every_ablation
@pytest.mark.parametrize("nested", [True, False])
def test_cutting_all_edges_into_a_reader_leaves_no_rounding_of_them(ablation, nested):
    engine = IncrementalEngine(in_float32("gemma2", ablation, n_layers=2))
    oracle = oracle_of("gemma2", ablation, n_layers=2)
    state = engine.start_from(random_mask(engine.graph, seed=0, share=0.1))
    evaluate = engine.cut_nested if nested else engine.cut_each
    for reader, column in enumerate(state.mask.T):
        writers = column.nonzero().flatten().tolist()
        if not writers:
            continue
        tried = evaluate(state, reader, writers)
        for number, final in enumerate(tried.final):
            kept = state.mask
            kept[writers[: number + 1] if nested else writers[number], reader] = False
            expected = oracle.logits(kept)[:, -1:]
            found = logits_at_steps(engine, final).to(expected)
            torch.testing.assert_close(found, expected, **ROUNDING)
            picked = tried.pick(number, kept.numpy())
            assert torch.equal(picked.final[:, -1:], final[:, -1:])


def test_a_search_down_to_nothing_does_not_drift():
    engine = IncrementalEngine(in_float32("gemma2", "zero", n_layers=2))
    state = engine.start()
    for reader in range(len(engine.graph.readers)):
        writers = engine.graph.edge_mask[:, reader].nonzero().flatten().tolist()
        for first in range(0, len(writers), 3):
            some = writers[first : first + 3]
            kept = state.kept.copy()
            kept[some, reader] = False
            state = engine.cut_nested(state, reader, some).pick(len(some) - 1, kept)
        assert engine.drift(state) < engine.drift_allowed
    assert not state.kept.any()
