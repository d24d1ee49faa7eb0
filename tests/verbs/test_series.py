import json
from dataclasses import replace

import pytest

from circuitfind.errors import MethodError, RunDirectoryError
from circuitfind.methods.wanted import Wanted
from circuitfind.verbs.series import Observer, run_wanted


@pytest.fixture
def settings(config):
    return replace(config, options={})


def test_an_interrupted_series_goes_on_where_it_was(settings, tmp_path):
    whole = run_wanted(tmp_path / "whole", settings, Wanted("0.01,0.03,0.1"))
    steps = 0

    def interrupt_in_the_second_run(progress):
        nonlocal steps
        steps += 1
        if (tmp_path / "series" / "threshold-0.03").exists():
            raise KeyboardInterrupt

    observer = Observer(interrupt_in_the_second_run)
    with pytest.raises(KeyboardInterrupt):
        run_wanted(tmp_path / "series", settings, Wanted("0.01,0.03,0.1"), observer)
    said = []
    again = run_wanted(
        tmp_path / "series", settings, Wanted("0.01,0.03,0.1"), Observer(tell=said.append)
    )
    assert [line.split(" ", 1)[1].split()[0] for line in said] == ["is", "resumes"]
    assert [r.circuit.to_json() for r in again] == [r.circuit.to_json() for r in whole]


def test_a_series_takes_more_thresholds_later_but_no_other_settings(settings, tmp_path):
    run_wanted(tmp_path, settings, Wanted("0.01,0.03"))
    run_wanted(tmp_path, settings, Wanted("0.03,0.1"))
    assert len(list(tmp_path.glob("threshold-*"))) == 3
    with pytest.raises(RunDirectoryError, match="other runs .n_prompts is 4 there and 5 here"):
        run_wanted(tmp_path, replace(settings, n_prompts=5), Wanted("0.5,0.6"))
    assert len(list(tmp_path.glob("threshold-*"))) == 3


def test_the_same_threshold_twice_is_one_run(settings, tmp_path):
    assert len(run_wanted(tmp_path, settings, Wanted("0.1,0.10,1e-1,0.2"))) == 2


def test_thresholds_that_agree_in_many_digits_are_two_runs(settings, tmp_path):
    assert len(run_wanted(tmp_path, settings, Wanted("0.0100001,0.01000012"))) == 2


def test_a_run_and_a_series_keep_out_of_each_others_directories(settings, tmp_path):
    run_wanted(tmp_path / "run", settings, Wanted("0.1"))
    run_wanted(tmp_path / "series", settings, Wanted("0.1,0.2"))
    with pytest.raises(RunDirectoryError, match="holds something else than runs with several"):
        run_wanted(tmp_path / "run", settings, Wanted("0.1,0.2"))
    with pytest.raises(RunDirectoryError, match="exists and holds no run"):
        run_wanted(tmp_path / "series", settings, Wanted("0.1"))


@pytest.mark.parametrize(
    "wanted", [Wanted(target_edges=12), Wanted(target_faithfulness=0.5)], ids=["edges", "share"]
)
def test_a_target_is_met_and_found_again_without_the_model(wanted, settings, tmp_path, monkeypatch):
    (best,) = run_wanted(tmp_path, settings, wanted)
    assert best.card.n_edges <= 12 if wanted.target_edges else True
    assert (best.card.measurements[0].faithfulness or 0) >= (wanted.target_faithfulness or -9)
    stored = json.loads((tmp_path / "thresholds.json").read_text())
    assert [row["run"] for row in stored["trials"] if row["best"]] == [best.path.name]
    assert stored["format"] == "circuitfind thresholds 1"

    def load(*arguments, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("circuitfind.question.load_model", load)
    (again,) = run_wanted(tmp_path, settings, wanted)
    assert again.path == best.path


def test_an_automatic_run_is_told_from_one_with_a_threshold_of_its_own(settings, tmp_path):
    run_wanted(tmp_path / "own", settings, Wanted("0.5"))
    with pytest.raises(RunDirectoryError, match=r"threshold is 0.5 there and 0\.\d+ here"):
        run_wanted(tmp_path / "own", settings, Wanted())
    (found,) = run_wanted(tmp_path / "auto", settings, Wanted("auto"))
    threshold = str(found.circuit.origin["options"]["threshold"])
    (again,) = run_wanted(tmp_path / "auto", settings, Wanted(threshold))
    assert again.circuit.to_json() == found.circuit.to_json()


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("random", Wanted(n_edges=12)),
        ("eap-ig", Wanted(n_edges=12)),
        ("eap-ig", Wanted(target_faithfulness=0.5)),
        ("exact", Wanted(target_faithfulness=0.5)),
    ],
)
def test_methods_that_rank_edges_are_one_run(method, wanted, settings, tmp_path):
    (found,) = run_wanted(tmp_path, replace(settings, method=method), wanted)
    assert found.path == tmp_path and found.card.n_edges > 0
    own = found.card.measurements[0].faithfulness
    assert found.card.n_edges <= 12 if wanted.n_edges else own >= 0.5
    assert found.search["drift"] is None


def test_several_thresholds_go_with_every_method(settings, tmp_path):
    config = replace(settings, method="exact")
    small, large = run_wanted(tmp_path, config, Wanted("0.1,0.001"))
    assert small.card.n_edges < large.card.n_edges


def test_learned_masks_need_no_wish(settings, tmp_path):
    config = replace(settings, method="edge-pruning", options={"steps": 20, "sparsity": 0.5})
    (found,) = run_wanted(tmp_path, config, Wanted())
    assert found.path == tmp_path


@pytest.mark.parametrize(
    ("method", "wanted", "line"),
    [
        ("eap", Wanted(), "needs --edges, --threshold or --target-faithfulness"),
        (
            "eap",
            Wanted(target_edges=9),
            "--target-edges is for methods that search with",
        ),
        ("hybrid", Wanted(n_edges=9), "with hybrid give --target-edges"),
    ],
)
def test_a_method_is_not_asked_for_what_it_cannot_do(method, wanted, line, settings, tmp_path):
    with pytest.raises(MethodError, match=line):
        run_wanted(tmp_path, replace(settings, method=method), wanted)
