"""Extensions from outside the package: added by a program, or offered by an installed package."""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.ablations import ABLATIONS, RESAMPLE
from circuitfind.dictionaries.loading import FORMATS
from circuitfind.errors import MethodError, MetricError, ModelError, TaskError
from circuitfind.methods import METHODS
from circuitfind.metrics import KL, METRICS
from circuitfind.models.loading import load_model, load_vocabulary
from circuitfind.models.sources import MODEL_SOURCES, ModelSource
from circuitfind.tasks import TASKS
from tests.cli.conftest import cli  # noqa: F401  (a fixture)

TABLES = (ABLATIONS, FORMATS, METHODS, METRICS, MODEL_SOURCES, TASKS)

OUTSIDE = '''
"""Everything that a package can add, each under its own name."""

import torch

import circuitfind as cf
from circuitfind.ablations import Ablation, clean, corrupted
from circuitfind.dictionaries.base import DictionaryFormat
from circuitfind.methods.acdc import Acdc
from circuitfind.methods.random_scores import Random
from circuitfind.models.loading import load_model, load_vocabulary
from circuitfind.models.sources import ModelSource


def write(vocabulary, n, seed):
    pairs = cf.find_task("ioi").write(vocabulary, n, seed)
    return [pair for pair in pairs]


def confidence(logits, prompts, full):
    chosen = logits.softmax(-1).gather(-1, prompts.answers[:, :, :1])
    return chosen[:, 0, 0]


class Same(Acdc):
    """ACDC under another name."""

    name = "same"


class Lots(Random):
    """Random scores under another name."""

    name = "lots"


SAME, LOTS = Same(), Lots()
HALFWAY = Ablation("halfway", ((0.5, clean), (0.5, corrupted)), summary="the mean of the two runs")
CONFIDENCE = cf.Metric("confidence", "probability", "higher", confidence, needs="right")
NAMES = cf.Task("names", "says the other name", "a test", metric="confidence", write=write)
LISTS = DictionaryFormat("lists", "lists (one.lists)", "*.lists", lambda folder: ())
SHELF = ModelSource(
    "shelf",
    lambda what, *, dtype, device: load_model(what, dtype=dtype, device=device),
    load_vocabulary,
    summary="embedded models under another name",
)
'''
POINTS = """
[circuitfind.ablations]
halfway = outside_package:HALFWAY
[circuitfind.methods]
same = outside_package:SAME
lots = outside_package:LOTS
[circuitfind.metrics]
confidence = outside_package:CONFIDENCE
[circuitfind.tasks]
names = outside_package:NAMES
[circuitfind.dictionary_formats]
lists = outside_package:LISTS
[circuitfind.models]
shelf = outside_package:SHELF
"""


@pytest.fixture(autouse=True)
def _tables_as_before(monkeypatch):
    for table in TABLES:
        monkeypatch.setattr(table, "_entries", dict(table._entries))


