"""Python's functions take the same things wherever they mean the same, and refuse in our words."""

import contextlib
import inspect
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.engine.incremental import as_engine
from circuitfind.errors import CircuitfindError, GraphError, LimitError, MethodError
from circuitfind.patching.path import linearised_edges
from circuitfind.problem import as_problem
from circuitfind.shape import ModelShape

EDGE = "m0->a2.h2.v"


@pytest.fixture(scope="module")
def problem():
    return cf.make_problem(
        cf.load_model("ioi-small"), "ioi", n_prompts=4, metric="logit-difference"
    )


@pytest.fixture(scope="module")
def found(problem):
    return cf.discover(problem, "eap", n_edges=20)


# The first argument


def test_a_scorecard_is_the_same_of_a_finding_a_problem_and_an_engine(problem, found):
    card = cf.scorecard(found)
    assert card == cf.scorecard(problem, found.circuit)
    assert card == cf.scorecard(found.engine, found.circuit)
    assert card.held_out is None
    others = cf.make_problem(problem.model, "ioi", n_prompts=4, seed=1, metric="logit-difference")
    assert cf.scorecard(found, held_out=others).held_out is not None


def test_an_evaluation_is_the_same_of_a_finding_and_of_its_problem(problem, found):
    ours = cf.evaluate(found, effort="quick")
    theirs = cf.evaluate(problem, found.circuit, "quick")
    assert replace(ours, seconds=0.0) == replace(theirs, seconds=0.0)


@pytest.mark.parametrize(
    "ask",
    [
        cf.find_roles,
        cf.suggest_threshold,
        lambda asked: cf.patch(asked, "attn_out", positions="last").effect("attn_out").tolist(),
        lambda asked: cf.path_patch(asked, ["a2.h2"], ["logits"]).effect("path").tolist(),
        lambda asked: cf.patch_together(asked, ["a2.h2"], ["logits"]).effect("path").tolist(),
        lambda asked: linearised_edges(asked, mode="denoising").nan_to_num().tolist(),
    ],
)
def test_what_asks_about_a_problem_asks_about_a_finding_of_it(ask, problem, found):
    assert ask(found) == ask(problem) == ask(found.engine)


def test_a_circuit_of_a_sweep_is_the_same_of_a_finding_and_of_its_problem(problem, found):
    swept = cf.patch(problem, "head,mlp_out", positions="all", mode="noising")
    ours, theirs = (cf.circuit_of(asked, swept, edge_threshold=0.05) for asked in (found, problem))
    assert torch.equal(ours.kept, theirs.kept) and ours.n_edges


@pytest.mark.parametrize("asked", ["ioi", None, 3])
def test_what_is_no_question_is_refused_by_its_type(asked):
    with pytest.raises(MethodError, match=r"is not a question; give a problem \(`make_problem`\)"):
        as_problem(asked)


def test_a_problem_without_a_circuit_is_refused(problem):
    for ask in (cf.scorecard, cf.evaluate):
        with pytest.raises(MethodError, match="no circuit is given; give one after the problem"):
            ask(problem)


def test_a_circuit_of_another_graph_is_refused(problem):
    other = cf.heads_and_mlps(ModelShape(1, 1, 1, 4, 4, 4))
    circuit = cf.Circuit(other, other.edge_mask)
    for ask in (cf.scorecard, cf.evaluate):
        with pytest.raises(GraphError, match="belongs to another model"):
            ask(problem, circuit)


def test_the_engine_of_a_finding_is_not_made_again(found):
    assert as_engine(found) is as_engine(found.engine) is found.engine


# Edges


def test_an_edge_may_be_given_as_a_name_an_edge_or_two_indices(problem, found):
    graph, engine = problem.graph, found.engine
    edge, place = graph.edge(EDGE), graph.index(EDGE)
    assert graph.edge(edge) == graph.edge(place) == edge
    assert graph.writers[place[0]].name == "m0" and graph.readers[place[1]].name == "a2.h2.v"
    assert found.circuit.effect(EDGE) == found.circuit.effect(edge) == found.circuit.effect(place)
    losses = {
        engine.loss(engine.cut(engine.start(), edges))
        for edges in ([EDGE], [edge], [place], EDGE, edge)
    }
    assert len(losses) == 1 and losses != {engine.loss(engine.start())}


