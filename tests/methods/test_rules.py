"""Modified gradients held to surgery on Hugging Face models, and to what each rule promises."""

from dataclasses import replace

import pytest
import torch

from circuitfind.engine.gradients import RecordedRun
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, ModelError
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.eap import Eap, EapOptions
from circuitfind.methods.eap_ig import EapIg, EapIgOptions
from circuitfind.models.base import BaseModel
from circuitfind.models.loading import load_model
from circuitfind.models.rules import NO_RULES, RULE_SETS, RULES, Rules, ruled
from circuitfind.models.ungrouped import ungrouped
from circuitfind.question import make_problem
from tests.counting import CountingModel
from tests.engine.problems import engine_of, model_of, oracle_of, problem_of, prompts_of
from tests.oracles.rules import surgery
from tests.oracles.slopes import attribution

CLOSE = {"rtol": 0, "atol": 1e-9}
PUBLISHED = {
    "gim": {"norms", "softmax", "qkv", "gate"},
    "relp": {"norms", "secant", "gate"},
    "attnlrp": {"norms", "secant", "gate", "qkv"},
}
CASES = [
    *((family, rule) for family in ("gpt2", "llama", "gemma2") for rule in RULES),
    *(("gpt2", "relp"), ("llama", "attnlrp"), ("gemma2", "gim")),
    ("qwen3", "norms"),  # of queries and keys, too
    ("phi3", "gate,secant"),  # one map gives the gate and what it gates
]


@pytest.mark.parametrize(("family", "rules"), CASES)
def test_each_rule_is_what_surgery_on_the_model_gives(family, rules):
    found = eap(family, rules)
    torch.testing.assert_close(found, by_surgery(family, rules), **CLOSE)
    changes = not (family == "gpt2" and rules == "gate")
    assert torch.equal(found, eap(family)) is not changes


@pytest.mark.parametrize("family", ["gemma2"])
def test_so_it_is_along_a_path(family):
    options = EapIgOptions(steps=2, points="left", rules="gim")
    scores = EapIg().scores(engine_of(family, metric="logit-difference"), options).values
    halves = [by_surgery(family, "gim", {"embed": share}) for share in (0.0, 0.5)]
    torch.testing.assert_close(on_edges(scores), sum(halves) / 2, **CLOSE)


def test_the_sets_are_those_of_their_papers():
    assert {name: set(rules) for name, rules in RULE_SETS.items()} == PUBLISHED


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_no_rule_changes_a_value(family):
    plain, prompts = model_of(family), prompts_of(0, (6, 6))
    graph, stream = engine_of(family).graph, plain.embed(prompts.clean).joint
    for rules in ("norms,softmax,qkv,gate,secant", "norms,pattern,qkv,gate,secant"):
        model = ruled(plain, Rules.of(rules))
        runs = [RecordedRun(each, graph, trace=True) for each in (plain, model)]
        assert torch.equal(*(run.run(stream) for run in runs))
        with torch.enable_grad():
            logits = [
                each.logits(run.final) for each, run in zip((plain, model), runs, strict=True)
            ]
            assert torch.equal(*logits)


def test_without_rules_the_model_is_left_alone():
    assert ruled(model_of("llama"), NO_RULES) is model_of("llama")


def test_shares_of_products_are_exact():
    """After the last attention nothing else is changed, so its inputs get their shares exactly."""
    graph, plain, shared = engine_of("llama").graph, eap("llama"), eap("llama", "qkv,gate")
    for i, reader in enumerate(graph.readers):
        share = {"a1.h0.q": 1 / 4, "a1.kv1.k": 1 / 4, "a1.kv0.v": 1 / 2, "m1": 1 / 2}.get(
            reader.name
        )
        alone = eap("llama", "gate" if reader.name == "m1" else "qkv")[:, i]
        if share is not None:
            assert torch.equal(alone, share * plain[:, i]) and plain[:, i].any()
    at_logits = graph.reader_index["logits"]
    assert torch.equal(shared[:, at_logits], plain[:, at_logits])


