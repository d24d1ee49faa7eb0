"""What a search takes is known before it starts."""

import pytest

import circuitfind as cf
from benchmarks.setting import Size, random_gpt2, random_llama, random_pairs
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import (
    attribution_bytes,
    patching_bytes,
    remembered_numbers,
    search_bytes,
)
from circuitfind.engine.tensor_store import InMemory
from circuitfind.evaluation.cost import PeakBytes
from tests.engine.problems import problem_of
from tests.engine.unit_cases import CASES


@pytest.mark.parametrize(
    ("family", "case"),
    [("gpt2", None), ("llama", None), ("gemma2", None), ("gpt-neox-parallel", None)]
    + [("gpt2", "streams")],
)
def test_an_engine_remembers_no_more_than_stated(family, case):
    engine = IncrementalEngine(problem_of(family, "resample", **(CASES[case] if case else {})))
    (chunk,) = engine.chunks
    (state,), runs = tried_once(engine).chunks, chunk.runs
    held = [*state.written.values(), *state.read.values(), *state.projected.values()]
    held += [*state.z.values(), *state.products.values(), *runs.entering.values()]
    held += [*runs.z.values(), *runs.clean.values.values(), *runs.replaced.values.values()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in held}
    numbers = sum(storage.nbytes() for storage in storages.values()) / state.final.itemsize
    stated = remembered_numbers(engine.graph) * engine.problem.prompts.clean.numel()
    # What is stated leaves room for a circuit in which every component has changed.
    assert 0.4 * stated < numbers <= stated


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_moves_carry_is_stated_and_kept_where_the_rest_is(family, monkeypatch):
    places = {"place_of": ((0, 1, 1, 2, 2, 2), (1, 0, 2, 2, 2, 2))}
    without, problem = (
        problem_of(family, crossing=crossing, **places) for crossing in (False, True)
    )
    kept = []
    monkeypatch.setattr(InMemory, "keep", lambda _, each: kept.append(dict(each)) or dict(each))
    engine = IncrementalEngine(problem)
    held_before = len(kept)
    graph = engine.graph
    move = graph.index("a0.h1.k@p0->a0.h1@p2")
    engine.cut(engine.start(), [move])
    _, *later = kept[held_before:]
    (moved,) = [
        each for each in later if (0, "q") in each and len(each) == 3 * graph.shape.n_layers
    ]
    numbers = sum(values.numel() for values in moved.values())
    more = remembered_numbers(graph) - remembered_numbers(without.graph)
    assert numbers == more * problem.prompts.clean.numel()


def tried_once(engine):
    """Return the full graph after an edge was cut that nearly all that follows reads through."""
    state, reader = engine.start(), engine.graph.reader_index["a0.h0.q"]
    kept = state.kept.copy()
    kept[0, reader] = False
    tried = engine.cut_nested(state, reader, [0])
    (part,) = tried.chunks
    assert part.trial.through or engine.graph.shape.heads_share_norm
    return tried.pick(0, kept)


def test_the_memory_grows_with_prompts_and_positions():
    graph = problem_of("gpt2").graph
    assert search_bytes(graph, 20, 10) == search_bytes(graph, 10, 20)
    assert search_bytes(graph, 10, 10) < search_bytes(graph, 20, 10)
    assert search_bytes(graph, 10, 10, bytes_per_number=8) == 2 * search_bytes(graph, 10, 10)


@pytest.mark.parametrize("build", [random_gpt2, random_llama])
def test_attribution_and_patching_hold_no_more_than_stated(build):
    size = Size(4, 4, 2 if build is random_llama else None, 128, 60, 12, 16)
    problem = cf.make_problem(cf.load_model(build(size)), random_pairs(size))
    # Small models have too few patches to fill what patching may take.
    for work, stated, least in (
        (lambda: cf.discover(problem, "eap-ig", n_edges=10), attribution_bytes, 0.1),
        (lambda: cf.patch(problem, "head"), patching_bytes, 0.01),
    ):
        with PeakBytes() as held:
            work()
        assert least < held.peak / stated(problem.graph, size.n_prompts, size.n_tokens) < 1
