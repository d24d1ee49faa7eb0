"""Models wired by hand whose parts work at known places: searches over places find those edges."""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.directories.config import RunConfig
from circuitfind.evaluation.assess import QUICK
from circuitfind.models.loading import load_model
from circuitfind.models.wiring import SHARP, Wiring, one, sizes_of
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from circuitfind.tasks import find_task
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.evaluate import evaluate_run
from circuitfind.verbs.wish import Wish

ONCE = "induction-pair:once"
SYMBOLS = ("a", "b", "c", "x", "y")


@pytest.fixture(scope="module")
def pair():
    return load_model("induction-pair", dtype="float64")


@pytest.fixture(scope="module")
def switch(tmp_path_factory):
    """Say the first symbol if the third is x, otherwise the second, at the fourth.

    a0.h0 moves each symbol one position on, for two reasons: at the fourth, the third symbol tells
    the query of a1.h0 where to look; at the second and third, the first and second symbols are the
    values that it finds there.
    """
    n = len(SYMBOLS)
    sizes = sizes_of(
        SYMBOLS, SYMBOLS, length=4, n_layers=2, n_heads=1, d_head=n, d_mlp=0, attention="causal"
    )
    wiring = Wiring(sizes, {"token": n + 1, "position": 5, "previous": n, "output": n})
    wiring.head(
        0, 0, query={"position": SHARP * torch.eye(5)},
        key={"position": torch.eye(5).roll(1, dims=1).tril(1).triu(1)},
        value={"token": torch.eye(n + 1)[:, 1:]}, output={"previous": torch.eye(n)},
    )  # fmt: skip
    # The query's dimensions: the second position, the third, and BOS, of which it says nothing.
    looks = torch.zeros(5, 3)
    looks[:4, 2] = 4 * SHARP
    looks[4, 1] = SHARP
    found_at = torch.stack([torch.tensor(one(5, position)) for position in (2, 3, 0)], dim=1)
    is_x = torch.zeros(n, 3)
    is_x[SYMBOLS.index("x"), 0] = 2 * SHARP
    wiring.head(
        1, 0, query={"position": looks, "previous": is_x}, key={"position": found_at},
        value={"previous": torch.eye(n)}, output={"output": torch.eye(n)},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("switch")
    wiring.save(folder, "switch")
    return load_model(folder / "switch.json", dtype="float64")


def switched(clean: str, corrupted: str) -> Pair:
    """Return a pair of four symbols each; the fourth is read at."""
    first, second = (
        [0, *(1 + SYMBOLS.index(symbol) for symbol in text)] for text in (clean, corrupted)
    )
    names = {"first": 1, "second": 2, "third": 3, "end": 4}
    return Pair(first, second, [()], steps=[4], positions=names)


def found_in(problem, threshold=0.001):
    return {edge.name for edge in cf.discover(problem, threshold=threshold).circuit.edges}


def lifted(graph, edges) -> set[str]:
    """Return edges at all of a graph's places."""
    return {f"{edge}@{place}" for edge in edges for place in graph.places}


def assert_idle(problem, edges) -> None:
    """Cut edges together in the full graph: nothing changes but what softmax leaves others."""
    engine = cf.IncrementalEngine(problem)
    full = problem.graph.edge_mask
    cut = full & ~problem.graph.mask_of(edges)
    with torch.no_grad():
        before, after = (engine.readout.loss(engine.recomputed(mask)) for mask in (full, cut))
    assert abs(after - before) < 1e-18


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_an_induction_head_reads_at_one_place_and_a_search_without_places_blurs_it(pair, ablation):
    whole, placed = (
        make_problem(pair, ONCE, n_prompts=16, ablation=ablation, places=places)
        for places in (None, "named")
    )
    truth = set(pair.sizes["placed"][ablation])
    for threshold in pair.sizes["thresholds"]:
        assert found_in(placed, threshold) == truth
    blurred = lifted(placed.graph, found_in(whole))
    assert blurred > truth and len(blurred) == 25
    assert_idle(placed, blurred - truth)


def test_every_single_cut_says_the_same(pair):
    problem = make_problem(pair, ONCE, n_prompts=16, places="named")
    decisions = cf.discover(problem, "exact", threshold=1e-6).decisions
    effects = {decision.edge: abs(decision.effect or 0) for decision in decisions}
    truth = set(pair.sizes["placed"]["resample"])
    assert {edge for edge, effect in effects.items() if effect > 1e-6} == truth
    assert max(effect for edge, effect in effects.items() if edge not in truth) < 1e-20


def test_spans_that_begin_at_the_named_positions_give_the_same_edges(pair):
    prompts = find_task(ONCE).write_prompts(pair.vocabulary, 16, 0)
    prompts = replace(prompts, spans=dict(prompts.positions))
    problem = make_problem(pair, prompts, metric="l2", places="spans")
    assert set(problem.graph.places) == {"start", "first", "next", "end"}
    assert found_in(problem) == set(pair.sizes["placed"]["resample"])


def test_a_run_with_places_is_evaluated_against_the_stated_edges(pair, tmp_path):
    config = RunConfig(
        ONCE, "induction-pair", "acdc", {"threshold": 0.001}, n_prompts=8, places="named"
    )
    run = run_discovery(tmp_path / "run", config)
    assert {edge.name for edge in run.circuit.edges} == set(pair.sizes["placed"]["resample"])
    found = evaluate_run(run.path, Wish(QUICK, against="known")).assessment
    edges = next(curve for curve in found.roc if curve.of == "edges")
    assert edges.area == 1


def test_a_head_works_at_two_places_for_two_reasons(switch):
    """The third symbol tells where to look, the first or second what is said."""
    texts = ["abxc", "bayb", "cbxa", "acyb", "baxc", "cayc"]
    others = ["bcya", "abxc", "abyb", "cbxa", "acyb", "abxb"]
    prompts = collate([switched(*texts_of) for texts_of in zip(texts, others, strict=True)])
    whole, placed = (
        make_problem(switch, prompts, metric="l2", places=places) for places in (None, "named")
    )
    truth = {
        "embed->a0.h0.v@first", "embed->a0.h0.v@second", "embed->a0.h0.v@third",
        "a0.h0->a1.h0.v@second", "a0.h0->a1.h0.v@third", "a0.h0->a1.h0.q@end",
        "a1.h0->logits@end",
    }  # fmt: skip
    assert found_in(placed, 1e-6) == found_in(placed, 0.01) == truth
    edges = found_in(whole)
    assert edges == {"embed->a0.h0.v", "a0.h0->a1.h0.v", "a0.h0->a1.h0.q", "a1.h0->logits"}
    assert_idle(placed, lifted(placed.graph, edges) - truth)


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_the_moves_of_an_induction_head_are_found_and_no_others(pair, ablation):
    problem = make_problem(
        pair, ONCE, n_prompts=16, ablation=ablation, places="named", crossing=True
    )
    truth = set(pair.sizes["crossing"][ablation])
    assert truth > set(pair.sizes["placed"][ablation])
    for threshold in pair.sizes["thresholds"]:
        assert found_in(problem, threshold) == truth
    decisions = cf.discover(problem, "exact", threshold=1e-6).decisions
    effects = {decision.edge: abs(decision.effect or 0) for decision in decisions}
    assert {edge for edge, effect in effects.items() if effect > 1e-6} == truth
    assert_idle(problem, {edge.name for edge in problem.graph.edges()} - truth)


def test_a_run_with_moves_is_evaluated_against_the_stated_ones(pair, tmp_path):
    config = RunConfig(
        ONCE,
        "induction-pair",
        "acdc",
        {"threshold": 0.001},
        n_prompts=8,
        places="named",
        crossing=True,
    )
    run = run_discovery(tmp_path / "run", config)
    assert {edge.name for edge in run.circuit.edges} == set(pair.sizes["crossing"]["resample"])
    found = evaluate_run(run.path, Wish(QUICK, against="known")).assessment
    edges = next(curve for curve in found.roc if curve.of == "edges")
    assert edges.area == 1


def test_which_column_a_query_decides_about_shows_in_its_moves(switch):
    """The query at the end changes one score only: that of the second symbol."""
    texts = ["abxc", "bayb", "cbxa", "acyb", "baxc", "cayc"]
    others = ["bcya", "abxc", "abyb", "cbxa", "acyb", "abxb"]
    prompts = collate([switched(*texts_of) for texts_of in zip(texts, others, strict=True)])
    placed, crossed = (
        make_problem(switch, prompts, metric="l2", places="named", crossing=crossing)
        for crossing in (False, True)
    )
    moves = {
        "a0.h0.v@first->a0.h0@second", "a0.h0.v@second->a0.h0@third", "a0.h0.v@third->a0.h0@end",
        "a1.h0.v@second->a1.h0@end", "a1.h0.v@third->a1.h0@end", "a1.h0.q@second->a1.h0@end",
    }  # fmt: skip
    assert found_in(crossed, 1e-6) == found_in(crossed, 0.01) == found_in(placed, 0.01) | moves


@pytest.mark.parametrize(
    ("pairs", "truth"),
    [
        # The third symbol is the same in both prompts: only what is said can differ.
        (
            [("abxc", "bcxa"), ("baxb", "acxc")],
            {"embed->a0.h0.v@first", "a0.h0->a1.h0.v@second", "a1.h0->logits@end"},
        ),
        # Only the third symbol differs: only where it looks.
        (
            [("abxc", "abyc"), ("bayb", "baxb")],
            {"embed->a0.h0.v@third", "a0.h0->a1.h0.q@end", "a1.h0->logits@end"},
        ),
    ],
)
def test_each_reason_alone_is_found_where_only_it_counts(switch, pairs, truth):
    prompts = collate([switched(*texts) for texts in pairs])
    assert found_in(make_problem(switch, prompts, metric="l2", places="named")) == truth


def test_the_switch_does_what_it_says(switch):
    texts = ["abxc", "abyc", "cxya", "yaxb"]
    tokens = torch.tensor([switched(text, text).clean for text in texts])
    said = switch.own_logits(tokens)[:, 4]
    expected = torch.zeros_like(said)
    for row, text in enumerate(texts):
        expected[row, SYMBOLS.index(text[0] if text[2] == "x" else text[1])] = 1
    assert (said - expected).abs().max() < 1e-12
