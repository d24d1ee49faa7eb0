"""Both limits of a problem are held to the model before a search."""

from dataclasses import replace

import pytest
import torch

from circuitfind.engine.checks import check_limits
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import SelfCheckError
from tests.engine.problems import BRIDGED, engine_of, problem_of


@pytest.mark.parametrize("family", BRIDGED)
def test_both_limits_of_every_family_are_exact(family):
    limits = check_limits(engine_of(family, lengths=(6, 3, 5)))
    assert limits.full < 1e-13
    assert limits.empty is not None and limits.empty < 1e-13


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-over-positions"])
def test_an_empty_graph_that_no_run_shows_is_not_checked(ablation):
    assert check_limits(engine_of("gpt2", ablation)).empty is None


@pytest.mark.parametrize(
    ("part", "limit"), [("mlp", "full graph"), ("attention_bias", "full graph")]
)
def test_a_wrong_part_is_met_with_the_measured_difference(part, limit, monkeypatch):
    problem = problem_of("gpt2")
    original = getattr(problem.model, part)
    monkeypatch.setattr(problem.model, part, lambda *args: original(*args) * 1.01)
    with pytest.raises(SelfCheckError, match=rf"the {limit} does not reproduce .* differ by 0\.0"):
        check_limits(IncrementalEngine(problem))


def test_the_run_of_every_prompt_is_compared_with_the_model():
    """Of ten pairs only the last one's run is wrong."""
    engine = IncrementalEngine(problem_of("gpt2", lengths=(6,) * 10))
    assert check_limits(engine).full < 1e-13
    engine.clean_final[-1, :, 0] += 0.1
    with pytest.raises(SelfCheckError, match="the full graph does not reproduce"):
        check_limits(engine)


def test_a_wrong_replacement_is_met_with_the_measured_difference():
    engine = IncrementalEngine(problem_of("gpt2"))
    (chunk,) = engine.chunks
    chunk.runs = replace(chunk.runs, replaced=chunk.runs.replaced.map(torch.zeros_like))
    with pytest.raises(SelfCheckError, match="the empty graph does not reproduce"):
        check_limits(engine)
