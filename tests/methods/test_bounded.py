"""ACDC with bounds on KL divergence: the decisions of ACDC with all losses."""

from dataclasses import replace
from itertools import islice

import pytest

from circuitfind.engine import in_turn, kl_bounds
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.readout import Readout
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.hybrid import Hybrid, HybridOptions
from tests.engine.problems import engine_of, problem_of


@pytest.mark.parametrize(
    ("family", "ablation", "threshold", "options"),
    [
        ("gpt2", "resample", 0.05, {}),
        ("gpt2", "resample", 0.02, {"place_of": ((0, 0, 0, 0, 1, 1),) * 3}),
        ("gpt2", "mean-over-positions", 0.3, {"absolute": True, "order": "random"}),
        ("llama", "resample", 0.05, {"group_qkv": True}),
        ("bidirectional", "resample", 0.05, {}),
    ],
)
def test_decisions_and_effects_of_kept_edges_are_those_without_bounds(
    family, ablation, threshold, options
):
    places = options.get("place_of")
    options = {name: value for name, value in options.items() if name != "place_of"}
    engine = engine_of(family, ablation, lengths=(6, 5, 6), place_of=places)
    exact = decided(engine, AcdcOptions(threshold, **options))
    found = decided(engine, AcdcOptions(threshold, bounded=True, **options))
    assert [(d.edge, d.kept, d.reason) for d in found] == [
        (d.edge, d.kept, d.reason) for d in exact
    ]
    bounded = [d for d in found if d.error is not None]
    n_tested = sum(d.reason == "tested" for d in found)
    assert len(bounded) > n_tested / 6 and not any(d.kept for d in bounded)
    for one, other in zip(found, exact, strict=True):
        if one.effect is not None:
            assert abs(one.effect - other.effect) <= (one.error or 1e-9)


def test_the_hybrid_has_the_option_too():
    engine, options = engine_of("gpt2"), HybridOptions(0.05, share=0.5, steps=2)
    exact, found = (
        [d for p in Hybrid().run(engine, some) for d in p.decisions]
        for some in (options, replace(options, bounded=True))
    )
    assert [(d.edge, d.kept, d.score) for d in found] == [(d.edge, d.kept, d.score) for d in exact]
    assert any(d.error is not None for d in found)


@pytest.mark.parametrize(("options", "credit"), [({}, 128), ({"group_qkv": True}, 3)])
def test_a_resumed_search_with_bounds_decides_bit_for_bit_as_an_uninterrupted_one(
    options, credit, monkeypatch
):
    monkeypatch.setattr(in_turn, "_MOST_CREDIT", credit)
    engine, chosen = engine_of("llama"), AcdcOptions(0.02, bounded=True, **options)
    whole = decided(engine, chosen)
    for stop in (1, 7):
        first = [d for p in islice(Acdc().run(engine, chosen), stop) for d in p.decisions]
        assert first + decided(engine, chosen, resume=first) == whole


def test_one_at_a_time_gives_what_many_at_a_time_give(monkeypatch):
    engine, options = engine_of("gpt2"), AcdcOptions(0.05, bounded=True)
    together = decided(engine, options)
    monkeypatch.setattr(IncrementalEngine, "most_candidates", 1)
    alone = decided(engine, options)
    for one, other in zip(alone, together, strict=True):
        assert (one.edge, one.kept, one.error is None) == (
            other.edge,
            other.kept,
            other.error is None,
        )
        if one.effect is not None:
            assert one.effect == pytest.approx(other.effect, abs=1e-9)


def test_bounds_that_settle_nothing_are_given_up(monkeypatch):
    anchors = []
    original = Readout.anchor
    monkeypatch.setattr(
        Readout, "anchor", lambda self, final: anchors.append(1) or original(self, final)
    )
    monkeypatch.setattr(Readout, "rises", nothing_known)
    monkeypatch.setattr(in_turn, "_TRIED", 4)
    monkeypatch.setattr(in_turn, "_TRIED_SHARE", 0)
    monkeypatch.setattr(in_turn, "_MOST_CREDIT", 8)
    engine = engine_of("gpt2")
    found, exact = (decided(engine, AcdcOptions(0.05, bounded=some)) for some in (True, False))
    for one, other in zip(found, exact, strict=True):
        assert (one.edge, one.kept, one.error) == (other.edge, other.kept, None)
        assert one.effect is None or one.effect == pytest.approx(other.effect, abs=1e-9)
    n_visits = len({d.edge.split("->")[1] for d in found if d.reason == "tested"})
    # Three anchors for each reader that they are tried on: at its start, and after two tests.
    assert 0 < len(anchors) < 3 * n_visits / 2


def test_other_metrics_are_exact():
    engine = IncrementalEngine(problem_of("gpt2", metric="logit-difference"))
    assert decided(engine, AcdcOptions(0.02, bounded=True)) == decided(engine, AcdcOptions(0.02))


# ------------------------------------------------------------------------------- helpers


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Bounds are used at any size, and read half of the tokens."""
    monkeypatch.setattr(kl_bounds, "_MOST_SHARE", 100)
    monkeypatch.setattr(kl_bounds, "_FEWEST_TOKENS", 1)
    monkeypatch.setattr(kl_bounds, "_EXACT_SHARE", 1 / 2)
    monkeypatch.setattr(in_turn, "_FEWEST_TESTS", 1)


def decided(engine, options, resume=()):
    """Return all decisions of a search."""
    return [d for p in Acdc().run(engine, options, resume) for d in p.decisions]


def nothing_known(readout, anchor, finals):
    """Return no bounds."""
    return iter([(-float("inf"), float("inf"))] * len(finals))
