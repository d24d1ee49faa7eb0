"""Prompts that do not fit together are run a few at a time, to the same result."""

import pytest
import torch

from circuitfind.engine import parts
from circuitfind.engine.incremental import IncrementalEngine
from tests.engine.problems import problem_of


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean-over-positions"])
def test_a_pass_in_parts_is_the_pass_of_all_prompts(ablation, monkeypatch):
    problem = problem_of("gpt2", metric="kl", lengths=(5, 3, 5, 4), ablation=ablation)
    whole, apart = IncrementalEngine(problem), IncrementalEngine(problem)
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(problem.graph.edge_mask.shape, generator=generator) < 0.7 for _ in range(3)]
    kept = [mask & problem.graph.edge_mask for mask in masks]
    expected = [whole.readout.loss(whole.recomputed(mask)) for mask in kept]
    monkeypatch.setattr(parts, "_WRITER_FLOATS", 1)
    found = [apart.readout.loss(apart.recomputed(mask)) for mask in kept]
    assert found == pytest.approx(expected, abs=1e-9)
    if ablation != "mean-over-positions":
        # Nothing was held for all prompts.
        assert not {"clean", "replacement"} & set(apart.__dict__)


def test_a_released_engine_answers_as_before():
    engine = IncrementalEngine(problem_of("gpt2", metric="kl"))
    before = engine.loss(engine.start_from(engine.graph.edge_mask.tril(3)))
    engine.release()
    assert not {"clean", "replacement"} & set(engine.__dict__)
    assert engine.loss(engine.start_from(engine.graph.edge_mask.tril(3))) == before
