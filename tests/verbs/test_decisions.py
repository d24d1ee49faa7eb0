"""The file of decisions says what the circuit is."""

import json

import pytest

import circuitfind as cf

METHODS = {
    "acdc": {"threshold": 0.01},
    "exact": {"n_edges": 20},
    "exact by faithfulness": {"target_faithfulness": 0.7},
    "exact by a walk": {"n_edges": 15, "walk": "greedy"},
    "exact above": {"threshold": 0.001},
    "eap-ig": {"n_edges": 20, "steps": 2},
    "hybrid": {"threshold": 0.01, "steps": 2},
    "random": {"n_edges": 20},
    "edge-pruning": {"steps": 20, "sparsity": 0.5},
    "ugs": {"steps": 20, "sparsity": 0.5},
    "mattr": {"n_edges": 20, "steps": 20},
    "subnetwork-probing": {"steps": 20, "sparsity": 0.5},
}


@pytest.mark.parametrize("case", METHODS)
def test_the_edges_decided_to_be_kept_are_those_of_the_circuit_and_its_dead_ends(
    case, discover, tmp_path
):
    method = case.partition(" ")[0]
    discover(tmp_path / "run", method=method, options=METHODS[case])
    lines = (tmp_path / "run" / "decisions.jsonl").read_text().splitlines()[1:]
    decisions = [json.loads(line) for line in lines]
    circuit = cf.load_circuit(tmp_path / "run" / "circuit.json")
    search = json.loads((tmp_path / "run" / "scorecard.json").read_text())["search"]
    removed = search["dead_ends"] if search["dead_ends_removed"] else []
    kept = [decision["edge"] for decision in decisions if decision["kept"]]
    assert sorted(kept) == sorted([*(edge.name for edge in circuit.edges), *removed])
    assert 0 < len(kept) < len(decisions) == circuit.graph.n_edges


def test_exact_keeps_as_many_edges_as_are_asked_for_and_says_so(discover, tmp_path):
    discover(tmp_path, method="exact", options={"n_edges": 20})
    lines = (tmp_path / "decisions.jsonl").read_text().splitlines()[1:]
    assert sum(json.loads(line)["kept"] for line in lines) == 20
