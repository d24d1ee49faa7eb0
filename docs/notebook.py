"""Turn pages of the documentation into notebooks, run them, and store what they printed.

    python docs/notebook.py [NAME ...]

Writes examples/NAME.ipynb, by default for all of `PAGES`. Needs the development extra; the notebook
of the real model needs `circuitfind models get smollm2`.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
PAGES = {
    "tour": DOCS / "tutorial.md",
    "real-model": DOCS / "notebooks" / "real-model.md",
    "two-models": DOCS / "notebooks" / "two-models.md",
}
SETUP = """\
# Where circuitfind is not installed, as in Colab, this installs it.
from importlib.util import find_spec

if find_spec("circuitfind") is None:
    %pip install --quiet "circuitfind[gguf,tables]\""""
_MOST_STORED = 500_000
"""Characters of an output that is stored."""

_BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)
_LINK = re.compile(r"\]\((?!https?:|#)(?:\.\./)?([^)]+)\)")


def main() -> None:
    """Make the notebooks, run them and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(PAGES), help=", ".join(PAGES))
    for name in parser.parse_args().names:
        notebook = notebook_of(PAGES[name].read_text(encoding="utf-8"))
        run(notebook)
        nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")


def notebook_of(page: str) -> nbformat.NotebookNode:
    """Return a page as cells: its Python blocks as code, all else as text, after the set-up."""
    text = page.replace("<!-- run -->\n", "").replace("# Tutorial", "# A tour of circuitfind", 1)
    text = _LINK.sub(r"](../docs/\1)", text)
    text = text.replace(", and `examples/tour.ipynb` is this page as a notebook", "")
    cells = []

    def add(kind: str, content: str) -> None:
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        if content.strip():
            # Ids are random by default, and the file would change with every run.
            cells.append(make(content.strip(), id=f"cell-{len(cells)}"))

    for index, part in enumerate(_BLOCK.split(text)):
        if index == 1:
            add("code", SETUP)
        add("code" if index % 2 else "text", part)
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )


def run(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in an empty directory and keep what they print."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": folder}},
            record_timing=False,
            store_widget_state=False,
        )
        client.execute(env={**os.environ, "HF_HUB_OFFLINE": "1"})
    for cell in notebook.cells:
        # Warnings of libraries name files of this machine, and a whole page has megabytes.
        cell.get("outputs", [])[:] = [
            output
            for output in cell.get("outputs", [])
            if output.get("name") != "stderr" and len(str(output)) < _MOST_STORED
        ]


if __name__ == "__main__":
    main()
