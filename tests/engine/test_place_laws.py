"""Laws that hold for edges at any places, drawn at random."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from tests.engine.problems import (
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    random_mask,
)

FAMILIES = ["gpt2", "llama", "gemma2", "bidirectional"]

laws = settings(deadline=None, max_examples=6, database=None, derandomize=True)
seeds = st.integers(0, 2**16)
positions = st.lists(st.integers(0, 2), min_size=6, max_size=6).map(tuple)
PlaceOf = tuple[tuple[int, ...], ...]


@st.composite
def places(draw: st.DrawFn) -> PlaceOf:
    """Return the places of six positions of two prompts; each of three places is somewhere."""
    rows = draw(positions), draw(positions)
    first = (*rows[0][:3], *draw(st.permutations(range(3))))
    return first, rows[1]


@st.composite
def finer(draw: st.DrawFn) -> tuple[PlaceOf, PlaceOf, list[int]]:
    """Return places, finer ones, and for each of the finer ones the place that it is part of."""
    fine = draw(places())
    part_of = [0, *draw(st.lists(st.integers(0, 1), min_size=2, max_size=2))]
    # Places count from 0 without a gap.
    part_of = [sorted(set(part_of)).index(each) for each in part_of]
    coarse = tuple(tuple(part_of[number] for number in row) for row in fine)
    return coarse, fine, part_of


def engine_at(family: str, place_of: PlaceOf | None, ablation: str = "resample"):
    return IncrementalEngine(problem_of(family, ablation, n_layers=1, place_of=place_of))


@pytest.mark.parametrize("family", FAMILIES)
@laws
@given(divided=finer(), seed=seeds)
def test_cutting_all_parts_of_a_place_is_cutting_the_place(family, divided, seed):
    coarse_of, fine_of, part_of = divided
    coarse, fine = engine_at(family, coarse_of), engine_at(family, fine_of)
    mask = random_mask(coarse.graph, seed, share=0.6)
    by_place = mask.unflatten(1, (-1, coarse.graph.n_places))
    same = by_place[..., part_of].flatten(1)
    torch.testing.assert_close(fine.start_from(same).final, coarse.start_from(mask).final, **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
@laws
@given(place_of=places(), seed=seeds, ablation=st.sampled_from(["resample", "zero", "mean"]))
def test_cuts_one_after_another_are_a_run_from_scratch(family, place_of, seed, ablation):
    engine = engine_at(family, place_of, ablation)
    generator = torch.Generator().manual_seed(seed)
    edges = engine.graph.edge_mask.nonzero()
    state = engine.start()
    for some in edges[torch.randperm(len(edges), generator=generator)][:60].split(15):
        state = engine.cut(state, [(writer, reader) for writer, reader in some.tolist()])
        scratch = engine.recomputed(state.mask)
        torch.testing.assert_close(
            logits_at_steps(engine, state.final), logits_at_steps(engine, scratch), **EXACT
        )
        assert engine.drift(state) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
@laws
@given(place_of=places(), seed=seeds)
def test_dead_ends_at_places_change_no_output(family, place_of, seed):
    oracle = oracle_of(family, n_layers=2, place_of=place_of)
    circuit = Circuit(oracle.graph, random_mask(oracle.graph, seed, share=0.12))
    pruned = circuit.connected()
    assert pruned.n_edges < circuit.n_edges
    logits, expected = (oracle.logits(each.kept)[:, -1] for each in (pruned, circuit))
    torch.testing.assert_close(logits, expected, **EXACT)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_writer_may_matter_at_fewer_positions_than_an_input_that_others_reach(family, ablation):
    """a0.h0 matters at the last two positions only, the input of a1's values everywhere."""
    place_of = ((0, 0, 1, 1, 2, 2),) * 2
    engine, oracle = (of(family, ablation, place_of=place_of) for of in (engine_of, oracle_of))
    graph = engine.graph
    value = next(r.name.partition("@")[0] for r in graph.readers if r.layer == 1 and r.port == "v")
    cut = ["a0.h0->m1@p2", f"a0.h0->{value}@p2", f"embed->{value}@p0"]
    kept = graph.mask_of([*cut, "embed->a0.h0.q@p2", "a1.h0->logits@p2", "m1->logits@p2"])
    state = engine.start_from(kept)
    for name in cut[1:]:
        writer, reader = graph.index(name)
        tried, after = (
            engine.cut_each(state, reader, [writer]),
            engine.cut(state, [(writer, reader)]),
        )
        without = state.mask & ~graph.mask_of([name])
        expected = oracle.logits(without)[:, -1]
        for final in (tried.final[0], after.final):
            torch.testing.assert_close(logits_at_steps(engine, final)[:, 0], expected, **EXACT)
        state = after
