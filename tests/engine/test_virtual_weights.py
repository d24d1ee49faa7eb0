"""Read through virtual weights, all is as it is read whole."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from circuitfind.engine import sizes, virtual_weights
from circuitfind.engine.blocks import Blocks
from circuitfind.engine.virtual_weights import Recent, VirtualWeights
from circuitfind.models.norms import LinearNorm
from tests.engine.problems import EXACT, engine_of, random_mask

FAMILIES = ["gpt2", "gpt-neox-parallel", "llama", "gemma", "phi3", "mixtral", "bidirectional"]


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("family", FAMILIES)
def test_through_virtual_weights_everything_is_as_without_them(family, ablation, monkeypatch):
    """Edges are cut one by one in a sparse graph, where few heads change at once."""
    engine = engine_of(family, ablation, n_layers=3)
    uses = count_reads(monkeypatch)
    through = finals(engine)
    assert uses
    monkeypatch.setattr(VirtualWeights, "pays", lambda self, writers: False)
    for found, expected in zip(through, finals(engine), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("merge_qkv", [False, True])
def test_what_was_read_is_carried_on_as_if_read_anew(merge_qkv):
    engine = engine_of("gpt2", n_layers=3, merge_qkv=merge_qkv)
    state, carried = engine.start_from(random_mask(engine.graph, seed=0, share=0.5)), 0
    for reader in reversed(range(len(engine.graph.readers))):
        writers = state.kept[:, reader].nonzero()[0].tolist()
        for some in filter(None, (writers[:2], writers[2:4])):
            kept = state.kept.copy()
            kept[some, reader] = False
            state = engine.cut_nested(state, reader, some).pick(len(some) - 1, kept)
            (chunk,) = state.chunks
            for (index, reading), product in chunk.products.items():
                carried += 1
                stream = chunk.read[index][:, -product.shape[-2] :]
                expected = reading.linear(reading.norm.centre(stream))
                torch.testing.assert_close(product, expected, **EXACT)
    assert carried


def test_rounding_does_not_depend_on_what_was_carried():
    """A resumed search, which cuts from a state that carries nothing, repeats it bit for bit."""
    engine = engine_of("gpt2", n_layers=3)
    state, reader = engine.start(), engine.graph.reader_index["a1.h0.q"]
    tried = engine.cut_nested(state, reader, [0, 1])
    kept = state.kept.copy()
    kept[0, reader] = False
    (carrying,) = tried.pick(0, kept).chunks
    assert carrying.products
    (cut,) = engine.cut(tried.pick(0, kept), [(1, reader)]).chunks
    assert not cut.products
    assert not carrying.keeping(kept).products


@pytest.mark.parametrize("together", [1, 200])
def test_however_few_candidates_are_read_at_once_nothing_changes(together, monkeypatch):
    engine = engine_of("gpt2", n_layers=3)
    state = engine.start_from(random_mask(engine.graph, seed=0, share=0.5))
    readers = [
        index for index in range(len(engine.graph.readers)) if state.kept[:, index].sum() > 2
    ]

    def tried():
        for reader in readers:
            yield engine.cut_nested(state, reader, state.kept[:, reader].nonzero()[0].tolist())

    expected = [each.final for each in tried()]
    uses = count_reads(monkeypatch)
    monkeypatch.setattr(sizes, "_PROCESSOR", sizes._PROCESSOR._replace(candidates=together))
    for found, final in zip(tried(), expected, strict=True):
        torch.testing.assert_close(found.final, final, **EXACT)
    assert uses


def test_readers_that_do_not_read_alike_are_left_to_the_model(monkeypatch):
    engine = engine_of("gpt2", n_layers=3)
    graph, own = engine.graph, engine.problem.model.reading
    blocks = Blocks(engine.problem.model, graph, engine.problem.prompts.real)
    readings = partial(blocks.readings, graph.block_of["a1.h0"])
    readers = [graph.reader_index[name] for name in ("a1.h0.q", "a1.h1.q")]
    assert len(readings(readers)) == 2

    def with_another_norm(layer, port, head):
        reading = own(layer, port, head)
        return replace(reading, norm=LinearNorm(*reading.norm)) if head else reading

    monkeypatch.setattr(engine.problem.model, "reading", with_another_norm)
    assert not readings(readers) and readings(readers[:1])
    monkeypatch.setattr(
        engine.problem.model, "reading", lambda *port: None if port[2] else own(*port)
    )
    assert not readings(readers) and readings(readers[:1])


def test_where_heads_share_a_norm_none_are_used(monkeypatch):
    """What one of them writes is not linear in what it mixes."""
    uses = count_reads(monkeypatch)
    finals(engine_of("gemma2", n_layers=3))
    assert not uses


def test_virtual_weights_are_used_only_where_few_numbers_change():
    engine = engine_of("gpt2")
    graph = engine.graph
    pays = VirtualWeights(engine.problem.model, graph, most=0).pays
    heads = list(graph.block_of["a0.h0"].writers)
    shape = graph.shape
    few = shape.d_model // (2 * shape.d_head)
    assert few < len(heads)
    assert pays(heads[:few]) and not pays(heads[: few + 1])
    assert not pays([graph.writer_index["m0"]]) and not pays([graph.writer_index["embed"]])


def test_what_was_used_last_is_remembered():
    recent = Recent(most=10)
    for key in "abc":
        recent.put(key, torch.zeros(2, 2))
    assert recent.get("a") is None and recent.get("b") is not None
    recent.put("d", torch.zeros(4))
    assert recent.get("c") is None and recent.get("b") is not None


def test_what_is_put_anew_takes_the_room_of_the_old():
    recent = Recent(most=10)
    recent.put("a", torch.zeros(4))
    for value in range(5):
        recent.put("b", torch.full((6,), value))
    assert recent.get("a") is not None
    assert (recent.get("b") == 4).all()


def test_what_is_larger_than_the_room_is_not_remembered():
    recent = Recent(most=3)
    recent.put("b", torch.zeros(2))
    recent.put("a", torch.zeros(4))
    assert recent.get("a") is None and recent.get("b") is not None


def test_virtual_weights_are_used_only_where_others_find_room_beside_them():
    engine = engine_of("gpt2")
    model, graph = engine.problem.model, engine.graph
    writers, reading = [graph.writer_index["a0.h0"]], model.reading(1, "q", 0)
    needed = graph.shape.d_head * len(reading.constant)
    change = torch.zeros(3, 2, 5, graph.shape.d_model, dtype=torch.float64)
    assert VirtualWeights(model, graph, 4 * needed).saves(writers, [reading], change)
    assert not VirtualWeights(model, graph, 4 * needed - 1).saves(writers, [reading], change)
    assert not VirtualWeights(model, graph, 4 * needed).saves(writers, [reading, reading], change)
    assert not VirtualWeights(model, graph, 4 * needed).saves(writers * 2, [reading], change)


def test_virtual_weights_are_used_only_where_they_save_enough(monkeypatch):
    engine = engine_of("gpt2")
    model, graph, shape = engine.problem.model, engine.graph, engine.graph.shape
    writers, reading = [graph.writer_index["a0.h0"]], model.reading(1, "q", 0)
    change = torch.zeros(3, 2, 5, shape.d_model, dtype=torch.float64)
    saved = 3 * 2 * 5 * (shape.d_model - shape.d_head) * len(reading.constant)
    composes = VirtualWeights(model, graph, 10**6)
    monkeypatch.setattr(virtual_weights, "_WORTH", saved)
    assert composes.saves(writers, [reading], change)
    assert not composes.saves(writers, [reading], change[1:])
    assert composes.saves(writers, [reading, reading], change[1:])
    assert not composes.saves(writers * 2, [reading], change)


def count_reads(monkeypatch):
    uses, original = [], virtual_weights.VirtualWeights.read

    def counted(self, *args):
        uses.append(args)
        return original(self, *args)

    monkeypatch.setattr(virtual_weights.VirtualWeights, "read", counted)
    return uses


def finals(engine):
    return [state.final for state in states(engine)]


def states(engine):
    """Return the states of cutting edges one by one, from a graph with half of them."""
    kept = random_mask(engine.graph, seed=0, share=0.5)
    edges = kept.nonzero()
    order = edges[torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))]
    found = [engine.start_from(kept)]
    for edge in order[:40].tolist():
        found.append(engine.cut(found[-1], [tuple(edge)]))
    return found
