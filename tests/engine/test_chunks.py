"""With little memory prompts come in chunks, kept in files: the same results as all at once."""

from pathlib import Path

import pytest
import torch

import circuitfind as cf
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import chunk_bytes, plan, search_bytes
from circuitfind.engine.tensor_store import InFiles
from circuitfind.errors import MethodError
from circuitfind.methods.acdc import Acdc, AcdcOptions
from tests.engine.problems import (
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    random_mask,
)

EQUAL = {"lengths": (6, 6, 6)}
FIVE = {"lengths": (6, 6, 6, 6, 6), "n_shared": 1}
UNEQUAL = {"lengths": (6, 3, 5)}
FAMILIES = ["gpt2", "llama", "gemma2", "gpt-neox-parallel", "bidirectional"]


@pytest.mark.parametrize(
    ("family", "ablation"),
    [
        ("gpt2", "resample"),
        ("llama", "zero"),
        ("gemma2", "mean"),
        ("gpt-neox-parallel", "mean-over-positions"),
        ("bidirectional", "resample"),
    ],
)
def test_chunks_of_prompts_give_what_all_of_them_give(family, ablation):
    place = EQUAL if ablation == "mean" else UNEQUAL
    chunked, oracle = in_chunks(family, ablation, 2, **place), oracle_of(family, ablation, **place)
    assert [len(chunk.problem.prompts) for chunk in chunked.chunks] == [2, 1]
    real = chunked.problem.prompts.step_is_real
    state = chunked.start_from(random_mask(chunked.graph, seed=1, share=0.6))
    for _ in range(2):
        expected = chunked.problem.prompts.at_steps(oracle.logits(state.mask))
        found = logits_at_steps(chunked, state.final)
        torch.testing.assert_close(found[real], expected[real], **EXACT)
        assert chunked.drift(state) < 1e-12
        gone = random_mask(chunked.graph, seed=2, share=0.3).nonzero().tolist()
        state = chunked.cut(state, [(writer, reader) for writer, reader in gone])


@pytest.mark.parametrize("family", ["llama", "gpt-neox-parallel"])
def test_a_search_over_places_in_chunks_decides_as_one_of_all_prompts(family):
    placed = {**UNEQUAL, "place_of": ((0, 0, 1, 1, 2, 2), (1, 0, 2, 2, 2, 2), (0, 1, 1, 2, 2, 2))}
    found, expected = (
        [d for step in Acdc().run(engine, AcdcOptions(0.1)) for d in step.decisions]
        for engine in (in_chunks(family, "zero", 2, **placed), engine_of(family, "zero", **placed))
    )
    assert len({d.edge.partition("@")[2] for d in found if d.reason == "tested"}) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.edge, ours.kept, ours.reason) == (theirs.edge, theirs.kept, theirs.reason)
        if ours.effect is not None:
            assert ours.effect == pytest.approx(theirs.effect, abs=1e-9)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_in_chunks_are_candidates_together(family, nested):
    chunked, whole = in_chunks(family, "resample", 2, **UNEQUAL), engine_of(family, **UNEQUAL)
    mask = random_mask(whole.graph, seed=0, share=0.5)
    states = [engine.start_from(mask) for engine in (chunked, whole)]
    for reader in range(0, len(whole.graph.readers), 5):
        writers = mask[:, reader].nonzero()[:, 0].tolist()[::-1]
        if not writers:
            continue
        tried = [
            (engine.cut_nested if nested else engine.cut_each)(state, reader, writers)
            for engine, state in zip((chunked, whole), states, strict=True)
        ]
        losses = [list(each.losses()) for each in tried]
        assert losses[0] == pytest.approx(losses[1], abs=1e-12)
        kept = states[0].kept.copy()
        kept[writers[: 2 if nested else 1][-1], reader] = False
        kept[writers[0], reader] = False if nested else kept[writers[0], reader]
        last = min(1, len(writers) - 1) if nested else 0
        picked = [each.pick(last, kept) for each in tried]
        torch.testing.assert_close(picked[0].final, picked[1].final, **EXACT)


