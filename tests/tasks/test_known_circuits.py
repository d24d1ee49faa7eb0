"""Published circuits are shipped as they were published."""

import json
import re

import pytest

from circuitfind.tasks import find_task

REFERENCE = {
    "ioi": "ioi",
    "greater-than": "greater-than",
    "docstring": "docstring",
    "pronoun": "gendered-pronoun",
}
"""What the reference calls the circuit of a task."""


@pytest.fixture(scope="module")
def published(shared):
    return json.loads((shared / "reference" / "known_circuits.json").read_text())


@pytest.mark.parametrize("name", REFERENCE)
def test_heads_mlps_and_size_are_those_of_the_reference(name, published):
    known, reference = find_task(name).known_circuit, published[REFERENCE[name]]
    if "roles" in reference:
        assert {role: set(heads) for role, heads in known["heads"].items()} == {
            role: set(map(ours, heads)) for role, heads in reference["roles"].items()
        }
    else:
        shown = [head for heads in known["heads"].values() for head in heads]
        assert sorted(shown) == sorted(map(ours, reference["heads"]))
    assert known["model"] == reference["model"]
    assert known.get("edges") == reference.get("edges_in_acdc_reference")
    mlps = reference.get("mlps", [])
    expected = "all" if mlps == "all kept" else {f"m{layer}" for layer in mlps}
    shipped = known.get("mlps", ())
    assert (shipped if shipped == "all" else set(shipped)) == expected


def test_paths_between_roles_are_those_of_the_reference(published):
    """Besides them there are those from and to MLPs, and past everything, which are always kept."""
    expected = {tuple(ours(part) for part in path) for path in published["ioi"]["paths"]}
    paths = find_task("ioi").known_circuit["paths"]
    between = {path for path in paths if "mlps" not in path and path[1:] != ("logits", "")}
    to_logits = {path for path in paths if path[1:] == ("logits", "")}
    assert between | to_logits - {("embed", "logits", ""), ("mlps", "logits", "")} == expected


def test_connections_between_heads_are_those_of_the_reference(published):
    expected = {
        "->".join(ours(end) for end in edge.split("->")) for edge in published["docstring"]["edges"]
    }
    assert set(find_task("docstring").known_circuit["connections"]) == expected


def ours(name: str) -> str:
    """Return our name of a head (5.1, 5.1.q) or of an end of the graph; roles keep theirs."""
    named = {"input": "embed", "output": "logits"}.get(name, name)
    return re.sub(r"^(\d+)\.(\d+)", r"a\1.h\2", named)