def test_a_circuit_is_made_of_the_names_of_its_edges(problem, found):
    names = [edge.name for edge in found.circuit.edges]
    for of in (problem, problem.graph, found, found.circuit):
        assert torch.equal(cf.Circuit.of_edges(of, names).kept, found.circuit.kept)
    assert cf.Circuit.of_edges(problem, EDGE).edges == [problem.graph.edge(EDGE)]


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ("m0", "is not an edge; edges look like"),
        ("a2.h2->m0", "no edge 'a2.h2->m0'"),
        ("m9->logits", "no writer named 'm9'"),
        ((0, 999), "the graph has the writers 0 to"),
        ((-1, 0), "the graph has the writers 0 to"),
    ],
)
def test_an_edge_that_does_not_exist_is_refused_wherever_edges_are_given(
    edge, message, problem, found
):
    for ask in (
        problem.graph.edge,
        found.circuit.effect,
        lambda edge: cf.Circuit.of_edges(problem, [edge]),
        lambda edge: found.engine.cut(found.engine.start(), [edge]),
    ):
        with pytest.raises(GraphError, match=message):
            ask(edge)


# Numbers

WHOLE = [-1, 0, 10**30]
SEEDS = [-1, 10**30]
REAL = [float("nan"), float("inf"), -1e300]


@pytest.mark.parametrize(
    ("ask", "values"),
    [
        (lambda p, f, x: cf.make_problem(p.model, "ioi", n_prompts=x), WHOLE),
        (lambda p, f, x: cf.make_problem(p.model, "ioi", seed=x), SEEDS),
        (lambda p, f, x: cf.find_task("ioi").write_prompts(p.model.vocabulary, x, 0), WHOLE),
        (lambda p, f, x: cf.discover(p, "eap", n_edges=x), SEEDS),
        (lambda p, f, x: cf.discover(p, "random", n_edges=3, seed=x), SEEDS),
        (lambda p, f, x: cf.discover(p, "acdc", threshold=0.1, seed=x), SEEDS),
        (lambda p, f, x: cf.discover(p, "acdc", threshold=x), REAL),
        (lambda p, f, x: cf.discover(p, "eap", n_edges=3, memory=x), WHOLE),
        (lambda p, f, x: cf.IncrementalEngine(p, x), WHOLE[:2]),
        (lambda p, f, x: cf.suggest_threshold(f, n_edges=x), WHOLE),
        (lambda p, f, x: cf.suggest_threshold(f, seed=x), SEEDS),
        (lambda p, f, x: cf.overlap(f.circuit, f.circuit, draws=x), WHOLE),
        (lambda p, f, x: cf.overlap(f.circuit, f.circuit, seed=x), SEEDS),
        (lambda p, f, x: cf.stability(f.circuit, {"seeds": [f.circuit]}, share=x), REAL),
        (lambda p, f, x: cf.stability(f.circuit, {"seeds": [f.circuit]}, seed=x), SEEDS),
        (lambda p, f, x: scores(f).top(x), SEEDS),
        (lambda p, f, x: scores(f).greedy(x), SEEDS),
        (lambda p, f, x: scores(f).above(x), REAL),
        (lambda p, f, x: cf.patch(p, rows=x), WHOLE[:2]),
        (lambda p, f, x: cf.path_patch(p, rows=x), WHOLE[:2]),
        (lambda p, f, x: cf.patch_together(p, ["m0"], ["logits"], rows=x), WHOLE[:2]),
        (lambda p, f, x: cf.circuit_of(p, swept(p), x), REAL),
        (lambda p, f, x: cf.circuit_of(p, swept(p), edge_threshold=x), REAL),
        (lambda p, f, x: cf.circuit_of(p, swept(p), target_faithfulness=x), REAL),
        (lambda p, f, x: swept(p).significant(x), REAL),
        (lambda p, f, x: cf.draw_heatmap(swept(p), "attn_out", threshold=x), REAL),
        (lambda p, f, x: cf.patch_report(swept(p), x), REAL),
        (lambda p, f, x: cf.draw_circuit(f.circuit, max_edges=x), WHOLE),
        (lambda p, f, x: cf.draw_difference(f.circuit, f.circuit, max_edges=x), WHOLE),
        (lambda p, f, x: config(n_prompts=x), WHOLE),
        (lambda p, f, x: config(seed=x), SEEDS),
        (lambda p, f, x: config(memory=x), WHOLE),
    ],
)
def test_a_number_outside_its_range_is_refused_with_the_range(ask, values, problem, found):
    for value in values:
        with pytest.raises(LimitError, match=r"must be a (whole )?number (from|above) "):
            ask(problem, found, value)


def config(**settings):
    return cf.RunConfig("ioi", "ioi-small", "eap", {"n_edges": 3}, **settings).validate()


def scores(found):
    return cf.EdgeScores(found.graph, found.circuit.effects, "nats", "eap")


def swept(problem):
    return cf.patch(problem, "attn_out", positions="last", layers=[2])


