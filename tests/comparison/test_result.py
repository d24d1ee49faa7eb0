"""A comparison's file says what the comparison says, and nothing that was changed by hand."""

import json
from dataclasses import replace

import pytest

from circuitfind.comparison.overlap import overlap
from circuitfind.comparison.result import Comparison, Pair, Side, load_comparison
from circuitfind.errors import ResultFileError
from circuitfind.granularity import heads_and_mlps
from circuitfind.reports.comparison import circuits_table
from tests.comparison.circuits import circuit, shape

GRAPH = heads_and_mlps(shape())
LEFT = circuit(GRAPH, "embed->a0.h0.v", "a0.h0->logits")
RIGHT = circuit(GRAPH, "embed->a0.h1.v", "a0.h1->logits", "embed->logits")


@pytest.fixture
def found() -> Comparison:
    sides = tuple(
        Side(
            name,
            f"runs/{name}",
            "0" * 16,
            "ioi",
            None,
            "acdc",
            each.n_edges,
            GRAPH.n_edges,
            ("a0.h0",),
        )
        for name, each in (("a", LEFT), ("b", RIGHT))
    )
    pair = Pair(0, 1, None, overlap(LEFT, RIGHT))
    return Comparison(sides, (pair,), {"seed": 0}, {"python": "3"})


def test_it_is_read_back_as_it_was_written(found, tmp_path):
    file = tmp_path / "comparison.json"
    file.write_text(found.to_json())
    again = load_comparison(file)
    assert again == found
    assert again.to_json() == found.to_json()


def test_the_table_of_circuits_says_what_is_counted(found):
    assert circuits_table(found).columns[-1].header == "heads and MLPs"
    sides = found.circuits[0], replace(found.circuits[1], n_units_full=7)
    assert circuits_table(replace(found, circuits=sides)).columns[-1].header == "components"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format="circuitfind circuit 1"), "its format is"),
        (lambda c: c.pop("pairs"), "lacks the field"),
        (lambda c: c["circuits"][0].update(n_edges="2"), "not of type int"),
        (lambda c: c["circuits"][0].update(n_edges=True), "not of type int"),
        (lambda c: c["pairs"][0].update(right=2), "circuits 0 and 2 of 2"),
        (lambda c: c["pairs"][0]["overlap"]["edges"]["left"].pop(), "are listed with"),
        (lambda c: c["pairs"][0]["overlap"]["edges"].update(left="a"), "is not a list"),
        (lambda c: chance(c).update(p_value=1.5), "a probability is 1.5"),
        (lambda c: c.update(circuits={}), "is not a list"),
    ],
)
def test_what_was_changed_by_hand_is_refused(found, tmp_path, change, said):
    content = json.loads(found.to_json())
    change(content)
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ResultFileError, match=said):
        load_comparison(file)


def test_half_a_file_and_none_are_refused(found, tmp_path):
    file = tmp_path / "comparison.json"
    with pytest.raises(ResultFileError, match="cannot read the comparison"):
        load_comparison(file)
    file.write_text(found.to_json()[:-20])
    with pytest.raises(ResultFileError, match="not a comparison, or was damaged"):
        load_comparison(file)


def chance(content):
    return content["pairs"][0]["overlap"]["edges"]["jaccard"]["chance"]["layer profile"]
