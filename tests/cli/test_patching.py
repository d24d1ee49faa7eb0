"""The commands `patch` and `path-patch`: what they print, write, read again and refuse."""

import json
import re

import pytest

from circuitfind.circuit import load_circuit
from circuitfind.patching.files import load_patching
from circuitfind.store import held


@pytest.fixture
def sweep(program):
    words = ["patch", "program", "--model", program, "--prompts", 8, "--mode", "noising"]
    return [*words, "--positions", "all"]


@pytest.fixture
def paths(program):
    return ["path-patch", "program", "--model", program, "--prompts", 8]


def test_a_sweep_prints_and_writes_its_report(cli, sweep, tmp_path):
    answer = cli(*sweep, "--sites", "resid,head", "--out", "run")
    assert answer.code == 0
    assert "resid_pre" in answer.out
    assert "l2, patched run (clean prompts)" in answer.out
    assert answer.out.endswith("run/heatmap-resid_pre.svg\nrun/heatmap-head.svg\n")
    names = ("report.md", "report.json", "patches.csv", "heatmap-head.svg", "patching.safetensors")
    for name in names:
        assert (tmp_path / "run" / name).stat().st_size
    result = load_patching(tmp_path / "run" / "patching.json")
    assert result.sites == ("resid_pre", "head")
    assert result.origin["settings"]["mode"] == "noising"


def test_activations_are_patched_by_their_names(cli, tmp_path):
    words = ["patch", "ioi", "--model", "gpt-2l", "--prompts", 4, "--positions", "end"]
    answer = cli(*words, "--sites", "post,embed,attn_scores,head", "--out", "run", "--json")
    found = {site["site"]: site["patches"] for site in answer.json["sites"]}
    n_heads = found["head"]
    assert found == {"head": n_heads, "post": 2, "embed": 1, "attn_scores": n_heads}
    assert (tmp_path / "run" / "heatmap-embed.svg").stat().st_size


def test_some_heads_of_some_layers_are_patched(cli, sweep):
    words = [*sweep, "--sites", "head", "--layers", "0", "--heads", "1", "--annotate", "--json"]
    found = cli(*words, "--out", "run")
    assert found.json["sites"][0]["patches"] == 1


def test_a_circuit_is_found_drawn_and_measured(cli, sweep, tmp_path):
    answer = cli(
        *sweep, "--sites", "head,mlp", "--discover", "--threshold", 0.001, "--out", "run", "--json"
    )
    assert answer.code == 0
    circuit = load_circuit(tmp_path / "run" / "circuit.json")
    assert answer.json["edges"] == [edge.name for edge in circuit.edges]
    assert answer.json["circuit"]["full"] != answer.json["circuit"]["empty"]
    assert "<svg" in (tmp_path / "run" / "diagram.svg").read_text()
    assert cli("draw", "run/circuit.json", "--out", "again.svg").code == 0


def test_repeating_a_command_reads_what_is_there(cli, sweep, tmp_path):
    words = [
        *sweep,
        "--sites",
        "head",
        "--discover",
        "--threshold",
        0.001,
        "--out",
        "run",
        "--json",
    ]
    first = cli(*words)
    before = (tmp_path / "run" / "patching.json").stat().st_mtime_ns
    second = cli(*words)
    assert second.json == first.json
    assert "is finished" in second.err
    assert (tmp_path / "run" / "patching.json").stat().st_mtime_ns == before


def test_paths_are_measured_in_one_command(cli, paths):
    one = cli(*paths, "--from", "embed", "--via", "a0.h0.v", "--to", "logits", "--json")
    assert one.code == 0
    every = cli(*paths, "--json")
    assert every.json["sites"][0]["patches"] == 46
    frozen = cli(*paths, "--norm", "frozen", "--json")
    assert frozen.json["run"] != every.json["run"]
    assert "norm frozen" in frozen.json["notes"][0]
    (name,) = {row["site"] for row in every.json["significant"]}
    assert name == "path"


