"""Answers of several tokens, held to log-probabilities that are added up token by token.

The oracle runs the whole model once for each answer, with the answer behind its prompt, and never
asks the package which rows, steps or weights it makes of a pair.
"""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, MetricError, PromptError
from circuitfind.evaluation.edge_effects import effect_of
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.base import circuit_of
from circuitfind.metrics import METRICS, find_metric
from circuitfind.patching.sweep import patch
from circuitfind.problem import Problem, assemble
from circuitfind.prompts import Pair, collate
from tests.engine.problems import N_LAYERS, model_of, random_mask
from tests.oracles import search as oracle_search
from tests.oracles.brute_force import BruteForce
from tests.oracles.checkpoints import FAMILIES, build, random_pairs

FAMILY = "llama"
ANSWERS = {
    "one run: they differ in the last token": ([(1, 2, 3), (4, 5)], [(1, 2, 4), (4, 6)]),
    "one run: the wrong one is short": ([(1, 2, 3), (4, 5)], [(2,), 6]),
    "two runs": ([(1, 2, 3), (4, 5)], [(1, 5, 6), (7, 8, 9)]),
    "two runs of one pair": ([(1, 2, 3), 4], [(1, 5, 6), 9]),
    "two runs: the right one is short": ([1, (1, 2)], [(3, 5, 6), (1, 9, 8, 7)]),
}
"""Right and wrong answers of two prompts."""

OF_ANSWERS = ("logit-difference", "probability-difference", "loss", "accuracy")

cases = pytest.mark.parametrize("case", ANSWERS)


THRESHOLDS = {"logit-difference": 0.01, "loss": 0.01, "probability-difference": 1e-8}


@pytest.mark.parametrize(
    ("case", "metric"),
    [
        pytest.param(case, metric, marks=[] if fast else [pytest.mark.slow])
        for case in ANSWERS
        for metric in THRESHOLDS
        for fast in [(case, metric) in {("two runs of one pair", "logit-difference")}]
    ],
)
def test_a_search_is_that_of_brute_force_over_the_whole_model_on_each_answer(case, metric):
    problem, oracle, threshold = problem_of(case, metric), Oracle(case), THRESHOLDS[metric]
    expected = oracle_search.acdc(oracle.logits, oracle.graph, oracle.loss(metric), threshold)
    progress = Acdc().run(IncrementalEngine(problem), AcdcOptions(threshold=threshold), [])
    decisions = [decision for step in progress for decision in step.decisions]
    assert torch.equal(circuit_of(problem.graph, decisions).kept, expected.kept)
    assert 0 < expected.kept.sum() < problem.graph.n_edges
    effects = [decision.effect for decision in decisions if decision.reason == "tested"]
    theirs = [d.effect for d in expected.decisions if d.tested]
    assert effects == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@cases
@pytest.mark.parametrize("metric", OF_ANSWERS)
def test_each_prompt_has_the_metric_of_its_whole_answers(case, metric):
    problem, oracle = problem_of(case, metric), Oracle(case)
    masks = [random_mask(problem.graph, seed, share=0.8) for seed in range(3)]
    found = IncrementalEngine(problem).measure([problem.graph.edge_mask, *masks])
    expected = [oracle.values(metric, mask) for mask in (problem.graph.edge_mask, *masks)]
    torch.testing.assert_close(found, tensor(expected), rtol=0, atol=1e-9)


def test_an_answer_that_the_model_gives_word_by_word_is_accurate():
    """Greedy decoding is the oracle: at random answers of three tokens nothing is ever right."""
    clean, corrupted = random_pairs(0)
    model = build(FAMILY, 0, n_layers=N_LAYERS)
    pairs = []
    for prompt, other in zip(clean, corrupted, strict=True):
        tokens = prompt[None]
        for _ in range(3):
            with torch.no_grad():
                tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
        right = tokens[0, len(prompt) :].tolist()
        for answer in (right, [*right[:2], (right[2] + 1) % 7]):
            wrong = [(answer[0] + 1) % 30, 5, 6]
            pairs.append(Pair(prompt.tolist(), other.tolist(), [[answer]], [[wrong]]))
    problem = assemble(model_of(FAMILY), collate(pairs), find_metric("accuracy"))
    values = IncrementalEngine(problem).measure([problem.graph.edge_mask])
    assert values.tolist() == [[1, 0, 1, 0]]


@pytest.mark.parametrize("metric", list(METRICS), ids=lambda metric: metric.name)
def test_every_metric_takes_answers_of_several_tokens(metric):
    problem = problem_of("two runs", "kl")
    engine = IncrementalEngine(problem)
    if metric.direction is None:
        assert engine.measure([problem.graph.edge_mask], metric).shape == (1, 2)


def test_chunks_of_prompts_give_what_all_give_at_once():
    problem = problem_of("two runs of one pair", "logit-difference")
    whole, parts = IncrementalEngine(problem), IncrementalEngine(problem, memory=4_000_000)
    assert len(parts.chunks) > 1
    mask = random_mask(problem.graph, seed=3, share=0.8)
    torch.testing.assert_close(parts.measure([mask]), whole.measure([mask]), rtol=0, atol=1e-9)
    assert parts.loss(parts.start_from(mask)) == pytest.approx(whole.loss(whole.start_from(mask)))


