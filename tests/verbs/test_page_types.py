"""The page's data has every key and type that `web/src/data.ts` reads, and no others."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.work import read_config
from circuitfind.evaluation.assess import USUAL
from circuitfind.evaluation.unit_uses import unit_uses
from circuitfind.models.loading import load_model
from circuitfind.reports.page.attention import KINDS
from circuitfind.reports.page.drawing import REASONS
from circuitfind.reports.page.html import VERSION
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.evaluate import Wish, evaluate_run
from circuitfind.verbs.report import write_report

SOURCE = (Path(__file__).parents[2] / "web" / "src" / "data.ts").read_text(encoding="utf-8")
TOKEN = re.compile(r'"[^"]*"|\d+|\w+|[{}\[\]<>()|,;:?]')
PRIMITIVES = {"number": (int, float), "string": (str,), "boolean": (bool,), "unknown": (object,)}


class Reader:
    """Reads the types of a TypeScript file, as far as JSON needs them."""

    def __init__(self, text: str) -> None:
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
        self.named: dict[str, Any] = {}
        for name, body in re.findall(r"^(?:export )?interface (\w+) (\{.*?^\})", code, re.S | re.M):
            self.named[name] = self.parsed(body)
        for name, body in re.findall(r"^(?:export )?type (\w+) = (.*?);$", code, re.S | re.M):
            self.named[name] = self.parsed(body)

    def parsed(self, text: str) -> Any:
        self.tokens = TOKEN.findall(text)
        return self.union()

    def take(self, *wanted: str) -> bool:
        if self.tokens and self.tokens[0] in wanted:
            self.tokens.pop(0)
            return True
        return False

    def union(self) -> Any:
        self.take("|")
        options = [self.array()]
        while self.take("|"):
            options.append(self.array())
        return options[0] if len(options) == 1 else ("union", options)

    def array(self) -> Any:
        found = self.single()
        while self.tokens[:2] == ["[", "]"]:
            del self.tokens[:2]
            found = ("array", found)
        return found

    def listed(self, end: str) -> Iterator[Any]:
        while not self.take(end):
            item = self.union()
            yield ("optional", item) if self.take("?") else item
            self.take(",")

    def single(self) -> Any:
        if self.take("("):
            (inner,) = self.listed(")")
            return inner
        if self.take("["):
            return ("tuple", list(self.listed("]")))
        if self.take("{"):
            return ("object", dict(self.fields()))
        name = self.tokens.pop(0)
        if self.take("<"):
            return (name, list(self.listed(">")))
        return name

    def fields(self) -> Iterator[tuple[str, tuple[bool, Any]]]:
        while not self.take("}"):
            name = self.tokens.pop(0)
            optional = self.take("?")
            assert self.take(":"), self.tokens[:5]
            yield name, (optional, self.union())
            self.take(";")


TYPES = Reader(SOURCE)


def faults(value: Any, kind: Any, at: str = "page") -> list[str]:
    """Return where a JSON value is not of a type."""
    if isinstance(kind, str):
        return named_faults(value, kind, at)
    form, inner = kind
    if form == "union":
        tried = [faults(value, option, at) for option in inner]
        return min(tried, key=len) if all(tried) else []
    if form == "Partial":
        return faults(value, inner[0], at)
    if form in ("object", "Record"):
        if not isinstance(value, dict):
            return [f"{at} is not an object: {value!r:.40}"]
        return (
            record_faults(value, inner, at) if form == "Record" else object_faults(value, inner, at)
        )
    if form == "optional":
        return faults(value, inner, at)
    needed = [k for k in inner if k[0] != "optional"] if form == "tuple" else []
    if not isinstance(value, list) or (
        form == "tuple" and not len(needed) <= len(value) <= len(inner)
    ):
        return [f"{at} is no {form}: {value!r:.40}"]
    kinds = inner if form == "tuple" else [inner] * len(value)
    each = (faults(item, k, f"{at}[]") for item, k in zip(value, kinds, strict=False))
    return list(dict.fromkeys(fault for found in each for fault in found))


def named_faults(value: Any, kind: str, at: str) -> list[str]:
    if kind in TYPES.named:
        return faults(value, TYPES.named[kind], at)
    if kind in PRIMITIVES:
        is_bool = isinstance(value, bool) and kind == "number"
        fits = isinstance(value, PRIMITIVES[kind]) and not is_bool
    else:
        fits = value == json.loads(kind)
    return [] if fits else [f"{at} is no {kind}: {value!r:.40}"]


def object_faults(value: dict[str, Any], fields: dict[str, Any], at: str) -> list[str]:
    unknown = [f"{at} has {name}, which data.ts lacks" for name in value if name not in fields]
    found = [
        fault
        for name, (_, kind) in fields.items()
        if name in value
        for fault in faults(value[name], kind, f"{at}.{name}")
    ]
    lacking = [
        f"{at} lacks {name}"
        for name, (optional, _) in fields.items()
        if name not in value and not optional
    ]
    return [*unknown, *lacking, *found]


def record_faults(value: dict[str, Any], inner: list[Any], at: str) -> list[str]:
    key, item = inner
    names = [fault for name in value for fault in faults(name, key, f"{at} (key)")]
    each = (faults(content, item, f"{at}.*") for content in value.values())
    return list(dict.fromkeys([*names, *(fault for found in each for fault in found)]))


def data_of(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    config = RunConfig("ioi", "ioi-small", "acdc", {"threshold": 0.1}, n_prompts=8)
    path = run_discovery(tmp_path_factory.mktemp("typed") / "run", config).path
    evaluate_run(path, Wish(replace(USUAL, n_random=4, n_knock_outs=1, n_greedy=0, n_sets=0)))
    return path


def test_the_page_of_an_evaluated_run_has_the_types_that_the_script_reads(evaluated):
    data = data_of(write_report(evaluated))
    run = data["runs"][0]
    assert run["evaluation"]["tests"] and run["evaluation"]["knockOuts"] and run["needed"]
    assert run["attention"]["prompts"] and run["scorecard"]["own"]
    assert faults(data, "RawPage") == []


def test_the_page_of_neurons_has_the_types_that_the_script_reads(discover, program, tmp_path):
    run = discover(tmp_path / "run", neurons="all", options={"threshold": 0.001})
    data = data_of(write_report(run.path))
    problem = read_config(RunConfig, run.path).problem(load_model(program))
    described = unit_uses(problem, run.circuit)
    units = data["runs"][0]["units"]
    assert [unit["name"] for unit in units] == [unit.name for unit in described]
    for unit, found in zip(units, described, strict=True):
        assert unit["effect"] == pytest.approx(found.effect)
        assert unit["tokens"][0] == [found.tokens[0].text, pytest.approx(found.tokens[0].share)]
        *text, activation = unit["contexts"][-1]
        last = found.contexts[-1]
        assert text == [last.before, last.token, last.after]
        assert activation == pytest.approx(last.activation)
    assert len(units) > 3 and faults(data, "RawPage") == []


def test_the_page_of_two_runs_has_the_types_that_the_script_reads(evaluated, discover, tmp_path):
    other = discover(tmp_path / "other").path
    config = RunConfig(
        "ioi", "ioi-small", "exact", {"threshold": 0.1}, n_prompts=4, neurons="0", shortlist=4
    )
    finer = run_discovery(tmp_path / "finer", config).path
    for against in (evaluated, other, finer):
        data = data_of(write_report(other, against=against, out=tmp_path / "both.html"))
        assert faults(data, "RawPage") == []


def test_what_data_ts_does_not_expect_is_found(evaluated):
    data = data_of(write_report(evaluated))
    run = data["runs"][0]
    run["extra"], run["unit"] = 1, None
    del run["scorecard"]["n_prompts"]
    run["evaluation"]["curve"]["own"].append(0.5)
    run["graph"]["nodes"][0]["kind"] = "neuron"
    found = faults(data, "RawPage")
    assert len(found) == 5
    for part in ("has extra", "unit is no string", "lacks n_prompts", "curve.own", "kind is no"):
        assert any(part in fault for fault in found), part


def test_names_that_stand_in_both_languages_are_the_same():
    reasons = re.search(r"const REASONS: Reason\[\] = (\[.*?\]);", SOURCE)[1]
    assert tuple(json.loads(reasons)) == REASONS
    assert TYPES.named["Reason"] == ("union", [f'"{name}"' for name in REASONS])
    assert TYPES.named["PatternKind"] == ("union", [f'"{name}"' for name in KINDS])
    assert int(re.search(r"const VERSION = (\d+);", SOURCE)[1]) == VERSION