def test_what_an_interrupted_write_left_is_written_again(cli, sweep, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.md").write_text("half")
    assert cli(*sweep, "--sites", "head", "--out", "run").code == 0
    assert (tmp_path / "run" / "report.md").read_text() != "half"


def test_a_circuit_that_is_not_found_leaves_the_sweep_in_place(cli, sweep, tmp_path):
    words = [*sweep, "--sites", "head,mlp", "--out", "run"]
    discover = [*words, "--discover", "--threshold", 0.001, "--edge-threshold", 50]
    for _ in range(2):
        answer = cli(*discover)
        assert answer.code == 2
        assert "heatmap-head.svg" in answer.out
        *_, said = answer.err.splitlines()
        assert "no path from the embedding to the logits is needed" in said
        assert "noising" not in said
        for name in ("report.md", "report.json", "heatmap-head.png", "patching.json"):
            assert (tmp_path / "run" / name).stat().st_size
        assert not (tmp_path / "run" / "circuit.json").exists()
    answer = cli(*discover, "--json")
    assert (answer.code, answer.json["no_circuit"]) == (2, said.removeprefix("circuitfind: "))
    assert cli(*words, "--discover", "--threshold", 0.001).code == 0
    assert (tmp_path / "run" / "circuit.json").exists()


def test_a_circuit_that_is_not_faithful_enough_is_warned_of(cli, sweep):
    words = [*sweep, "--sites", "head", "--discover", "--threshold", 0.001, "--out", "run"]
    found = cli(*words, "--edge-threshold", 0.3)
    assert found.code == 0
    assert "warning: the circuit's faithfulness is below the wanted 0.8" in found.err


def test_another_threshold_needs_no_other_measurement(cli, complaint, sweep, tmp_path):
    words = [*sweep, "--sites", "head,mlp", "--out", "run", "--json", "--discover", "--threshold"]
    assert cli(*words, 50).code == 2
    measured = (tmp_path / "run" / "patching.json").stat().st_mtime_ns
    few, many = cli(*words, 0.05), cli(*words, 0.0001)
    assert (few.code, many.code) == (0, 0), (few, many)
    assert "run is measured: its report is made anew" in many.err
    assert (few.json["threshold"], many.json["threshold"]) == (0.05, 0.0001)
    assert set(few.json["edges"]) < set(many.json["edges"])
    assert (tmp_path / "run" / "patching.json").stat().st_mtime_ns == measured
    assert cli(*sweep, "--sites", "head,mlp", "--out", "run").code == 0
    # What belonged to the other report is gone.
    assert not (tmp_path / "run" / "circuit.json").exists()


@pytest.mark.parametrize("kind", ["sweep", "paths"])
def test_a_spent_budget_leaves_what_resumes(kind, cli, tmp_path, request):
    words = request.getfixturevalue(kind)
    answer = cli(*words, "--out", "run", "--budget", "0s")
    assert (answer.code, answer.out) == (124, "")
    assert re.fullmatch(
        r"circuitfind: the time is over: \d+ of \d+ patches are done; repeat the command to resume "
        r"in run\n",
        answer.err,
    )
    assert not (tmp_path / "run" / "patching.json").exists()
    again = cli(*words, "--out", "run")
    assert again.code == 0 and "run resumes: " in again.err
    assert cli(*words, "--out", "whole").code == 0
    assert_same_files(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("kind", ["sweep", "paths"])
def test_ctrl_c_leaves_what_resumes(kind, cli, tmp_path, request, monkeypatch):
    words = [*request.getfixturevalue(kind), "--out", "run"]
    told = []

    def interrupt(seconds, on_progress):
        def watched(checkpoint):
            told.append(checkpoint)
            if len(told) == 3:
                raise KeyboardInterrupt

        return watched

    with monkeypatch.context() as patch:
        patch.setattr("circuitfind.budget.within", interrupt)
        answer = cli(*words)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "circuitfind: interrupted; repeat the command to resume in run\n"
    assert cli(*words).code == 0
    assert cli(*words[:-1], "whole").code == 0
    assert_same_files(tmp_path / "run", tmp_path / "whole")


def assert_same_files(run, whole):
    assert {file.name for file in run.iterdir()} == {file.name for file in whole.iterdir()}
    for file in whole.iterdir():
        ours, theirs = (folder / file.name for folder in (run, whole))
        if file.name == "environment.json":
            for found in (ours, theirs):
                measured = json.loads(found.read_text())
                assert measured["seconds"] > 0 and measured["device"] == "cpu"
        else:
            assert ours.read_bytes() == theirs.read_bytes(), file.name


def test_weights_that_changed_since_are_noticed(cli, complaint, sweep, tmp_path):
    words = [*sweep, "--out", "run"]
    assert cli(*words, "--budget", "0s").code == 124
    file = tmp_path / "run" / "environment.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "model_fingerprint": "another"}))
    complaint(cli(*words), "the model of the measurement in run changed since")
    (tmp_path / "run" / "config.json").write_text("{}")
    complaint(cli(*words), "config.json is damaged .its content lacks the field")


def test_two_processes_do_not_measure_in_one_directory(cli, complaint, sweep, tmp_path):
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run"):
        complaint(cli(*sweep, "--out", "run"), "another process is at work in run")


BAD_SWEEPS = {
    "site": (["--sites", "neurons"], "no site named 'neurons'"),
    "discover": (["--sites", "post", "--discover"], "no component is known for the activation"),
    "mode": (["--mode", "both"], "no mode named 'both'"),
    "position": (["--positions", "verb"], "no position 'verb'"),
    "metric": (["--metric", "bleu"], "no metric named 'bleu'"),
    "threshold": (["--threshold", -1], "threshold must be .* not -1"),
    "threshold nan": (["--threshold", "nan"], "threshold must be .* not nan"),
    "edge threshold": (["--edge-threshold", 0], "edge threshold must be .* not 0"),
    "faithfulness": (
        ["--target-faithfulness", 1.5],
        "target faithfulness must be .* at most 1, not 1.5",
    ),
    "prompts": (["--prompts", 0], "prompts must be .* not 0"),
    "device": (["--device", "tpu"], "tpu"),
    "dtype": (["--dtype", "int8"], "no number type|int8"),
    "option": (["--site", "head"], "No such option"),
}


@pytest.mark.parametrize("case", BAD_SWEEPS)
def test_a_bad_sweep_is_one_line(case, cli, complaint, sweep, tmp_path):
    words, said = BAD_SWEEPS[case]
    complaint(cli(*sweep, *words), said)
    assert not (tmp_path / "runs").exists()


def test_edges_are_patched_together(cli, paths):
    words = ["--from", "embed,a0.h0", "--to", "a1.h0.q,logits"]
    found = cli(*paths, *words, "--together", "--threshold", 1e-6, "--json").json
    assert found["sites"][0]["patches"] == 1
    assert found["significant"][0]["sender"] == "embed+a0.h0"


BAD_PATHS = {
    "together": (["--together", "--from", "embed"], "give --from and --to, and no --via"),
    "norm": (["--norm", "none"], "no norm named 'none'; choose one of exact, frozen"),
    "frozen together": (
        ["--together", "--from", "embed", "--to", "logits", "--norm", "frozen"],
        "take their norm anew; leave out --norm",
    ),
    "writer": (["--from", "a9.h0"], "no writer named 'a9.h0'"),
    "reader": (["--to", "a0.h0"], "no reader named 'a0.h0'"),
    "empty": (["--from", ""], "no writer named ''"),
    "order": (["--from", "a1.h0", "--to", "a0.h0.q"], "there is no path a1.h0 -> a0.h0.q"),
    "via": (["--via", "logits"], "no path leads through the logits"),
}


@pytest.mark.parametrize("case", BAD_PATHS)
def test_a_bad_path_is_one_line(case, cli, complaint, paths):
    words, said = BAD_PATHS[case]
    complaint(cli(*paths, *words), said)


def test_another_measurement_is_not_overwritten(cli, complaint, sweep):
    assert cli(*sweep, "--sites", "head", "--out", "run").code == 0
    other = cli(*sweep, "--sites", "head", "--seed", 1, "--out", "run")
    complaint(other, "run holds another measurement .seed is 0 there and 1 here.")


def test_a_directory_of_something_else_is_left_alone(cli, complaint, sweep, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    complaint(cli(*sweep, "--out", "run"), "run exists and holds no measurement; choose another")
    (tmp_path / "file").write_text("mine")
    complaint(cli(*sweep, "--out", "file"), "file exists and holds no measurement; choose another")


def test_a_damaged_result_is_one_line(cli, complaint, sweep, tmp_path):
    words = [*sweep, "--sites", "head", "--discover", "--threshold", 0.001, "--out", "run"]
    assert cli(*words).code == 0
    report = tmp_path / "run" / "report.json"
    whole = json.loads(report.read_text())
    report.write_text(json.dumps({"made_with": whole["made_with"]}))
    complaint(cli(*words), "report.json is damaged")
    report.write_text("{}")
    assert cli(*words).code == 0
    assert json.loads(report.read_text()) == whole
    (tmp_path / "run" / "patching.json").write_text("{")
    complaint(cli(*words), "is not a result of patching")


def test_that_the_model_does_not_do_the_task_is_said_before_anything_is_measured(cli, tmp_path):
    shown = cli("tasks", "ioi", "--model", "ioi-small", "--json").json
    rows = [
        {
            "clean": row["clean"].replace("|", " "),
            "corrupted": row["corrupted"].replace("|", " "),
            "answer": row["wrong answer"].split()[0],
            "wrong_answer": row["answer"].split()[0],
        }
        for row in shown
    ]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["patch", "mine.jsonl", "--model", "ioi-small", "--sites", "attn_out"]
    words += ["--positions", "last", "--out", "run"]
    answer = cli(*words)
    assert answer.code == 0
    own, warning = answer.err.splitlines()[:2]
    assert own.startswith("the model itself: logit-difference -")
    assert warning.startswith("warning: the model does not do this task (logit-difference -")
    assert "warning: the model does not do this task" not in cli(*words).err
    searching = [*words, "--discover", "--threshold", 0.5]
    answer = cli(*searching)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith(
        "circuitfind: no circuit is searched: the model does not do this task (logit-difference -"
    )
    assert "--edge-threshold" in answer.err
    assert not (tmp_path / "run" / "circuit.json").exists()
    assert "no circuit is searched" not in cli(*searching, "--edge-threshold", 0.2).err
