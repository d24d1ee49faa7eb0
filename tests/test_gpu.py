"""Every kind of measurement, on a GPU and on the CPU."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import pytest
from torch import Tensor

import circuitfind as cf
from circuitfind.engine.direction import with_direction
from circuitfind.methods.benchmark import benchmarked
from circuitfind.problem import assemble

pytestmark = pytest.mark.gpu

GPU = "cuda"

SEARCHES: dict[str, dict[str, Any]] = {
    "acdc": {"threshold": 0.02},
    "exact": {"n_edges": 20},
    "eap": {"n_edges": 20},
    "eap-ig": {"n_edges": 20, "steps": 2},
    "hisp": {"n_edges": 20},
    "information-flow": {"n_edges": 20},
    "subnetwork-probing": {"n_edges": 20, "steps": 4},
    "edge-pruning": {"n_edges": 20, "steps": 4},
    "ugs": {"n_edges": 20, "steps": 4},
    "mattr": {"n_edges": 20, "steps": 4},
    "hybrid": {"threshold": 0.02},
    "random": {"n_edges": 20},
}

MEASUREMENTS: dict[str, Callable[[cf.Problem], Any]] = {
    "automatic threshold": lambda problem: cf.discover(problem).decisions,
    "scorecard": lambda problem: cf.scorecard(found(problem)),
    "evaluation": lambda problem: cf.evaluate(found(problem), effort="usual"),
    "noise": lambda problem: cf.suggest_threshold(problem),
    "roles": lambda problem: cf.find_roles(problem),
    "one edge": lambda problem: cf.effect_of(problem, "m0->logits"),
    "attention": lambda problem: cf.attention_pattern(problem, "a1.h0"),
    "edges patched": lambda problem: cf.patch_together(problem, ["m0", "a0.h0"], ["logits"]).values,
    "paths, linearised": lambda problem: cf.linearised_edges(problem),
}

SWEEPS: dict[str, dict[str, Any]] = {
    "block": {},
    "head": {"mode": "noising"},
    "pattern,k,v": {"mode": "interchange"},
    "post": {},
    "z": {"mode": "noising"},
}


@cache
def question(device: str, metric: str = "logit-difference", ablation: str = "resample"):
    model = cf.load_model("gpt-2l", device=device)
    prompts = cf.make_problem(model, "ioi", n_prompts=4).prompts
    chosen = with_direction(cf.find_metric(metric), model, prompts)
    return assemble(model, prompts, chosen, ablation)


def found(problem: cf.Problem) -> cf.Found:
    return cf.discover(problem, threshold=0.05)


@pytest.mark.parametrize("method", SEARCHES)
def test_every_method_decides_alike(method):
    here, there = (
        cf.discover(question(device), method, **SEARCHES[method]).decisions
        for device in ("cpu", GPU)
    )
    assert [(each.edge, each.reason) for each in there] == [(d.edge, d.reason) for d in here]
    assert_alike(here, there)


@pytest.mark.parametrize("metric", [each.name for each in cf.METRICS])
def test_every_metric_is_alike(metric):
    here, there = (
        cf.discover(question(device, metric), "exact", n_edges=20).decisions
        for device in ("cpu", GPU)
    )
    assert_alike(here, there)


@pytest.mark.parametrize("ablation", ["zero", "mean-over-positions"])
def test_other_ablations_are_alike(ablation):
    here, there = (
        cf.discover(question(device, "kl", ablation), threshold=0.02).decisions
        for device in ("cpu", GPU)
    )
    assert_alike(here, there)


@pytest.mark.parametrize("what", MEASUREMENTS)
def test_every_measurement_is_alike(what):
    here, there = (MEASUREMENTS[what](question(device)) for device in ("cpu", GPU))
    assert_alike(here, there)


@pytest.mark.parametrize("sites", SWEEPS)
def test_sweeps_are_alike(sites):
    here, there = (
        cf.patch(question(device), sites, **SWEEPS[sites]).values for device in ("cpu", GPU)
    )
    assert_alike(here, there)


def test_paths_are_alike():
    here, there = (
        cf.path_patch(question(device), ["a0.h0", "m0"], ["logits", "m1"]).values
        for device in ("cpu", GPU)
    )
    assert_alike(here, there)


def test_a_forecast_is_made_on_the_gpu():
    assert benchmarked(question(GPU), 3)["seconds of the search"] > 0


def assert_alike(here: Any, there: Any) -> None:
    """Compare all numbers in two results with float32's rounding of sums in another order."""
    expected, numbers = list(numbers_in(here)), list(numbers_in(there))
    assert expected
    assert numbers == pytest.approx(expected, rel=1e-3, abs=2e-4, nan_ok=True)


def numbers_in(found: Any) -> Iterator[float]:
    if isinstance(found, Tensor):
        yield from found.double().flatten().tolist()
    elif isinstance(found, int | float):
        yield float(found)
    else:
        for part in parts_of(found):
            yield from numbers_in(part)


def parts_of(found: Any) -> Iterable[Any]:
    if is_dataclass(found):
        names = [field.name for field in fields(found) if field.name != "seconds"]
        return [getattr(found, name) for name in names]
    if isinstance(found, Mapping):
        return found.values()
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()
