"""Many candidates at once, at the positions that matter: as one at a time, at all positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitfind.engine.horizon import Horizon
from circuitfind.engine.incremental import IncrementalEngine
from tests.engine.problems import (
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    prompts_of,
    random_mask,
    watch,
)

FAMILIES = (
    "gpt2", "gpt-neox-parallel", "gpt-j", "llama", "mistral-window", "gemma2", "bidirectional",
)  # fmt: skip
LAST = {"lengths": (6, 6)}
EARLY = {"lengths": (6, 6), "n_shared": 1, "steps": (2, 3)}
LATE = {"lengths": (6, 6), "n_shared": 4, "steps": (3, 5)}
AFTER = {"lengths": (6, 6), "n_shared": 4, "steps": (1, 2)}
UNEQUAL = {"lengths": (6, 4, 5), "n_shared": 3}
PLACES = {"last": LAST, "early": EARLY, "late": LATE, "after": AFTER, "unequal": UNEQUAL}
"""Where clean and corrupted prompts begin to differ, and where the metric reads."""

thorough = settings(max_examples=3, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
@thorough
@given(data=st.data())
def test_wherever_prompts_differ_and_metrics_read_cuts_agree_with_the_oracle(family, place, data):
    ablation = data.draw(st.sampled_from(["resample", "zero", "mean-over-positions"]))
    options = {**PLACES[place], "n_layers": 3}
    engine, oracle = (of(family, ablation, **options) for of in (engine_of, oracle_of))
    edges = [(writer, reader) for writer, reader in engine.graph.edge_mask.nonzero().tolist()]
    share, seed = data.draw(st.sampled_from([0.2, 0.5, 1.0])), data.draw(st.integers(0, 10**6))
    state = engine.start_from(random_mask(engine.graph, seed, share))
    for _ in range(data.draw(st.integers(1, 4))):
        state = engine.cut(state, data.draw(st.lists(st.sampled_from(edges), min_size=1)))
    expected = engine.problem.prompts.at_steps(oracle.logits(state.mask))
    real = engine.problem.prompts.step_is_real
    found = logits_at_steps(engine, state.final)
    torch.testing.assert_close(found[real], expected[real], **EXACT)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("family", "place"),
    [
        ("gpt2", "unequal"),
        ("gpt-neox-parallel", "late"),
        ("gpt-j", "late"),
        ("llama", "last"),
        ("gemma2", "late"),
        ("bidirectional", "unequal"),
    ],
)
def test_candidates_together_are_each_of_them_alone(family, place, nested):
    engine = engine_of(family, **PLACES[place], n_layers=3)
    state = engine.start_from(random_mask(engine.graph, seed=0, share=0.4))
    for reader in range(0, len(engine.graph.readers), 4):
        writers = state.kept[:, reader].nonzero()[0].tolist()[::-1]
        if not writers:
            continue
        together = (engine.cut_nested if nested else engine.cut_each)(state, reader, writers)
        losses = list(together.losses())
        for place_, writer in enumerate(writers):
            cut = writers[: place_ + 1] if nested else [writer]
            alone = engine.cut(state, [(each, reader) for each in cut])
            assert losses[place_] == pytest.approx(engine.loss(alone), abs=1e-12)
            picked = together.pick(place_, alone.kept)
            torch.testing.assert_close(picked.final, alone.final, **EXACT)
            further = [(int(state.kept[:, -1].nonzero()[0][0]), len(engine.graph.readers) - 1)]
            torch.testing.assert_close(
                engine.cut(picked, further).final, engine.cut(alone, further).final, **EXACT
            )
            for later in range(reader, len(engine.graph.readers), 7):
                if some := alone.kept[:, later].nonzero()[0].tolist()[:2]:
                    found, expected = (
                        engine.cut_nested(start, later, some).final for start in (picked, alone)
                    )
                    torch.testing.assert_close(found, expected, **EXACT)


def test_queries_of_one_layer_can_matter_at_different_positions():
    """a1.h0 is read by a key, at all positions; a1.h1 only by the logits, at the last."""
    options = {"lengths": (6, 6), "n_layers": 3}
    engine, oracle = engine_of("gpt2", **options), oracle_of("gpt2", **options)
    kept = engine.graph.mask_of(
        ["embed->m0", "m0->a1.h0.q", "m0->a1.h1.q", "m0->a1.h0.v", "m0->a1.h1.v"]
        + ["a1.h0->a2.h3.k", "a2.h3->logits", "a1.h1->logits"]
    )
    pair = engine.graph.index("embed->m0")
    state = engine.cut(engine.start_from(kept), [pair])
    expected = engine.problem.prompts.at_steps(oracle.logits(state.mask))
    torch.testing.assert_close(logits_at_steps(engine, state.final), expected, **EXACT)


def test_candidates_leave_the_state_that_they_start_from_as_it_is():
    engine = engine_of("llama")
    state = engine.start()
    (chunk,) = state.chunks
    before = [tensor.clone() for tensor in (*chunk.read.values(), *chunk.written.values())]
    trial = engine.cut_nested(state, 0, [0])
    trial.pick(0, state.kept.copy())
    after = [*chunk.read.values(), *chunk.written.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(state.mask, engine.graph.edge_mask)


def test_candidates_of_a_reader_that_leads_nowhere_change_nothing():
    engine = engine_of("gpt2")
    state = engine.start_from(engine.graph.mask_of(["embed->m0", "embed->logits"]))
    reader = engine.graph.reader_index["m0"]
    assert list(engine.cut_each(state, reader, [0]).losses()) == [engine.loss(state)]


@pytest.mark.parametrize(
    ("ablation", "place", "expected"),
    [
        ("resample", "last", Horizon(steps=1, changes=6)),
        ("resample", "early", Horizon(steps=4, changes=5)),
        ("resample", "late", Horizon(steps=3, changes=3)),
        ("resample", "after", Horizon(steps=5, changes=5)),
        ("resample", "unequal", Horizon(steps=3, changes=3)),
        ("zero", "late", Horizon(steps=3, changes=6)),
        ("mean-over-positions", "late", Horizon(steps=3, changes=6)),
    ],
)
def test_the_horizon_is_what_can_change_and_what_is_read(ablation, place, expected):
    if place == "last":
        assert bool((prompts_of().clean != prompts_of().corrupted)[:, 0].any())
    assert engine_of("gpt2", ablation, **PLACES[place]).horizon == expected


def test_nothing_is_out_of_sight_where_attention_looks_ahead():
    for place in PLACES.values():
        assert engine_of("bidirectional", **place).horizon == Horizon(steps=6, changes=6)


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ("m0->a1.h0.q", {"project": 1, "attend": 1, "output": 1, "mlp": 1}),
        ("m0->a1.h0.v", {"project": 2, "attend": 1, "output": 1, "mlp": 1}),
        ("embed->m1", {"mlp": 1}),
        ("embed->m0", {"mlp": 2, "project": 2, "attend": 1, "output": 1}),
    ],
)
def test_parts_are_run_at_the_positions_that_matter_alone(edge, expected, monkeypatch):
    """The prompts differ in the last two positions and the metric reads the last."""
    engine = IncrementalEngine(problem_of("gpt2", n_shared=4))
    state, widths = engine.start(), {}
    streams = {"project": 3, "attend": 2, "output": 2, "mlp": 1}

    def note(name, *args):
        widths.setdefault(name, set()).add(args[streams[name]].shape[-2])

    pair = engine.graph.index(edge)
    watch(engine.problem.model, list(streams), note, monkeypatch)
    engine.cut(state, [pair])
    widths.clear()  # Weights were composed, which puts all of a head's through `output`.
    engine.cut(state, [pair])
    assert {name: max(found) for name, found in widths.items()} == expected
