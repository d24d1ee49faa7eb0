"""`evaluate` says its cost first, measures any circuit, and writes what the tables say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import transformers

import circuitfind as cf
from circuitfind.directories.evaluation import PASSES
from circuitfind.engine.masked_pass import MaskedPasses
from circuitfind.evaluation.assess import USUAL
from circuitfind.evaluation.assessment import assessment_from
from circuitfind.models.zoo import zoo_path
from circuitfind.tasks.known.edges import known_edges
from circuitfind.verbs import evaluate as evaluating


@pytest.fixture
def evaluated(cli, run):
    return cli("evaluate", "run", "--quick")


def test_the_cost_comes_first_and_the_figures_are_written(evaluated, tmp_path):
    assert evaluated.code == 0
    assert evaluated.err.startswith("3")
    assert " passes of 8 prompts (faithfulness 6, size curve 10, random circuits 21)" in (
        evaluated.err
    )
    stored = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert set(stored) == {"format", "of", "evaluation"}
    assessment = assessment_from(stored["evaluation"])
    assert (assessment.effort, assessment.metric) == ("quick", "l2")
    assert f"CPR {assessment.curve.cpr:.3f}" in evaluated.out
    files = ("evaluation.json", "size-curve.svg", "size-curve.png")
    assert evaluated.out.endswith("".join(f"run/{name}\n" for name in files))
    root = ElementTree.parse(tmp_path / "run/size-curve.svg").getroot()
    assert root.tag.endswith("svg")
    tips = [link.get("{http://www.w3.org/1999/xlink}title") or "" for link in root.iter()]
    order = [tip.partition(":")[0] for tip in tips if tip.startswith(("their mean", "the circuit"))]
    assert order == ["their mean", "the circuit"]  # what comes last lies above
    assert (tmp_path / "run/size-curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run" / PASSES).exists()


def test_an_evaluated_run_is_still_a_finished_run(cli, run, evaluated):
    answer = cli(*run)
    assert answer.code == 0 and "is finished" in answer.err


def test_an_interrupted_evaluation_makes_no_pass_twice(cli, run, tmp_path, monkeypatch):
    measure, made = MaskedPasses.final, []

    def interrupted(passes, *given):
        if len(made) == 9:
            raise KeyboardInterrupt
        made.append(1)
        return measure(passes, *given)

    monkeypatch.setattr(MaskedPasses, "final", interrupted)
    answer = cli("evaluate", "run", "--quick")
    assert answer.code == 130
    assert answer.err.endswith("interrupted; repeat the command to resume in run\n")
    assert len((tmp_path / "run" / PASSES).read_bytes().splitlines()) == 9
    monkeypatch.setattr(MaskedPasses, "final", lambda *a: made.append(1) or measure(*a))
    resumed = cli("evaluate", "run", "--quick", "--json")
    assert "passes of an interrupted evaluation that are not repeated: 9\n" in resumed.err
    assert resumed.json["n_passes"] == 37
    n_made = len(made)
    made.clear()
    whole = cli("evaluate", "run", "--quick", "--out", "whole", "--json")
    assert {**whole.json, "seconds": 0} == {**resumed.json, "seconds": 0}
    assert len(made) == n_made


def test_an_evaluation_that_is_there_is_read(cli, run, tmp_path, monkeypatch):
    first = cli("evaluate", "run", "--quick")
    made = contents(tmp_path)
    monkeypatch.setattr(MaskedPasses, "final", lambda *a: pytest.fail("a pass was made"))
    again = cli("evaluate", "run", "--quick")
    assert (again.code, again.out) == (0, first.out)
    assert "run is finished: its results are read, not computed again" in again.err
    assert contents(tmp_path) == made


def test_a_fuller_evaluation_stands_for_a_lesser_one(cli, run, tmp_path, monkeypatch):
    few = replace(USUAL, n_random=3, n_knock_outs=1, n_sets=1)
    monkeypatch.setattr(evaluating, "USUAL", few)
    assert cli("evaluate", "run", "--quick").code == 0
    usual = cli("evaluate", "run", "--against", "run", "--json")
    made = contents(tmp_path)
    monkeypatch.setattr(MaskedPasses, "final", lambda *a: pytest.fail("a pass was made"))
    lesser = cli("evaluate", "run", "--quick", "--json")
    assert lesser.json == usual.json and usual.json["effort"] == "usual"
    assert "there already (usual): its results are read" in lesser.err
    assert contents(tmp_path) == made


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--metric", "kl"], "run-evaluation-metric-kl"),
        (["--ablation", "zero"], "run-evaluation-ablation-zero"),
        (["--prompts", 5], "run-evaluation-prompts-5"),
        (["--seed", 3], "run-evaluation-seed-3"),
        (["--metric", "l2", "--prompts", 8, "--seed", 0], "run"),
    ],
)
def test_other_settings_go_to_a_directory_of_their_own(given, name, cli, run, tmp_path):
    assert cli("evaluate", "run", "--quick").code == 0
    own = (tmp_path / "run/evaluation.json").read_bytes()
    answer = cli("evaluate", "run", "--quick", *given)
    assert answer.code == 0, answer.err
    assert f"\n{name}/evaluation.json\n" in answer.out
    assert (tmp_path / "run/evaluation.json").read_bytes() == own
    assert "its results are read" in cli("evaluate", "run", "--quick", *given).err


def test_evaluations_against_two_circuits_are_both_kept(cli, run, tmp_path):
    for name, n_edges in (("one", 3), ("two", 4)):
        content = json.loads((tmp_path / "run/circuit.json").read_text())
        content["edges"] = content["edges"][:n_edges]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    places = []
    for name in ("one", "two", "one", "two"):
        answer = cli("evaluate", "run", "--quick", "--against", f"{name}.json")
        assert answer.code == 0, answer.err
        places.append(Path(answer.out.splitlines()[-1]).parent.name)
    assert places == ["run", "run-evaluation-against-two"] * 2


def test_no_evaluation_replaces_another_one_in_a_directory_that_was_named(cli, run, complaint):
    assert cli("evaluate", "run", "--quick", "--out", "out").code == 0
    said = r"out holds another evaluation \(ablation is resample there and zero here\); choose"
    complaint(cli("evaluate", "run", "--quick", "--ablation", "zero", "--out", "out"), said)
    assert cli("evaluate", "run", "--quick", "--against", "run", "--out", "against").code == 0
    said = r"against holds another evaluation \(effort is quick there and usual here; against is"
    complaint(cli("evaluate", "run", "--out", "against"), said)


def test_a_run_that_is_written_anew_keeps_the_evaluation_of_its_circuit(
    cli, run, evaluated, tmp_path
):
    before = (tmp_path / "run/evaluation.json").read_bytes()
    (tmp_path / "run/circuit.json").unlink()
    assert cli(*run).code == 0
    assert (tmp_path / "run/evaluation.json").read_bytes() == before
    assert "its results are read" in cli("evaluate", "run", "--quick").err


def test_an_evaluation_of_an_earlier_version_is_read(cli, run, tmp_path, monkeypatch, complaint):
    first = cli("evaluate", "run", "--quick", "--json")
    file = tmp_path / "run/evaluation.json"
    content = json.loads(file.read_text())
    of, added = content["of"], ("circuits", "of_a_run", "evaluation_seed", "effort", "against")
    facts = {
        "circuit": of["circuits"][0], "others": [], "is_run": True, "seed": 0,
        "settings": {name: value for name, value in of.items() if name not in added},
    }  # fmt: skip
    earlier = {"facts": facts, "against": None}
    content |= {"format": "circuitfind evaluation 1", "of": earlier}
    file.write_text(json.dumps(content))
    for name in ("config", "environment"):
        (tmp_path / f"run/evaluation-{name}.json").unlink()
    monkeypatch.setattr(MaskedPasses, "final", lambda *a: pytest.fail("a pass was made"))
    assert cli("evaluate", "run", "--quick", "--json").json == first.json
    said = "run holds another evaluation .evaluation_seed is 0 there and 1 here"
    complaint(cli("evaluate", "run", "--quick", "--seed", 1, "--out", "run"), said)


def test_an_interrupted_evaluation_is_resumed_on_the_same_model_alone(
    cli, run, tmp_path, complaint
):
    assert cli("evaluate", "run", "--quick", "--out", "out").code == 0
    (tmp_path / "out/evaluation.json").unlink()
    complaint(
        cli("evaluate", "run", "--quick", "--prompts", 4, "--out", "out"),
        "out holds another evaluation .n_prompts is 8 there and 4 here",
    )
    file = tmp_path / "out/evaluation-environment.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "model_fingerprint": "0"}))
    said = "the model of the evaluation in out changed since; choose another --out"
    complaint(cli("evaluate", "run", "--quick", "--out", "out"), said)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_circuit_file_is_evaluated_where_it_came_from(cli, run, tmp_path, monkeypatch):
    few = replace(USUAL, n_random=3, n_knock_outs=1, n_sets=1)
    monkeypatch.setattr(evaluating, "USUAL", few)
    (tmp_path / "run/circuit.json").rename(tmp_path / "mine.json")
    answer = cli("evaluate", "mine.json", "--against", "mine.json", "--json")
    assert answer.code == 0
    found = assessment_from(answer.json)
    assert found.completeness is not None and found.curve is None
    assert found.roc and all((curve.precision, curve.recall) == (1, 1) for curve in found.roc)
    assert (tmp_path / "mine-evaluation/roc.svg").exists()
    assert (tmp_path / "mine-evaluation/knock-outs.svg").exists()


def test_an_imported_circuit_needs_to_be_told_what_it_is_about(cli, program, complaint, tmp_path):
    graph = cf.heads_and_mlps(cf.load_model(program).shape)
    circuit = cf.Circuit(graph, graph.mask_of(["embed->a0.h0.v", "a0.h0->logits"]))
    circuit.save(tmp_path / "imported.json")
    complaint(cli("evaluate", "imported.json"), "does not say which task and model .* --task and")
    answer = cli(
        "evaluate", "imported.json", "--task", "program", "--model", program, "--prompts", 4,
        "--metric", "l2", "--ablation", "zero", "--quick", "--out", "there",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "there/evaluation.json").read_text())["evaluation"]


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
    assert "the program's own" in answer.out and "one of several" not in answer.out
    assert "precision 1.000, recall 1.000, ROC area 1.000 by circuit (5 of 13)" in answer.out
    words = ["discover", "two-circuits", "--threshold", 0.001, "--prompts", 8, "--out", "twice"]
    assert cli(*words).code == 0
    answer = cli("evaluate", "twice", "--quick", "--against", "known")
    assert "the program's own, one of several" in answer.out


@pytest.mark.slow
def test_a_published_circuit_is_known_in_every_model_of_the_papers_shape(cli, tmp_path):
    model = tmp_path / "shaped"
    sizes = {"n_layer": 12, "n_head": 12, "n_embd": 24, "n_positions": 32, "vocab_size": 1024}
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(model)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(zoo_path("gpt-4l") / file, model)
    graph = cf.heads_and_mlps(cf.load_model(str(model)).shape)
    published = known_edges(cf.find_task("ioi").known_circuit, graph)
    cf.Circuit(graph, graph.mask_of(published[::2])).save(tmp_path / "half.json")
    words = ["--task", "ioi", "--model", model, "--prompts", 2, "--metric", "kl"]
    answer = cli("evaluate", "half.json", *words, "--quick", "--against", "known", "--json")
    assert answer.code == 0, answer.err
    edges, components = answer.json["roc"]
    assert (edges["n_true"], edges["precision"]) == (963, 1)
    assert edges["recall"] == pytest.approx(0.5, abs=0.001)
    assert components["of"] == "components"
    assert answer.json["against"] == "Wang et al. 2022, arXiv 2211.00593, figure 2, in gpt2"


def test_what_cannot_be_evaluated_is_one_line(cli, run, complaint, tmp_path):
    complaint(cli("evaluate", "run", "--quick", "--full"), "exclude one another")
    complaint(cli("evaluate", "nowhere"), "cannot read the circuit")
    complaint(cli("evaluate", "run", "--against", "known"), "no circuit of the task 'program'")
    complaint(cli("evaluate", "run", "--model", "or-gate"), "does not fit the model")
    stored = json.loads((tmp_path / "run/circuit.json").read_text())
    stored["origin"]["model_fingerprint"] = "0"
    (tmp_path / "run/circuit.json").write_text(json.dumps(stored))
    complaint(cli("evaluate", "run"), "the model of the circuit in run changed since")
