import json
from dataclasses import replace

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import DecisionLog
from circuitfind.directories.directory import RunDirectory
from circuitfind.directories.work import read_config
from circuitfind.errors import MethodError, NewerFileError, RunDirectoryError, SelfCheckError


def test_an_error_before_the_first_decision_leaves_nothing(discover, tmp_path, monkeypatch):
    def fail(engine):
        raise SelfCheckError("the engine does not reproduce the model")

    monkeypatch.setattr("circuitfind.methods.search.check_limits", fail)
    with pytest.raises(SelfCheckError):
        discover(tmp_path / "new" / "run")
    assert not any(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(SelfCheckError):
        discover(tmp_path / "mine")
    assert [item.name for item in tmp_path.rglob("*")] == ["mine"]


def test_an_error_after_some_decisions_leaves_them(discover, tmp_path, monkeypatch):
    record = DecisionLog.record

    def fail_later(self, progress):
        if progress.done > 20:
            raise MethodError("the loss became nan")
        record(self, progress)

    with monkeypatch.context() as patch, pytest.raises(MethodError):
        patch.setattr(DecisionLog, "record", fail_later)
        discover(tmp_path / "run")
    assert (tmp_path / "run" / "decisions.jsonl").read_bytes().count(b"\n") > 0
    said = []
    discover(tmp_path / "run", tell=said.append)
    assert "resumes after" in said[0]


def test_an_error_does_not_take_back_what_another_run_made(discover, tmp_path, monkeypatch):
    def fail(engine):
        (tmp_path / "runs" / "neighbour").mkdir()
        raise SelfCheckError("the engine does not reproduce the model")

    monkeypatch.setattr("circuitfind.methods.search.check_limits", fail)
    with pytest.raises(SelfCheckError):
        discover(tmp_path / "runs" / "mine")
    assert [item.name for item in (tmp_path / "runs").iterdir()] == ["neighbour"]


def test_of_two_runs_that_begin_at_once_only_one_gets_the_directory(config, tmp_path):
    first, second = (
        RunDirectory.open(tmp_path / "run", replace(config, seed=seed)) for seed in (0, 1)
    )
    with first.recording({}):
        for late in (first, second):
            with pytest.raises(RunDirectoryError, match="another process is at work in"):
                late.recording({}).__enter__()
            with pytest.raises(RunDirectoryError):
                RunDirectory.open(tmp_path / "run", late.config)
    with pytest.raises(RunDirectoryError, match="seed is 0 there and 1 here"):
        second.recording({}).__enter__()
    assert read_config(RunConfig, tmp_path / "run").seed == 0


def test_settings_are_read_back_as_they_were_written(config, tmp_path):
    pinned = config.pinned()
    (tmp_path / "config.json").write_text(pinned.to_json())
    assert read_config(RunConfig, tmp_path) == pinned


def test_settings_mean_the_same_in_another_folder(config, program, discover, tmp_path, monkeypatch):
    monkeypatch.chdir(program.parent)
    discover(tmp_path / "run", model=program.name)
    monkeypatch.chdir(tmp_path)
    said = []
    discover(tmp_path / "run", tell=said.append)
    assert said == [f"{tmp_path / 'run'} is finished: its results are read, not computed again"]


def test_an_edited_task_file_is_another_run(discover, tmp_path):
    file = tmp_path / "mine.jsonl"
    pairs = [{"clean": f"a {x}", "corrupted": f"b {x}", "answer": "c"} for x in "abc"]
    file.write_text("\n".join(map(json.dumps, pairs)))
    discover(tmp_path / "run", task=str(file))
    file.write_text("\n".join(map(json.dumps, pairs[:2])))
    with pytest.raises(RunDirectoryError, match="the task's file has changed since"):
        discover(tmp_path / "run", task=str(file))


def test_the_device_does_not_make_another_run(discover, tmp_path):
    discover(tmp_path / "run")
    assert discover(tmp_path / "run", device="cuda").circuit.n_edges > 0


def test_options_that_are_left_out_are_the_defaults(discover, tmp_path):
    discover(tmp_path / "run")
    discover(tmp_path / "run", options={"threshold": 0.01, "order": "backward-index", "seed": 0})
    with pytest.raises(RunDirectoryError, match="order is backward-index there and random here"):
        discover(tmp_path / "run", options={"threshold": 0.01, "order": "random"})


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "needs the option 'threshold'"), ({"treshold": 1}, "has no option 'treshold'")],
)
def test_options_from_python_are_checked_too(options, said, discover, tmp_path):
    with pytest.raises(MethodError, match=said):
        discover(tmp_path / "run", options=options)
    assert not any(tmp_path.iterdir())


def test_what_a_newer_version_adds_is_passed_over(discover, tmp_path):
    found = discover(tmp_path / "run").circuit
    for name in ("config.json", "scorecard.json"):
        content = json.loads((tmp_path / "run" / name).read_text())
        (tmp_path / "run" / name).write_text(json.dumps({**content, "newer": [1]}))
    file = tmp_path / "run" / "decisions.jsonl"
    first, *lines = file.read_text().splitlines()
    newer = [json.dumps({**json.loads(line), "newer": 1}) for line in lines]
    file.write_text("\n".join([first, *newer, ""]))
    (tmp_path / "run" / "circuit.json").unlink()
    said = []
    assert discover(tmp_path / "run", tell=said.append).circuit.to_json() == found.to_json()
    assert said == [f"{tmp_path / 'run'} resumes after 46 of 46 edges"]


@pytest.mark.parametrize("name", ["config.json", "decisions.jsonl", "scorecard.json"])
def test_a_file_whose_meaning_changed_is_refused(name, discover, tmp_path):
    discover(tmp_path / "run")
    file = tmp_path / "run" / name
    text = file.read_text()
    form = text.partition('"format": "')[2].partition('"')[0]
    file.write_text(text.replace(form, form.replace(" 1", " 2")))
    if name == "decisions.jsonl":
        (tmp_path / "run" / "circuit.json").unlink()
    with pytest.raises(NewerFileError, match=f"reads up to '{form}'.; update circuitfind"):
        discover(tmp_path / "run")
