"""A run directory survives whatever is done to its decisions, or says what is wrong."""

import json
import shutil

import pytest

from circuitfind.errors import MethodError, RunDirectoryError
from tests.timing import without_times

SEARCHES = {
    "acdc": {"options": {"threshold": 0.01}},
    "acdc by groups": {"options": {"threshold": 0.1, "group_qkv": True}},
    "acdc in random order": {"options": {"threshold": 0.01, "order": "random"}, "seed": 5},
    "acdc without resampling": {"options": {"threshold": 0.01}, "ablation": "zero"},
    "exact": {"method": "exact", "options": {"n_edges": 9}},
    "eap-ig": {"method": "eap-ig", "options": {"n_edges": 9, "steps": 2}},
    "hybrid": {"method": "hybrid", "options": {"threshold": 0.01, "share": 0.6, "steps": 2}},
    "hybrid by groups": {
        "method": "hybrid",
        "options": {"threshold": 0.1, "share": 0.6, "steps": 2, "group_qkv": True},
    },
}


@pytest.mark.parametrize("search", SEARCHES)
def test_a_run_resumes_from_any_part_of_its_decisions(search, discover, tmp_path):
    settings = SEARCHES[search]
    discover(tmp_path / "whole", **settings)
    decisions = (tmp_path / "whole" / "decisions.jsonl").read_bytes()
    n_lines = decisions.count(b"\n")
    line_ends = [i + 1 for i, byte in enumerate(decisions) if byte == ord("\n")]
    in_mid_line = [line_ends[n] + 17 for n in range(0, n_lines - 1, 15)]
    for size in (0, 1, *line_ends[::11], *in_mid_line, len(decisions) - 1, len(decisions)):
        run = tmp_path / f"cut-{size}"
        begun(run, tmp_path / "whole", decisions[:size])
        discover(run, **settings)
        assert_same(run, tmp_path / "whole")


