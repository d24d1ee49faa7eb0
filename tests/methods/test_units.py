"""Searches over neurons and latents, held to searches that run the whole model each time."""

import pytest
import torch

from circuitfind.methods import METHODS
from circuitfind.methods.base import circuit_of
from circuitfind.methods.search import search
from circuitfind.methods.selection import Selection
from tests.engine.problems import EXACT, engine_of, loss_of, oracle_of
from tests.engine.unit_cases import CASES
from tests.methods.searches import assert_same_search
from tests.oracles.search import Where, leave_one_out

SHIFTED = ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))
WHERE = Where(SHIFTED, steps=(5,))
"""The metric reads at the last place only."""


@pytest.mark.parametrize(
    ("family", "case", "ablation", "threshold", "options"),
    [
        ("gpt2", "neurons", "resample", 0.1, {}),
        ("gpt2", "jumprelu", "resample", 0.005, {}),
        ("llama", "mixed", "mean", 0.01, {"order": "forward-index"}),
        ("gpt-j", "transcoder", "zero", 0.05, {"absolute": True, "metric": "logit-difference"}),
        ("gemma2", "neurons", "zero", 0.1, {"group_qkv": True}),
        ("gemma2", "sae", "resample", 0.05, {}),
        ("bidirectional", "topk", "resample", 0.05, {}),
        ("llama", "attention", "mean", 0.1, {"order": "forward-index"}),
        ("gemma2", "attention", "zero", 0.2, {}),
        ("gpt2", "both", "resample", 0.3, {"group_qkv": True}),
        ("llama", "streams", "mean", 0.15, {"order": "forward-index"}),
        pytest.param(
            "gpt2", "resid-mid", "resample", 0.05, {"group_qkv": True}, marks=pytest.mark.slow
        ),
        ("gemma2", "resid-pre", "zero", 0.2, {}),
    ],
)
def test_every_decision_is_that_of_a_search_that_runs_the_whole_model(
    family, case, ablation, threshold, options
):
    found = assert_same_search(family, ablation, threshold, **CASES[case], **options)
    assert {decision.reason for decision in found} >= {"tested", "dead"}
    parts = {decision.edge.partition("->")[0] for decision in found if decision.kept}
    blocks = tuple(f"{units.block}." for units in CASES[case]["units"])
    assert any(part.startswith(blocks) for part in parts)


@pytest.mark.parametrize(
    ("family", "case", "ablation", "threshold"),
    [
        ("llama", "neurons", "mean", 0.02),
        ("gpt2", "jumprelu", "resample", 0.01),
        ("gemma2", "sae", "zero", 0.05),
        ("gpt2", "attention-z", "resample", 0.05),
        ("llama", "resid-post", "resample", 0.02),
    ],
)
def test_so_it_is_at_places(family, case, ablation, threshold):
    found = assert_same_search(family, ablation, threshold, where=WHERE, **CASES[case])
    assert {decision.reason for decision in found} >= {"tested", "dead"}


@pytest.mark.parametrize(
    ("family", "case"),
    [("gpt2", "neurons"), ("llama", "jumprelu"), ("gemma2", "sae"), ("llama", "attention")],
)
def test_effects_of_single_cuts_are_those_of_the_whole_model(family, case):
    engine, oracle = (of(family, **CASES[case]) for of in (engine_of, oracle_of))
    loss = loss_of("kl", oracle, engine.problem.prompts)
    expected = leave_one_out(oracle.logits, oracle.graph, loss)
    exact = METHODS.find("exact")
    found = search(engine, exact, exact.options(), Selection(threshold=-1e9))
    effects = circuit_of(engine.graph, list(found.decisions)).effects
    torch.testing.assert_close(effects, expected, **EXACT, equal_nan=True)