_MISSPELT = """
import circuitfind as cf

problem = cf.make_problem(cf.load_model("and-gate"), "and-gate", n_prompts=2)
circuit = cf.Circuit(problem.graph, problem.graph.edge_mask)
for ask in (
    lambda: cf.make_problem(problem.model, "and-gatee"),
    lambda: cf.make_problem(problem.model, "and-gate", metric="l3"),
    lambda: cf.make_problem(problem.model, "and-gate", ablation="zeros"),
    lambda: cf.discover(problem, "adcd"),
    lambda: cf.evaluate(problem, circuit, "fast"),
    lambda: cf.evaluate(problem, "fast"),
    lambda: cf.scorecard("problem", circuit),
    lambda: cf.find_roles(3),
    lambda: cf.suggest_threshold(None),
    lambda: cf.patch(problem, "attnout"),
    lambda: cf.patch(problem, "attn_out", mode="noise"),
    lambda: cf.patch_together(problem, ["embed"], ["logits"], mode="noise"),
    lambda: cf.path_patch(problem, mode="noise"),
    lambda: cf.linearised_edges(problem, mode="noise"),
    lambda: cf.custom_metric(len, better="up"),
    lambda: cf.export_circuit(circuit, "x", format_name="pdf"),
):
    try:
        ask()
    except cf.CircuitfindError as error:
        print(error)
"""


def test_a_misspelt_name_is_refused_with_those_that_are_possible():
    # In another process: the tests' checker of types would refuse wrong arguments first.
    command = [sys.executable, "-c", _MISSPELT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = done.stdout.splitlines()
    assert len(messages) == _MISSPELT.count("lambda:")
    for message in messages:
        assert re.search(r"choose|give| are ", message), message


# How edges are chosen


def test_a_selection_may_be_given_as_a_record_or_by_its_fields(problem):
    whole = cf.discover(problem, "eap", selection=cf.Selection(n_edges=9, walk="greedy"))
    fields = cf.discover(problem, "eap", n_edges=9, walk="greedy")
    assert torch.equal(whole.circuit.kept, fields.circuit.kept) and whole.circuit.n_edges
    for dead_ends in (cf.Selection(prune=False), cf.Selection()):
        found = cf.discover(problem, "acdc", selection=dead_ends, threshold=0.1)
        assert found.circuit.n_edges == len(found.dead_ends) * (not dead_ends.prune) + len(
            found.circuit.connected().edges
        )


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("eap", {"selection": cf.Selection(n_edges=3), "walk": "top"}, "and the option 'walk' are"),
        ("eap", {"selection": cf.Selection()}, "give one of a number of edges, a threshold and"),
        ("acdc", {"selection": cf.Selection(n_edges=3)}, "'acdc' has no option 'n_edges'"),
    ],
)
def test_a_selection_that_says_too_much_or_too_little_is_refused(method, given, message, problem):
    with pytest.raises(MethodError, match=message):
        cf.discover(problem, method, **given)


# Types


RECORDS = {"Assessment", "EdgeScores", "Found", "Graph", "ModelShape", "Pair", "PatchResult"}
RECORDS |= {"PromptPairs", "RunConfig", "Task", "Vocabulary"}
"""Records whose fields nobody checks: they are made by the package."""


@pytest.mark.parametrize("wrong", [None, 3, "x"])
def test_whatever_is_of_another_type_is_refused_in_our_words(
    wrong, unchecked, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    asked = []
    for name in sorted(set(cf.__all__) - RECORDS):
        call = getattr(cf, name)
        if not callable(call) or (isinstance(call, type) and issubclass(call, Exception)):
            continue
        parameters = inspect.signature(call).parameters.values()
        needed = [each for each in parameters if each.default is each.empty and each.kind < 2]
        if needed:
            asked.append(name)
            with contextlib.suppress(CircuitfindError):
                call(*[wrong] * len(needed))
    assert len(asked) > 30


def test_what_is_no_model_shape_function_or_path_is_said_to_be_none(unchecked):
    for ask, said in (
        (lambda: cf.heads_and_mlps(None), "None is not a model's sizes; give `model.shape`"),
        (lambda: cf.custom_metric(None), "None is not a function; give one of logits and prompts"),
        (lambda: cf.load_circuit(None), "None is not a path; give text or a `Path`"),
        (lambda: cf.discover(None), "'NoneType' is not a question"),
        (lambda: cf.collate([None]), "None is not a pair of prompts"),
        (lambda: cf.Circuit(None, None), "None is not a graph"),
    ):
        with pytest.raises(MethodError, match=re.escape(said)):
            ask()
