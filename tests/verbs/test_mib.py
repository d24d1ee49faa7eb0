"""Rankings measured by MIB's protocol in a directory: scored, read, interrupted, submitted."""

import json
from dataclasses import replace

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.mib import MibConfig
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import CircuitFileError, MethodError, RunDirectoryError
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.mib import MibScores, component_scores, mib, mib_problem
from circuitfind.formats.submission import read_importances
from circuitfind.methods.eap import Eap, EapOptions
from circuitfind.models.loading import load_model
from circuitfind.question import make_problem
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.mib import measure_mib

MODEL = "llama-4l"
CONFIG = MibConfig("ioi", MODEL, "eap", n_prompts=4)
_HELD_OUT = 1_000_003


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.fixture(scope="module")
def problem(model):
    """The prompts on which circuits are measured: others than those of the scores."""
    return mib_problem(make_problem(model, "ioi", n_prompts=4, seed=_HELD_OUT))


@pytest.fixture(scope="module")
def scores(model):
    train = mib_problem(make_problem(model, "ioi", n_prompts=4))
    return Eap().scores(IncrementalEngine(train), EapOptions())


def same(found, expected):
    assert (found.full, found.empty) == pytest.approx((expected.full, expected.empty), abs=1e-6)
    for one, other in ((found.signed, expected.signed), (found.absolute, expected.absolute)):
        assert [p.n_edges for p in one.points] == [p.n_edges for p in other.points]
        assert [p.faithfulness for p in one.points] == pytest.approx(
            [p.faithfulness for p in other.points], abs=1e-5
        )


def test_a_method_scores_ungrouped_edges_and_is_measured_on_other_prompts(
    model, problem, scores, tmp_path
):
    found = measure_mib(tmp_path / "mib", CONFIG, model=model)
    same(found.result, mib(problem, MibScores(scores)))
    assert found.submission == tmp_path / "mib" / "submission" / "ioi_llama-4l"
    written = read_importances(found.submission, problem.graph).edges
    torch.testing.assert_close(
        written.values[problem.graph.edge_mask],
        scores.values[problem.graph.edge_mask].double(),
        atol=1e-6,
        rtol=1e-4,
    )
    stored = json.loads((tmp_path / "mib" / "mib.json").read_text())
    assert (stored["cpr"], stored["cmd"]) == (found.result.cpr, found.result.cmd)
    said = []
    again = measure_mib(tmp_path / "mib", CONFIG, model=None, tell=said.append)
    assert again.result == found.result
    assert "is finished" in said[0]
    with pytest.raises(RunDirectoryError, match="level is edges there and components here"):
        measure_mib(tmp_path / "mib", replace(CONFIG, level="components"))


def test_a_submission_of_others_is_measured(model, problem, scores, tmp_path):
    first = measure_mib(tmp_path / "mib", CONFIG, model=model)
    theirs = replace(CONFIG, method="", options={}, scores=str(first.submission), seed=_HELD_OUT)
    found = measure_mib(tmp_path / "theirs", theirs, model=model)
    same(found.result, first.result)
    by_component = replace(theirs, level="components")
    found = measure_mib(tmp_path / "components", by_component, model=model).result
    assert found.level == "components"
    same(found, mib(problem, MibScores(scores, component_scores(scores))))


def test_scores_of_components_are_submitted_as_they_were_given(model, tmp_path):
    first = measure_mib(tmp_path / "mib", CONFIG, model=model)
    content = json.loads((first.submission / "importances.json").read_text())
    names = [name for name in content["nodes"] if name not in ("input", "logits")]
    for place, name in enumerate(names):
        content["nodes"][name]["score"] = float(place % 7)
    (tmp_path / "importances.json").write_text(json.dumps(content))
    config = replace(CONFIG, method="", options={}, level="components")
    theirs = replace(config, scores=str(tmp_path / "importances.json"))
    found = measure_mib(tmp_path / "theirs", theirs, model=model)
    assert found.result.n_ranked == len(names)
    again = replace(config, scores=str(found.submission))
    assert measure_mib(tmp_path / "again", again, model=model).result == found.result


def test_the_scores_of_a_run_are_divided_among_query_heads(model, tmp_path):
    run = run_discovery(
        tmp_path / "run",
        RunConfig("ioi", MODEL, "eap", {"n_edges": 20}, metric="logit-difference", n_prompts=4),
        model=model,
    )
    config = replace(CONFIG, method="", options={}, scores=str(run.path))
    said = []
    measure_mib(tmp_path / "seen", config, model=model, tell=said.append)
    assert ["on the prompts that the scores are made from" in line for line in said] == [True]
    config, said = replace(config, seed=1), []
    found = measure_mib(tmp_path / "mib", config, model=model, tell=said.append)
    assert not said
    graph = mib_problem(make_problem(model, "ioi", n_prompts=4)).graph
    values = read_importances(found.submission, graph).edges
    pair = [values.score(f"m0->a1.h{head}.k") for head in (0, 1)]
    assert pair[0] == pair[1] != 0
    assert values.score("m0->a1.h0.q") != values.score("m0->a1.h1.q")


