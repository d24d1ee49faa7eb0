"""The report says what the run's files say: every edge, effect, token and attention weight."""

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import circuitfind
from circuitfind.circuit import load_circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.work import read_config
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import CircuitFileError, ReportError, RunDirectoryError
from circuitfind.evaluation.assess import QUICK, USUAL
from circuitfind.models.loading import load_model
from circuitfind.reports.evaluation import assessment_rows
from circuitfind.tasks import find_task
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.evaluate import evaluate_run
from circuitfind.verbs.report import write_report
from circuitfind.verbs.wish import Wish
from tests.timing import without_times

BLOCK = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.S)
MODEL = "ioi-small"
ZOO = Path(circuitfind.__file__).parent / "models" / "zoo"
N_PROMPTS = 8
DIGITS = 1e-6
TESTS = {"equivalence", "independence", "minimality", "sufficiency"}


def data_of(file):
    return json.loads(BLOCK.search(file.read_text(encoding="utf-8"))[1])


@pytest.fixture(scope="module")
def small():
    return load_model(MODEL)


@pytest.fixture(scope="module")
def run(tmp_path_factory, small):
    config = RunConfig("ioi", MODEL, "acdc", {"threshold": 0.05}, n_prompts=N_PROMPTS)
    path = tmp_path_factory.mktemp("reported") / "run"
    return run_discovery(path, config, model=small)


@pytest.fixture(scope="module")
def shown(run):
    return data_of(write_report(run.path))["runs"][0]


def names_of(shown):
    """Return the name of each edge of the page's data, in its order."""
    graph, edges = shown["graph"], shown["edges"]
    return [
        f"{graph['nodes'][graph['writers'][writer][0]]['name']}->{graph['readers'][reader]['name']}"
        for writer, reader in zip(edges["writer"], edges["reader"], strict=True)
    ]


def decisions_of(run):
    lines = (run.path / "decisions.jsonl").read_text().splitlines()[1:]
    return [json.loads(line) for line in lines]


def test_every_decision_is_there_in_order_with_its_figures(run, shown):
    decisions, edges = decisions_of(run), shown["edges"]
    assert names_of(shown) == [row["edge"] for row in decisions]
    assert edges["decided"] == [int(row["kept"]) for row in decisions]
    reasons = ("tested", "group", "dead", "scored")
    assert [reasons[reason] for reason in edges["reason"]] == [row["reason"] for row in decisions]
    for field in ("effect", "score", "before", "after"):
        expected = [row[field] for row in decisions]
        assert [value is None for value in edges[field]] == [value is None for value in expected]
        found = [value for value in edges[field] if value is not None]
        known = [value for value in expected if value is not None]
        np.testing.assert_allclose(found, known, rtol=DIGITS)


def test_the_circuit_is_that_of_the_circuit_file(run, shown):
    circuit = load_circuit(run.path / "circuit.json")
    kept = {
        name for name, kept in zip(names_of(shown), shown["edges"]["kept"], strict=True) if kept
    }
    assert kept == {edge.name for edge in circuit.edges}


def test_every_component_stands_in_its_row_and_none_on_another(run, shown):
    rows: dict[float, list[tuple[float, float]]] = {}
    everywhere = shown["layouts"]["all"]["boxes"]
    for x, y, width, *_ in everywhere.values():
        rows.setdefault(y, []).append((x - width / 2, x + width / 2))
    for row in rows.values():
        row.sort()
        assert all(left[1] <= right[0] for left, right in zip(row, row[1:], strict=False))
    components = {node["name"]: node for node in shown["graph"]["nodes"]}
    assert set(everywhere) == set(components)
    assert set(shown["layouts"]["circuit"]["boxes"]) == set(run.circuit.components)
    heights = {name: y for name, (_, y, *_) in everywhere.items()}
    for name, node in components.items():
        assert all(
            heights[other] < heights[name]
            for other in components
            if components[other]["row"] < node["row"]
        )


@pytest.fixture(scope="module")
def prompts(small):
    return find_task("ioi").write_prompts(small.vocabulary, N_PROMPTS, 0)


