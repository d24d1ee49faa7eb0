"""Read through composed weights, all is as it is read whole."""

import pytest
import torch

from circuitfind.engine import composed
from circuitfind.engine.composed import Composed, Recent
from tests.engine.problems import EXACT, engine_of, random_mask

FAMILIES = ["gpt2", "gpt-neox-parallel", "llama", "gemma", "phi3", "mixtral", "bidirectional"]


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("family", FAMILIES)
def test_through_composed_weights_everything_is_as_without_them(family, ablation, monkeypatch):
    """Edges are cut one by one in a sparse graph, where few heads change at once."""
    engine = engine_of(family, ablation, n_layers=3)
    uses = count_reads(monkeypatch)
    through = finals(engine)
    assert uses
    monkeypatch.setattr(Composed, "pays", lambda self, writers: False)
    for found, expected in zip(through, finals(engine), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("split_qkv", [False, True])
def test_what_was_read_is_carried_on_as_if_read_anew(split_qkv):
    engine = engine_of("gpt2", n_layers=3, split_qkv=split_qkv)
    (state,) = engine.start_from(random_mask(engine.graph, seed=0, share=0.5)).chunks
    (chunk,), carried = engine.chunks, 0
    for reader in reversed(range(len(engine.graph.readers))):
        for writer in state.kept[:, reader].nonzero()[0].tolist()[::3]:
            kept = state.kept.copy()
            kept[writer, reader] = False
            trial = chunk.tried(state, reader, [writer], nested=True)
            state = trial.pick(0, state.keeping(kept))
            for (read, reading), product in state.products.items():
                carried += 1
                stream = state.read[read][:, -product.shape[-2] :]
                expected = reading.linear(reading.norm.centre(stream))
                torch.testing.assert_close(product, expected, **EXACT)
    assert carried
    assert not state.settled().products


def test_where_heads_share_a_norm_nothing_is_composed(monkeypatch):
    """What one of them writes is not linear in what it mixes."""
    uses = count_reads(monkeypatch)
    finals(engine_of("gemma2", n_layers=3))
    assert not uses


def test_weights_are_composed_only_where_few_numbers_change():
    engine = engine_of("gpt2")
    graph = engine.graph
    pays = engine.chunks[0].composed.pays
    heads = list(graph.head_writers(0))
    shape = graph.shape
    few = shape.d_model // (2 * shape.d_head)
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
    recent.put("a", torch.zeros(4))
    assert recent.get("a") is None


def count_reads(monkeypatch):
    uses, original = [], composed.Composed.read

    def counted(self, *args):
        uses.append(args)
        return original(self, *args)

    monkeypatch.setattr(composed.Composed, "read", counted)
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
