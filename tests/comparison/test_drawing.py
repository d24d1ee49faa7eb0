"""Drawings of a comparison show every edge once, in the colour of who keeps it."""

import math
import re
from html import unescape

import torch

from circuitfind.comparison.matching import compare_matched
from circuitfind.comparison.overlap import overlap
from circuitfind.comparison.result import Comparison, Pair, Side
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.reports.diagram import draw_difference
from circuitfind.reports.matched import Drawn, draw_matched
from circuitfind.reports.matrix import draw_matrix
from circuitfind.reports.strokes import LEFT_COLOUR, RIGHT_COLOUR, SHARED_COLOUR
from tests.comparison.circuits import circuit, shape
from tests.reports.test_routes import geometry, touched

LARGE, SMALL = heads_and_mlps(shape(n_layers=2)), heads_and_mlps(shape(n_layers=1, has_mlp=False))
LEFT = circuit(LARGE, "embed->a0.h0.v", "a0.h0->m1", "m1->logits")
RIGHT = circuit(SMALL, "embed->a0.h2.v", "a0.h2->logits", "embed->a0.h1.q", "a0.h1->logits")
MATCHED = compare_matched(LEFT, RIGHT, [(0, 0, 1.0), (1, 3, 0.5)])


def test_every_edge_of_two_matched_circuits_is_drawn_once():
    left, right = Drawn("large", LEFT, {"a0.h0": "mover"}), Drawn("small", RIGHT)
    diagram = draw_matched(MATCHED, left, right, caption=["two models"])
    for colour, n in ((LEFT_COLOUR, 2), (RIGHT_COLOUR, 3), (SHARED_COLOUR, 1)):
        assert diagram.dot.count(f'color="{colour}" penwidth=1.00') == n
    for name in ("a0.h0 | a0.h2", "m1 | -", "- | a0.h1", "mover | -", "two models"):
        assert name in unescape(diagram.svg()).replace("\xa0", " ")
    assert diagram == draw_matched(MATCHED, left, right, caption=["two models"])


def test_matched_circuits_point_up_though_one_model_does_it_later():
    # a1.h0 of the right model does what a0.h0 does in the left one, and is fed by a head that the
    # left model lacks: at its relative depth that head would stand above the box it feeds.
    right = circuit(LARGE, "embed->a0.h1.v", "a0.h1->m0", "m0->a1.h0.v", "a1.h0->logits")
    left = circuit(LARGE, "embed->a0.h0.v", "a0.h0->logits")
    matched = compare_matched(left, right, [(0, 0, 1.0), (1, 5, 1.0)])
    assert matched.edges.both == ("a0.h0->logits",)
    diagram = draw_matched(matched, Drawn("l", left), Drawn("r", right))
    assert "point down" not in diagram.dot
    for tail, head, _, points in geometry(diagram)[1]:
        assert points[0][1] > points[-1][1], (tail, head)  # y counts downwards in SVG
    assert all(not met for *_, met in touched(diagram))


def test_what_two_models_run_in_opposite_orders_points_down_and_is_counted():
    left = circuit(LARGE, "embed->a0.h0.v", "a0.h0->a1.h0.v", "a1.h0->logits")
    # Heads 0 of layers 0 and 1 are exchanged in the right model.
    matched = compare_matched(left, left, [(0, 0, 1.0), (1, 5, 1.0), (5, 1, 1.0)])
    diagram = draw_matched(matched, Drawn("l", left), Drawn("r", left))
    assert "1 point down: in r these run in the other order" in diagram.dot
    down = [line for line in geometry(diagram)[1] if line[3][0][1] < line[3][-1][1]]
    assert [line[:2] for line in down] == [("a1.h0 | a0.h0", "a0.h0 | a1.h0")]
    assert all(not met for *_, met in touched(diagram))


def test_widths_of_two_circuits_are_shares_of_the_largest_effect_in_each():
    names = "embed->a0.h0.v", "a0.h0->m1", "m1->logits"
    left, right = (
        circuit(LARGE, *names, effects=values(LARGE, dict(zip(names, effects, strict=True))))
        for effects in ((5.0, 0.5, -0.05), (0.02, 0.02, 0.002))
    )
    matched = compare_matched(left, right, [(i, i, 1.0) for i in range(len(LARGE.writers))])
    for diagram in (
        draw_difference(circuit(LARGE), right),
        draw_matched(
            compare_matched(circuit(LARGE), right, []),
            Drawn("l", circuit(LARGE)),
            Drawn("r", right),
        ),
    ):
        assert widths(diagram) == {"embed->a0.h0.v": 4.0, "a0.h0->m1": 4.0, "m1->logits": 0.5}
    for diagram in (
        draw_difference(left, right),
        draw_matched(matched, Drawn("l", left), Drawn("r", right)),
    ):
        assert widths(diagram) == {"embed->a0.h0.v": 4.0, "a0.h0->m1": 2.25, "m1->logits": 0.5}
        assert "size of effect 0.1 of the largest in its circuit" in diagram.dot


def test_a_matrix_frames_what_chance_does_not_give():
    graph = heads_and_mlps(shape(n_layers=2, n_heads=4))
    same = circuit(
        graph, "embed->a0.h0.v", "a0.h0->a1.h1.k", "embed->a1.h1.q", "a0.h2->a1.h3.v",
        "a1.h1->logits", "a1.h3->logits",
    )  # fmt: skip
    other = circuit(graph, "embed->a0.h3.v", "a0.h3->logits")
    circuits = (same, same, other)
    pairs = tuple(
        Pair(i, j, None, overlap(circuits[i], circuits[j])) for i, j in ((0, 1), (0, 2), (1, 2))
    )
    sides = tuple(
        Side(f"<{n}>", n, n, None, None, None, c.n_edges, graph.n_edges, ())
        for n, c in zip("abc", circuits, strict=True)
    )
    matrix = draw_matrix(Comparison(sides, pairs))
    assert matrix.dot.count("penwidth=2") == 2
    drawn = matrix.svg()
    assert drawn.count(">1.00<") == 3 + 2
    assert drawn.count(">0.00<") >= 4
    assert "&lt;a&gt; and &lt;b&gt;: 1.000, expected" in drawn


def values(graph: Graph, effects: dict[str, float]) -> torch.Tensor:
    found = torch.full(graph.edge_mask.shape, math.nan, dtype=torch.float64)
    for name, effect in effects.items():
        found[graph.mask_of([name])] = effect
    return found


def widths(diagram) -> dict[str, float]:
    """Return the width of each edge's line, by the edge's name."""
    rows = re.findall(r'penwidth=([\d.]+) .*tooltip="(\S+->\S+): ', diagram.dot)
    return {name: float(width) for width, name in rows}