@pytest.fixture
def installed(tmp_path_factory, monkeypatch):
    """Install a package by what a package manager leaves in `site-packages`."""

    def install(points: str, code: str = OUTSIDE) -> None:
        place = tmp_path_factory.mktemp("site-packages")
        (place / "outside_package.py").write_text(code)
        facts = place / "outside_package-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n"
        )
        (facts / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(place)
        monkeypatch.delitem(__import__("sys").modules, "outside_package", raising=False)

    return install


def test_what_an_installed_package_offers_works_from_the_command_line(cli, installed):  # noqa: F811
    installed(POINTS)
    run = cli(
        "discover", "names", "--model", "shelf:ioi-small", "--ablation", "halfway", "--prompts", 8,
        "--method", "same", "--threshold", 0.05, "--out", "run",
    )  # fmt: skip
    assert (run.code, run.err.count("Traceback")) == (0, 0), run.err
    circuit = cf.load_circuit("run/circuit.json")
    named = ("task", "model", "method", "metric", "ablation")
    said = {name: circuit.origin[name] for name in named}
    assert said == {
        "task": "names", "model": "shelf:ioi-small", "method": "same", "metric": "confidence",
        "ablation": "halfway",
    }  # fmt: skip
    problem = cf.make_problem(
        load_model("ioi-small"), "ioi", n_prompts=8, metric="confidence", ablation="halfway"
    )
    alike = cf.discover(problem, threshold=0.05).circuit
    assert alike.edges == circuit.edges
    assert cli("evaluate", "run", "--quick").code == 0
    drawn = cli("discover", "names", "--model", "ioi-small", "--method", "lots", "--edges", 9,
                "--prompts", 4, "--out", "drawn")  # fmt: skip
    assert drawn.code == 0, drawn.err
    assert cf.load_circuit("drawn/circuit.json").origin["method"] == "lots"
    for table, name in (
        ("metrics", "confidence"),
        ("tasks", "names"),
        ("methods", "same"),
        ("models", "shelf:..."),
    ):
        assert name in [row["name"] for row in cli(table, "--json").json]
    assert "lists" in [known.name for known in FORMATS]


def test_what_a_program_adds_works_by_name():
    half = ABLATIONS.add(replace(RESAMPLE, name="half", runs=((0.5, RESAMPLE.runs[0][1]),)))
    rival = METRICS.add(replace(cf.find_metric("logit-difference"), name="rival"))
    TASKS.add(replace(cf.find_task("ioi"), name="other-names"))
    MODEL_SOURCES.add(ModelSource("mine", lambda what, **_: load_model(what), load_vocabulary))
    model = load_model("mine:ioi-small")
    assert model.fingerprint == load_model("ioi-small").fingerprint
    assert load_vocabulary("mine:ioi-small") is not None
    problem = cf.make_problem(model, "other-names", n_prompts=4, metric="rival", ablation="half")
    assert (problem.metric, problem.ablation) == (rival, half)


@pytest.mark.parametrize("name", ["kl", "divergence"])
def test_a_metric_without_slope_at_the_full_model_is_refused_under_any_name(name):
    if name != "kl":
        METRICS.add(replace(KL, name=name))
    problem = cf.make_problem(load_model("and-gate"), "and-gate", metric=name)
    with pytest.raises(MethodError, match=f"gradient of '{name}' is zero at the clean point"):
        cf.discover(problem, "eap", n_edges=3)
    with pytest.raises(MethodError, match=f"'{name}' has no slope on the clean run"):
        cf.linearised_edges(problem)


def test_names_are_taken_once_and_entries_are_of_the_tables_kind():
    with pytest.raises(MethodError, match="there is another ablation named 'resample'; choose"):
        ABLATIONS.add(replace(RESAMPLE))
    with pytest.raises(TaskError, match="is not a task; give one"):
        TASKS.add(KL)


def test_a_package_that_cannot_be_loaded_is_one_line_and_harms_no_other_name(cli, installed):  # noqa: F811
    installed(POINTS, "import a_module_that_nobody_has")
    assert ABLATIONS.find("zero").name == "zero"
    with pytest.raises(
        MetricError, match="metric 'confidence' of outside-package cannot be loaded"
    ):
        cf.find_metric("confidence")
    listed = cli("metrics")
    assert (listed.code, listed.err.count("\n")) == (0, 1)
    assert listed.err.startswith("warning: the metric 'confidence' of outside-package cannot be")
    assert "a_module_that_nobody_has" in listed.err
    assert "logit-difference" in listed.out


def test_an_entry_of_another_name_or_kind_is_refused(installed):
    installed(
        "[circuitfind.metrics]\nhalfway = outside_package:HALFWAY\n"
        "other = outside_package:CONFIDENCE\n"
    )
    for name in ("halfway", "other"):
        with pytest.raises(
            MetricError, match=f"is not a metric named '{name}'; update the package"
        ):
            cf.find_metric(name)


def test_a_source_that_returns_no_model_is_refused():
    MODEL_SOURCES.add(ModelSource("empty", lambda what, **_: torch.zeros(1), lambda what: None))
    with pytest.raises(
        ModelError, match="'empty:x' is loaded as 'Tensor', which has not all parts"
    ):
        load_model("empty:x")
