"""`evaluate` says its cost first, measures any circuit, and writes what the tables say."""

import json
from xml.etree import ElementTree

import pytest

import circuitfind as cf
from circuitfind.evaluation.assessment import assessment_from


@pytest.fixture
def evaluated(cli, run):
    return cli("evaluate", "run", "--quick")


def test_the_cost_comes_first_and_the_figures_are_written(evaluated, tmp_path):
    assert evaluated.code == 0
    assert evaluated.err.startswith("3")
    assert " passes of 8 prompts (faithfulness 6, size curve 10, random circuits 21)" in (
        evaluated.err
    )
    stored = json.loads((tmp_path / "run/scorecard.json").read_text())
    assert set(stored) == {"scorecard", "search", "evaluation"}
    assessment = assessment_from(stored["evaluation"])
    assert (assessment.effort, assessment.metric) == ("quick", "l2")
    assert f"CPR {assessment.curve.cpr:.3f}" in evaluated.out
    assert evaluated.out.endswith("run/scorecard.json\nrun/size-curve.svg\n")
    root = ElementTree.parse(tmp_path / "run/size-curve.svg").getroot()
    assert root.tag.endswith("svg")


def test_an_evaluated_run_is_still_a_finished_run(cli, run, evaluated):
    answer = cli(*run)
    assert answer.code == 0 and "is finished" in answer.err


def test_a_circuit_file_is_evaluated_where_it_came_from(cli, run, tmp_path):
    (tmp_path / "run/circuit.json").rename(tmp_path / "mine.json")
    answer = cli("evaluate", "mine.json", "--against", "mine.json", "--json")
    assert answer.code == 0
    found = assessment_from(answer.json)
    assert found.completeness is not None and found.curve is None
    assert found.roc and all((curve.precision, curve.recall) == (1, 1) for curve in found.roc)
    assert (tmp_path / "mine-evaluation/roc.svg").exists()
    assert (tmp_path / "mine-evaluation/knock-outs.svg").exists()


def test_an_imported_circuit_needs_to_be_told_what_it_is_about(cli, program, complaint, tmp_path):
    graph = cf.Graph(cf.load_model(program).shape)
    circuit = cf.Circuit(graph, graph.mask_of(["embed->a0.h0.v", "a0.h0->logits"]))
    circuit.save(tmp_path / "imported.json")
    complaint(cli("evaluate", "imported.json"), "does not say which task and model .* --task and")
    answer = cli(
        "evaluate", "imported.json", "--task", "program", "--model", program, "--prompts", 4,
        "--metric", "l2", "--ablation", "zero", "--quick", "--out", "there",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "there/scorecard.json").read_text())["evaluation"]


def test_a_series_gives_a_curve_by_threshold(cli, run):
    words = [*run[:-2], "--threshold", "0.001,0.1"]
    words[words.index("--out") + 1] = "series"
    assert cli(*words).code == 0
    answer = cli("evaluate", "series/threshold-0.1", "--quick", "--json")
    assert answer.json["curve"]["by"] == "threshold"
    assert len(answer.json["curve"]["points"]) == 3


def test_known_circuits_are_those_that_models_state(cli):
    words = ["discover", "or-gate", "--threshold", 0.001, "--prompts", 8, "--out", "gate"]
    assert cli(*words).code == 0
    answer = cli("evaluate", "gate", "--quick", "--against", "known")
    assert "precision 1.000, recall 1.000, ROC area 1.000 by circuit (5 of 13)" in answer.out


def test_what_cannot_be_evaluated_is_one_line(cli, run, complaint, tmp_path):
    complaint(cli("evaluate", "run", "--quick", "--full"), "exclude one another")
    complaint(cli("evaluate", "nowhere"), "cannot read the circuit")
    complaint(cli("evaluate", "run", "--against", "known"), "no circuit of the task 'program'")
    complaint(cli("evaluate", "run", "--model", "or-gate"), "does not fit the model")
    stored = json.loads((tmp_path / "run/circuit.json").read_text())
    stored["origin"]["model_fingerprint"] = "0"
    (tmp_path / "run/circuit.json").write_text(json.dumps(stored))
    complaint(cli("evaluate", "run"), "are no longer those that the circuit in run was found in")
