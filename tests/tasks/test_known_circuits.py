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
    if roles := reference.get("roles"):
        assert {role: set(heads) for role, heads in known["heads"].items()} == {
            role: {ours(head) for head in heads} for role, heads in roles.items()
        }
    else:
        heads = {head for group in known["heads"].values() for head in group}
        assert heads == {ours(head) for head in reference["heads"]}
    assert known["model"] == reference["model"]
    assert known.get("edges") == reference.get("edges_in_acdc_reference")
    mlps = reference.get("mlps", [])
    expected = "all" if mlps == "all kept" else {f"m{layer}" for layer in mlps}
    shipped = known.get("mlps", ())
    assert (shipped if shipped == "all" else set(shipped)) == expected


def test_paths_between_roles_are_those_of_the_reference(published):
    """The others are those of the MLPs, of which the reference says that all are kept."""
    expected = {tuple(ours(part) for part in path) for path in published["ioi"]["paths"]}
    shipped = set(find_task("ioi").known_circuit["paths"])
    assert expected <= shipped
    assert all("mlps" in path or path[:2] == ("embed", "logits") for path in shipped - expected)


def test_connections_between_heads_are_those_of_the_reference(published):
    expected = {
        "->".join(ours(end) for end in edge.split("->")) for edge in published["docstring"]["edges"]
    }
    assert set(find_task("docstring").known_circuit["connections"]) == expected


def ours(name: str) -> str:
    """Return our name of a head (5.1, 5.1.q) or of an end of the graph; roles keep theirs."""
    named = {"input": "embed", "output": "logits"}.get(name, name)
    return re.sub(r"^(\d+)\.(\d+)", r"a\1.h\2", named)
