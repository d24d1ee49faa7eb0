"""Records are read back as they were written, and only as what they are declared to be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from circuitfind.errors import NewerFileError
from circuitfind.records import as_json, body_of, from_json


@dataclass(frozen=True)
class Inner:
    share: float
    kind: Literal["edge", "head"]
    more: Mapping[str, float]


@dataclass(frozen=True)
class Outer:
    names: tuple[str, ...]
    ends: tuple[float, float] | None
    inner: tuple[Inner, ...]
    anything: Any
    note: str = ""


WHOLE = Outer(("a", "b"), (0.5, 1.0), (Inner(0.25, "head", {"x": 2.0}),), {"y": [1]}, "n")
BARE = Outer((), None, (), None)


@pytest.mark.parametrize("record", [WHOLE, BARE])
def test_a_record_is_read_back_as_it_was_written(record):
    assert from_json(Outer, as_json(record)) == record


def test_numbers_that_json_does_not_know_become_none():
    assert as_json(Inner(math.inf, "edge", {"x": math.nan})) == {
        "share": None, "kind": "edge", "more": {"x": None},
    }  # fmt: skip


def test_fields_with_a_default_may_be_missing():
    plain = as_json(BARE)
    del plain["note"]
    assert from_json(Outer, plain) == BARE


def test_fields_that_a_newer_version_added_are_passed_over():
    plain = as_json(WHOLE)
    plain["newer"] = [1]
    plain["inner"][0]["newer"] = {"a": 1}
    assert from_json(Outer, plain) == WHOLE


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_versions_of_a_format_are_read(version):
    content = {"format": f"circuitfind thing {version}", "a": 1}
    assert body_of(content, "circuitfind thing 2", "file") == {"a": 1}


def test_a_format_may_be_missing_only_where_the_first_version_had_none():
    assert body_of({"a": 1}, "circuitfind thing 2", "file", optional=True) == {"a": 1}
    with pytest.raises(ValueError, match="it has no format"):
        body_of({"a": 1}, "circuitfind thing 2", "file")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("circuitfind other 1", "is 'circuitfind other 1', not 'circuitfind thing 2'"),
        ("circuitfind thing two", "not 'circuitfind thing 2'"),
        ("circuitfind thing \u0662", "not 'circuitfind thing 2'"),
        (2, "its format is 2, not"),
    ],
)
def test_another_format_is_refused(found, said):
    with pytest.raises(ValueError, match=said):
        body_of({"format": found}, "circuitfind thing 2", "file", optional=True)


@pytest.mark.parametrize("version", ["3", "10", "9" * 5000])
def test_a_newer_format_is_told_from_a_damaged_file(version):
    said = "^a.json was written by a newer version .*reads up to 'circuitfind thing 2'.; update ci"
    with pytest.raises(NewerFileError, match=said):
        body_of({"format": f"circuitfind thing {version}"}, "circuitfind thing 2", "a.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("names"), "it lacks the field 'names'"),
        (lambda c: c.update(names="ab"), "it.names is not a list"),
        (lambda c: c.update(names=[1]), r"it.names\[0\] is 1, not of type str"),
        (lambda c: c.update(ends=[1.0]), "it.ends holds 1 values, not 2"),
        (lambda c: c.update(inner=[3]), r"it.inner\[0\] is not an object"),
        (lambda c: c["inner"][0].update(share=True), "share is True, not of type float"),
        (lambda c: c["inner"][0].update(share=10**400), "share is too large"),
        (lambda c: c["inner"][0].update(kind="mlp"), "kind is 'mlp', none of 'edge', 'head'"),
        (lambda c: c["inner"][0].update(more=[1]), "more is not an object"),
        (lambda c: c["inner"][0]["more"].update(x="1"), "more.x is '1', not of type float"),
    ],
)
def test_what_is_of_another_type_is_refused_with_its_place(change, said):
    plain = as_json(WHOLE)
    change(plain)
    with pytest.raises(ValueError, match=said):
        from_json(Outer, plain)
