"""A run whose model was given in Python and has no name that can be loaded."""

import pytest
import transformers

from circuitfind.directories.comparison import ComparisonConfig
from circuitfind.directories.config import RunConfig
from circuitfind.errors import MethodError, ModelError, RunDirectoryError
from circuitfind.evaluation.assess import QUICK
from circuitfind.models.loading import load_model
from circuitfind.models.zoo import zoo_path
from circuitfind.verbs.compare import compare_files
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.evaluate import Wish, evaluate_run
from circuitfind.verbs.report import write_report
from circuitfind.verbs.roles import roles_of
from circuitfind.verbs.stability import repeat_run

NAME = "my-model"


def theirs():
    """A Hugging Face model and its tokenizer, as a user has loaded them."""
    path = zoo_path("ioi-small")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    return transformers.AutoModelForCausalLM.from_pretrained(path), tokenizer


@pytest.fixture(scope="module")
def given():
    network, tokenizer = theirs()
    return load_model(network, tokenizer=tokenizer)


@pytest.fixture
def run(given, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    config = RunConfig("ioi", NAME, "eap", {"n_edges": 20}, metric="logit-difference", n_prompts=3)
    return run_discovery(tmp_path / "run", config, model=given).path


def test_every_function_of_a_run_takes_its_model(given, run):
    assert evaluate_run(run, Wish(QUICK), model=given).assessment.n_edges <= 20
    assert roles_of(run, model=given)[1]
    assert repeat_run(run, n=1, varied=["resamples"], model=given).stability.n_runs == 2
    said = []
    assert '"attention"' in write_report(run, model=given, tell=said.append).read_text("utf-8")
    assert not said


@pytest.mark.parametrize("by_name", [True, False])
def test_a_comparison_takes_the_models_of_its_runs(given, run, tmp_path, by_name):
    config = RunConfig(
        "pronoun", NAME, "eap", {"n_edges": 20}, metric="logit-difference", n_prompts=3
    )
    other = run_discovery(tmp_path / "other", config, model=given).path
    model = {NAME: given} if by_name else given
    found, _ = compare_files([run, other], tmp_path / "compared", ComparisonConfig(), model=model)
    assert all(side.roles is not None for side in found.circuits)
    assert found.pairs[0].transfers
    with pytest.raises(ModelError, match=r"give it again \(model=...\)"):
        compare_files([run, other], tmp_path / "not", ComparisonConfig(), model={"else": given})


def test_without_its_model_it_is_said_how_the_model_is_given_or_named(run):
    told = rf"if '{NAME}' is a model that was given in Python, give it again \(model=...\), or save"
    for ask in (lambda: evaluate_run(run, Wish(QUICK)), lambda: roles_of(run)):
        with pytest.raises(ModelError, match=told) as caught:
            ask()
        assert "\n" not in str(caught.value)
    said = []
    write_report(run, tell=said.append)
    assert len(said) == 1 and "give it again" in said[0]


def test_a_misspelt_setting_of_a_wish_is_refused_with_those_that_there_are(run):
    with pytest.raises(MethodError, match=r"no setting 'n_promts'; its settings are task, model"):
        evaluate_run(run, Wish(QUICK, settings=(("n_promts", 3),)))


def test_saved_as_a_directory_of_its_name_the_model_is_found(run, tmp_path):
    network, tokenizer = theirs()
    network.save_pretrained(tmp_path / NAME)
    tokenizer.save_pretrained(tmp_path / NAME)
    assert roles_of(run)[1]
    assert evaluate_run(run, Wish(QUICK)).assessment.n_edges <= 20


def test_a_model_that_is_not_the_runs_is_refused(run):
    other = load_model("gpt-4l")
    with pytest.raises(RunDirectoryError, match="the model of the circuit in .* changed since"):
        roles_of(run, model=other)
    with pytest.raises(RunDirectoryError, match="the model of the circuit in .* changed since"):
        repeat_run(run, n=1, varied=["resamples"], model=other)
