"""What the package offers, and how large its files are."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import circuitfind

PACKAGE = Path(circuitfind.__file__).parent
MAX_LINES = 300
LONGER = {
    "engine/incremental.py": "one engine: its states, cuts and tests",
    "methods/acdc.py": "one search: its options, its steps, and how a resumed one repeats them",
    "engine/trial.py": "one walk of a change through the blocks",
    "evaluation/assess.py": "one evaluation: its parts in their order, and what they cost",
    "prompts.py": "one type, and the one function that makes it of pairs",
    "metrics.py": "one type, its table, and the scale of faithfulness",
    "circuit.py": "circuits, their files, and the scores that circuits are chosen by",
    "graph.py": "one type and its views; splitting it would part edges from their names",
    "models/compiled_files.py": "one format: reading it, writing it, and what is refused",
    "models/compiled_sizes.py": "every size that a compiled model's file can get wrong",
    "question.py": "a question, its problem, its model, and whether they are still the same",
    "models/base.py": "one protocol, and the defaults of those who keep it",
    "models/transformer_lens.py": "one adapter: all that the engine asks of a model",
    "models/loading.py": "every way to name a model, and a sentence for each that leads to none",
    "models/attention.py": "two ways to the same numbers, and the comparison that chooses",
}
"""Files of more than 300 lines, and why."""


def test_public_names_are_sorted_and_once_each():
    assert circuitfind.__all__ == sorted(set(circuitfind.__all__))


@pytest.mark.parametrize("name", circuitfind.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name):
    value = getattr(circuitfind, name)
    assert name in dir(circuitfind)
    assert isinstance(value, tuple) or (value.__doc__ or "").strip()


def test_the_names_that_type_checkers_see_are_the_public_ones():
    source = (PACKAGE / "__init__.py").read_text()
    imported = [line.split(" as ")[-1] for line in source.splitlines() if " as " in line]
    assert sorted(name for name in imported if name in circuitfind.__all__) == circuitfind.__all__


def test_another_name_is_missing_in_the_usual_way():
    with pytest.raises(AttributeError, match="module 'circuitfind' has no attribute 'nothing'"):
        _ = circuitfind.nothing


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import circuitfind, sys;"
        "print([m for m in ('torch', 'transformers', 'networkx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_is_long_without_a_reason():
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name for name, n in lines.items() if n > MAX_LINES} == set(LONGER)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_module_says_what_it_is_for(path):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    module = importlib.import_module(name.removesuffix(".__init__"))
    assert (module.__doc__ or "").strip()
