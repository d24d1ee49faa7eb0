"""Removing dead ends is free under resample ablation, and only there; what a search makes of it."""

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import SelfCheckError
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.base import circuit_of, without_dead_ends
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection
from tests.engine.problems import BRIDGED, EXACT, engine_of, oracle_of, random_mask

UNPRUNED = Selection(prune=False)
every_family = pytest.mark.parametrize("family", BRIDGED)


@every_family
def test_under_resample_ablation_no_logit_changes_when_dead_ends_go(family):
    oracle = oracle_of(family)
    removed = 0
    for seed, share in enumerate((0.05, 0.1, 0.2, 0.3)):
        circuit = Circuit(oracle.graph, random_mask(oracle.graph, seed, share))
        connected = circuit.connected()
        removed += circuit.n_edges - connected.n_edges
        expected = oracle.logits(circuit.kept)
        torch.testing.assert_close(oracle.logits(connected.kept), expected, **EXACT)
    assert removed > 0


@pytest.mark.parametrize(
    ("family", "threshold"), [("gpt2", 0.1), ("llama", 0.02), ("gemma2", 0.05)]
)
def test_a_pruned_search_is_the_unpruned_one_without_dead_ends(family, threshold):
    engine, oracle = engine_of(family), oracle_of(family)
    pruned = search(engine, Acdc(), AcdcOptions(threshold=threshold))
    whole = search(engine, Acdc(), AcdcOptions(threshold=threshold), UNPRUNED)
    assert pruned.decisions == whole.decisions
    assert pruned.pruned and not whole.pruned
    assert pruned.dead_ends == whole.dead_ends
    assert torch.equal(whole.circuit.kept, circuit_of(engine.graph, whole.decisions).kept)
    assert torch.equal(pruned.circuit.kept, whole.circuit.connected().kept)
    lost = engine.graph.edges(whole.circuit.kept & ~pruned.circuit.kept)
    assert [edge.name for edge in lost] == list(pruned.dead_ends)
    expected = oracle.logits(whole.circuit.kept)
    torch.testing.assert_close(oracle.logits(pruned.circuit.kept), expected, **EXACT)


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-over-positions"])
def test_under_other_ablations_dead_ends_stay_and_are_reported(ablation):
    engine, oracle = engine_of("gpt2", ablation), oracle_of("gpt2", ablation)
    circuit = Circuit(engine.graph, engine.graph.mask_of(["m0->logits", "embed->m1", "m1->logits"]))
    selection = without_dead_ends(engine, circuit, prune=True)
    assert selection.dead_ends == ("m0->logits",) and not selection.pruned
    assert torch.equal(selection.circuit.kept, circuit.kept)
    # Here it would not have been free: m0 writes its answer to no input at all.
    change = oracle.logits(circuit.kept) - oracle.logits(circuit.connected().kept)
    assert change.abs().max() > 1e-3


def test_a_search_says_how_exactly_it_was_made():
    found = search(engine_of("gpt2"), Acdc(), AcdcOptions(threshold=0.02))
    assert 0 < found.drift < 1e-12 or found.drift == 0
    assert found.limits.full < 1e-13 and found.limits.empty is not None
    assert found.n_tested == sum(decision.reason == "tested" for decision in found.decisions)
    assert len(found.decisions) == found.engine.graph.n_edges


def test_progress_is_reported_as_it_is_made():
    engine, seen = engine_of("gpt2"), []
    found = search(engine, Acdc(), AcdcOptions(threshold=0.02), on_progress=seen.append)
    assert len(seen) == len(engine.graph.readers) + 1
    assert tuple(d for progress in seen for d in progress.decisions) == found.decisions


def test_a_model_that_its_parts_do_not_reproduce_is_not_searched(monkeypatch):
    engine = engine_of("opt")
    original = engine.problem.model.mlp
    monkeypatch.setattr(engine.problem.model, "mlp", lambda *args: original(*args) * 1.1)
    with pytest.raises(SelfCheckError, match="full graph does not reproduce"):
        search(engine, Acdc(), AcdcOptions(threshold=0.02))