def test_with_constant_patterns_queries_and_keys_count_for_nothing():
    graph, scores = engine_of("llama").graph, eap("llama", "pattern")
    for i, reader in enumerate(graph.readers):
        assert bool(scores[:, i].any()) is (reader.port not in ("q", "k"))


def test_what_is_linear_in_pieces_and_not_normed_is_left_alone():
    problem = make_problem(load_model("and-gate"), "and-gate", n_prompts=4)
    plain, same = (
        EapIg().scores(IncrementalEngine(problem), EapIgOptions(steps=2, rules=rules)).values
        for rules in (None, "relp")
    )
    assert torch.equal(plain, same) and plain.any()


def test_models_that_are_read_as_a_whole_follow_the_same_rules():
    problem = problem_of("gemma2", metric="logit-difference")
    counting = IncrementalEngine(replace(problem, model=CountingModel(problem.model)))
    found = Eap().scores(counting, EapOptions(rules="gim")).values
    torch.testing.assert_close(on_edges(found), eap("gemma2", "gim"), **CLOSE)


def test_heads_that_share_no_key_any_more_have_the_scores_of_the_shared_one_together():
    problem, shared = problem_of("llama", metric="logit-difference"), eap("llama", "gim")
    model = ungrouped(problem.model)
    apart = replace(problem, model=model, graph=heads_and_mlps(model.shape))
    found = Eap().scores(IncrementalEngine(apart), EapOptions(rules="gim")).values
    # Writers are the same; the four keys of a layer belong to two.
    for port in ("k", "v"):
        for kv in (0, 1):
            columns = [apart.graph.reader_index[f"a1.h{2 * kv + i}.{port}"] for i in (0, 1)]
            one = shared[:, problem.graph.reader_index[f"a1.kv{kv}.{port}"]]
            torch.testing.assert_close(found[:, columns].nansum(1), one, **CLOSE)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("gim,lrp", "no rule named 'lrp'; give some of gim, relp, attnlrp, norms, .*, pattern"),
        ("", "no rule named ''"),
        ("gim,pattern", "'softmax' and 'pattern' exclude one another"),
    ],
)
def test_rules_that_are_none_are_refused(rules, message):
    with pytest.raises(MethodError, match=message):
        EapOptions(rules=rules)


@pytest.mark.parametrize(
    ("family", "rules", "message"),
    [
        ("mixtral", "relp", "not known how the MLP of layer 0 .* 'gate' and 'secant' cannot"),
        ("bloom", "softmax", "computed as a whole in layer 1, so the rules 'softmax' and 'patt"),
    ],
)
def test_a_model_that_cannot_follow_a_rule_refuses_it_in_one_line(family, rules, message):
    with pytest.raises(ModelError, match=message):
        eap(family, rules)


def test_a_model_of_ones_own_says_what_it_lacks():
    class Own(BaseModel):
        name = "own"

    with pytest.raises(ModelError, match="not known how 'own' norms .* leave it out, or give the"):
        ruled(Own(), Rules.of("norms"))


def test_moves_inside_attention_are_refused():
    with pytest.raises(MethodError, match="leave out crossing, or leave out rules"):
        EapIg().require_moves({"rules": "gim"})


def eap(family, rules=None):
    """Return the scores of every pair by the package; 0 where there is no edge."""
    engine = engine_of(family, metric="logit-difference")
    return on_edges(Eap().scores(engine, EapOptions(rules=rules)).values)


def by_surgery(family, rules, shares=None):
    """Return them by the oracle, for a mean logit difference at the last position."""
    oracle, prompts = oracle_of(family), prompts_of(0, (6, 6))

    def loss(logits):
        rows = zip(logits[:, -1], prompts.answers[:, 0], prompts.wrong_answers[:, 0], strict=True)
        return -sum(row[right].mean() - row[wrong].mean() for row, right, wrong in rows) / 2

    names = Rules.of(rules).names
    with surgery(oracle.model, family, names):
        scores = attribution(oracle, loss, prompts.clean, shares or {})
    return scores.masked_fill(~oracle.graph.edge_mask, 0)


def on_edges(scores):
    return scores.nan_to_num()
