"""Moves inside attention as edges: the engine against the model's own attention module."""

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.engine.full_pass import embeddings, full_pass, plain_pass
from circuitfind.engine.patterns import attention_patterns
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape
from tests.engine.problems import EXACT, engine_of, logits_at_steps, oracle_of, random_mask
from tests.engine.test_places import CASES, SOME_FAMILIES, ablations

GPT2 = ModelShape(12, 12, 12, 768, 64, 50257, learned_positions=True)

FAMILIES = [*SOME_FAMILIES, "bidirectional"]

MOVES = [(family, case) for family in FAMILIES for case in ("shifted", "unequal", "early")]


@pytest.mark.parametrize(("family", "case"), MOVES)
def test_a_mask_over_moves_gives_the_logits_of_the_oracle(family, case):
    for number, ablation in enumerate(ablations(case)):
        engine, oracle = (
            of(family, ablation, crossing=True, **CASES[case]) for of in (engine_of, oracle_of)
        )
        problem, prompts = engine.problem, engine.problem.prompts
        for share in (0.3, 0.8):
            mask = random_mask(engine.graph, seed=number, share=share)
            expected = prompts.at_steps(oracle.logits(mask))[prompts.step_is_real]

            def same(final, engine=engine, real=prompts.step_is_real, expected=expected):
                torch.testing.assert_close(logits_at_steps(engine, final)[real], expected, **EXACT)

            # From the clean run, rounding would grow where a norm of Gemma 2 receives nothing.
            grows = family == "gemma2" and ablation == "zero"
            for start in ("replaced",) if grows else ("clean", "replaced"):
                same(engine.recomputed(mask, start))
            with torch.no_grad():
                whole = full_pass(
                    problem.model,
                    problem.graph,
                    embeddings(problem.model, problem.graph, prompts.clean),
                    engine.replacement,
                    mask.double(),
                    prompts.real,
                    prompts.places,
                )
            same(whole.final)
            same(engine.start_from(mask).final)


@pytest.mark.parametrize(("family", "case"), MOVES)
def test_cuts_one_after_the_other_end_where_the_oracle_is(family, case):
    engine, oracle = (of(family, crossing=True, **CASES[case]) for of in (engine_of, oracle_of))
    generator = torch.Generator().manual_seed(1)
    for share in (0.3, 0.7):
        state = engine.start_from(random_mask(engine.graph, seed=2, share=share))
        for _ in range(5):
            edges = state.mask.nonzero()
            some = edges[torch.randperm(len(edges), generator=generator)[:20]]
            state = engine.cut(state, [(w, r) for w, r in some.tolist()])
            assert engine.drift(state) < 1e-12
        real = engine.problem.prompts.step_is_real
        expected = engine.problem.prompts.at_steps(oracle.logits(state.mask))[real]
        found = logits_at_steps(engine, state.final)[real]
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nested", [False, True])
def test_candidates_that_cut_moves_are_those_of_the_oracle(family, nested):
    engine, oracle = (
        of(family, crossing=True, **CASES["shifted"]) for of in (engine_of, oracle_of)
    )
    mask = random_mask(engine.graph, seed=1, share=0.9)
    state = engine.start_from(mask)
    first = engine.graph.n_outer[1]
    for reader in [*range(0, first, 17), *range(first, len(engine.graph.readers), 3)]:
        writers = mask[:, reader].nonzero().flatten().tolist()[:4]
        if not writers:
            continue
        cut = engine.cut_nested if nested else engine.cut_each
        tried = cut(state, reader, writers)
        for number, final in enumerate(tried.final):
            kept = mask.clone()
            kept[writers[: number + 1] if nested else writers[number], reader] = False
            expected = oracle.logits(kept)[:, -1]
            torch.testing.assert_close(logits_at_steps(engine, final)[:, 0], expected, **EXACT)
            assert engine.drift(tried.pick(number, kept.numpy())) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_with_no_move_cut_it_is_the_graph_without_moves_to_the_last_bit(family):
    placed, crossed = (
        engine_of(family, crossing=crossing, **CASES["shifted"]) for crossing in (False, True)
    )
    mask = random_mask(placed.graph, seed=4)
    same = crossed.graph.edge_mask.clone()
    n_writers, n_readers = crossed.graph.n_outer
    same[:n_writers, :n_readers] = mask
    assert torch.equal(crossed.start_from(same).final, placed.start_from(mask).final)
    for start in ("clean", "replaced"):
        assert torch.equal(crossed.recomputed(same, start), placed.recomputed(mask, start))


def test_every_move_cut_is_every_input_of_heads_cut():
    engine = engine_of("llama", crossing=True, **CASES["shifted"])
    graph = engine.graph
    no_moves, no_inputs = graph.edge_mask.clone(), graph.edge_mask.clone()
    no_moves[graph.inner] = False
    no_inputs[:, [i for i, reader in enumerate(graph.readers) if reader.port]] = False
    torch.testing.assert_close(
        engine.recomputed(no_moves), engine.recomputed(no_inputs), rtol=0, atol=1e-12
    )


def test_the_number_of_edges_is_that_of_the_specification():
    graph = heads_and_mlps(GPT2).at_places(("a", "b", "c", "d", "e"))
    moves = tuple((source, target) for target in range(5) for source in range(target + 1))
    assert graph.n_edges == 162_455
    assert graph.crossing(moves).n_edges == 162_455 + 6_480


@pytest.mark.parametrize("family", FAMILIES)
def test_dead_ends_of_moves_change_no_output(family):
    oracle = oracle_of(family, crossing=True, **CASES["shifted"])
    inner = oracle.graph.inner
    for seed in range(4):
        circuit = Circuit(oracle.graph, random_mask(oracle.graph, seed, share=0.35))
        pruned = circuit.connected()
        gone = circuit.kept & ~pruned.kept
        assert gone[inner].any() and pruned.kept[inner].any()
        logits, expected = (oracle.logits(each.kept)[:, -1] for each in (pruned, circuit))
        torch.testing.assert_close(logits, expected, **EXACT)
        assert torch.equal(pruned.connected().kept, pruned.kept)


def test_patterns_of_a_run_show_its_cut_moves():
    """A head that attends with what cut edges carry has the pattern of the corrupted run."""
    engine = engine_of("llama", crossing=True, **CASES["shifted"])
    problem, graph, prompts = engine.problem, engine.graph, engine.problem.prompts
    mask = graph.edge_mask.clone()
    mask[[i for i, w in enumerate(graph.writers) if w.name.startswith("a1.h1.") and w.port]] = False
    with torch.no_grad():
        given = embeddings(problem.model, graph, prompts.clean)
        replaced = engine.replacement, mask.double(), prompts.real, prompts.places
        cut = full_pass(problem.model, graph, given, *replaced, keep_reads=True)
        clean, corrupted = (
            plain_pass(problem.model, graph, tokens, prompts.real, keep_reads=True)
            for tokens in (prompts.clean, prompts.corrupted)
        )
    found, whole, other = (
        attention_patterns(problem.model, graph, run, graph.attention[1], prompts.real)
        for run in (cut, clean, corrupted)
    )
    torch.testing.assert_close(found[1], other[1], **EXACT)
    torch.testing.assert_close(found[0], whole[0], **EXACT)
    assert (whole[1] - other[1]).abs().max() > 0.01
