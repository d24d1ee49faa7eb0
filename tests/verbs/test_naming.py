"""A directory that nobody named is never in the way of other settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.naming import LONGEST, default_path, path_of_search
from circuitfind.methods.wanted import Wanted

CONFIG = RunConfig("ioi", "gpt-4l", "acdc")
OTHERS = {
    "prompts": ({"n_prompts": 16}, Wanted()),
    "seed": ({"seed": 1}, Wanted()),
    "metric": ({"metric": "logit-difference"}, Wanted()),
    "ablation": ({"ablation": "zero"}, Wanted()),
    "type": ({"dtype": "float64"}, Wanted()),
    "merged": ({"split_qkv": False}, Wanted()),
    "split": ({"split_embedding": True}, Wanted()),
    "order": ({"options": {"order": "random"}}, Wanted()),
    "absolute": ({"options": {"absolute": True}}, Wanted()),
    "task": ({"task": "ioi:flip"}, Wanted()),
    "model": ({"model": "gpt-2l"}, Wanted()),
    "method": ({"method": "exact"}, Wanted()),
    "threshold": ({}, Wanted("0.5")),
    "thresholds": ({}, Wanted("0.5,1")),
    "target": ({}, Wanted(target_edges=5)),
    "faithful": ({}, Wanted(target_faithfulness=0.5)),
}


def test_settings_that_are_not_given_are_not_in_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(path_of_search(CONFIG, Wanted("auto"))) == "runs/ioi-gpt-4l-acdc"


def test_other_settings_have_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [path_of_search(replace(CONFIG, **changed), w) for changed, w in OTHERS.values()]
    assert len({path_of_search(CONFIG, Wanted()), *paths}) == len(OTHERS) + 1


def test_task_files_of_one_name_get_a_number(tmp_path, monkeypatch, cli_files):
    monkeypatch.chdir(tmp_path)
    first, second = cli_files
    config = replace(CONFIG, task=str(first))
    path = path_of_search(config, Wanted())
    path.mkdir(parents=True)
    stored = replace(config, options={"threshold": 1.0}).pinned()
    (path / "config.json").write_text(stored.to_json())
    assert path_of_search(config, Wanted()) == path
    assert path_of_search(replace(config, task=str(second)), Wanted()).name == f"{path.name}-2"
    first.write_text(first.read_text() * 2)
    assert path_of_search(config, Wanted()).name == f"{path.name}-2"


def test_an_order_file_that_was_edited_gets_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("mine.txt")
    file.write_text("logits\nm0\n")
    config = replace(CONFIG, options={"order": str(file)})
    path = path_of_search(config, Wanted())
    assert path.name == "ioi-gpt-4l-acdc-order-mine.txt"
    path.mkdir(parents=True)
    stored = replace(config, options={"threshold": 1.0, "order": str(file)}).pinned()
    (path / "config.json").write_text(stored.to_json())
    assert path_of_search(config, Wanted()) == path
    file.write_text("m0\nlogits\n")
    assert path_of_search(config, Wanted()).name == f"{path.name}-2"


@pytest.fixture
def cli_files(tmp_path):
    line = '{"clean": "a b", "corrupted": "c d", "answer": "e"}\n'
    files = [tmp_path / folder / "same.jsonl" for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(line)
    return files


def test_long_and_strange_names_make_a_name_that_file_systems_take():
    path = default_path(["ä/ö" * 200, "a b:c*?"], {"to": ("a0.h1.q", "m0"), "via": ()})
    assert len(path.name.encode()) <= LONGEST
    assert path.parent.name == "runs"
    assert default_path(["x"], {"to": ("a0.h1.q", "m0")}).name == "x-to-a0.h1.q-m0"
