"""The default threshold: its circuit does the task, and an interrupted choice is continued."""

import json
import shutil
from dataclasses import replace

import pytest

import circuitfind as cf
from circuitfind.errors import CircuitfindError, MethodError
from circuitfind.methods.wanted import Wanted
from circuitfind.verbs.series import Observer, run_wanted

FIRST, SECOND, THIRD = 0.13, 0.065, 0.033
"""What is tried: the noise, a half and a quarter of it. The third circuit is faithful enough."""


@pytest.fixture
def settings(config):
    return replace(config, options={})


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """A run that nothing interrupted."""
    path = tmp_path_factory.mktemp("automatic") / "whole"
    said: list[str] = []
    config = cf.RunConfig("program", str(program), "acdc", metric="l2", n_prompts=4)
    run_wanted(path, config, Wanted(), Observer(tell=said.append))
    return path, said


def test_the_default_threshold_is_the_largest_tried_whose_circuit_does_the_task(whole):
    path, said = whole
    assert threshold_of(path) == THIRD
    assert [line.split()[1].rstrip(":") for line in said] == [f"{FIRST}", f"{SECOND}", f"{THIRD}"]
    assert "the largest of 3 tried whose circuit keeps 90%" in said[-1]
    shares = {at: faithfulness_of(place) for at, place in places(path).items()}
    assert [at for at, share in shares.items() if share >= 0.9] == [THIRD]
    stored = json.loads((path / "thresholds.json").read_text())
    assert [trial["threshold"] for trial in stored["trials"]] == [FIRST, SECOND, THIRD]
    assert [trial["faithfulness"] for trial in stored["trials"]] == pytest.approx(
        [*shares.values()]
    )


def test_python_and_the_command_line_choose_the_same_threshold(whole, model):
    path, said = whole
    problem = cf.make_problem(model, "program", n_prompts=4, metric="l2")
    told: list[str] = []
    found = cf.discover(problem, tell=told.append)
    assert told == said
    assert kept_edges(path) == {edge.name for edge in found.circuit.edges}
    again = cf.discover(problem, threshold="auto")
    assert again.circuit.kept.equal(found.circuit.kept)


def test_a_first_circuit_that_does_the_task_is_the_only_one(settings, tmp_path):
    said: list[str] = []
    config = replace(settings, task="pronoun", model="ioi-small", metric="kl")
    (found,) = run_wanted(tmp_path / "run", config, Wanted(), Observer(tell=said.append))
    assert said[0].startswith("the model itself: logit-difference ")
    assert len(said) == 2 and "from the metric's noise: keeps" in said[1]
    assert not (tmp_path / "run" / "tried").exists()
    assert not (tmp_path / "run" / "thresholds.json").exists()
    assert (found.card.measurements[0].faithfulness or 0) >= 0.9


