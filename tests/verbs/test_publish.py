"""A published run is verified file by file, comes back as the same run, and is repeated."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import circuitfind as cf
from circuitfind.directories.directory import digest_of
from circuitfind.directories.publication import MANIFEST, renamed
from circuitfind.errors import PublicationError
from circuitfind.files import write_whole
from circuitfind.methods import METHODS
from tests.cli.conftest import cli  # noqa: F401  (a fixture)

GIFTS = Path(__file__).parents[2] / "examples/gifts.jsonl"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A run of a user's own prompts, evaluated, and the folder it was published as."""
    place = tmp_path_factory.mktemp("machine-of-the-author")
    shutil.copy(GIFTS, place / "gifts.jsonl")
    config = cf.RunConfig(
        str(place / "gifts.jsonl"), "ioi-small", "acdc", {"threshold": 0.1}, n_prompts=4
    )
    cf.run_discovery(place / "run", config)
    (place / "run/certificate.json").write_text(
        json.dumps({"of": digest_of(cf.load_circuit(place / "run/circuit.json"))})
    )
    folder = cf.publish_run(place / "run", place / "folder", authors=["Ada", 'O"Neil: x'])
    return place, folder


def test_the_manifest_has_the_hash_of_every_file(published):
    _, folder = published
    manifest = json.loads((folder / MANIFEST).read_text())
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()} - {MANIFEST}
    assert set(manifest["files"]) == files
    assert {"README.md", "report.html", "circuit.eap-ig.json", "CITATION.cff"} < files
    assert {"run/circuit.json", "run/decisions.jsonl", "run/scorecard.json"} < files
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert manifest["inputs"] == {"task": "inputs/task-gifts.jsonl"}
    assert (folder / manifest["inputs"]["task"]).read_bytes() == GIFTS.read_bytes()


def test_no_path_of_the_authors_machine_is_in_it(published):
    place, folder = published
    for file in folder.rglob("*"):
        assert file.is_dir() or str(place).encode() not in file.read_bytes(), file


