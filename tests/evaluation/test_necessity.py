"""What the circuit loses without an edge is what a run from scratch without it gives."""

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.evaluation.necessity import necessities
from tests.engine.problems import engine_of, random_mask
from tests.oracles.checkpoints import float64_throughout


@pytest.mark.parametrize("metric", ["kl", "logit-difference"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_effect_is_that_of_a_run_from_scratch_without_the_edge(family, metric):
    with float64_throughout():
        engine = engine_of(family, metric=metric, lengths=(6,) * 8)
        kept = random_mask(engine.graph, seed=1) & engine.graph.edge_mask
        found = necessities(engine, Circuit(engine.graph, kept))
        edges = engine.graph.edges(kept)
        assert set(found) == {edge.name for edge in edges}
        whole = engine.readout.loss(engine.recomputed(kept))
        for edge in edges[::7]:
            without = kept & ~engine.graph.mask_of([edge.name])
            rise = engine.readout.loss(engine.recomputed(without)) - whole
            needed = found[edge.name]
            assert needed.effect == pytest.approx(rise, abs=1e-9)
            assert needed.interval is not None
            low, high = needed.interval
            assert low <= needed.effect <= high
        assert any(abs(needed.effect) > 1e-3 for needed in found.values())


def test_few_prompts_give_no_interval():
    with float64_throughout():
        engine = engine_of("gpt2")
        found = necessities(engine, Circuit(engine.graph, torch.clone(engine.graph.edge_mask)))
    assert {needed.interval for needed in found.values()} == {None}
