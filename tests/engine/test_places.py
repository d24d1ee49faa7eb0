"""Edges at single places: the engine and attribution against brute force over the whole model."""

from dataclasses import replace

import pytest
import torch

from circuitfind.engine.full_pass import embeddings, full_pass
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.eap import CLEAN, EapOptions, along
from circuitfind.problem import Problem
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    SHIFTED,
    engine_of,
    logits_at_steps,
    oracle_of,
    places_from,
    problem_of,
    random_mask,
)

ONE_TEMPLATE = ((0, 0, 1, 2, 2, 3), (0, 0, 1, 2, 2, 3))

UNEQUAL = {
    "lengths": (6, 4, 5),
    "place_of": ((0, 1, 1, 2, 3, 3), (0, 1, 3, 3, 3, 3), (1, 0, 0, 2, 2, 2)),
}
"""Prompts of different lengths; the second one has no place 2, the third no place 3."""

STEPS = {"steps": (2, 4), "place_of": SHIFTED}
"""The metric reads at two places."""

CASES = {
    "template": {"place_of": ONE_TEMPLATE},
    "shifted": {"place_of": SHIFTED},
    "unequal": UNEQUAL,
    "steps": STEPS,
    "late": {"place_of": SHIFTED, "n_shared": 3},
    # A step before the first difference: keys matter at more positions than queries.
    "early": {
        "lengths": (6, 4, 5),
        "place_of": ((0, 1, 2, 2, 1, 1), (1, 0, 2, 1, 1, 1), (2, 1, 0, 2, 1, 1)),
        "steps": (1, 3),
        "n_shared": 2,
    },
}

SOME_FAMILIES = ["gpt2", "llama", "gpt-neox-parallel", "gemma2"]


def cases():
    """Return each case with some family, and each family with some case."""
    for case in CASES:
        for family in SOME_FAMILIES:
            yield pytest.param(family, case, id=f"{family}-{case}")
    for family in BRIDGED:
        if family not in SOME_FAMILIES:
            yield pytest.param(family, "shifted", id=f"{family}-shifted")


def ablations(case: str):
    """Return the ablations that a case can be asked with."""
    return (
        ("resample", "zero", "mean-over-positions")
        if case in ("unequal", "early")
        else ("resample", "zero", "mean")
    )


@pytest.mark.parametrize(("family", "case"), list(cases()))
def test_a_mask_over_places_gives_the_logits_of_the_oracle(family, case):
    for number, ablation in enumerate(ablations(case)):
        engine, oracle = (of(family, ablation, **CASES[case]) for of in (engine_of, oracle_of))
        problem = engine.problem
        prompts, real = problem.prompts, problem.prompts.step_is_real
        for share in (0.2, 0.7):
            mask = random_mask(engine.graph, seed=number, share=share)
            logits = oracle.logits(mask)
            expected = prompts.at_steps(logits)[real]
            state = engine.start_from(mask)
            found = logits_at_steps(engine, state.final)[real]
            torch.testing.assert_close(found, expected, **EXACT)
            for start in ("clean", "replaced"):
                scratch = engine.recomputed(mask, start)
                torch.testing.assert_close(
                    logits_at_steps(engine, scratch)[real], expected, **EXACT
                )
            with torch.no_grad():
                whole = full_pass(
                    problem.model,
                    problem.graph,
                    embeddings(problem.model, problem.graph, prompts.clean),
                    engine.replacement,
                    mask.double(),
                    prompts.real,
                    prompts.places,
                ).final
            torch.testing.assert_close(logits_at_steps(engine, whole)[real], expected, **EXACT)


