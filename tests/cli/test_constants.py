"""Constants of a circuit: trained by `evaluate`, and carried by cut edges of another search."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import circuitfind as cf

IOI = ("discover", "ioi", "--model", "ioi-small", "--prompts", 8, "--threshold", 0.1)
KL = (*IOI, "--metric", "kl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose circuit has constants, and what the evaluation said."""
    from tests.cli.conftest import call

    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert call(*KL, "--out", "run") == 0
        assert call("evaluate", "run", "--quick", "--constants") == 0
    return place


@pytest.fixture
def here(cli, trained, tmp_path):
    """The same in the directory of a test."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path


def test_the_table_has_a_row_for_each_ablation_and_the_file_what_was_trained(cli, here):
    answer = cli("evaluate", "run", "--quick", "--constants", "--json")
    assert answer.code == 0 and "its results are read" in answer.err
    rows = {row["ablation"]: row for row in answer.json["divergences"]}
    assert list(rows) == ["resample", "zero", "mean-over-positions", "learned, refit"]
    assert rows["learned, refit"]["discovery"] < 0.5 * rows["resample"]["discovery"]
    assert all(row["held_out"] > 0 for row in rows.values())
    # Without another --out, the file can be given to the next search.
    file = "run/constants.safetensors"
    table = cli("evaluate", "run", "--quick", "--constants")
    assert f"{file}\n" in table.out and "KL, learned, refit ablation" in table.out
    shapes = {name: list(values.shape) for name, values in load_file(here / file).items()}
    assert shapes["a0"] == [4, 1, 16] and shapes["m1"] == [1, 1, 64]
    # The same from Python.
    found = cf.discover(
        cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=8, metric="kl"), threshold=0.1
    )
    constants = cf.learned_constants(found).constants
    for name, values in load_file(here / file).items():
        torch.testing.assert_close(constants[name][:, 0], values, rtol=0, atol=1e-4)


def test_a_search_with_the_constants_measures_its_circuit_with_them(cli, here):
    file = "run/constants.safetensors"
    assert cli(*KL, "--ablation", file, "--out", "again").code == 0
    config = json.loads((here / "again/config.json").read_text())
    assert config["ablation"] == str(here / file)
    circuit = cf.load_circuit(here / "again/circuit.json")
    card = json.loads((here / "again/scorecard.json").read_text())
    problem = cf.make_problem(
        cf.load_model("ioi-small"), "ioi", n_prompts=8, metric="kl", ablation=str(here / file)
    )
    expected = cf.scorecard(problem, circuit)
    measured = card["scorecard"]["measurements"][0]
    assert measured["metric"] == "kl"
    assert measured["circuit"] == pytest.approx(expected.measurements[0].circuit)
    # Evaluated and repeated, it is the same question; with another file it is not.
    assert "is finished" in cli(*KL, "--ablation", file, "--out", "again").err
    evaluated = cli("evaluate", "again", "--quick", "--json").json
    assert evaluated["ablation"] == "learned"
    assert ", learned ablation" in (here / "again/diagram.svg").read_text()
    # Moved, it can be given anew; edited, it is another question.
    shutil.copy(here / file, here / "moved.safetensors")
    (here / file).unlink()
    moved = cli("evaluate", "again", "--quick", "--ablation", "moved.safetensors", "--json")
    assert moved.json["readings"] == evaluated["readings"]
    tensors = load_file(here / "moved.safetensors")
    save_file({name: 0.5 * values for name, values in tensors.items()}, here / file)
    answer = cli("evaluate", "again", "--full")
    assert answer.code == 2 and "the constants of " in answer.err
    answer = cli(*KL, "--ablation", file, "--out", "again")
    assert answer.code == 2 and "the file of constants has changed since" in answer.err


def test_constants_that_are_there_are_read_and_lost_ones_said_to_be_gone(cli, here):
    file = here / "run/constants.safetensors"
    before = load_file(file)
    answer = cli("evaluate", "run", "--constants")
    assert answer.code == 0 and "are read, not trained again" in answer.err
    assert all(values.equal(before[name]) for name, values in load_file(file).items())
    file.unlink()
    answer = cli("evaluate", "run", "--quick", "--constants")
    assert answer.code == 0 and "is gone; give another --out" in answer.err
    assert "constants.safetensors" not in answer.out


def test_a_circuit_with_neurons_is_measured_with_its_constants(cli, here):
    units = (*KL, "--neurons", "1", "--shortlist", 6, "--out", "units")
    assert cli(*units).code == 0
    assert cli("evaluate", "units", "--quick", "--constants").code == 0
    file = "units/constants.safetensors"
    own = {
        row["ablation"]: row
        for row in json.loads((here / "units/evaluation.json").read_text())["evaluation"][
            "divergences"
        ]
    }
    found = cli("evaluate", "units", "--quick", "--ablation", file, "--json").json
    measured = found["readings"][0]["measured"]
    assert measured["metric"] == "kl"
    assert measured["circuit"] == pytest.approx(own["learned, refit"]["discovery"], rel=1e-4)
    assert cli("evaluate", "units", "--quick", "--ablation", "zero").code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("m1"), "the tensor m1 is missing"),
        (lambda t: t.update(m9=t["m1"].clone()), "it holds m9, which does not belong there"),
        (lambda t: t.update(a0=t["a0"][1:]), r"a0 has the shape \[3, 1, 16\]"),
        (lambda t: t["a0"].fill_(torch.nan), "a0 holds numbers that are not finite"),
    ],
)
def test_a_file_of_another_graph_is_refused(cli, complaint, here, change, said):
    file = here / "run/constants.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    complaint(cli(*KL, "--ablation", file), said)


def test_what_is_no_file_of_constants_is_refused(cli, complaint, here):
    complaint(cli(*IOI, "--ablation", "none.safetensors"), "there is no file 'none.safetensors'")
    (here / "text.safetensors").write_text("hello")
    complaint(cli(*IOI, "--ablation", "text.safetensors"), "cannot be used")
    file = "run/constants.safetensors"
    complaint(cli(*IOI, "--ablation", file, "--neurons", "1"), "neurons or latents would be chosen")
    complaint(cli(*IOI, "--ablation", "run"), "is a directory; give the file of constants in it")
