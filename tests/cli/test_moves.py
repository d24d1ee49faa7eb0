"""Moves between places from the command line: a search, its files, and one line where it cannot."""

import json
from html import unescape

import pytest

import circuitfind as cf

SEARCH = ("discover", "induction-pair:once", "--prompts", "8", "--places", "named", "--crossing")


def test_a_search_over_moves_ends_in_all_that_a_run_holds(cli, tmp_path):
    out, other = tmp_path / "run", tmp_path / "other"
    done = cli(*SEARCH, "--threshold", "0.001", "--out", str(out), "--report")
    assert done.code == 0, done.err
    circuit = cf.load_circuit(out)
    moves = {edge.name for edge in circuit.edges if edge.writer.kind == "move"}
    assert moves == {
        "a0.h0.v@first->a0.h0@next", "a1.h0.v@next->a1.h0@end", "a1.h0.k@next->a1.h0@end",
        "a1.h0.q@next->a1.h0@end",
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert config["crossing"] is True
    # Decided already: nothing is searched anew.
    before = (out / "decisions.jsonl").read_bytes()
    assert cli(*SEARCH, "--threshold", "0.001", "--out", str(out)).code == 0
    assert (out / "decisions.jsonl").read_bytes() == before
    done = cli(*SEARCH[:-1], "--threshold", "0.001", "--out", str(out))
    assert done.code == 2 and "crossing is True there and False here" in done.err
    assert cli("evaluate", str(out), "--quick").code == 0
    svg = unescape((out / "diagram.svg").read_text())
    assert all(name in svg for name in moves)
    page = (out / "report.html").read_text()
    assert '"a1.h0.k@next","k"' in page
    assert cli(*SEARCH[:-1], "--threshold", "0.001", "--out", str(other)).code == 0
    done = cli("compare", str(out), str(other), "--out", str(tmp_path / "both"))
    assert done.code == 0 and "5, 0, 0" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crossing",), "give places too"),
        (("--places", "named", "--crossing", "--merge-qkv"), "leave out --merge-qkv"),
        (
            ("--places", "named", "--crossing", "--method", "hisp", "--edges", "5"),
            "the method 'hisp' cannot tell the moves inside attention apart",
        ),
        (
            (
                *("--places", "named", "--crossing", "--method", "eap-ig", "--edges", "5"),
                *("--variant", "activations"),
            ),
            "the variant 'activations' varies one writer at a time",
        ),
    ],
)
def test_what_cannot_be_asked_with_moves_is_refused_in_a_line(cli, tmp_path, options, message):
    done = cli("discover", "induction-pair:once", *options, "--out", str(tmp_path / "run"))
    assert done.code == 2 and done.err.count("\n") == 1
    assert message in done.err
    assert not (tmp_path / "run").exists()