def rows_of(shown, small, prompts):
    """Return which of the run's prompts are shown."""
    texts = [
        small.vocabulary.decode(row[:length].tolist())
        for row, length in zip(prompts.clean, prompts.lengths, strict=True)
    ]
    return [texts.index(prompt["text"]) for prompt in shown["attention"]["prompts"]]


def test_the_prompts_are_those_of_the_run_token_by_token(shown, small, prompts):
    def text_of(tokens):
        return [small.vocabulary.decode([token]) for token in tokens.flatten().tolist()]

    rows = rows_of(shown, small, prompts)
    assert len(set(rows)) == 4
    for row, prompt in zip(rows, shown["attention"]["prompts"], strict=True):
        length = int(prompts.lengths[row])
        assert prompt["clean"] == text_of(prompts.clean[row, :length])
        assert prompt["corrupted"] == text_of(prompts.corrupted[row, :length])
        assert prompt["answers"] == text_of(prompts.answers[row])
        assert prompt["wrongAnswers"] == text_of(prompts.wrong_answers[row])
        assert prompt["steps"] == prompts.steps[row].tolist()
        assert prompt["positions"] == {n: int(p[row]) for n, p in prompts.positions.items()}


def test_the_patterns_are_those_that_hugging_face_reports(shown, small, prompts):
    model = AutoModelForCausalLM.from_pretrained(ZOO / MODEL, attn_implementation="eager")
    rows = rows_of(shown, small, prompts)
    for kind, tokens in (("clean", prompts.clean[rows]), ("corrupted", prompts.corrupted[rows])):
        with torch.no_grad():
            expected = model(tokens, output_attentions=True).attentions
        stored = shown["attention"]["heads"][kind]
        assert set(stored) == {f"a{layer}.h{head}" for layer in range(4) for head in range(4)}
        for head, texts in stored.items():
            layer, number = map(int, head.removeprefix("a").split(".h"))
            for row, text in enumerate(texts):
                values = np.frombuffer(base64.b64decode(text), dtype="<u2") / 65535
                length = int(prompts.lengths[rows[row]])
                known = expected[layer][row, number].double().numpy()[np.tril_indices(length)]
                np.testing.assert_allclose(values, known, rtol=0, atol=1e-5)


def test_the_scorecard_is_that_of_the_file(run, shown):
    stored = json.loads((run.path / "scorecard.json").read_text())
    assert shown["scorecard"] == stored["scorecard"]
    assert shown["search"] == without_times(stored["search"])


AGAIN = """
import sys
from pathlib import Path
from circuitfind.directories.config import RunConfig
from circuitfind.directories.work import read_config
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.report import write_report

config = read_config(RunConfig, Path(sys.argv[1]).parent)
write_report(run_discovery(Path(sys.argv[2]), config).path)
"""


