"""What results show of themselves: short in a console, a table in a notebook, a frame in pandas."""

import builtins
import math
from html.parser import HTMLParser

import pytest
import torch
import transformers

import circuitfind as cf
from circuitfind.comparison.overlap import overlap
from circuitfind.comparison.result import Comparison, Pair, Side
from circuitfind.errors import GraphError, MethodError, ReportError
from circuitfind.methods.base import Progress
from circuitfind.models.zoo import zoo_path
from circuitfind.notebook import MOST_ROWS, html_table


@pytest.fixture(scope="module")
def problem():
    model = cf.load_model("ioi-small")
    return cf.make_problem(model, "ioi", n_prompts=4, metric="logit-difference")


@pytest.fixture(scope="module")
def found(problem):
    return cf.discover(problem, "eap", n_edges=20)


@pytest.fixture(scope="module")
def results(problem, found):
    """One of every kind of result, by name."""
    circuit = found.circuit
    side = Side("one", "runs/one", "0", "ioi", "ioi-small", "eap", circuit.n_edges, 479, ())
    pair = Pair(0, 1, same_model=True, overlap=overlap(circuit, circuit, draws=9))
    return {
        "scorecard": cf.scorecard(found),
        "assessment": (assessment := cf.evaluate(found, effort="quick")),
        "curve": assessment.curve,
        "roles": cf.find_roles(problem),
        "patched": cf.patch(problem, "attn_out,head", positions="last"),
        "comparison": Comparison((side, side), (pair,)),
        "scores": cf.EdgeScores(found.graph, circuit.effects, "logits", "eap"),
        "found": found,
    }


def test_whatever_python_shows_of_results_is_short(problem, found, results):
    prompts, engine = problem.prompts, found.engine
    others = [problem, prompts, problem.model, problem.graph, found.circuit, engine, engine.start()]
    for shown in [*others, *results.values()]:
        assert len(repr(shown)) < 300, type(shown)
        assert type(shown).__name__ in repr(shown)
    assert f"{found.circuit.n_edges} of 479 edges" in repr(found)
    assert "4 pairs" in repr(problem) and "ioi-small" in repr(problem.model)


def test_a_printed_scorecard_has_a_line_for_every_metric(results):
    lines = str(results["scorecard"]).splitlines()
    for metric in ("logit-difference", "kl", "accuracy"):
        assert sum(metric in line and "faithfulness" in line for line in lines[1:]) == 1


class Cells(HTMLParser):
    """The texts of a table's cells, and every tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.cells.append(data)


@pytest.mark.parametrize(
    "kind", ["scorecard", "assessment", "curve", "roles", "patched", "comparison"]
)
def test_a_notebook_shows_results_as_tables(kind, results):
    table = Cells(results[kind]._repr_html_())
    assert table.tags.count("table") == 1 and table.tags.count("tr") >= 2
    assert set(table.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}


def test_text_in_a_table_is_text():
    rows = [{"<b>": "<script>alert(1)</script>", "n": 0.123456}]
    table = Cells(html_table(rows, "<i>"))
    assert not {"b", "i", "script"} & set(table.tags)
    assert table.cells == ["<i>", "<b>", "n", "<script>alert(1)</script>", "0.1235"]


def test_of_a_long_table_the_first_rows_are_shown_and_it_is_said():
    table = Cells(html_table({"n": n} for n in range(10 * MOST_ROWS)))
    assert table.tags.count("tr") == MOST_ROWS + 1
    assert table.cells[-1] == f"the first {MOST_ROWS} rows; to_frame() has all"


@pytest.mark.parametrize(
    "kind",
    ["scorecard", "assessment", "curve", "roles", "patched", "comparison", "scores", "found"],
)
def test_every_table_is_a_frame(kind, results):
    pytest.importorskip("pandas")
    result = results[kind]
    frame = result.to_frame()
    assert len(frame) == len(list(result.records())) > 0
    assert cf.to_frame(result).equals(frame)


def test_a_frame_of_decisions_says_what_was_decided(found):
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert len(frame) == found.graph.n_edges
    kept = [decision.edge for decision in found.decisions if decision.kept]
    assert list(frame[frame.kept].edge) == kept


def test_without_pandas_a_frame_is_refused_in_one_line(found, results, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    for frame in (found.to_frame, results["patched"].to_frame, lambda: cf.to_frame(found.circuit)):
        with pytest.raises(ReportError, match="frames need pandas, which is not installed; run"):
            frame()


def test_progress_is_one_line_that_ends_with_the_search(problem, capsys):
    cf.discover(problem, "random", n_edges=3)
    assert capsys.readouterr().err == ""
    cf.discover(problem, "random", n_edges=3, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("\r") and shown.err.endswith("\n") and "100 %" in shown.err


def test_a_progress_line_is_written_once_for_every_percent(capsys):
    line = cf.ProgressLine()
    for done in range(1, 10_001):
        line(Progress(done, 10_000, ()))
    parts = capsys.readouterr().err.split("\r")[1:]
    assert len(parts) == 101
    assert parts[-1].strip() == "100 %: 10000 of 10000 edges are decided"


# One head, one edge


def test_the_pattern_of_a_head_is_the_one_that_transformers_computes(problem):
    network = transformers.AutoModelForCausalLM.from_pretrained(
        zoo_path("ioi-small"), attn_implementation="eager"
    )
    prompts = problem.prompts
    for run, tokens in (("clean", prompts.clean), ("corrupted", prompts.corrupted)):
        with torch.no_grad():
            expected = network(tokens, output_attentions=True).attentions[2][:, 1]
        found = cf.attention_pattern(problem, "a2.h1", run=run)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["m0", "embed", "a9.h9", "a2"])
def test_what_is_no_head_has_no_pattern(head, problem):
    with pytest.raises(GraphError, match="is not a head|no writer named"):
        cf.attention_pattern(problem, head)


def test_the_effect_of_an_edge_is_what_patching_its_path_measures(problem, found):
    patched = next(cf.path_patch(problem, ["a2.h2"], ["logits"], mode="noising").rows())
    cut = cf.effect_of(found, "a2.h2->logits")
    assert cut == cf.effect_of(problem, [problem.graph.edge("a2.h2->logits")])
    assert cut.after == pytest.approx(patched.value, abs=1e-4)
    assert cut.change == cut.after - cut.before != 0
    assert (cut.metric, cut.unit, cut.edges) == ("logit-difference", "logits", ("a2.h2->logits",))


def test_edges_are_cut_together_and_from_a_circuit_if_one_is_given(problem, found):
    pair = ["a2.h2->logits", "a2.h0->logits"]
    together = cf.patch_together(problem, ["a2.h2", "a2.h0"], ["logits"])
    assert cf.effect_of(problem, pair).after == pytest.approx(
        float(together.mean("path")), abs=1e-4
    )
    circuit = found.circuit
    inside = cf.effect_of(problem, pair, "kl", within=circuit)
    card = cf.scorecard(problem, circuit)
    by_kl = next(row for row in card.measurements if row.metric == "kl")
    assert inside.before == pytest.approx(by_kl.circuit, abs=1e-4)
    assert inside.metric == "kl" and not math.isnan(inside.error)


def test_a_run_that_does_not_exist_is_refused(problem):
    with pytest.raises((MethodError, TypeError), match="clean"):
        cf.attention_pattern(problem, "a2.h1", run="corrupt")
