"""What Python refuses, as the command line does."""

import pytest

import circuitfind as cf
from circuitfind.errors import CircuitfindError, MethodError
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
