"""Pairs whose prompts have other lengths, lined up by spans, against brute force."""

from dataclasses import replace

import pytest
import torch

from circuitfind.ablations import ABLATIONS
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, PromptError
from circuitfind.granularity import heads_and_mlps
from circuitfind.metrics import find_metric
from circuitfind.patching.sweep import patch
from circuitfind.placing import placed
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from tests.engine.problems import EXACT, logits_at_steps, model_of, random_mask
from tests.oracles.brute_force import BruteForce
from tests.oracles.checkpoints import FAMILIES, build

PAIRS = [
    # One token more in the second span; the third has moved.
    Pair(
        [3, 1, 4, 5, 9],
        [3, 2, 6, 8, 5, 9],
        [[7]],
        [[8]],
        spans={"a": 1, "b": 2, "end": 4},
        corrupted_spans={"a": 1, "b": 2, "end": 5},
    ),
    # Equally long, but the spans change places; nothing before the first one.
    Pair(
        [4, 4, 1, 2],
        [1, 3, 5, 2],
        [[6]],
        [[8]],
        spans={"a": 0, "b": 2, "end": 3},
        corrupted_spans={"b": 0, "a": 1, "end": 3},
    ),
    # Lined up position by position.
    Pair([1, 2, 3, 4, 5], [1, 2, 6, 4, 5], [[2]], [[3]], spans={"a": 1, "b": 2, "end": 4}),
]

FROM = [
    [[0], [1], [2, 3, 4], [2, 3, 4], [5]],
    [[1], [2], [0], [3]],
    [[0], [1], [2], [3], [4]],
]
"""For each position of each clean prompt, the corrupted positions of which it is given the mean."""


def problem_and_oracle(family: str, ablation: str = "resample", places: str | None = None):
    """Return a problem about these pairs and its oracle, lined up by the table above."""
    prompts = collate(PAIRS)
    model = model_of(family)
    graph = heads_and_mlps(model.shape)
    if places is not None:
        prompts = placed(prompts, places)
        graph = graph.at_places(prompts.places.names)
    problem = assemble(model, prompts, find_metric("kl"), ablation, graph=graph)
    oracle = BruteForce(
        build(family, 0, n_layers=2),
        family,
        prompts.clean,
        prompts.corrupted,
        graph,
        # Padding comes last and attention looks back only, so nothing needs to be masked.
        place_of=None if prompts.places is None else prompts.places.of,
    )
    for name, written in oracle.replacement.items():
        lined_up = written.clone()
        for row, positions in enumerate(FROM):
            for position, sources in enumerate(positions):
                lined_up[row, position] = written[row, sources].mean(0)
        if ablation == "mean-over-positions":
            real = prompts.real[..., None]
            lined_up = ((lined_up * real).sum((0, 1)) / real.sum()).expand_as(written)
        oracle.replacement[name] = lined_up
    return problem, oracle


@pytest.mark.parametrize("places", [None, "spans"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-parallel", "gemma2"])
@pytest.mark.parametrize("ablation", ["resample", "mean-over-positions"])
def test_cut_edges_carry_the_same_span_of_the_corrupted_prompt(family, places, ablation):
    problem, oracle = problem_and_oracle(family, ablation, places)
    engine = IncrementalEngine(problem)
    for seed, share in enumerate((0.0, 0.4, 0.8)):
        mask = random_mask(engine.graph, seed, share)
        expected = problem.prompts.at_steps(oracle.logits(mask))
        for final in (
            engine.start_from(mask).final,
            engine.recomputed(mask, "clean"),
            engine.recomputed(mask, "replaced"),
        ):
            torch.testing.assert_close(logits_at_steps(engine, final), expected, **EXACT)


def test_the_oracle_itself_has_the_families_it_needs():
    assert {"gpt2", "llama", "gpt-neox-parallel", "gemma2"} <= set(FAMILIES)


def test_chunks_of_pairs_are_lined_up_like_all():
    problem, _ = problem_and_oracle("gpt2")
    mask = random_mask(problem.graph, 1)
    whole = IncrementalEngine(problem).measure([mask])[0]
    parts = []
    for row in range(3):
        prompts = problem.prompts.select([row])
        parts.append(IncrementalEngine(replace(problem, prompts=prompts)).measure([mask])[0])
    torch.testing.assert_close(torch.cat(parts), whole, **EXACT)


def test_the_empty_graph_is_no_run_and_dead_ends_stay():
    problem, _ = problem_and_oracle("gpt2")
    assert ABLATIONS.find("resample").pruning_is_free and not problem.pruning_is_free


def test_what_compares_runs_by_position_refuses_such_pairs():
    problem, _ = problem_and_oracle("gpt2")
    with pytest.raises(PromptError, match=r"patching puts .* prompt 0 .* \(5 and 6 tokens"):
        patch(problem, "resid_pre")
    with pytest.raises((PromptError, MethodError), match="both ways"):
        problem_and_oracle("bidirectional")


@pytest.mark.parametrize(
    ("spans", "corrupted", "said"),
    [
        ({"a": 1}, {"b": 1}, "has the span 'a' and its corrupted one has not"),
        ({"a": 1}, {"a": 0}, "has tokens before its first span and its corrupted one has not"),
        ({"a": 0, "b": 0}, {"a": 0}, "the span 'a' of its clean prompt begins where another"),
        ({"a": 0}, {"a": 7}, "the span 'a' begins outside its corrupted prompt of 3 tokens"),
        ({}, {}, "is misaligned: its clean prompt has 2 tokens and its corrupted one 3"),
    ],
)
def test_pairs_that_cannot_be_lined_up_name_the_pair_and_the_span(spans, corrupted, said):
    pair = Pair(
        [1, 2], [1, 3, 2], [[1]], spans=spans, corrupted_spans=corrupted, source="f.jsonl, line 4"
    )
    with pytest.raises(PromptError, match=f"f.jsonl, line 4.*{said}"):
        collate([pair])