@pytest.mark.parametrize("group_qkv", [False, True])
def test_so_does_a_run_over_places(group_qkv, discover, tmp_path):
    settings = {"options": {"threshold": 0.1, "group_qkv": group_qkv}, "places": "each"}
    whole = discover(tmp_path / "whole", **settings)
    decisions = (tmp_path / "whole" / "decisions.jsonl").read_bytes()
    assert whole.circuit.graph.places == ("0", "1", "2", "3", "4")
    for size in (len(decisions) // 3, len(decisions) // 2 + 7, len(decisions) - 1):
        run = tmp_path / f"cut-{size}"
        begun(run, tmp_path / "whole", decisions[:size])
        discover(run, **settings)
        assert_same(run, tmp_path / "whole")


def test_what_was_decided_is_not_tested_again(discover, tmp_path):
    discover(tmp_path / "whole")
    decisions = (tmp_path / "whole" / "decisions.jsonl").read_bytes().splitlines(keepends=True)
    begun(tmp_path / "cut", tmp_path / "whole", b"".join(decisions[:31]))
    said, steps = [], []
    discover(tmp_path / "cut", tell=said.append, on_progress=steps.append)
    assert said == [f"{tmp_path / 'cut'} resumes after 30 of 46 edges"]
    earlier, *fresh = steps
    assert (earlier.done, len(earlier.decisions)) == (30, 30)
    # Only the reader that was cut short is tested again, and it has 7 writers at most.
    assert sum(len(step.decisions) for step in fresh) < 46 - 30 + 7


def test_an_empty_directory_is_as_good_as_none(discover, tmp_path):
    discover(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    discover(tmp_path / "empty")
    assert_same(tmp_path / "empty", tmp_path / "new")


def test_a_run_killed_while_it_wrote_its_settings_begins_again(discover, tmp_path):
    discover(tmp_path / "new")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "decisions.jsonl").write_text("")
    (tmp_path / "killed" / ".config.json.tmp").write_text('{"task": "pro')
    discover(tmp_path / "killed")
    assert_same(tmp_path / "killed", tmp_path / "new")


@pytest.mark.parametrize("lost", ["circuit.json", "scorecard.json"])
def test_a_lost_result_is_computed_again_without_a_search(lost, discover, tmp_path):
    discover(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "lost")
    (tmp_path / "lost" / lost).unlink()
    steps = []
    discover(tmp_path / "lost", on_progress=steps.append)
    earlier, *fresh = steps
    assert earlier.done == 46
    assert not any(step.decisions for step in fresh)
    assert_same(tmp_path / "lost", tmp_path / "whole")


BAD_LINES = {
    "no JSON": b'{"edge": "m1->log\n',
    "no text": b"\xff\xfe\n",
    "not an object": b"[1, 2]\n",
    "something left out": b'{"edge": "m1->logits", "kept": true}\n',
    "a number for the edge": (
        b'{"edge": 7, "kept": true, "reason": "tested", "before": 0, "after": 0, "effect": 0}\n'
    ),
}


@pytest.mark.parametrize("damage", BAD_LINES)
def test_a_damaged_line_in_the_middle_is_named_and_left_alone(damage, discover, tmp_path):
    discover(tmp_path / "whole")
    lines = (tmp_path / "whole" / "decisions.jsonl").read_bytes().splitlines(keepends=True)
    content = b"".join([*lines[:4], BAD_LINES[damage], *lines[5:20]])
    begun(tmp_path / "bad", tmp_path / "whole", content)
    with pytest.raises(RunDirectoryError, match=r"decisions.jsonl, line 5, is damaged .*delete"):
        discover(tmp_path / "bad")
    assert (tmp_path / "bad" / "decisions.jsonl").read_bytes() == content


def test_decisions_of_another_search_are_refused(discover, tmp_path):
    discover(tmp_path / "other", options={"threshold": 0.01, "order": "forward-index"})
    discover(tmp_path / "whole")
    decisions = (tmp_path / "other" / "decisions.jsonl").read_bytes()
    begun(tmp_path / "mixed", tmp_path / "whole", decisions)
    with pytest.raises(MethodError, match="the earlier decisions do not fit this search"):
        discover(tmp_path / "mixed")


@pytest.mark.parametrize("damage", ['{"task": "pro', "[]", "{}", '"', '{"task": 1}'])
def test_damaged_settings_are_named_and_left_alone(damage, discover, tmp_path):
    discover(tmp_path)
    (tmp_path / "config.json").write_text(damage)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(RunDirectoryError, match=r"config.json is damaged .*choose another --out"):
        discover(tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["scorecard.json", "circuit.json"])
@pytest.mark.parametrize("damage", ["{", "[1]", "{}"])
def test_a_damaged_result_is_named_and_can_be_deleted(name, damage, discover, tmp_path):
    discover(tmp_path)
    (tmp_path / name).write_text(damage)
    with pytest.raises(RunDirectoryError, match=rf"(?s){name} is .*delete .*to compute it again"):
        discover(tmp_path)
    (tmp_path / name).unlink()
    assert discover(tmp_path).circuit.n_edges > 0


def test_a_run_does_not_resume_with_another_models_weights(discover, tmp_path):
    discover(tmp_path)
    (tmp_path / "circuit.json").unlink()
    known = json.loads((tmp_path / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps(known | {"model_fingerprint": "old"}))
    with pytest.raises(RunDirectoryError, match="the model of the run in .* changed since"):
        discover(tmp_path)


def begun(run, whole, decisions):
    """Make a directory as it is while its search goes on."""
    run.mkdir()
    shutil.copy(whole / "config.json", run)
    (run / "decisions.jsonl").write_bytes(decisions)


def assert_same(run, expected):
    assert {file.name for file in run.iterdir()} == {file.name for file in expected.iterdir()}
    for file in expected.iterdir():
        if file.name != "scorecard.json":
            assert (run / file.name).read_bytes() == file.read_bytes(), (run.name, file.name)
    ours, theirs = (json.loads((path / "scorecard.json").read_text()) for path in (run, expected))
    for card in (ours, theirs):
        card["search"] = without_times(card["search"])
    assert ours == theirs