@pytest.mark.parametrize("family", SOME_FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_cuts_one_after_the_other_end_where_the_oracle_is(family, case):
    engine, oracle = (of(family, **CASES[case]) for of in (engine_of, oracle_of))
    generator = torch.Generator().manual_seed(1)
    for share in (0.15, 0.3, 0.6):
        state = engine.start_from(random_mask(engine.graph, seed=2, share=share))
        for _ in range(6):
            edges = state.mask.nonzero()
            some = edges[torch.randperm(len(edges), generator=generator)[:6]]
            state = engine.cut(state, [(w, r) for w, r in some.tolist()])
            assert engine.drift(state) < 1e-12
        real = engine.problem.prompts.step_is_real
        expected = engine.problem.prompts.at_steps(oracle.logits(state.mask))[real]
        found = logits_at_steps(engine, state.final)[real]
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("family", SOME_FAMILIES)
@pytest.mark.parametrize("nested", [False, True])
def test_candidates_at_a_place_are_those_of_the_oracle(family, nested):
    engine, oracle = (of(family, place_of=SHIFTED) for of in (engine_of, oracle_of))
    mask = random_mask(engine.graph, seed=1, share=0.8)
    state = engine.start_from(mask)
    for reader in range(0, len(engine.graph.readers), 7):
        writers = mask[:, reader].nonzero().flatten().tolist()[:3]
        if not writers:
            continue
        cut = engine.cut_nested if nested else engine.cut_each
        tried = cut(state, reader, writers)
        for number, final in enumerate(tried.final):
            kept = mask.clone()
            kept[writers[: number + 1] if nested else writers[number], reader] = False
            expected = oracle.logits(kept)[:, -1]
            torch.testing.assert_close(logits_at_steps(engine, final)[:, 0], expected, **EXACT)
            picked = tried.pick(number, kept.numpy())
            assert engine.drift(picked) < 1e-12


@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_an_edge_cut_at_all_places_is_the_edge_cut(family):
    whole, placed = engine_of(family), engine_of(family, place_of=SHIFTED)
    mask = random_mask(whole.graph, seed=3)
    same = mask.repeat_interleave(placed.graph.n_places, dim=1)
    found = placed.start_from(same).final
    torch.testing.assert_close(found, whole.start_from(mask).final, **EXACT)


def test_one_place_is_today_s_search_to_the_last_bit():
    one = ((0,) * 6,) * 2
    whole, placed = engine_of("gpt2"), engine_of("gpt2", place_of=one)
    mask = random_mask(whole.graph, seed=4)
    assert torch.equal(placed.start_from(mask).final, whole.start_from(mask).final)
    for start in ("clean", "replaced"):
        assert torch.equal(placed.recomputed(mask, start), whole.recomputed(mask, start))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox-parallel"])
@pytest.mark.parametrize("case", ["shifted", "unequal", "steps"])
def test_scores_at_places_are_slopes_of_the_oracle_s_loss(family, case):
    problem = problem_of(family, metric="logit-difference", **CASES[case])
    engine = IncrementalEngine(problem)
    found = scores_of(engine)
    oracle = oracle_of(family, **CASES[case])
    everything = engine.graph.edge_mask.double()
    generator = torch.Generator().manual_seed(0)
    edges = engine.graph.edge_mask.nonzero()
    for pair in edges[torch.randperm(len(edges), generator=generator)[:12]].tolist():
        losses = []
        for step in (1e-4, -1e-4):
            mask = everything.clone()
            mask[tuple(pair)] -= step
            losses.append(loss_of(problem, oracle.logits(mask)))
        slope = (losses[0] - losses[1]) / 2e-4
        assert found[tuple(pair)] == pytest.approx(slope, abs=1e-6), pair


def scores_of(engine: IncrementalEngine) -> torch.Tensor:
    """Return the eap scores of a problem."""
    *_, last = along(engine, [CLEAN], EapOptions(), None)
    return last.state["scores"]


def loss_of(problem: Problem, logits: torch.Tensor) -> float:
    """Return minus the mean logit difference, from all logits; each step counts alike."""
    prompts, total = problem.prompts, []
    for row, steps in enumerate(prompts.steps.tolist()):
        found = []
        for number, step in enumerate(steps):
            right, wrong = prompts.answers[row, number], prompts.wrong_answers[row, number]
            found.append(logits[row, step][right].mean() - logits[row, step][wrong].mean())
        total.append(torch.stack(found).mean())
    return -float(torch.stack(total).mean())


def test_scores_at_all_places_add_up_to_the_edge_s_score():
    whole = scores_of(IncrementalEngine(problem_of("llama", metric="logit-difference")))
    placed = IncrementalEngine(problem_of("llama", metric="logit-difference", place_of=SHIFTED))
    by_place = scores_of(placed).unflatten(1, (-1, placed.graph.n_places))
    torch.testing.assert_close(by_place.sum(-1), whole, rtol=0, atol=1e-9)


def test_chunks_of_prompts_hold_their_own_places():
    whole = engine_of("gpt2", **UNEQUAL)
    problem = whole.problem
    mask = random_mask(problem.graph, seed=5)
    parts = [
        replace(problem, prompts=problem.prompts.rows(slice(row, row + 1)))
        for row in range(len(problem.prompts))
    ]
    each = [IncrementalEngine(part).measure([mask])[0] for part in parts]
    torch.testing.assert_close(torch.cat(each), whole.measure([mask])[0], **EXACT)


def test_padding_and_empty_places_do_no_harm():
    assert places_from(UNEQUAL["place_of"]).masks().sum(0).eq(1).all()