def test_the_citation_can_be_read(published):
    import yaml

    citation = yaml.safe_load((published[1] / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": "Ada"}, {"name": 'O"Neil: x'}]
    assert citation["cff-version"] == "1.2.0"


def test_it_comes_back_as_the_same_run_without_the_authors_files(published, tmp_path):
    place, folder = published
    away = shutil.copytree(folder, tmp_path / "folder")
    out = tmp_path / "mine"
    circuit = cf.import_publication(away, out)
    shutil.rmtree(away)
    theirs = cf.load_circuit(place / "run/circuit.json")
    assert (circuit.edges, circuit.graph) == (theirs.edges, theirs.graph)
    assert circuit.origin["task"] == str((out / "inputs/task-gifts.jsonl").resolve())
    same = ("decisions.jsonl", "scorecard.json", "diagram.svg")
    assert all((out / name).read_bytes() == (place / "run" / name).read_bytes() for name in same)
    # What names the circuit by its hash still does.
    assert json.loads((out / "certificate.json").read_text()) == {"of": digest_of(circuit)}
    config = replace(
        cf.RunConfig("", "ioi-small", "acdc", {"threshold": 0.1}, metric="kl", n_prompts=4),
        task=str(out / "inputs/task-gifts.jsonl"),
    )
    told = []
    assert cf.run_discovery(out, config, tell=told.append).circuit.edges == circuit.edges
    assert told == [f"{out} is finished: its results are read, not computed again"]


def test_a_changed_missing_or_foreign_file_is_refused_and_nothing_is_written(published, tmp_path):
    _, folder = published
    cases = {
        "is not the file that was published": lambda f: (f / "run/circuit.json").write_text("{}"),
        "cannot read .*: No such file": lambda f: (f / "report.html").unlink(),
        "is damaged": lambda f: (f / MANIFEST).write_text("{"),
        "outside the folder": lambda f: in_manifest(f, "files", "../secret", "0" * 64),
        "outside the folder; ": lambda f: in_manifest(f, "files", "/etc/hosts", "0" * 64),
        "it has no hash of 'inputs/x'": lambda f: in_manifest(f, "inputs", "places", "inputs/x"),
        "by a newer version": lambda f: in_manifest(f, None, "format", "circuitfind publication 2"),
    }
    for number, (said, harm) in enumerate(cases.items()):
        copy = shutil.copytree(folder, tmp_path / f"copy{number}")
        harm(copy)
        out = tmp_path / f"out{number}"
        with pytest.raises(cf.CircuitfindError, match=said):
            cf.import_publication(copy, out)
        assert not out.exists()


def in_manifest(folder, part, name, value):
    content = json.loads((folder / MANIFEST).read_text())
    (content if part is None else content[part])[name] = value
    write_whole(folder / MANIFEST, json.dumps(content))


def test_a_run_whose_files_contradict_each_other_is_refused(published, tmp_path):
    copy = shutil.copytree(published[1], tmp_path / "copy")
    broken = b'{"format": "circuitfind circuit 1"}'
    (copy / "run/circuit.json").write_bytes(broken)
    in_manifest(copy, "files", "run/circuit.json", hashlib.sha256(broken).hexdigest())
    with pytest.raises(PublicationError, match="cannot be used .*; ask who published it"):
        cf.import_publication(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_are_left_alone(published, tmp_path):
    place, folder = published
    with pytest.raises(PublicationError, match="is not empty; choose another --to"):
        cf.publish_run(place / "run", folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes").write_text("mine")
    with pytest.raises(PublicationError, match="is not empty; choose another --out"):
        cf.import_publication(folder, tmp_path / "full")
    with pytest.raises(PublicationError, match="is a file; give the directory"):
        cf.publish_run(place / "run/circuit.json", tmp_path / "new")


def test_names_are_changed_where_settings_have_them_and_nowhere_else(published):
    circuit = cf.load_circuit(published[0] / "run/circuit.json")
    old = circuit.origin["task"]
    text = f'{{"task": "{old}", "note": "{old}", "other_task": "{old}"}}'
    files = {"circuit.json": circuit.to_json().encode(), "a.json": text.encode(), "b.csv": b"x"}
    found = renamed(files, {"task": 'a\\b"c'})
    said = json.loads(found["a.json"])
    assert said == {"task": 'a\\b"c', "note": old, "other_task": old}
    assert found["b.csv"] == b"x"
    assert json.loads(found["circuit.json"])["origin"]["task"] == 'a\\b"c'


@pytest.fixture
def other_acdc(monkeypatch):
    """Let the method find another circuit than it did when the run was published."""
    method = type(METHODS.find("acdc"))
    original = method.run

    def reversed_order(self, engine, options, resume=()):
        yield from original(self, engine, replace(options, order="random"), resume)

    monkeypatch.setattr(method, "run", reversed_order)


def test_a_repetition_says_what_is_the_same(published, cli):  # noqa: F811
    answer = cli("import", published[1], "--out", "mine", "--repeat")
    assert answer.code == 0, answer.err
    assert "every file is as published" in answer.out
    rows = {line.split("  ")[0]: line.split()[-2:] for line in answer.out.splitlines()}
    assert rows["edges that the other has not"] == ["0", "0"]
    assert rows["faithfulness, kl"][0] == rows["faithfulness, kl"][1]
    mine, again = (cf.load_circuit(f"{name}/circuit.json") for name in ("mine", "mine-repeated"))
    assert mine.edges == again.edges


def test_a_repetition_that_differs_ends_with_one(published, cli, other_acdc):  # noqa: F811
    answer = cli("import", published[1], "--out", "mine", "--repeat")
    assert answer.code == 1, answer.err
    (line,) = (line for line in answer.out.splitlines() if line.startswith("edges that the other"))
    assert line.split()[-2:] != ["0", "0"]