@pytest.mark.parametrize(
    ("method", "metric"),
    [("acdc", "kl"), ("acdc", "logit-difference"), ("exact", "kl"), ("hybrid", "kl")],
)
def test_searches_in_chunks_decide_the_same(method, metric):
    problem = problem_of("llama", metric=metric, n_layers=1, **EQUAL)
    options = {"steps": 2, "share": 0.8} if method == "hybrid" else {}
    found = [
        cf.discover(problem, method, threshold=1e-4, memory=memory, **options)
        for memory in (None, memory_for(problem, 1))
    ]
    assert [len(each.engine.chunks) for each in found] == [1, 3]
    assert [d.edge for d in found[0].decisions if d.kept]
    assert [(d.edge, d.kept) for d in found[0].decisions] == [
        (d.edge, d.kept) for d in found[1].decisions
    ]
    for one, other in zip(found[0].decisions, found[1].decisions, strict=True):
        assert one.effect == pytest.approx(other.effect, abs=1e-12)


def test_what_chunks_remember_is_in_files_and_not_in_memory():
    engine = in_chunks("gpt2", "resample", 2, **FIVE)
    state = engine.cut(engine.start(), [(0, len(engine.graph.readers) - 1)])
    for chunk, part in zip(engine.chunks, state.chunks, strict=True):
        held = [*part.read.values(), *part.projected.values(), *part.z.values()]
        held += [*part.written.values(), *chunk.runs.replaced.values.values()]
        held += [*chunk.runs.entering.values(), *chunk.runs.clean.values.values()]
        assert all(in_a_file(tensor) for tensor in held)


def test_tensors_that_are_one_stay_one_in_files(tmp_path):
    one, other = torch.arange(6.0).view(2, 3), torch.zeros(2, dtype=torch.long)
    kept = InFiles(tmp_path).keep({"a": one, "b": other, "c": one, "d": one[:, 1:]})
    assert kept["a"].data_ptr() == kept["c"].data_ptr()
    for name, tensor in {"a": one, "b": other, "c": one, "d": one[:, 1:]}.items():
        assert torch.equal(kept[name], tensor) and kept[name].dtype == tensor.dtype
    assert list(tmp_path.iterdir()) == []


def test_chunks_are_as_few_and_as_even_as_the_memory_allows():
    problem = problem_of("gpt2", **FIVE)
    sizes = {n: plan(problem, memory_for(problem, n)).n_prompts for n in (1, 2, 3, 4, 5)}
    assert sizes == {1: 1, 2: 2, 3: 3, 4: 3, 5: 5}
    plenty = 2 * search_bytes(problem.graph, 5, 6, problem.model.dtype.itemsize)
    assert plan(problem, plenty).n_prompts == 5


def test_a_memory_too_small_for_one_pair_is_refused():
    problem = problem_of("gpt2", **FIVE)
    with pytest.raises(
        MethodError, match=r"at least .* MB beside the model, .* and 1 kB are allow"
    ):
        IncrementalEngine(problem, memory=1000)


def memory_for(problem, n_prompts):
    """Return the least memory that is enough for so many prompts at a time."""
    length, width = problem.prompts.clean.shape[1], problem.model.dtype.itemsize
    return int(chunk_bytes(problem.graph, n_prompts, length, width) * 8 / 7) + width


def in_chunks(family, ablation, n_prompts, **place):
    problem = problem_of(family, ablation, **place)
    return IncrementalEngine(problem, memory_for(problem, n_prompts))


def in_a_file(tensor):
    """Whether a tensor's memory belongs to a file, by the system's own account."""
    address = tensor.untyped_storage().data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, _, _, inode, *_ = line.split()
        start, end = (int(number, 16) for number in place.split("-"))
        if start <= address < end:
            return inode != "0"
    return False
