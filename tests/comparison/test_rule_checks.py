"""Edge attribution by sets of rules, held to exact effects of all edges or of some."""

import pytest
import torch
from scipy.stats import spearmanr

from circuitfind.comparison.rule_checks import check_rules
from circuitfind.errors import MethodError
from circuitfind.methods.base import NoOptions
from circuitfind.methods.eap import Eap, EapOptions
from circuitfind.methods.exact import Exact, sampled_effects
from tests.engine.problems import SHIFTED, engine_of


@pytest.fixture(scope="module")
def engine():
    return engine_of("bloom", metric="logit-difference")


def test_correlations_are_those_with_the_exact_effects_of_all_edges(engine):
    found = check_rules(engine, "eap", (None, "norms", "softmax"), n_edges=None)
    edges = engine.graph.edge_mask
    exact = Exact().scores(engine, NoOptions()).values[edges]
    for name, rules in (("none", None), ("norms", "norms")):
        scores = Eap().scores(engine, EapOptions(rules=rules)).values[edges]
        expected = spearmanr(scores, exact).statistic
        assert found.correlations[name] == pytest.approx(expected, abs=1e-12)
    assert found.n_measured == found.n_edges == int(edges.sum())
    assert list(found.refused) == ["softmax"] and "computed as a whole" in found.refused["softmax"]


def test_a_seed_draws_some_edges_whose_effects_are_exact(engine):
    exact = Exact().scores(engine, NoOptions()).values
    drawn = [sampled_effects(engine, 9, seed).values for seed in (0, 0, 1)]
    measured = [~values.isnan() for values in drawn]
    assert [int(each.sum()) for each in measured] == [9, 9, 9]
    assert torch.equal(measured[0], measured[1]) and not torch.equal(measured[0], measured[2])
    for values, each in zip(drawn, measured, strict=True):
        assert torch.allclose(values[each], exact[each], rtol=0, atol=1e-12)
    assert check_rules(engine, "eap", [None], n_edges=9).n_measured == 9


def test_rules_are_refused_where_moves_inside_attention_are_scored():
    crossing = engine_of("gpt2", metric="logit-difference", place_of=SHIFTED, crossing=True)
    found = check_rules(crossing, "eap", [None, "gim"], n_edges=5)
    assert list(found.correlations) == ["none"]
    assert "leave out rules" in found.refused["gim"]


def test_methods_without_rules_are_refused(engine):
    with pytest.raises(MethodError, match="'exact' takes no rules .* choose one of eap, eap-ig"):
        check_rules(engine, "exact")