def test_a_finished_choice_is_read_without_the_model(whole, settings, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "run")

    def load(*arguments, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("circuitfind.question.load_model", load)
    (again,) = run_wanted(tmp_path / "run", settings, Wanted())
    assert again.path == tmp_path / "run"
    assert_same(tmp_path / "run", whole[0])


@pytest.mark.parametrize("stop", [1, 4, 9, 14, 19, 24, 29, 35])
def test_an_interrupted_choice_ends_in_the_same_files(stop, settings, whole, tmp_path):
    steps = 0

    def interrupt(progress):
        nonlocal steps
        steps += 1
        if steps == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_wanted(tmp_path / "run", settings, Wanted(), Observer(interrupt))
    run_wanted(tmp_path / "run", settings, Wanted())
    assert_same(tmp_path / "run", whole[0])


@pytest.mark.parametrize("n_moved", [0, 1, 3, 5])
def test_a_move_that_was_cut_short_is_continued(n_moved, settings, whole, tmp_path):
    """As after a kill while the run with the first threshold made room for the second."""
    run = tmp_path / "run"
    shutil.copytree(whole[0] / "tried" / f"threshold-{FIRST}", run)
    stored = json.loads((whole[0] / "thresholds.json").read_text())
    (run / "thresholds.json").write_text(json.dumps({**stored, "trials": stored["trials"][:1]}))
    place = run / "tried" / f"threshold-{FIRST}"
    place.mkdir(parents=True)
    names = sorted(p.name for p in run.iterdir() if p.is_file())
    names = [name for name in names if name not in ("config.json", "thresholds.json")]
    for name in names[:n_moved]:
        (run / name).rename(place / name)
    run_wanted(run, settings, Wanted())
    assert_same(run, whole[0])


DAMAGED = ['{"start": -1}', '{"start": 0}', '{"start": null}', '{"start": 1e-320}', "{}", "[]"]
DAMAGED += ['"abc"', "[1]", '{"start": "abc"}', '{"start": [1]}', "{", "\x00", "1e999"]
DAMAGED += ['{"start": 0.13, "trials": [{"threshold": "x"}]}', '{"start": NaN, "trials": []}']


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_trials_are_tried_again(text, settings, whole, tmp_path):
    shutil.copytree(whole[0] / "tried" / f"threshold-{FIRST}", tmp_path / "run")
    (tmp_path / "run" / "thresholds.json").write_text(text)
    run_wanted(tmp_path / "run", settings, Wanted())
    assert_same(tmp_path / "run", whole[0])


# Its trials are read as those above are.
@pytest.mark.parametrize("text", ['{"start": -1}', "{", '{"start": NaN, "trials": []}'])
def test_a_search_for_a_target_begins_anew_where_its_trials_are_damaged(text, settings, tmp_path):
    said: list[str] = []
    (tmp_path / "thresholds.json").write_text(text)
    wanted = Wanted(target_edges=12)
    (found,) = run_wanted(tmp_path, settings, wanted, Observer(tell=said.append))
    assert 0 < found.card.n_edges <= 12
    trials = [line for line in said if line.startswith("search ")]
    assert 0 < len(trials) <= 10
    assert trials[0].startswith("search 1 of at most 10: threshold 0.13")


@pytest.mark.parametrize("stored", ["abc", "0.01", [1], {"a": 1}, None, True, float("nan")])
def test_a_stored_threshold_that_is_no_number_is_refused_in_a_line(
    stored, settings, whole, tmp_path
):
    shutil.copytree(whole[0] / "tried" / f"threshold-{FIRST}", tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    values = json.loads(file.read_text())
    values["options"]["threshold"] = stored
    file.write_text(json.dumps(values))
    with pytest.raises(CircuitfindError) as raised:
        run_wanted(tmp_path / "run", settings, Wanted())
    assert "\n" not in str(raised.value)
    assert (tmp_path / "run" / "decisions.jsonl").is_file()


def test_more_edges_than_there_are_are_refused_before_any_search(settings, tmp_path):
    with pytest.raises(MethodError, match="up to 47 edges and the model has 46"):
        run_wanted(tmp_path / "run", settings, Wanted(target_edges=47))
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_threshold_of_its_own_never_makes_room(settings, whole, tmp_path):
    run_wanted(tmp_path / "run", settings, Wanted(str(FIRST)))
    (found,) = run_wanted(tmp_path / "run", settings, Wanted())
    assert found.path == tmp_path / "run" and threshold_of(found.path) == FIRST
    assert not (tmp_path / "run" / "tried").exists()


# ------------------------------------------------------------------------------- helpers


def places(path):
    tried = {at: path / "tried" / f"threshold-{at}" for at in (FIRST, SECOND)}
    return {**tried, THIRD: path}


def threshold_of(path):
    return json.loads((path / "config.json").read_text())["options"]["threshold"]


def faithfulness_of(path):
    card = json.loads((path / "scorecard.json").read_text())["scorecard"]
    return card["measurements"][0]["faithfulness"]


def kept_edges(path):
    return {edge.name for edge in cf.load_circuit(path / "circuit.json").edges}


def assert_same(run, expected):
    for at, place in places(expected).items():
        mine = places(run)[at]
        for name in ("config.json", "decisions.jsonl", "circuit.json"):
            assert (mine / name).read_bytes() == (place / name).read_bytes(), (at, name)
    stored, wanted = (json.loads((p / "thresholds.json").read_text()) for p in (run, expected))
    assert stored == wanted
