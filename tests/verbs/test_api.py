"""What Python refuses, as the command line does."""

import networkx as nx
import pytest

import circuitfind as cf
from circuitfind.errors import CircuitFileError, CircuitfindError, MethodError
from circuitfind.methods import METHODS
from circuitfind.models.loading import load_model


@pytest.fixture(scope="module")
def problem(program):
    return cf.make_problem(load_model(program), "program", n_prompts=4, metric="l2")


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_a_misspelt_option_is_an_error_of_ours_that_lists_the_options(method, problem):
    with pytest.raises(MethodError, match=f"'{method}' has no option 'edges'; its options are"):
        cf.discover(problem, method, edges=10)
    with pytest.raises(MethodError, match="has no option 'treshold'"):
        cf.discover(problem, method, treshold=0.1)


def test_an_option_that_a_method_needs_is_asked_for(problem):
    with pytest.raises(MethodError, match="give one of a number of edges, a threshold"):
        cf.discover(problem, "eap")


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused(threshold, problem):
    with pytest.raises(CircuitfindError, match="threshold"):
        cf.discover(problem, threshold=threshold)


def test_an_order_of_ones_own_is_searched_from_python(problem):
    readers = list(reversed(problem.graph.readers))
    found = cf.discover(problem, threshold=0.01, order=readers)
    seen = dict.fromkeys(decision.edge.partition("->")[2] for decision in found.decisions)
    assert list(seen) == [reader.name for reader in readers]


@pytest.mark.parametrize("kind", ["directory", "file", "text", "found"])
def test_a_circuit_is_taken_as_itself_as_a_result_and_as_where_it_lies(
    kind, problem, discover, tmp_path
):
    run = discover(tmp_path / "run")
    file = run.path / "circuit.json"
    given = {"directory": run.path, "file": file, "text": str(run.path), "found": run}[kind]
    # A file has the effects of kept edges alone.
    circuit = run.circuit if kind == "found" else cf.load_circuit(file)
    assert cf.draw_circuit(given).svg() == cf.draw_circuit(circuit).svg()
    assert cf.draw_difference(given, circuit).svg() == cf.draw_difference(circuit, circuit).svg()
    assert nx.utils.graphs_equal(cf.to_networkx(given), cf.to_networkx(circuit))
    for name, what in (("ours", circuit), ("theirs", given)):
        cf.export_circuit(what, tmp_path / f"{name}.csv")
    assert (tmp_path / "ours.csv").read_text() == (tmp_path / "theirs.csv").read_text()
    if kind != "found":
        assert cf.to_frame(given).equals(cf.to_frame(circuit))
    assert cf.scorecard(problem, given).n_edges == circuit.n_edges


@pytest.mark.parametrize("given", [7, None, ["embed->logits"]])
def test_what_is_not_a_circuit_is_refused(given, tmp_path):
    for ask in (cf.draw_circuit, cf.to_networkx, lambda it: cf.export_circuit(it, "x.csv")):
        with pytest.raises(MethodError, match="is not a circuit; give one that `discover`"):
            ask(given)
    with pytest.raises(CircuitFileError, match="cannot read the circuit .*circuit.json: No such"):
        cf.draw_circuit(tmp_path)


ASKED = {
    "discover": lambda found, **told: cf.discover(found, threshold=0.01, **told),
    "evaluate": lambda found, **told: cf.evaluate(found, effort="quick", **told),
    "patch": lambda found, **told: cf.patch(found, "head", positions="all", **told),
    "path_patch": lambda found, **told: cf.path_patch(found, ["embed"], **told),
}


@pytest.mark.parametrize("name", ASKED)
def test_every_long_function_tells_its_progress_in_both_ways(name, problem, capfd):
    found = cf.discover(problem, threshold=0.01)
    told = []
    ASKED[name](found, on_progress=told.append)
    assert told and told[-1].done == told[-1].total > 0
    assert [step.done for step in told] == sorted(step.done for step in told)
    assert capfd.readouterr().err == ""
    ASKED[name](found, progress=True)
    shown = capfd.readouterr().err
    assert shown.startswith("\r") and shown.endswith("\n") and shown.count("100 %") == 1
