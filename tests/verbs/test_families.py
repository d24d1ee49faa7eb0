"""Families of prompts: two tasks in one file are split again, and one task is not."""

import dataclasses
import itertools
from contextlib import closing

import numpy as np
import pytest
import torch
from scipy.stats import kstest

import circuitfind as cf
from circuitfind.comparison.clusters import adjusted_rand, one_cluster_test
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import PromptError
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from circuitfind.methods import METHODS
from circuitfind.methods.settings import settled
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.verbs.family_search import scores_of
from tests.comparison.test_roles import tiny_problem

FIRST, SECOND = ({f"embed->a0.h{n}.v", f"a0.h{n}->logits"} for n in (0, 1))
SYMBOLS = (1, 2, 3)


def wire(folder):
    """After `x` the first head names the first symbol; after `y` the second one the second."""
    wiring = Wiring(
        sizes_of("abcxy", "abc", length=3, n_layers=1, n_heads=2, d_head=3, d_mlp=0),
        {"token": 6, "position": 4, "output": 3},
    )
    for head, (mark, place) in enumerate(((4, 1), (5, 2))):
        asks = torch.zeros(6, 3)
        asks[mark, 1] = 2 * SHARP
        looks = torch.tensor([one(4, 0), one(4, place)]).T
        wiring.head(
            0, head, query={"token": asks}, query_bias=[SHARP], key={"position": looks},
            value={"token": torch.eye(6)[:, 1:4].clone()}, output={"output": torch.eye(3)},
        )  # fmt: skip
    wiring.save(folder, "two")
    return folder / "two.json"


def mixture(n=12):
    """Prompts of both tasks in turn, each with other symbols in the corrupted prompt."""
    drawn = [
        (clean, corrupted)
        for clean in itertools.product(SYMBOLS, repeat=2)
        for corrupted in itertools.product(SYMBOLS, repeat=2)
        if all(one != other for one, other in zip(clean, corrupted, strict=True))
    ]
    for clean, corrupted in drawn[:n]:
        for place, mark in enumerate((4, 5)):
            right, wrong = clean[place] - 1, corrupted[place] - 1
            yield cf.Pair([0, *clean, mark], [0, *corrupted, mark], [[right]], [[wrong]])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    model = cf.load_model(str(wire(tmp_path_factory.mktemp("two"))), dtype="float64")
    return cf.make_problem(model, cf.collate(list(mixture())), metric="logit-difference")


N_SYMBOLS, N_HEADS = 800, 4


@pytest.fixture(scope="module")
def strengths():
    """How strongly each head names each symbol."""
    drawn = torch.randn(N_HEADS, N_SYMBOLS, generator=torch.Generator().manual_seed(0))
    return 1 + 0.3 * drawn


@pytest.fixture(scope="module")
def one_family(strengths, tmp_path_factory):
    """Four heads name any of 800 symbols, each with a strength of its own for each symbol."""
    folder, n = tmp_path_factory.mktemp("one"), N_SYMBOLS
    names = [f"s{number}" for number in range(n)]
    wiring = Wiring(
        sizes_of([*names, "-"], "ab", 1, n_layers=1, n_heads=N_HEADS, d_head=1, d_mlp=0),
        {"token": n + 2, "position": 2, "output": 2},
    )
    for head, strength in enumerate(strengths):
        token = torch.zeros(n + 2, 1)
        token[1:-1, 0] = strength
        wiring.head(
            0, head, query={}, query_bias=[SHARP], key={"position": column(one(2, 1))},
            value={"token": token}, output={"output": torch.tensor([[1.0, 0.0]])},
        )  # fmt: skip
    wiring.save(folder, "one")
    model = cf.load_model(str(folder / "one.json"), dtype="float64")
    pairs = [cf.Pair([0, symbol], [0, n + 1], [[0]], [[1]]) for symbol in range(1, n + 1)]
    return cf.make_problem(model, cf.collate(pairs), metric="logit-difference")


