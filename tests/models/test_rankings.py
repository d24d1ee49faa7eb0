"""Learned rankings on a trained model: what their first edges are worth."""

import pytest

import circuitfind as cf


@pytest.mark.parametrize("level", ["edges", "components"])
def test_matryoshka_attribution_ranks_the_edges_that_the_task_needs_first(level):
    """IOI on the embedded model: as few edges of a random walk from the logits do nothing."""
    problem = cf.make_problem(
        cf.load_model("ioi-small"), "ioi", n_prompts=16, metric="logit-difference"
    )
    found = cf.discover(problem, "mattr", n_edges=60, steps=150, level=level)
    random = cf.discover(problem, "random", n_edges=60)
    faithful, chance = (cf.scorecard(each).measurements[0].faithfulness for each in (found, random))
    assert faithful is not None and chance is not None
    assert faithful > 0.4 and faithful > chance + 0.3