def test_another_process_writes_the_same_report_elsewhere_and_differs_in_seconds_only(
    run, tmp_path
):
    first, other = write_report(run.path).read_bytes(), tmp_path / "deeper" / "elsewhere"
    config = run.path.resolve() / "config.json"
    subprocess.run(
        [sys.executable, "-c", AGAIN, str(config), str(other)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        check=True,
    )
    assert (other / "report.html").read_bytes() == first
    assert write_report(other).read_bytes() == first
    written = {file.name for file in other.iterdir()}
    assert written == {file.name for file in run.path.iterdir() if file.suffix != ".lock"}
    for name in written - {"scorecard.json"}:
        assert (other / name).read_bytes() == (run.path / name).read_bytes(), name
    cards = [json.loads((path / "scorecard.json").read_text()) for path in (run.path, other)]
    for card in cards:
        card["search"] = without_times(card["search"])
    assert cards[0] == cards[1]


def test_an_evaluation_is_on_the_page_as_it_is_in_the_file(discover, model, tmp_path):
    path = discover(tmp_path / "run", n_prompts=8).path
    assert data_of(write_report(path))["runs"][0]["evaluation"] is None
    few = replace(USUAL, n_random=4, n_knock_outs=0, n_greedy=0, n_sets=0)
    found = evaluate_run(path, Wish(few), model=model).assessment
    shown = data_of(write_report(path))["runs"][0]["evaluation"]
    assert (shown["effort"], shown["metric"]) == ("usual", found.metric)
    assert shown["rows"] == [list(row) for row in assessment_rows(found)]
    points = [[p.share, p.faithfulness] for p in found.curve.points if p.share > 0]
    np.testing.assert_allclose(shown["curve"]["points"], points, rtol=1e-6)
    baseline = found.baselines[0]
    ends = [baseline.low, baseline.mean, baseline.high]
    np.testing.assert_allclose(shown["curve"]["random"], ends, rtol=1e-6)
    assert shown["tests"] == [asdict(test) for test in found.tests]
    assert {test["name"] for test in shown["tests"]} == TESTS
    knocked_out = found.completeness.knock_outs
    assert len(shown["knockOuts"]) == len(knocked_out) > 0
    for row, known in zip(shown["knockOuts"], knocked_out, strict=True):
        assert (row["kind"], row["components"]) == (known.kind, list(known.components))
        assert (row["full"], row["circuit"]) == pytest.approx((known.full, known.circuit))
    rows = {row.edge: row for row in found.discoveries.edges}
    assert set(shown["evidence"]["edges"]) == set(rows)
    for name, (effect, adjusted, low, high) in shown["evidence"]["edges"].items():
        assert (effect, adjusted) == pytest.approx((rows[name].effect, rows[name].adjusted))
        assert low is None or low <= effect <= high


def test_what_makes_the_figures_doubtful_is_on_the_page(discover, model, tmp_path):
    run = discover(tmp_path / "run", options={"threshold": 1e6})
    assert run.circuit.n_edges == 0
    assert run.card.doubts
    assert data_of(write_report(run.path))["runs"][0]["warnings"] == list(run.card.doubts)
    found = evaluate_run(run.path, Wish(QUICK), model=model).assessment
    shown = data_of(write_report(run.path))["runs"][0]
    assert set(shown["warnings"]) == {*run.card.doubts, *found.doubts}
    assert len(shown["warnings"]) == len(set(shown["warnings"]))
    assert not {"note", "WARNING"} & {name for name, _ in shown["evaluation"]["rows"]}


def test_notes_and_too_much_drift_are_on_the_page(discover, tmp_path):
    path = discover(tmp_path / "run").path
    shown = data_of(write_report(path))["runs"][0]
    assert shown["warnings"] == shown["notes"] == []
    stored = json.loads((path / "scorecard.json").read_text())
    stored["search"] |= {"drift": 0.002, "drift_allowed": 1e-4}
    stored["scorecard"]["notes"] = ["weights are bfloat16"]
    (path / "scorecard.json").write_text(json.dumps(stored))
    shown = data_of(write_report(path))["runs"][0]
    assert shown["notes"] == ["weights are bfloat16"]
    [warning] = shown["warnings"]
    assert warning.startswith("drift 2.0e-03, more than the 1e-04 that rounding explains")


def test_the_provenance_is_that_of_the_files(run, shown):
    config = json.loads((run.path / "config.json").read_text())
    options = config.pop("options") | config.pop("selection")
    assert config.pop("format") == "circuitfind run 1"
    provenance = shown["provenance"]
    assert (provenance["settings"], provenance["options"]) == (config, options)
    assert provenance["environment"] == json.loads((run.path / "environment.json").read_text())


def test_two_runs_are_compared_edge_by_edge(run, small, tmp_path):
    config = RunConfig("ioi", MODEL, "acdc", {"threshold": 0.2}, n_prompts=N_PROMPTS)
    other = run_discovery(tmp_path / "other", config, model=small)
    file = write_report(run.path, against=other.path)
    assert file == run.path / "report-other.html"
    data = data_of(file)
    left, right = ({edge.name for edge in found.circuit.edges} for found in (run, other))
    assert data["comparison"]["remarks"] == []
    comparison = data["comparison"]["difference"]
    assert comparison["alike"] is True
    assert set(comparison["both"]) == left & right
    assert set(comparison["left"]) == left - right
    assert set(comparison["right"]) == right - left
    assert [shown["name"] for shown in data["runs"]] == ["run", "other"]


def test_runs_of_different_models_stand_side_by_side_without_a_difference(run, discover, tmp_path):
    other = discover(tmp_path / "program")
    data = data_of(write_report(run.path, against=other.path, out=tmp_path / "both.html"))
    (remark,) = data["comparison"].pop("remarks")
    assert "program cannot be compared with those of run: it belongs to another model" in remark
    assert data["comparison"] == {}
    assert len(data["runs"]) == 2


def test_a_model_that_is_gone_costs_the_patterns_only(discover, tmp_path, program):
    run, said = discover(tmp_path / "run"), []
    content = program.read_text()
    program.rename(program.with_name("away.json"))
    try:
        shown = data_of(write_report(run.path, tell=said.append))["runs"][0]
    finally:
        program.with_name("away.json").rename(program)
    assert program.read_text() == content
    assert shown["attention"] is None
    assert said and "no attention patterns" in said[0]
    assert shown["scorecard"]["n_edges"] == run.circuit.n_edges


def test_a_circuit_without_its_search_is_shown_as_that_of_the_run_but_for_the_search(
    run, shown, small, tmp_path
):
    file = tmp_path / "alone" / "circuit.json"
    file.parent.mkdir()
    file.write_bytes((run.path / "circuit.json").read_bytes())
    [alone] = data_of(write_report(file.parent, model=small))["runs"]
    for same in ("attention", "needed", "graph", "unit", "warnings", "notes"):
        assert alone[same] == shown[same], same
    assert alone["layouts"]["circuit"] == shown["layouts"]["circuit"]
    assert alone["scorecard"] == {**shown["scorecard"], "held_out": None}
    assert alone["search"] is None

    def kept_effects(page):
        rows = zip(names_of(page), page["edges"]["effect"], page["edges"]["kept"], strict=True)
        return {name: effect for name, effect, kept in rows if kept}

    assert kept_effects(alone) == kept_effects(shown)
    assert set(alone["edges"]["kept"]) == {1}


def test_a_circuit_without_its_search_needs_the_model_that_it_was_found_on(run, tmp_path):
    stored = json.loads((run.path / "circuit.json").read_text())
    stored["origin"]["model_fingerprint"] = "another"
    (tmp_path / "circuit.json").write_text(json.dumps(stored))
    with pytest.raises(RunDirectoryError, match="the model of .* changed since"):
        write_report(tmp_path)
    del stored["origin"]["task"]
    (tmp_path / "circuit.json").write_text(json.dumps(stored))
    with pytest.raises(CircuitFileError, match="does not say which task it is about; .* import"):
        write_report(tmp_path)


def test_what_is_no_finished_run_is_refused(tmp_path, run):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        write_report(tmp_path)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("config.json", "scorecard.json", "environment.json"):
        (unfinished / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(RunDirectoryError, match="not finished"):
        write_report(unfinished)
    with pytest.raises(ReportError, match="cannot write"):
        write_report(run.path, out=tmp_path / "nowhere" / "report.html")


def test_what_the_circuit_loses_without_an_edge_is_there_with_its_interval(run, shown, small):
    problem = run_config(run).problem(small)
    engine, kept = IncrementalEngine(problem), run.circuit.kept
    assert set(shown["needed"]) == {edge.name for edge in run.circuit.edges}
    whole = engine.readout.loss(engine.recomputed(kept))
    for name, (effect, low, high) in shown["needed"].items():
        without = engine.recomputed(kept & ~engine.graph.mask_of(name))
        assert effect == pytest.approx(engine.readout.loss(without) - whole, rel=1e-4, abs=1e-5)
        assert low <= effect <= high


def run_config(run):
    return read_config(RunConfig, run.path)


def test_measured_roles_stand_at_their_heads(discover, tmp_path):
    run = discover(tmp_path / "run")
    origin = run.circuit.origin
    role = {"component": "a1.h0", "role": "induction", "number": 0.9, "where": "end"}
    content = {
        "format": "circuitfind roles 1",
        "model_fingerprint": origin["model_fingerprint"],
        "prompts_fingerprint": origin["prompts_fingerprint"],
        "roles": [role],
    }
    (run.path / "roles.json").write_text(json.dumps(content))
    [shown] = data_of(write_report(run.path))["runs"]
    roles = {node["name"]: node["role"] for node in shown["graph"]["nodes"] if node["role"]}
    assert roles == {"a1.h0": "induction"}
