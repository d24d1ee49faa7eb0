"""How much is worked on at once changes no result."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import circuitfind as cf
from circuitfind.engine import candidates, incremental, memory, readout, sizes
from circuitfind.engine.sizes import Sizes
from tests.engine.problems import problem_of

SIZES = {
    (candidates, "_MOST_CANDIDATES"): [1, 3, 64],
    (candidates, "_CANDIDATE_FLOATS"): [1, 1000, 10**7],
    (incremental, "FIRST_WIDTH"): [1, 2, 100],
    (candidates, "_LEAST_WIDTH"): [1, 5],
    (sizes, "_PROCESSOR"): [Sizes(1, 1, 1, 1), Sizes(150, 5, 3, 400), sizes._ACCELERATOR],
    (readout, "_LOGITS"): [1, 50, 10**7],
    (memory, "FORMED_NUMBERS"): [0, 300, 10**7],
}
"""Where sizes are set, and what they are set to: from one at a time to all at once."""


@pytest.mark.parametrize("metric", ["kl", "logit-difference"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_however_much_is_done_at_once_a_search_decides_the_same(family, metric, data, monkeypatch):
    problem = problem_of(family, metric=metric, n_layers=1, lengths=(6, 6, 6), n_shared=1)
    expected = cf.discover(problem, threshold=1e-4).decisions
    with monkeypatch.context() as patch:
        for (module, name), choices in SIZES.items():
            patch.setattr(module, name, data.draw(st.sampled_from(choices), label=name))
        found = cf.discover(problem, threshold=1e-4).decisions
    assert [(d.edge, d.kept) for d in found] == [(d.edge, d.kept) for d in expected]
    assert [d.effect for d in found] == pytest.approx(
        [d.effect for d in expected], abs=1e-12, nan_ok=True
    )
