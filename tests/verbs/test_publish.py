"""A published run is verified file by file, comes back as the same run, and is repeated."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

import circuitfind as cf
from circuitfind.circuit import circuit_from
from circuitfind.directories.directory import digest_of
from circuitfind.directories.publication import MANIFEST, anywhere, renamed
from circuitfind.errors import PublicationError
from circuitfind.files import write_whole
from circuitfind.methods import METHODS
from circuitfind.records import parse_json
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
    assert manifest["inputs"] == {"task": "inputs/task/gifts.jsonl"}
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
    assert circuit.origin["task"] == str((out / "inputs/task/gifts.jsonl").resolve())
    same = ("decisions.jsonl", "scorecard.json", "diagram.svg")
    assert all((out / name).read_bytes() == (place / "run" / name).read_bytes() for name in same)
    # What names the circuit by its hash still does.
    assert json.loads((out / "certificate.json").read_text()) == {"of": digest_of(circuit)}
    config = replace(
        cf.RunConfig("", "ioi-small", "acdc", {"threshold": 0.1}, metric="kl", n_prompts=4),
        task=str(out / "inputs/task/gifts.jsonl"),
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
        "'places' is no file of the folder": lambda f: in_manifest(f, "inputs", "places", "x"),
        "'seed' is no file of the folder": lambda f: in_manifest(f, "inputs", "seed", "README.md"),
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


@pytest.mark.parametrize("name", ["a b.jsonl", 'q"<&>.jsonl', "b\\c.jsonl", "é.jsonl"])
def test_a_path_is_changed_wherever_it_stands_and_the_hash_with_it(published, name):
    circuit = cf.load_circuit(published[0] / "run/circuit.json")
    path = f"/home/someone/{name}"
    circuit = replace(circuit, origin={**circuit.origin, "task": path})
    content = json.dumps({"of": digest_of(circuit), "note": f"of {path}", "other": "/home"})
    files = {
        "circuit.json": circuit.to_json().encode(), "a.json": content.encode(),
        "b.svg": f"<title>{escape(path)}</title>".encode(), "c.png": path.encode(),
    }  # fmt: skip
    found = renamed(files, [anywhere(path, "inputs/task/x.jsonl")])
    after = circuit_from(parse_json(found["circuit.json"]))
    assert after.origin["task"] == "inputs/task/x.jsonl"
    assert json.loads(found["a.json"]) == {
        "of": digest_of(after), "note": "of inputs/task/x.jsonl", "other": "/home",
    }  # fmt: skip
    assert found["b.svg"] == b"<title>inputs/task/x.jsonl</title>"
    assert found["c.png"] == path.encode()


def test_runs_that_mib_cannot_express_are_published_without_that_file(tmp_path):
    config = cf.RunConfig(
        "ioi", "ioi-small", "eap-ig", {"n_edges": 40, "steps": 1}, n_prompts=4, places="named",
        metric="logit-difference",
    )  # fmt: skip
    cf.run_discovery(tmp_path / "run", config)
    told = []
    folder = cf.publish_run(tmp_path / "run", tmp_path / "folder", tell=told.append)
    assert any("the folder has no circuit.eap-ig.json" in line for line in told)
    assert not (folder / "circuit.eap-ig.json").exists()
    assert "eap-ig.json" not in (folder / "README.md").read_text()
    circuit = cf.import_publication(folder, tmp_path / "mine")
    assert circuit.edges == cf.load_circuit(tmp_path / "run/circuit.json").edges


def test_what_commands_did_not_write_and_links_stay_out(published, tmp_path):
    run = shutil.copytree(published[0] / "run", tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    (run / "secret.json").symlink_to("/etc/hostname")
    folder = cf.publish_run(run, tmp_path / "folder")
    assert {"notes.txt", "secret.json"}.isdisjoint(file.name for file in folder.rglob("*"))


def test_an_input_that_has_changed_or_is_gone_is_refused(published, tmp_path):
    place = tmp_path / "machine"
    place.mkdir()
    shutil.copy(GIFTS, place / "gifts.jsonl")
    config = cf.RunConfig(
        str(place / "gifts.jsonl"), "ioi-small", "random", {"n_edges": 40}, n_prompts=4
    )
    cf.run_discovery(place / "run", config)
    (place / "gifts.jsonl").write_text(GIFTS.read_text() + "\n")
    with pytest.raises(PublicationError, match="gifts.jsonl has changed since the run; restore"):
        cf.publish_run(place / "run", tmp_path / "folder")
    (place / "gifts.jsonl").unlink()
    with pytest.raises(PublicationError, match="which the run read: No such file"):
        cf.publish_run(place / "run", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_import_goes_on_where_it_was_stopped(published, cli, tmp_path):  # noqa: F811
    first = cli("import", published[1], "--out", "mine")
    assert first.code == 0
    again = cli("import", published[1], "--out", "mine", "--repeat")
    assert again.code == 0, again.err
    os.chdir(tmp_path / "mine")
    here = cli("import", published[1], "--out", ".", "--repeat")
    assert here.code == 0, here.err
    assert "is finished" in here.err


def test_a_repetition_with_another_model_is_refused(published, cli):  # noqa: F811
    answer = cli("import", published[1], "--out", "mine", "--model", "gpt-4l", "--repeat")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "the model of the run in mine changed since" in answer.err
    assert not Path("mine-repeated").exists()


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
    assert rows["edges missing in the other"] == ["0", "0"]
    assert rows["faithfulness, kl"][0] == rows["faithfulness, kl"][1]
    mine, again = (cf.load_circuit(f"{name}/circuit.json") for name in ("mine", "mine-repeated"))
    assert mine.edges == again.edges


def test_a_repetition_that_differs_ends_with_one(published, cli, other_acdc):  # noqa: F811
    answer = cli("import", published[1], "--out", "mine", "--repeat")
    assert answer.code == 1, answer.err
    (line,) = (line for line in answer.out.splitlines() if line.startswith("edges missing"))
    assert line.split()[-2:] != ["0", "0"]
