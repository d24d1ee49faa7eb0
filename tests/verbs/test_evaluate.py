"""The circuit of any method, and one from elsewhere, is evaluated on the run's own prompts."""

import pytest

from circuitfind.circuit import load_circuit
from circuitfind.directories.config import RunConfig
from circuitfind.evaluation.assess import QUICK
from circuitfind.formats import export_circuit, import_circuit
from circuitfind.methods import METHODS
from circuitfind.models.loading import load_model
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.evaluate import evaluate_run
from circuitfind.verbs.wish import Wish

MODEL = "attn-2l"
OPTIONS = {
    "acdc": {"threshold": 0.5},
    "hybrid": {"threshold": 0.5, "share": 0.3, "steps": 2},
    "subnetwork-probing": {"n_edges": 20, "steps": 3},
    "edge-pruning": {"n_edges": 20, "steps": 3},
    "ugs": {"n_edges": 20, "steps": 3},
    "mattr": {"n_edges": 20, "steps": 3},
}


@pytest.fixture(scope="module")
def attention_only():
    return load_model(MODEL)


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_circuits_of_every_method_are_evaluated(method, attention_only, tmp_path):
    options = OPTIONS.get(method, {"n_edges": 20})
    config = RunConfig("ioi", MODEL, method, options, metric="logit-difference", n_prompts=3)
    run = run_discovery(tmp_path / "run", config, model=attention_only)
    said = []
    found = evaluate_run(run.path, Wish(QUICK), model=attention_only, tell=said.append).assessment
    assert "passes of 3 prompts" in said[0]
    own = found.readings[0].measured
    stored = run.card.measurements[0]
    assert (own.metric, found.n_edges) == ("logit-difference", run.circuit.n_edges)
    assert own.faithfulness == pytest.approx(stored.faithfulness, abs=1e-4)
    assert found.curve.by == ("effect" if method in ("acdc", "hybrid") else "score")
    assert found.curve.points[-1].faithfulness == pytest.approx(1, abs=1e-5)


def test_a_circuit_that_went_through_the_format_of_another_tool_is_evaluated(
    attention_only, tmp_path
):
    config = RunConfig("ioi", MODEL, "eap", {"n_edges": 20}, metric="logit-difference", n_prompts=3)
    run = run_discovery(tmp_path / "run", config, model=attention_only)
    file, mine = tmp_path / "theirs.json", tmp_path / "mine.json"
    export_circuit(run.circuit, file, format_name="eap-ig")
    import_circuit(file, run.circuit.graph).save(mine)
    assert load_circuit(mine).n_edges == run.circuit.n_edges
    settings = {"task": "ioi", "model": MODEL, "metric": "logit-difference", "n_prompts": 3}
    wish = Wish(QUICK, settings=tuple(settings.items()))
    found = evaluate_run(mine, wish, model=attention_only).assessment
    own, stored = found.readings[0].measured, run.card.measurements[0]
    assert own.faithfulness == pytest.approx(stored.faithfulness, abs=1e-4)
