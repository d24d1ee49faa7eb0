"""Stability: frequencies and overlaps counted by hand, and a search that nothing disturbs."""

import json

import pytest
import torch

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.directories.config import RunConfig
from circuitfind.errors import LimitError, MethodError
from circuitfind.evaluation.stability import consensus, frequencies, mean_jaccard, stability
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.stability import repeat_run
from tests.engine.problems import random_mask

GRAPH = heads_and_mlps(
    ModelShape(n_layers=3, n_heads=4, n_kv_heads=4, d_model=4, d_head=1, d_vocab=3)
)


def test_frequencies_and_overlaps_are_those_counted_by_hand():
    one, two, three = (
        circuit(*names)
        for names in (
            ("embed->m0", "m0->logits"),
            ("embed->m0", "m0->logits", "embed->logits"),
            ("embed->m0", "embed->m1"),
        )
    )
    found = stability(one, {"seeds": [two], "orders": [three]}, share=0.6)
    assert {row.edge: row.share for row in found.edges} == pytest.approx(
        {"embed->m0": 1, "m0->logits": 2 / 3, "embed->logits": 1 / 3, "embed->m1": 1 / 3}
    )
    assert [row.jaccard for row in found.variations] == pytest.approx([2 / 3, 1 / 3])
    assert (found.n_runs, found.n_consensus) == (3, 2)
    assert mean_jaccard([one, two, three]) == pytest.approx((2 / 3 + 1 / 3 + 1 / 4) / 3)
    agreed = consensus([one, two, three], 1.0)
    assert [edge.name for edge in agreed.edges] == ["embed->m0"]
    assert float(frequencies([one, two]).sum()) == 2.5
    # However small the share, an edge of no run is in no consensus.
    assert consensus([one, two, three], 1e-320).n_edges == 4


def test_circuits_that_are_random_overlap_as_much_as_chance_has_it():
    runs = [Circuit(GRAPH, random_mask(GRAPH, seed, 0.3)) for seed in range(12)]
    (row,) = stability(runs[0], {"seeds": runs[1:]}).variations
    assert row.jaccard == pytest.approx(row.chance, abs=0.02)
    assert row.chance == pytest.approx(0.3 * 0.3 / (2 * 0.3 - 0.3 * 0.3), abs=0.03)


def test_a_deterministic_circuit_is_wholly_stable(tmp_path):
    """The wired program gives the same circuit whatever is varied, and is not computed twice."""
    config = RunConfig("reverse", "reverse", "acdc", {"threshold": 0.01}, metric="l2", n_prompts=16)
    run_discovery(tmp_path / "run", config)
    seen = []
    found = repeat_run(tmp_path / "run", n=2, on_progress=seen.append)
    assert sum(step.done == step.total for step in seen) >= 8
    names = [row.varied for row in found.stability.variations]
    assert names == ["resamples", "seeds", "orders", "thresholds"]
    assert [row.jaccard for row in found.stability.variations] == [1, 1, 1, 1]
    assert all(row.share == 1 for row in found.stability.edges)
    original = load_circuit(tmp_path / "run/circuit.json")
    assert torch.equal(load_circuit(found.path / "consensus.json").kept, original.kept)
    assert (found.path / "consensus.svg").read_text().count("in 100% of the runs") >= 2
    before = {file: file.stat().st_mtime_ns for file in found.path.glob("*/circuit.json")}
    again = repeat_run(tmp_path / "run", n=2)
    assert again.stability == found.stability and len(before) == 8
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert json.loads((found.path / "stability.json").read_text())["n_runs"] == 9


def test_what_cannot_be_varied_is_refused(tmp_path):
    config = RunConfig("reverse", "reverse", "exact", {"n_edges": 3}, metric="l2", n_prompts=8)
    run_discovery(tmp_path / "run", config)
    with pytest.raises(MethodError, match="cannot vary 'moods'; choose among resamples, seeds"):
        repeat_run(tmp_path / "run", varied=["moods"])
    with pytest.raises(MethodError, match="has nothing to vary as to orders; choose among"):
        repeat_run(tmp_path / "run", varied=["orders"])
    with pytest.raises(LimitError, match="repetitions must be a whole number from 1"):
        repeat_run(tmp_path / "run", n=0)
    with pytest.raises(LimitError, match="share must be a number above 0 and at most 1"):
        consensus([circuit("embed->m0")], 1.5)


def circuit(*edges):
    return Circuit(GRAPH, GRAPH.mask_of(edges))
