"""One idea, one mechanism: what must exist in one place of the package exists in one place."""

import ast
import re
from pathlib import Path

import grimp
import networkx as nx
import pytest

import circuitfind

PACKAGE = Path(circuitfind.__file__).parent

ONE_PLACE = {
    "JSON is parsed": (r"json\.loads?\(", {"records.py", "models/fetch.py", "models/hub.py"}),
    "files are opened": (r"\bos\.open\((?!os\.devnull)|\.open\([\"']", {"files.py", "store.py"}),
    "a directory is locked": (r"fcntl", {"store.py"}),
    "a command works in a directory": (
        r"\bat_work\(",
        {"store.py", "directories/work.py", "sweeps/journal.py"},
    ),
    "a directory of something else is refused": (
        r"\.differences\(there\)",
        {"directories/work.py"},
    ),
    "ablations are defined": (r"\bAblation\(\s*[\"']", {"ablations.py"}),
    "a problem is put together": (r"(?<!Has)\bProblem\(", {"problem.py"}),
    "decisions are logged": (r"\bDecisionLog\(", {"directories/decisions.py"}),
}
"""Patterns, and the files that may hold them. The fetching process and its watcher talk in JSON and
import nothing of the package, so that the process starts at once."""

SIZES = {
    "layers", "n_layers", "n_kv_heads", "heads_per_kv_head", "has_mlp", "parallel_mlp",
    "heads_share_norm", "grouped",
}  # fmt: skip
"""Fields of a model's shape that say what its layers hold. Others ask the graph for its blocks."""

KNOW_LAYERS = {
    "shape.py", "granularity.py", "graph.py",
    # An estimate of memory, the products of weights, the groups of keys, a block by its number.
    "engine/memory.py", "engine/virtual_weights.py", "engine/patterns.py", "engine/direction.py",
    "engine/inspection.py",
}  # fmt: skip
"""Files that ask for these fields, besides those of `models/`."""

KNOWN_CIRCLES = {
    # Circuits draw themselves in notebooks.
    frozenset(
        {
            "circuit",
            "reports.boxes",
            "comparison.common_graph",
            "reports.diagram",
            "reports.strokes",
            "reports.sides",
        }
    ),
}


@pytest.mark.parametrize("idea", ONE_PLACE)
def test_an_idea_has_one_place(idea):
    pattern, allowed = ONE_PLACE[idea]
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }
    assert found == allowed


def test_only_the_graph_and_the_models_know_what_layers_hold():
    asked = {
        name
        for name, node in _nodes()
        if isinstance(node, ast.Attribute)
        and node.attr in SIZES
        and ast.unparse(node.value).rpartition(".")[2] in ("shape", "_shape", "sizes", "layer")
    }
    assert {name for name in asked if not name.startswith("models/")} == KNOW_LAYERS


def test_names_of_heads_are_put_together_in_one_place():
    """What builds graphs writes `a{layer}.h{head}`; kind, layer and index are fields elsewhere."""
    found = {
        name
        for name, node in _nodes()
        if isinstance(node, ast.JoinedStr)
        and re.search(r"[\"'][am]\{|\.(h|kv)\{", ast.unparse(node))
    }
    assert found == {"granularity.py"}


def _nodes():
    """Yield every node of the package's syntax trees, with the name of its file."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield str(path.relative_to(PACKAGE)), node


def test_every_engine_that_a_command_builds_is_told_what_it_may_take():
    for path in [*PACKAGE.glob("verbs/*.py"), *PACKAGE.glob("patching/*.py"), PACKAGE / "api.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "IncrementalEngine":
                assert len(node.args) == 2, f"{path.name}:{node.lineno} gives no memory"


def test_modules_do_not_import_each_other_in_circles():
    """Imports inside functions and for type checkers count too."""
    graph = grimp.build_graph("circuitfind", exclude_type_checking_imports=False)
    imports = nx.DiGraph(
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    )
    circles = {
        frozenset(name.removeprefix("circuitfind.") for name in names)
        for names in nx.strongly_connected_components(imports)
        if len(names) > 1
    }
    assert circles == KNOWN_CIRCLES
