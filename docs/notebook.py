"""Turn the tutorial into a notebook, run it, and store what it printed.

    python docs/notebook.py

Writes examples/tour.ipynb. Needs the development extra.
"""

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parent
TUTORIAL, NOTEBOOK = DOCS / "tutorial.md", DOCS.parent / "examples" / "tour.ipynb"
_BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)
_LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")


def main() -> None:
    """Make the notebook, run it and write it."""
    notebook = notebook_of(TUTORIAL.read_text(encoding="utf-8"))
    run(notebook)
    nbformat.write(notebook, NOTEBOOK)


def notebook_of(tutorial: str) -> nbformat.NotebookNode:
    """Return the tutorial as cells: its Python blocks as code, all else as text."""
    text = tutorial.replace("<!-- run -->\n", "").replace(
        "# Tutorial", "# A tour of circuitfind", 1
    )
    text = _LINK.sub(r"](../docs/\1)", text)
    text = text.replace(", and `examples/tour.ipynb` is this page as a notebook", "")
    parts = _BLOCK.split(text)
    cells = []
    for index, part in enumerate(parts):
        make = nbformat.v4.new_code_cell if index % 2 else nbformat.v4.new_markdown_cell
        if part.strip():
            # Ids are random by default, and the file would change with every run.
            cells.append(make(part.strip(), id=f"cell-{len(cells)}"))
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )


def run(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in an empty directory and keep what they print."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": folder}},
            record_timing=False,
            store_widget_state=False,
        )
        client.execute()
    for cell in notebook.cells:
        # Warnings of libraries name files of this machine.
        cell.get("outputs", [])[:] = [
            output for output in cell.get("outputs", []) if output.get("name") != "stderr"
        ]


if __name__ == "__main__":
    main()