@pytest.mark.parametrize("ranked_by", ["eap", "exact"])
def test_a_mixture_of_two_tasks_is_split_again(two, ranked_by):
    both = cf.Circuit.of_edges(two, FIRST | SECOND)
    found = cf.families(two, both, ranked_by=ranked_by)
    assert adjusted_rand(np.array(found.labels()), np.arange(24) % 2) == 1
    assert found.p_value == 1 / 500 and found.silhouette == pytest.approx(1)
    assert [set(each.edges) for each in found.families] == [FIRST, SECOND]
    assert [set(each.alone) for each in found.families] == [FIRST, SECOND] and not found.shared
    best = found.explanation
    assert best is not None
    assert (best.name, best.values, best.share) == ("last token", ("x", "y"), 1)
    assert sorted(best.counts) == [(0, 12), (12, 0)] and best.adjusted_rand == 1
    share = {(each.circuit, each.on): each.faithfulness for each in found.shares}
    assert share["family 1", "family 1"] == share["family 2", "family 2"] == pytest.approx(1)
    assert share["family 1", "family 2"] == share["family 2", "family 1"] == pytest.approx(0)
    assert share["family 1", "all"] == pytest.approx(0.5)
    assert share["union", "all"] == share["pooled", "all"] == share["found", "all"] == 1


def test_held_out_prompts_are_counted_to_the_nearest_family(two):
    both = cf.Circuit.of_edges(two, FIRST | SECOND)
    other = dataclasses.replace(two, prompts=two.prompts.select([0, 2, 3]))
    found = cf.families(two, both, held_out=other, ranked_by="eap")
    assert [each.n_measured for each in found.families] == [2, 1]
    assert found.measured_on == "held-out"


def test_one_task_is_one_family_and_can_be_split_on_demand(one_family):
    few = dataclasses.replace(one_family, prompts=one_family.prompts.select([*range(12)]))
    circuit = cf.Circuit.of_edges(few, {"embed->a0.h0.v", "a0.h0->logits"})
    found = cf.families(few, circuit, ranked_by="eap")
    assert 0.05 < found.p_value < 1 and len(found.families) == 1 and not found.attributes
    assert [each.circuit for each in found.shares] == ["family 1"] * 2 + ["found"] * 2
    assert found.verdict.startswith("1 family: one cluster is not ruled out (p 0.")
    forced = cf.families(few, circuit, ranked_by="eap", families=2)
    assert len(forced.families) == 2 and forced.p_value == found.p_value
    assert forced.verdict.startswith("2 families as asked: one cluster is not ruled out")


def test_a_family_in_which_nothing_is_to_explain_has_no_circuit(two):
    """The third symbol is not asked for: the corrupted prompts of the second task change it."""
    pairs = list(mixture())
    same = [
        dataclasses.replace(pair, corrupted=[*pair.clean[:1], pair.corrupted[1], *pair.clean[2:]])
        if pair.clean[-1] == 5
        else pair
        for pair in pairs
    ]
    problem = dataclasses.replace(two, prompts=cf.collate(same))
    found = cf.families(problem, cf.Circuit.of_edges(two, FIRST), ranked_by="eap", families=2)
    assert [set(each.edges) for each in found.families] == [FIRST, set()]
    assert "; there is nothing to explain in family 2;" in found.verdict
    without = [each.faithfulness for each in found.shares if each.on == "family 2"]
    assert without == [None] * len(without)


def test_prompts_have_the_numbers_and_lines_that_they_have_in_the_search(two):
    pairs = [dataclasses.replace(each, source=f"line {n}") for n, each in enumerate(mixture())]
    pairs = [pairs[0], pairs[0], *pairs[1:6], pairs[0], *pairs[6:]]
    problem = dataclasses.replace(two, prompts=cf.collate(pairs))
    found = cf.families(problem, cf.Circuit.of_edges(two, FIRST | SECOND), ranked_by="eap")
    assert found.n_prompts == 24 and found.labels() == [n % 2 for n in range(24)]
    first, second = found.families
    assert sorted(first.prompts + second.prompts) == [0, *range(2, 7), *range(8, 26)]
    for each in found.families:
        assert list(each.sources) == [pairs[n].source for n in each.prompts]


