"""Notebooks are pages, they run, and what they store tells nothing of the machine."""

import re
import runpy
from html import unescape
from pathlib import Path

import pytest

import circuitfind as cf
from circuitfind.models.pretrained import PRETRAINED

ROOT = Path(__file__).parents[1]
NAMES = ("tour", "real-model", "two-models")
OF_THE_MACHINE = re.compile(r"/(?:home|root|tmp|work|usr|Users)/|[A-Z]:\\")


@pytest.fixture(scope="module")
def script():
    """The script that makes notebooks."""
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    return runpy.run_path(str(ROOT / "docs" / "notebook.py"))


@pytest.fixture
def made(script, name):
    """A notebook as the script makes it, before it is run."""
    assert set(script["PAGES"]) == set(NAMES)
    return script["notebook_of"](script["PAGES"][name].read_text("utf-8"))


def stored(name):
    return (ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8")


def sources_of(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_notebook_is_the_page_after_one_cell_of_set_up(made, name, script):
    import nbformat

    there = nbformat.reads(stored(name), as_version=4)
    nbformat.validate(there)
    assert sources_of(there) == sources_of(made)
    code = [source for kind, source in sources_of(made) if kind == "code"]
    assert code[0] == script["SETUP"]
    assert "%pip install" in code[0]
    assert len(code) > 4


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", ["tour", pytest.param("real-model", marks=pytest.mark.slow), "two-models"]
)
def test_every_cell_runs(made, name, script):
    if name == "real-model" and not PRETRAINED.find("smollm2").path.is_file():
        pytest.skip("the model smollm2 is not in the cache; `circuitfind models get smollm2`")
    script["run"](made)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {kind for cell in code for out in cell.outputs for kind in out.get("data", {})}
    assert "image/svg+xml" in kinds
    assert ("text/html" in kinds) == (name != "tour")


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_outputs_name_no_path_of_a_machine(name):
    text = stored(name)
    assert '"outputs"' in text
    assert not OF_THE_MACHINE.search(text)


def test_a_run_shows_its_report_in_a_frame_and_draws_its_circuit(tmp_path):
    config = cf.RunConfig("and-gate", "and-gate", "acdc", {"threshold": 0.01}, n_prompts=4)
    run = cf.run_discovery(tmp_path / "run", config)
    page = run.show(height=300)
    written = (tmp_path / "run/report.html").read_text()
    assert page.html == written
    frame = re.fullmatch(
        r'<iframe srcdoc="([^"]*)" [^>]*height="300"[^>]*></iframe>', page._repr_html_()
    )
    assert unescape(frame[1]) == written
    assert len(repr(page)) < 80
    assert run._repr_svg_() == run.circuit._repr_svg_()