def test_figures_are_those_of_prompts_and_not_of_runs():
    problem, oracle = problem_of("two runs", "logit-difference"), Oracle("two runs")
    engine = IncrementalEngine(problem)
    edge = problem.graph.edges()[-1]
    full, cut = problem.graph.edge_mask, problem.graph.edge_mask.clone()
    cut[problem.graph.index(edge)] = False
    effect = effect_of(engine, edge)
    changes = tensor(oracle.values("logit-difference", cut)) - tensor(
        oracle.values("logit-difference", full)
    )
    assert effect.change == pytest.approx(changes.mean().item(), abs=1e-9)
    assert effect.error == pytest.approx(changes.std().item() / 2**0.5, abs=1e-9)
    assert len(problem.prompts) == 4
    for count in (problem.prompts.n_prompts, patch(problem).n_prompts):
        assert count == 2


def test_modes_that_exchange_answers_are_refused():
    with pytest.raises(MethodError, match="mode interchange exchanges the answers .* denoising"):
        patch(problem_of("two runs", "logit-difference"), mode="interchange")


COMPLAINTS = {
    "several right": (([[(1, 2), 3]], [[4]]), "has 2 right answers, and one answer takes several"),
    "several wrong": (([[1]], [[(2, 3), 4]]), "has 2 wrong answers, and one answer takes several"),
    "a beginning": (([[(1, 2)]], [[1]]), "one of its two answers begins with the other"),
    "the same": (([[(1, 2)]], [[(1, 2)]]), "the token 1 2 is both a right and a wrong answer"),
    "no right one": (([], [[(1, 2)]]), "needs a right answer"),
}


@pytest.mark.parametrize("case", COMPLAINTS)
def test_answers_that_cannot_be_compared_are_refused(case):
    (right, wrong), message = COMPLAINTS[case]
    with pytest.raises(PromptError, match=message):
        collate([Pair([1, 2], [1, 3], right, wrong)])


def test_steps_and_answers_of_several_tokens_are_not_mixed():
    long = Pair([1, 2], [1, 3], [[(1, 2)]], source="line 1")
    with pytest.raises(PromptError, match="does not read at its last position alone"):
        collate([Pair([1, 2], [1, 3], [[(1, 2)]], steps=[0])])
    with pytest.raises(PromptError, match="pair 1 has steps of its own, and other pairs have"):
        collate([long, Pair([1, 2], [1, 3], [[1], [2]], steps=[0, 1])])


def test_a_metric_that_needs_a_wrong_answer_says_that_there_is_none():
    prompts = collate([Pair([1, 2], [1, 3], [[(1, 2)]], source="line 1")])
    assemble(model_of(FAMILY), prompts, find_metric("loss"))
    with pytest.raises(MetricError, match="needs a wrong answer at every step and line 1 has none"):
        assemble(model_of(FAMILY), prompts, find_metric("logit-difference"))


# --------------------------------------------------------------------------- helpers


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pairs_of(case: str) -> list[tuple[list[int], list[int], list[int], list[int]]]:
    """Return clean and corrupted tokens, the right answer and the wrong one."""
    prompts = (each.tolist() for each in random_pairs(0))
    answers = ([list(a) if isinstance(a, tuple) else [a] for a in side] for side in ANSWERS[case])
    return list(zip(*prompts, *answers, strict=True))


@cache
def problem_of(case: str, metric: str) -> Problem:
    right, wrong = ANSWERS[case]
    clean, corrupted = (each.tolist() for each in random_pairs(0))
    pairs = [
        Pair(*tokens, [[one]], [[other]])
        for *tokens, one, other in zip(clean, corrupted, right, wrong, strict=True)
    ]
    return assemble(model_of(FAMILY), collate(pairs), find_metric(metric))


class Oracle:
    """Runs the whole model on every prompt with every answer behind it."""

    def __init__(self, case: str) -> None:
        self.pairs = pairs_of(case)
        self.graph = heads_and_mlps(FAMILIES[FAMILY].shape(N_LAYERS))
        runs = [
            (clean + answer, corrupted + answer)
            for clean, corrupted, *answers in self.pairs
            for answer in answers
        ]
        length = max(len(tokens) for tokens, _ in runs)
        real = torch.tensor([[n < len(run) for n in range(length)] for run, _ in runs])
        tokens = (
            torch.tensor([[*run, *[0] * (length - len(run))] for run in side])
            for side in zip(*runs, strict=True)
        )
        model = build(FAMILY, 0, n_layers=N_LAYERS)
        self.logits = BruteForce(model, FAMILY, *tokens, self.graph, "resample", real).logits

    def loss(self, metric: str):
        def loss(logits: Tensor) -> float:
            values = self._values(metric, logits)
            return sum(values) / len(values) * (1 if metric == "loss" else -1)

        return loss

    def values(self, metric: str, kept: Tensor) -> list[float]:
        return self._values(metric, self.logits(kept))

    def _values(self, metric: str, logits: Tensor) -> list[float]:
        found = []
        for number, (clean, _, *answers) in enumerate(self.pairs):
            ours = zip(logits[2 * number : 2 * number + 2], answers, strict=True)
            told = [read[len(clean) - 1 :][: len(answer)].log_softmax(-1) for read, answer in ours]
            right, wrong = (
                float(sum(row[token] for row, token in zip(rows, answer, strict=True)))
                for rows, answer in zip(told, answers, strict=True)
            )
            found.append(
                {
                    "logit-difference": right - wrong,
                    "probability-difference": math.exp(right) - math.exp(wrong),
                    "loss": -right,
                    "accuracy": float(told[0].argmax(-1).tolist() == answers[0]),
                }[metric]
            )
        return found
