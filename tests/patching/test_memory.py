"""A limited memory changes how many prompts run at once, and no result."""

import inspect
from bisect import bisect_left

import pytest
import torch

import circuitfind as cf
from circuitfind.engine.memory import rows_at_once
from circuitfind.errors import LimitError, MethodError

BUILDERS = (
    cf.discover, cf.evaluate, cf.scorecard, cf.effect_of, cf.suggest_threshold, cf.patch,
    cf.path_patch, cf.patch_together, cf.circuit_of, cf.IncrementalEngine,
)  # fmt: skip
"""All that is public and builds an engine, or records runs."""

WHERE = {"mode": "denoising"}


@pytest.fixture(scope="module")
def problem():
    return cf.make_problem(cf.load_model("backup-head"), "backup-head", n_prompts=8)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_whatever_builds_an_engine_takes_a_memory(builder):
    given = inspect.signature(builder).parameters["memory"]
    assert given.annotation == int | str | None and given.default is None


def test_a_sweep_in_less_memory_measures_the_same(problem):
    least = 1 + bisect_left(range(1, 10**9), 1, key=lambda size: fits(problem, size))
    assert rows_at_once(problem, least) == rows_at_once(problem, f"{least}B") == 1
    assert rows_at_once(problem, 3 * least) == 3 < rows_at_once(problem, None)
    free = cf.patch(problem, "head,q", **WHERE)
    limited = cf.patch(problem, "head,q", **WHERE, memory=f"{3 * least}B")
    for site, values in free.values.items():
        torch.testing.assert_close(limited.values[site], values, equal_nan=True)
    with pytest.raises(MethodError, match="patching takes at least .* one prompt at a time"):
        cf.path_patch(problem, ["embed"], ["logits"], memory=least - 1)


def fits(problem, memory):
    try:
        return rows_at_once(problem, memory) > 0
    except MethodError:
        return False


def test_a_circuit_from_a_sweep_in_less_memory_is_the_same(problem):
    found = cf.patch(problem, "head", **WHERE)
    free = cf.circuit_of(problem, found, 0.001)
    assert cf.circuit_of(problem, found, 0.001, memory="20MB").edges == free.edges
    with pytest.raises(MethodError, match="this takes at least"):
        cf.circuit_of(problem, found, 0.001, memory="1KB")


@pytest.mark.parametrize("memory", ["much", "1.5 XB"])
def test_what_is_not_an_amount_of_memory_is_refused(memory, problem):
    for call in (cf.patch, cf.IncrementalEngine):
        with pytest.raises(MethodError, match="is not an amount of memory; give one like 500MB"):
            call(problem, memory=memory)
    with pytest.raises(LimitError, match="memory must be"):
        cf.IncrementalEngine(problem, -1)
