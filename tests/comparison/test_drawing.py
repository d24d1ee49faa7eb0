"""Drawings of a comparison show every edge once, in the colour of who keeps it."""

from html import unescape

from circuitfind.comparison.matching import compare_matched
from circuitfind.comparison.overlap import overlap
from circuitfind.comparison.result import Comparison, Pair, Side
from circuitfind.graph import Graph
from circuitfind.reports.matched import Drawn, draw_matched
from circuitfind.reports.matrix import draw_matrix
from circuitfind.reports.strokes import LEFT_COLOUR, RIGHT_COLOUR, SHARED_COLOUR
from tests.comparison.circuits import circuit, shape

LARGE, SMALL = Graph(shape(n_layers=2)), Graph(shape(n_layers=1, has_mlp=False))
LEFT = circuit(LARGE, "embed->a0.h0.v", "a0.h0->m1", "m1->logits")
RIGHT = circuit(SMALL, "embed->a0.h2.v", "a0.h2->logits", "embed->a0.h1.q", "a0.h1->logits")
MATCHED = compare_matched(LEFT, RIGHT, [(0, 0, 1.0), (1, 3, 0.5)])


def test_every_edge_of_two_matched_circuits_is_drawn_once():
    left, right = Drawn("large", LARGE, {"a0.h0": "mover"}), Drawn("small", SMALL)
    diagram = draw_matched(MATCHED, left, right, caption=["two models"])
    for colour, n in ((LEFT_COLOUR, 2), (RIGHT_COLOUR, 3), (SHARED_COLOUR, 1)):
        assert diagram.dot.count(f'color="{colour}" penwidth=1.20') == n
    for name in ("a0.h0 | a0.h2", "m1 | -", "- | a0.h1", "mover | -", "two models"):
        assert name in unescape(diagram.svg()).replace("\xa0", " ")
    assert diagram == draw_matched(MATCHED, left, right, caption=["two models"])


def test_a_matrix_frames_what_chance_does_not_give():
    graph = Graph(shape(n_layers=2, n_heads=4))
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
