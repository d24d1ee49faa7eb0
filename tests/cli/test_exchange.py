"""`export` and `import`: a run goes out in every format and comes back as the same circuit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import circuitfind as cf
from circuitfind.circuit import load_circuit
from circuitfind.formats import FORMATS
from circuitfind.formats.submission import PERCENTAGES


@pytest.mark.parametrize("name", [known.name for known in FORMATS])
def test_a_run_goes_out_and_comes_back(name, cli, run, program, tmp_path):
    written = cli("export", "run", "--format", name).out.strip()
    answer = cli("import", written, "--model", program, "--out", "back")
    assert answer.code == 0, answer.err
    ours, back = (load_circuit(tmp_path / path / "circuit.json") for path in ("run", "back"))
    if name == "csv":
        assert [edge.name for edge in ours.edges] == [edge.name for edge in back.edges]
        assert back.origin["imported_from"] == "circuit.csv"
    else:
        assert back.to_json() == ours.to_json()
    assert cli("draw", "back").code == 0


def test_the_scores_of_cut_edges_go_out_and_come_back(cli, run, tmp_path):
    cli("export", "run", "--format", "eap-ig", "--out", "out/mine.json")
    edges = json.loads((tmp_path / "out" / "mine.json").read_text())["edges"]
    lines = (tmp_path / "run" / "decisions.jsonl").read_text().splitlines()[1:]
    decisions = [json.loads(line) for line in lines]
    effects = [row["effect"] for row in decisions if row["effect"] is not None]
    assert sorted(said["score"] for said in edges.values() if said["score"]) == sorted(effects)
    cli("import", "out/mine.json", "--out", "back")
    again = cli("import", "back/scores.csv", "--out", "again", "--model", json_model(run))
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "scores.csv").read_text() == (
        tmp_path / "back" / "scores.csv"
    ).read_text()


def test_a_table_with_its_task_and_model_is_a_circuit_for_every_command(cli, run, complaint):
    cli("export", "run", "--format", "csv", "--out", "mine.csv")
    about = ["--model", json_model(run), "--task", "program"]
    foreign = load_circuit(Path("run/circuit.json"))
    cf.export_circuit(replace(foreign, origin={}), "foreign.json", format_name="eap-ig")
    answer = cli("import", "foreign.json", "--out", "back", *about[2:])
    complaint(answer, "--task needs --model")
    assert cli("import", "mine.csv", "--out", "back", *about).code == 0
    for command in (["evaluate", "--quick"], ["report"], ["draw"], ["roles"], ["compare", "run"]):
        answer = cli(*command, "back")
        assert answer.code == 0, answer.err
    text = Path("back/report.html").read_text("utf-8")
    assert '"search":null' in text and "program" in text
    answer = cli("import", "run/circuit.json", "--out", "x", *about)
    complaint(answer, "says itself what it is about; leave --task out")
    cli("import", "mine.csv", "--out", "silent", *about[:2])
    complaint(
        cli("report", "silent"), "does not say which task it is about; .*`circuitfind import`"
    )


def json_model(words):
    return words[words.index("--model") + 1]


def test_the_largest_scores_of_a_file_can_be_chosen(cli, run, tmp_path, complaint):
    cli("export", "run", "--format", "eap-ig", "--out", "mine.json")
    assert cli("import", "mine.json", "--out", "five", "--edges", 5).out == "five: 5 of 46 edges\n"
    answer = cli("import", "mine.json", "--out", "all", "--edges", 47)
    complaint(answer, "47 edges were asked for and the file has")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mib-importances", {"importances.json"}),
        ("mib-circuits", {f"{percentage:g}.json" for percentage in PERCENTAGES}),
    ],
)
def test_a_submission_is_a_folder_named_after_task_and_model(name, files, cli, run, tmp_path):
    folder = tmp_path / "run" / "program_scramble"
    assert cli("export", "run", "--format", name).out == "run/program_scramble\n"
    assert {file.name for file in folder.iterdir()} == files


def test_nothing_is_written_over_another_file(cli, run, tmp_path, complaint):
    (tmp_path / "mine.csv").write_text("dear diary")
    complaint(
        cli("export", "run", "--format", "csv", "--out", "mine.csv"),
        "mine.csv is there already and says something else; choose another --out",
    )
    assert (tmp_path / "mine.csv").read_text() == "dear diary"
    assert cli("export", "run", "--format", "csv", "--out", "new.csv").code == 0
    assert cli("export", "run", "--format", "csv", "--out", "new.csv").code == 0


BAD = {
    "an unknown format": (["export", "run", "--format", "png"], "formats are eap-ig, acdc, .*mib"),
    "a file that is not there": (["import", "no.json", "--out", "x"], "cannot read the circuit no"),
    "a file that is no circuit": (
        ["import", "run/config.json", "--out", "x"],
        "not one of the JSON",
    ),
    "a file of no known ending": (["import", "notes.txt", "--out", "x"], "not one of .csv, .dot, "),
    "a file that needs the model": (["import", "t.csv", "--out", "x"], "name the model .--model"),
    "a directory": (["import", "run", "--out", "x"], "is imported if `circuitfind publish` wrote"),
    "a file to repeat": (
        ["import", "notes.txt", "--out", "x", "--repeat"],
        "leave --repeat out: only a published folder can be repeated",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_command_line_is_one_line_and_writes_nothing(case, cli, run, tmp_path, complaint):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "t.csv").write_text("edge\nembed->m0\n")
    before = sorted(tmp_path.rglob("*"))
    words, said = BAD[case]
    complaint(cli(*words), said)
    assert sorted(tmp_path.rglob("*")) == before
