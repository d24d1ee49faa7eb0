"""What the commands print: the result on stdout and nothing else there."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from xml.etree import ElementTree

import pytest
from rich.console import Console

import circuitfind
from circuitfind.reports.terminal import fitted, listing


def test_help_loads_neither_torch_nor_its_friends():
    script = (
        "import sys\n"
        "from circuitfind.cli import app\n"
        "code = app(args=[*sys.argv[1:], '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'networkx', 'numpy'}\n"
        "print(code, heavy & set(sys.modules))\n"
    )
    for words in ([], ["discover"], ["draw"], ["tasks"]):
        command = [sys.executable, "-c", script, *words]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert out.startswith("Usage: ")
        assert out.endswith("0 set()\n")


def test_no_command_at_all_shows_the_help(cli):
    answer = cli()
    assert (answer.code, answer.err) == (0, "")
    assert "discover" in answer.out


def test_discover_prints_figures_and_where_the_picture_is(cli, run, tmp_path):
    answer = cli(*run[:-2], "--threshold", 0.02, "--out", "other")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    names = ["edges kept", "heads and MLPs kept", "l2 ", "kl ", "l2, held-out prompts", "prompts"]
    for line, name in zip(lines, names, strict=False):
        assert line.startswith(name)
    assert lines[-1] == "other/diagram.svg"
    assert all(line == line.rstrip() for line in lines)
    assert {file.name for file in (tmp_path / "other").iterdir()} == {
        "config.json",
        "environment.json",
        "decisions.jsonl",
        "scorecard.json",
        "circuit.json",
        "diagram.dot",
        "diagram.svg",
    }


def test_a_finished_run_is_read_and_not_computed_again(cli, run, monkeypatch, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()}
    figures = cli(*run).out

    def load(*arguments, **options):
        raise AssertionError("the model of a finished run was loaded")

    monkeypatch.setattr("circuitfind.question.load_model", load)
    answer = cli(*run)
    assert (answer.code, answer.out) == (0, figures)
    assert answer.err == "run is finished: its results are read, not computed again\n"
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()} == before


def test_json_is_the_only_thing_on_stdout(cli, run, program, tmp_path):
    found = cli(*run, "--json").json
    circuit = circuitfind.load_circuit(tmp_path / "run" / "circuit.json")
    assert found["edges"] == [edge.name for edge in circuit.edges]
    assert found["scorecard"]["n_edges"] == circuit.n_edges
    assert found["search"]["edges_tested"] > 0
    assert [row["name"] for row in cli("tasks", "--json").json][:2] == ["ioi", "pronoun"]
    assert [row["name"] for row in cli("methods", "--json").json][:2] == ["acdc", "exact"]
    assert [row["name"] for row in cli("metrics", "--json").json][:2] == ["kl", "logit-difference"]
    assert "ioi-small" in [row["name"] for row in cli("models", "--json").json]
    assert cli("models", "ioi-small", "--json").json["recipe"]["n_layers"] == 4
    assert cli("inspect", program, "--json").json["edges"] == 46
    assert len(cli("tasks", "program", "--model", program, "--json").json) == 3


def test_several_thresholds_are_several_runs_and_a_list(cli, program, tmp_path):
    words = ["discover", "program", "--model", program, "--prompts", 8, "--out", "series"]
    both = cli(*words, "--threshold", "0.01,0.1", "--json").json
    assert [found["run"] for found in both] == ["series/threshold-0.01", "series/threshold-0.1"]
    single = cli(*words[:-1], "single", "--threshold", 0.1, "--json").json
    assert both[1]["edges"] == single["edges"]
    assert (tmp_path / "series" / "threshold-0.1" / "diagram.svg").is_file()


def test_a_target_gives_the_best_run_and_says_where_it_is(cli, program):
    words = ["discover", "program", "--model", program, "--prompts", 8, "--target-edges", 9]
    answer = cli(*words, "--json")
    assert 1 <= answer.json["scorecard"]["n_edges"] <= 9
    assert answer.err.endswith(f"thresholds is that of {answer.json['run']}\n")
    assert answer.json["run"].startswith("runs/program-scramble-acdc-target-edges-9-")


def test_without_a_threshold_one_is_chosen_and_said_and_a_repetition_finds_it_again(cli, program):
    words = ["discover", "program", "--model", program, "--prompts", 8, "--out", "run"]
    first, second = cli(*words), cli(*words)
    *given_up, chosen = first.err.splitlines()
    assert all(line.endswith("of the faithfulness: not enough") for line in given_up)
    found = re.match(
        r"threshold (0\.\d+): the largest of (\d) tried whose circuit keeps 90%", chosen
    )
    assert found is not None and int(found[2]) == len(given_up) + 1 > 1
    assert second.out == first.out
    assert second.err == f"{chosen}\nrun is finished: its results are read, not computed again\n"
    assert cli(*words, "--threshold", found[1]).out == first.out


def test_draw_draws_what_the_run_drew(cli, run, tmp_path):
    own = (tmp_path / "run" / "diagram.dot").read_text()
    assert "program in scramble: acdc, threshold 0.01, resample ablation" in own
    for source in ("run", "run/circuit.json"):
        assert cli("draw", source, "--out", "again.dot").out == "again.dot\n"
        assert (tmp_path / "again.dot").read_text() == own
    (tmp_path / "run" / "diagram.svg").unlink()
    assert cli("draw", "run").out == "run/diagram.svg\n"
    assert ElementTree.parse(tmp_path / "run" / "diagram.svg").getroot().tag.endswith("svg")
    assert cli("draw", "run", "--out", "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")


def test_draw_takes_size_number_of_edges_title_and_merged_ports(cli, run, tmp_path, complaint):
    before = (tmp_path / "run" / "diagram.svg").read_bytes()
    words = ["draw", "run", "--top", 2, "--merge-qkv", "--title", "The <title>"]
    assert cli(*words).out == "run/diagram-top-2-merged-titled.svg\n"
    drawn = (tmp_path / "run/diagram-top-2-merged-titled.svg").read_text()
    shown = ElementTree.fromstring(drawn)
    texts = {(element.text or "").strip() for element in shown.iter()}
    assert "The <title>" in texts
    assert any(re.match(r"2 of \d+ edges are drawn", text.replace("\xa0", " ")) for text in texts)
    assert (tmp_path / "run" / "diagram.svg").read_bytes() == before
    assert cli("draw", "run", "--width", 1000, "--out", "wide.png").code == 0
    assert abs(int.from_bytes((tmp_path / "wide.png").read_bytes()[16:20], "big") - 1000) <= 1
    complaint(
        cli("draw", "run", "--top", 0), "top must be a whole number from 1 to .* edges, not 0"
    )
    complaint(cli("draw", "run", "--scale", "nan", "--out", "a.png"), "scale must be .*not nan")
    complaint(cli("draw", "run", "--scale", 2), "'diagram.svg' has no size in pixels")
    complaint(cli("draw", "run", "--title", "x" * 501), "at most 500 characters, not 501")
    complaint(
        cli("draw", "run", "--against", "run/circuit.json", "--merge-qkv"), "q, k and v apart"
    )


def test_a_drawn_file_does_not_overwrite_the_drawing_of_another(cli, run, tmp_path):
    text = (tmp_path / "run" / "circuit.json").read_text()
    for name in ("left.json", "right.json"):
        (tmp_path / name).write_text(text)
        assert cli("draw", name).out == f"{name.removesuffix('.json')}.svg\n"


def test_two_runs_are_told_apart_by_their_own_names(cli, run, tmp_path):
    cli(*run[:-2], "--threshold", 0.1, "--out", "threshold-0.1")
    answer = cli("draw", "run", "--against", "threshold-0.1/circuit.json")
    assert answer.out == "run/difference-threshold-0.1.svg\n"
    cli("draw", "run", "--against", "threshold-0.1", "--out", "both.dot")
    drawn = (tmp_path / "both.dot").read_text()
    assert "only in run: " in drawn
    assert "only in threshold-0.1: " in drawn
    assert drawn.count("program in scramble: ") == 2


def test_a_folder_of_a_tasks_name_does_not_change_the_run(cli, program, tmp_path):
    (tmp_path / "program").mkdir()
    words = ["discover", "program", "--model", program, "--prompts", 4, "--threshold", 0.1]
    assert "held-out" in cli(*words).out
    (file,) = (tmp_path / "runs").glob("program-scramble-acdc-*/config.json")
    config = json.loads(file.read_text())
    assert config["task"] == "program"


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean", "mean-over-positions"])
def test_every_ablation_and_graph_option_runs(ablation, cli, program):
    words = ["discover", "program", "--model", program, "--prompts", 4, "--ablation", ablation]
    options = ["--split-embedding", "--merge-qkv", "--absolute", "--order", "random", "--seed", 3]
    assert cli(*words, *options, "--threshold", 0.01).code == 0
    exact = ["--method", "exact", "--edges", 5, "--out", "exact", "--json"]
    assert cli(*words, *exact).json["scorecard"]["n_edges"] <= 5


def test_the_tour_of_a_new_user_works_on_the_embedded_model(cli):
    answer = cli("discover", "ioi", "--threshold", 0.1, "--prompts", 8, "--out", "run")
    own = "the model itself: logit-difference 5.478 (4.147 to 6.808) logits, accuracy 1\n"
    assert (answer.code, answer.err) == (0, own)
    assert "kl, held-out prompts" in answer.out
    shown = cli("tasks", "ioi")
    assert shown.err == ""
    assert [line.split()[0] for line in shown.out.splitlines()][0] == "clean"
    assert "IO=3 S1=5" in shown.out
    facts = cli("inspect", "ioi-small").out
    assert re.search(r"^edges +479$", facts, re.M)
    assert "recipe.n_layers" in cli("models", "ioi-small").out


def test_bench_counts_tests_and_fits_into_the_memory_given(cli):
    words = ["bench", "ioi", "--model", "ioi-small", "--prompts", 4, "--components", 5, "--json"]
    whole, little = cli(*words).json, cli(*words, "--memory", "10MB").json
    assert whole["chunks of prompts"] == 1 < little["chunks of prompts"]
    assert 0 < whole["edges tested"] == little["edges tested"] <= whole["edges"] == 479
    assert little["memory beside the model, MB"] == 10
    assert cli("bench", "ioi", "--model", "ioi-small", "--components", 99).code == 2


def test_bench_writes_conversations_with_the_system_prompt_that_is_chosen(cli):
    answer = cli("bench", "ioi", "--model", "ioi-small", "--system", "Be kind.")
    assert answer.code == 2 and "they have no system prompt" in answer.err


def test_bench_assumes_a_circuit_that_fits_into_the_model(cli):
    facts = cli("bench", "ioi", "--model", "gpt-2l", "--prompts", 4, "--json").json
    assert facts["assumed circuit"].startswith("5 heads and MLPs, ")


def test_a_search_in_little_memory_finds_the_same_circuit(cli, tmp_path):
    words = ["discover", "ioi", "--model", "ioi-small", "--prompts", 4, "--threshold", 0.05]
    whole = cli(*words, "--json", "--out", tmp_path / "whole").json
    little = cli(*words, "--json", "--out", tmp_path / "little", "--memory", "10MB").json
    assert whole["edges"] == little["edges"] != []


def test_a_table_too_wide_for_the_terminal_stands_row_by_row(capsys):
    table = listing(["clean", "answer"], [["a b " * 10, "c"], ["d", "e" * 12]])
    table.columns[0].no_wrap = True
    for width in (30, 40, 60, 100):
        console = Console(width=width)
        console.print(fitted(table, width))
        shown = capsys.readouterr().out
        # Nothing is cut: no ellipsis, and every word is there.
        assert "…" not in shown
        for word in ("clean", "answer", "d", "e" * 12):
            assert word in shown.split(), (width, shown)


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").out == f"circuitfind {version('circuitfind')}\n"


@pytest.mark.parametrize("words", [["draw"], ["report"], ["evaluate"], ["sweep"]])
def test_a_name_that_the_system_refuses_is_one_line(words, cli):
    answer = cli(*words, "x" * 5000)
    assert answer.code == 2
    assert answer.err.startswith("circuitfind: ")
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 6000
