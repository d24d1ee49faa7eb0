"""The notebook is the tutorial, it runs, and what it stores tells nothing of the machine."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
OF_THE_MACHINE = re.compile(r"/(?:home|root|tmp|work|usr|Users)/|[A-Z]:\\")


@pytest.fixture(scope="module")
def made():
    """The notebook as the script makes it from the tutorial, before it is run."""
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    script = runpy.run_path(str(ROOT / "docs" / "notebook.py"))
    return script, script["notebook_of"]((ROOT / "docs" / "tutorial.md").read_text("utf-8"))


def sources_of(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_the_stored_notebook_is_the_tutorial(made):
    import nbformat

    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    assert sources_of(stored) == sources_of(made[1])


@pytest.mark.filterwarnings("default")
def test_every_cell_runs(made):
    script, notebook = made
    script["run"](notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("image/svg+xml" in out.get("data", {}) for cell in code for out in cell.outputs)


def test_the_stored_outputs_name_no_path_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs"' in text
    assert not OF_THE_MACHINE.search(text)
