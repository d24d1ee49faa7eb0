"""`runs` lists what there is, and how far it is."""

import errno
import fcntl
import json
import os
import re
import shutil
from html import unescape
from urllib.parse import unquote

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import RunDirectory
from circuitfind.directories.work import read_config


@pytest.fixture
def three(cli, run, tmp_path):
    """A finished run, one that was interrupted, and one whose settings are damaged."""
    (tmp_path / "all" / "deep").mkdir(parents=True)
    shutil.move(tmp_path / "run", tmp_path / "all" / "done")
    shutil.copytree(tmp_path / "all" / "done", tmp_path / "all" / "deep" / "stopped")
    shutil.copytree(tmp_path / "all" / "done", tmp_path / "all" / "broken")
    (tmp_path / "all" / "deep" / "stopped" / "circuit.json").unlink()
    (tmp_path / "all" / "broken" / "config.json").write_text("{")
    return tmp_path / "all"


def test_every_run_is_listed_with_its_state(three, cli):
    rows = {row["run"]: row for row in cli("runs", three, "--json").json}
    assert {name: row["state"] for name, row in rows.items()} == {
        "done": "finished", "deep/stopped": "interrupted", "broken": "damaged",
    }  # fmt: skip
    card = json.loads((three / "done" / "scorecard.json").read_text())["scorecard"]
    assert rows["done"]["n_edges"] == card["n_edges"]
    assert rows["done"]["threshold"] == 0.01
    assert rows["deep/stopped"]["decisions"] == 46
    assert "config.json is damaged" in rows["broken"]["problem"]
    lines = cli("runs", three).out.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:2] == ["run", "state"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--task", "program"], {"done", "deep/stopped"}),
        (["--task", "ioi"], set()),
        (["--model", "scramble"], {"done", "deep/stopped"}),
        (["--method", "acdc", "--state", "finished"], {"done"}),
        (["--state", "damaged"], {"broken"}),
    ],
)
def test_runs_are_filtered(words, expected, three, cli):
    assert {row["run"] for row in cli("runs", three, *words, "--json").json} == expected


def test_runs_are_sorted_and_their_paths_printed(three, cli):
    shutil.copytree(three / "done", three / "also")
    card = json.loads((three / "also/scorecard.json").read_text())
    card["scorecard"]["n_edges"] += 1
    (three / "also/scorecard.json").write_text(json.dumps(card))

    def listed(*words):
        return [row["run"] for row in cli("runs", three, *words, "--json").json]

    assert listed("--sort", "n_edges") == ["done", "also", "broken", "deep/stopped"]
    assert listed("--sort", "n_edges", "--reverse")[:2] == ["also", "done"]
    assert listed("--sort", "state")[0] == "broken"
    assert listed("--reverse") == listed("--sort", "run", "--reverse") == listed()[::-1]
    assert listed("--sort", "run") == listed()
    assert listed("--sort", "problem")[0] == "broken"
    paths = cli("runs", three, "--state", "finished", "--paths").out.split()
    assert paths == [str(three / "also"), str(three / "done")]
    assert cli("compare", *paths).code == 0
    wrong = cli("runs", three, "--sort", "nothing")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "there is no column 'nothing'; sort by one of run, state, task" in wrong.err


def test_the_index_page_links_to_files_that_are_there(three, cli):
    name = three / "done"
    (three / "odd & <name>").mkdir()
    shutil.move(name, three / "odd & <name>" / "run")
    (three / "odd & <name>" / "report.html").write_text("a page")
    page = three / "index.html"
    assert cli("runs", three, "--html", page).out.strip() == str(page)
    text = page.read_text()
    links = re.findall(r'(?:href|src)="([^"]+)"', text)
    assert len(links) == 5
    assert all((three / unquote(unescape(link))).is_file() for link in links), links
    assert "odd &amp; &lt;name&gt;/run" in text
    assert "<name>" not in text
    (three / "report.html").write_text("a page of something else")
    assert cli("runs", three, "--html", page).code == 0
    assert "report.html" not in re.findall(r'href="([^"]+)"', page.read_text())
    for wrong in (three / "folder.html", three / "deep/stopped/config.json"):
        if wrong.suffix == ".html":
            wrong.mkdir()
        refused = cli("runs", three, "--html", wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert json.loads((three / "deep/stopped/config.json").read_text())


def test_a_run_at_work_is_running(three, cli):
    stopped = three / "deep" / "stopped"
    directory = RunDirectory(stopped, read_config(RunConfig, stopped))
    facts = json.loads((stopped / "environment.json").read_text())
    with directory.recording({"model_fingerprint": facts["model_fingerprint"]}):
        rows = cli("runs", three, "--json").json
    assert {row["run"]: row["state"] for row in rows}["deep/stopped"] == "running"


def test_listing_changes_nothing(three, cli):
    before = {file: file.read_bytes() for file in three.rglob("*") if file.is_file()}
    cli("runs", three)
    assert {file: file.read_bytes() for file in three.rglob("*") if file.is_file()} == before


def test_no_directory_is_said_in_one_line(cli, complaint, tmp_path):
    complaint(cli("runs", tmp_path / "none"), "there is no directory")
    assert cli("runs", tmp_path).out == ""


@pytest.fixture
def patched(cli, program, tmp_path):
    """A measurement by patching with its circuit, and a circuit that was imported."""
    words = ["program", "--model", program, "--prompts", 8, "--sites", "head", "--discover"]
    answer = cli("patch", *words, "--threshold", 0.01, "--out", "all/patched")
    assert answer.code == 0, answer.err
    cli("import", "all/patched/circuit.json", "--out", "all/imported")
    return tmp_path / "all"


def test_a_measurement_by_patching_is_listed_as_one(patched, cli):
    (row,) = cli("runs", patched, "--json").json
    assert (row["run"], row["state"], row["method"]) == ("patched", "finished", "patch denoising")
    assert row["task"] == "program"
    (patched / "patched" / "report.json").unlink()
    assert cli("runs", patched, "--json").json[0]["state"] == "interrupted"


@pytest.mark.parametrize("directory", ["patched", "imported"])
def test_a_circuit_without_a_search_is_evaluated_and_drawn(directory, patched, cli):
    assert cli("evaluate", patched / directory, "--quick", "--out", "evaluated").code == 0
    assert cli("draw", patched / directory, "--out", "drawn.svg").code == 0
    assert cli("export", patched / directory, "--format", "csv").code == 0
    answer = cli("report", patched / directory)
    assert (answer.code, answer.err) == (0, "")


def test_what_needs_a_search_says_what_a_directory_holds_instead(patched, cli, complaint):
    for directory, held in (("patched", "a measurement by patching"), ("imported", "a circuit")):
        complaint(cli("stability", patched / directory), f"holds {held}.*; give the directory of")
    for command in ("stability", "report"):
        complaint(cli(command, patched), "holds no run; give the directory of `circuitfind discov")
    (patched / "patched" / "circuit.json").unlink()
    complaint(cli("report", patched / "patched"), "holds a measurement by patching")


def test_a_command_runs_and_warns_once_where_the_file_system_has_no_locks(cli, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    words = ["and-gate", "--prompts", 4, "--threshold", 0.5, "--out", "run"]
    answer = cli("discover", *words)
    assert answer.code == 0
    assert re.fullmatch(r"warning: the file system of run has no locks \(.*\n", answer.err)
    assert cli("discover", *words).code == 0