def test_an_interrupted_measurement_repeats_no_pass_and_no_score(model, tmp_path, monkeypatch):
    whole = measure_mib(tmp_path / "whole", CONFIG, model=model).result

    class StoppedError(Exception):
        pass

    passes = 0

    def stop(progress):
        nonlocal passes
        passes += getattr(progress, "step", "") == "passes"
        if passes == 9:
            raise StoppedError

    with pytest.raises(StoppedError):
        measure_mib(tmp_path / "part", CONFIG, model=model, on_progress=stop)
    monkeypatch.setattr(Eap, "run", None)
    n_made = []
    note = Measured._note
    monkeypatch.setattr(
        Measured, "_note", lambda self, *args, **kw: n_made.append(1) or note(self, *args, **kw)
    )
    said = []
    found = measure_mib(tmp_path / "part", CONFIG, model=model, tell=said.append)
    assert found.result == whole
    (n_found,) = [int(line.split()[-1]) for line in said if "not repeated" in line]
    different = {point.n_edges for c in (whole.signed, whole.absolute) for point in c.points}
    assert n_found > 3 and len(n_made) > 3
    assert len(different) <= n_found + len(n_made) < 22
    assert not (tmp_path / "part" / "mib-passes.jsonl").exists()


def test_a_file_of_a_data_set_is_measured_and_another_one_trained_on(model, tmp_path):
    def row(a, b, thing):
        prompt = f"Then {{}} and {{}} went to the store . {{}} gave a {thing} to"
        metadata = {"subject": a, "indirect_object": b, "random_c": "Tom"}
        return {
            "prompt": prompt.format(a, b, a),
            "metadata": metadata,
            "s2_io_flip_counterfactual": {"prompt": prompt.format(a, b, b)},
        }

    names = [("Mary", "John"), ("John", "Lily"), ("Lily", "Max"), ("Max", "Mary")]
    for file, thing in (("train", "drink"), ("test", "book")):
        lines = [json.dumps(row(a, b, thing)) for a, b in names]
        (tmp_path / f"{file}.jsonl").write_text("\n".join(lines))
    config = MibConfig(
        str(tmp_path / "test.jsonl"), MODEL, "eap", n_prompts=3,
        train=str(tmp_path / "train.jsonl"), n_train=4,
    )  # fmt: skip
    found = measure_mib(tmp_path / "mib", config, model=model)
    assert found.result.n_prompts == 3
    said = []
    alone = replace(config, train=None, n_train=None)
    measure_mib(tmp_path / "alone", alone, model=model, tell=said.append)
    assert ["give others to make them from (--train)" in line for line in said] == [True]
    assert found.submission.name == "test_llama-4l"
    task = make_problem(model, str(tmp_path / "train.jsonl"), n_prompts=4)
    expected = Eap().scores(IncrementalEngine(mib_problem(task)), EapOptions())
    graph = expected.graph
    values = read_importances(found.submission, graph).edges.values
    torch.testing.assert_close(
        values[graph.edge_mask], expected.values[graph.edge_mask].double(), atol=1e-6, rtol=1e-4
    )


def test_methods_and_files_without_scores_are_refused(model, tmp_path):
    with pytest.raises(MethodError, match="decides edge by edge and ranks none"):
        measure_mib(tmp_path / "mib", replace(CONFIG, method="acdc", options={"threshold": 0.1}))
    with pytest.raises(CircuitFileError, match="holds no scores; give a run directory"):
        measure_mib(tmp_path / "mib", replace(CONFIG, method="", options={}, scores=str(tmp_path)))
    with pytest.raises(MethodError, match="ablation is 'zero', and MIB's protocol has 'resample'"):
        measure_mib(tmp_path / "mib", replace(CONFIG, ablation="zero"))
    with pytest.raises(MethodError, match="scores are given, so no method computes any"):
        measure_mib(tmp_path / "mib", replace(CONFIG, scores=str(tmp_path)))
    assert not (tmp_path / "mib").exists()


def test_the_task_itself_to_train_on_leaves_other_prompts_to_measure(model, tmp_path):
    plain = measure_mib(tmp_path / "plain", CONFIG, model=model).result
    said = measure_mib(tmp_path / "said", replace(CONFIG, train="ioi", n_train=4), model=model)
    assert said.result == plain


def test_a_known_circuit_of_all_edges_is_refused_before_anything_is_scored(
    model, problem, tmp_path, monkeypatch
):
    everything = Circuit(problem.graph, problem.graph.edge_mask)
    (tmp_path / "all.json").write_text(everything.to_json())
    monkeypatch.setattr(Eap, "run", None)
    with pytest.raises(MethodError, match="of the known circuit all.json 479 of 479 edges"):
        against = replace(CONFIG, against=str(tmp_path / "all.json"))
        measure_mib(tmp_path / "mib", against, model=model)
    assert not (tmp_path / "mib").exists()
