"""Options of a method on the command line: as flags, and as `--option NAME=VALUE`."""

import json

import pytest

SEARCH = ("discover", "and-gate", "--prompts", "4")


@pytest.mark.parametrize("given", ["--option=threshold=0.25", "--option=threshold=2.5e-1"])
def test_a_threshold_as_an_option_of_the_method_is_searched_with(given, cli, tmp_path):
    cli(*SEARCH, given, "--out", tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["options"]["threshold"], stored["automatic"]) == (0.25, False)


@pytest.mark.parametrize("given", [("--n-edges", "4"), ("--option", "n_edges=4"), ("--edges", "4")])
def test_each_way_to_ask_for_a_number_of_edges_is_the_same_run(given, cli, tmp_path):
    cli(*SEARCH, "--method", "exact", *given, "--out", tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["selection"]["n_edges"] == 4


def test_nothing_is_asked_for_twice(cli, complaint, tmp_path):
    twice = ("--threshold", "0.5", "--option", "threshold=0.9")
    complaint(cli(*SEARCH, *twice, "--out", tmp_path), "--threshold is given twice, .*value 0.9")
    two = ("--method", "exact", "--threshold", "0.5", "--n-edges", "4")
    complaint(cli(*SEARCH, *two, "--out", tmp_path), "--threshold, --edges, .* exclude one another")


@pytest.mark.parametrize(
    ("flag", "value"), [("--absolute", True), ("--absolute=false", False), ("--no-absolute", False)]
)
def test_a_flag_that_says_false_is_false(flag, value, cli, tmp_path):
    cli(*SEARCH, "--threshold", "0.5", flag, "--out", tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["options"]["absolute"] is value


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--absolute=maybe", "the option 'absolute' is of type bool, which 'maybe' is not"),
        ("--no-absolute=true", "No such option: --no-absolute"),
    ],
)
def test_a_flag_with_a_value_that_it_does_not_take_is_refused(flag, line, cli, complaint, tmp_path):
    complaint(cli(*SEARCH, flag, "--out", tmp_path), line)
