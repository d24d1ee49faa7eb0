"""Places and spans from the command line: searches, files, and one line where it cannot be done."""

import json

import pytest

import circuitfind as cf

LONGER = {
    "clean": "When Mary and John went to the store, John gave a drink to",
    "corrupted": "When the old Anna and Paul went to the store, Tom gave a drink to",
    "answer": " Mary",
    "wrong_answer": " John",
    "spans": {"names": 1, "rest": 4, "S2": 9, "tail": 10, "end": 13},
    "corrupted_spans": {"names": 1, "rest": 6, "S2": 11, "tail": 12, "end": 15},
}
EQUAL = {
    "clean": "When Tom and James went to the store, James gave a drink to",
    "corrupted": "When Anna and Paul went to the store, Mary gave a drink to",
    "answer": " Tom",
    "wrong_answer": " James",
    "spans": LONGER["spans"],
}


@pytest.fixture
def task(tmp_path):
    """Return a function that writes a task file."""

    def write(*rows):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_pairs_of_unequal_length_are_searched_over_their_spans(cli, task, tmp_path):
    out = tmp_path / "run"
    options = ("--places", "spans", "--threshold", "0.5", "--out", str(out))
    done = cli("discover", task(LONGER, EQUAL), *options)
    assert done.code == 0, done.err
    assert "in 1 of 2 pairs a span has another length in the corrupted prompt" in done.err
    circuit = cf.load_circuit(out)
    assert set(circuit.graph.places) == {"start", *LONGER["spans"]}
    assert {edge.reader.place for edge in circuit.edges} <= set(circuit.graph.places)
    config = json.loads((out / "config.json").read_text())
    assert config["places"] == "spans"
    # Read again: nothing is searched anew, and the evaluation knows the places.
    assert cli("evaluate", str(out), "--quick").code == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**LONGER, "corrupted_spans": {}}, "line 2 is misaligned: 14 clean tokens"),
        (
            {**LONGER, "corrupted_spans": {"names": 1, "S2": 11}},
            "line 2: its clean prompt has the span 'rest' and its corrupted one has not",
        ),
        ({**LONGER, "spans": {"names": 99}}, "line 2: the span 'names' is 99 and the prompt has"),
        (
            {**EQUAL, "spans": {"a": 1, "b": 1}},
            "the spans of pairs.jsonl, line 2 begin at 1, 1; each must begin",
        ),
        ({**EQUAL, "spans": {"a b": 1}}, "a place cannot be called 'a b'"),
    ],
)
def test_each_refusal_names_the_line_and_the_span(cli, task, tmp_path, row, said):
    done = cli("discover", task(EQUAL, row), "--places", "spans", "--out", str(tmp_path / "run"))
    assert done.code == 2 and said in done.err, done.err
    assert len([line for line in done.err.splitlines() if line.startswith("circuitfind:")]) == 1


def test_places_that_are_not_there_are_refused_in_one_line(cli, tmp_path):
    for asked, said in (
        (["--places", "words"], "choose one of named, each, spans, or give a .csv file"),
        (["--places", "none.csv"], "there is no file 'none.csv'"),
        (["--places", "spans"], "these prompts have no spans"),
        (["--places", "each"], "have no positions in common"),
    ):
        done = cli("discover", "ioi", "--prompts", "8", *asked, "--out", str(tmp_path / "run"))
        assert done.code == 2 and said in done.err, done.err


def test_a_search_by_position_resumes_and_is_found_again(cli, tmp_path):
    out = str(tmp_path / "run")
    options = ("induction", "--model", "attn-2l", "--prompts", "4", "--places", "each")
    options += ("--threshold", "0.2", "--out", out)
    first = cli("discover", *options)
    assert first.code == 0, first.err
    decisions = (tmp_path / "run" / "decisions.jsonl").read_text()
    again = cli("discover", *options)
    assert again.code == 0 and (tmp_path / "run" / "decisions.jsonl").read_text() == decisions
    edge = cf.load_circuit(out).edges[0]
    assert edge.name.endswith(f"@{edge.reader.place}")