def test_progress_ends_with_the_last_score(two):
    few = dataclasses.replace(two, prompts=two.prompts.select([*range(8)]))
    for ranked_by, n in (("eap", 8), ("exact", two.graph.n_edges + 1)):
        steps, circuit = [], cf.Circuit.of_edges(two, FIRST)
        cf.families(few, circuit, held_out=few, ranked_by=ranked_by, on_progress=steps.append)
        assert [each.done for each in steps[: 2 * n]] == list(range(1, 2 * n + 1))
        assert {each.done for each in steps[2 * n :]} == {each.total for each in steps} == {2 * n}


def test_prompts_that_repeat_others_are_left_out_and_few_are_refused(two):
    twice = dataclasses.replace(two, prompts=two.prompts.select([0, 1, 2, 3] * 4))
    assert twice.prompts.distinct == [0, 1, 2, 3] and twice.prompts.n_distinct == 4
    with pytest.raises(PromptError, match="there are 4 different prompts; .* at least 8"):
        cf.families(twice, cf.Circuit.of_edges(two, FIRST))


@pytest.fixture(scope="module")
def tiny():
    return tiny_problem()


@pytest.mark.parametrize("ranked_by", ["eap", "eap-ig", "exact"])
def test_the_scores_of_a_prompt_are_those_of_a_search_on_it_alone(tiny, ranked_by):
    scores = scores_of(Measured(tiny), ranked_by)
    mask = tiny.graph.edge_mask
    for number in range(tiny.prompts.n_prompts):
        alone = dataclasses.replace(tiny, prompts=tiny.prompts.select([number]))
        engine = IncrementalEngine(alone)
        if ranked_by == "exact":
            expected = [cf.effect_of(alone, e.name).change for e in tiny.graph.edges()[:9]]
            found = [-scores[number][place_of(tiny.graph, e)] for e in tiny.graph.edges()[:9]]
            assert found == pytest.approx(expected, abs=1e-5)
            continue
        method = METHODS.find(ranked_by)
        expected = method.scores(engine, settled(method, {}, {"n_edges": 1})[0])
        torch.testing.assert_close(scores[number], expected.values[mask], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ranked_by", ["eap", "exact"])
def test_scores_that_are_found_again_are_the_same_to_the_last_bit(tiny, ranked_by, tmp_path):
    file = tmp_path / "passes.jsonl"
    scores = with_log(tiny, ranked_by, file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0])
    again = with_log(tiny, ranked_by, file)
    assert len(file.read_text().splitlines()) == len(lines) > 1
    torch.testing.assert_close(again, scores, rtol=0, atol=0)


def with_log(problem, ranked_by, file):
    with closing(PassLog(file)) as log:
        return scores_of(Measured(problem, log=log), ranked_by)


def place_of(graph, edge):
    """Return the place of an edge among those of a mask, writer by writer."""
    mask, place = graph.edge_mask, graph.index(edge)
    number = torch.zeros(mask.shape, dtype=torch.long)
    number[mask] = torch.arange(int(mask.sum()))
    return int(number[place])


def test_on_a_model_with_one_family_p_is_uniform(one_family, strengths):
    group = 20
    scores = scores_of(Measured(one_family), "exact")
    into_logits = [place_of(one_family.graph, f"a0.h{head}->logits") for head in range(N_HEADS)]
    torch.testing.assert_close(scores[:, into_logits], strengths.T.double())
    found = [
        one_cluster_test(some, np.arange(group), seed, 99).gaussian_p_value
        for seed, some in enumerate(np.split(scores.numpy(), N_SYMBOLS // group))
    ]
    assert kstest(found, "uniform").pvalue > 0.01
