"""Options of a method on the command line: as flags, and as `--option NAME=VALUE`."""

import json

import pytest

from circuitfind.methods import METHODS

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


def test_runs_with_other_rules_for_gradients_are_other_runs(cli, complaint, tmp_path):
    asked = (*SEARCH, "--method", "eap-ig", "--edges", "4", "--out", tmp_path)
    cli(*asked, "--rules", "relp")
    assert json.loads((tmp_path / "config.json").read_text())["options"]["rules"] == "relp"
    complaint(cli(*asked, "--rules", "gim"), "rules is relp there and gim here")
    complaint(cli(*SEARCH, "--method", "exact", "--edges", "4", "--rules", "gim"), "no option 'rul")
    (found,) = [cli(*asked, "--rules", "relp", "--check", "--json").json["check"]]
    assert list(found["correlations"]) == ["relp", "none", "gim", "attnlrp"]
    assert found["n_measured"] == found["n_edges"]
    assert "rank correlation of eap-ig with the exact" in cli(*asked, "--rules=relp", "--check").out
    complaint(cli(*SEARCH, "--check", "--out", tmp_path / "new"), "'acdc' takes no rules for grad")


@pytest.mark.parametrize(
    ("given", "value"),
    [("--absolute", True), ("--option=absolute=false", False), ("--no-absolute", False)],
)
def test_a_flag_that_says_false_is_false(given, value, cli, tmp_path):
    cli(*SEARCH, "--threshold", "0.5", given, "--out", tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["options"]["absolute"] is value


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--absolute=maybe"], "Option '--absolute' does not take a value"),
        (["--no-absolute=true"], "Option '--no-absolute' does not take a value"),
        (["--order"], "'--order': --out is an option; give a value before it"),
        (["--order", "--absolute"], "'--order': --absolute is an option; give a value before it"),
        (["--metric", "--json"], "'--metric': --json is an option; give a value before it"),
        (["--option", "--json"], "'--option': --json is an option; give a value before it"),
        (["--orde", "random"], r"No such option: --orde \(Possible options: .*--order.*\)"),
        (["--steps", "3"], "the method 'acdc' has no option 'steps'; its options are threshold"),
        (["--order", "random", "--option", "order=forward-index"], "'order' is given as .* and as"),
        (["--keep-dead-ends", "--prune"], "'prune' is given as True and as False; give it once"),
    ],
)
def test_a_flag_that_cannot_be_read_is_refused_in_one_line(given, line, cli, complaint, tmp_path):
    complaint(cli(*SEARCH, *given, "--out", tmp_path / "run"), line)
    assert not (tmp_path / "run").exists()


def test_no_command_takes_a_flag_for_a_value(cli, complaint):
    complaint(cli("evaluate", "run", "--out", "--json"), "'--out': --json is an option; give a")


def test_every_setting_of_a_method_is_listed_with_a_flag_that_sets_it(cli):
    flags = {
        flag
        for method in METHODS
        for row in cli("methods", method.name, "--json").json
        for flag in row["flag"].split(" / ")
    }
    assert {"--edges", "--threshold", "--order", "--no-absolute"} <= flags
    for flag in flags:
        assert f"No such option: {flag}" not in cli(*SEARCH, flag, "--nonsense").err
