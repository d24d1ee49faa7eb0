"""Charts put every point where its values say, as SVG and as PNG, and name what they show."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from circuitfind.reports.bars import Row, draw_bars
from circuitfind.reports.chart import Axis, Plane, Series, draw_lines, draw_panels
from circuitfind.reports.matrix import Cell, draw_cells
from circuitfind.sweeps.figures import Mean, draw_curves

SVG = "{http://www.w3.org/2000/svg}"
X = Axis("edges", 0.01, 1.0, (0.01, 0.1, 1.0), logarithmic=True, percent=True)
Y = Axis("faithfulness", 0.0, 1.0, (0.0, 0.5, 1.0))


def series(*points, **look):
    return Series("mine", points, "#0072b2", **look)


def drawn(diagram):
    return ElementTree.fromstring(diagram.svg())


def dots(root):
    """Centre and fill of every dot but that of the legend, by what the pointer is told."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        for link in group.iter("{http://www.w3.org/2000/svg}a"):
            for ellipse in link.iter(f"{SVG}ellipse"):
                title = link.get("{http://www.w3.org/1999/xlink}title")
                centre = float(ellipse.get("cx")), float(ellipse.get("cy"))
                found[title] = (*centre, ellipse.get("fill"))
    return found


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def test_points_lie_where_their_values_say():
    points = (0.01, 0.0), (0.1, 0.5), (1.0, 1.0)
    found = dots(drawn(draw_lines("T", X, Y, [series(*points, tips=("a", "b", "c"))])))
    (ax, ay, _), (bx, by, _), (cx, cy, _) = (found[name] for name in "abc")
    # A tenth of the share is half of the way on this axis; upwards is less in SVG.
    assert bx - ax == pytest.approx(cx - bx, abs=0.2) and cx > ax
    assert ay - by == pytest.approx(by - cy, abs=0.2) and ay > cy


def test_points_beyond_the_axes_are_hollow_and_at_their_ends():
    given = series((0.1, 1.7), (0.1, 1.0), tips=("beyond", "within"))
    found = dots(drawn(draw_lines("T", X, Y, [given])))
    assert found["beyond"][:2] == found["within"][:2]
    assert (found["beyond"][2], found["within"][2]) == ("#ffffff", "#0072b2")


def test_the_legend_says_what_a_hollow_point_is_and_only_where_there_is_one():
    said = "hollow: beyond the axes, drawn at their end"
    beyond, within = (draw_lines("T", X, Y, [series((0.1, y))]) for y in (-0.2, 0.2))
    assert said in texts(drawn(beyond))
    assert said not in texts(drawn(within))


def test_bars_reach_from_the_lowest_to_the_highest_value():
    given = series((0.1, 0.5), (0.1, 0.25), (0.1, 0.75), line="none", tips=("mid", "low", "high"))
    root = drawn(draw_lines("T", X, Y, [replace(given, ranges=((0.25, 0.75),))]))
    found = dots(root)
    (path,) = (p.get("d") for p in root.iter(f"{SVG}path") if p.get("stroke") == "#0072b2")
    ends = [tuple(map(float, pair.split(","))) for pair in re.split("[MC ]+", path)[1:]]
    for end, name in ((ends[0], "low"), (ends[-1], "high")):
        assert end == pytest.approx(found[name][:2], abs=0.2)


def test_a_sweep_shows_negative_means_where_they_are_and_the_spread_over_seeds():
    curves = {"ioi": {"eap": (Mean(0.1, -0.3, -0.6, 0.1, 3), Mean(0.5, 0.5, 0.4, 0.6, 3))}}
    root = drawn(draw_curves(curves))
    (low, high) = sorted(dots(root).values())[-2:]
    assert (low[2], high[2]) == ("#0072b2", "#0072b2")  # not hollow
    assert low[1] > high[1]
    said = texts(root)
    assert "Faithfulness against size, mean over seeds; bars from the lowest to the highest" in said
    assert {"-0.75", "0", "1"} <= set(said)
    tips = [a.get("{http://www.w3.org/1999/xlink}title") for a in root.iter(f"{SVG}a")]
    assert "eap: 10.000% of edges, faithfulness -0.300 (-0.600 to 0.100 in 3 runs)" in tips


def test_a_mean_far_below_the_axis_is_hollow_and_explained():
    said = texts(drawn(draw_curves({"ioi": {"eap": (Mean(0.1, -8.0, -8.0, -8.0, 1),)}})))
    assert "hollow: beyond the axes, drawn at their end" in said
    assert "Faithfulness against size, mean over seeds" in said


def test_steps_are_level_until_the_next_point():
    given = series((0.01, 0.0), (1.0, 1.0), line="steps", dots=False)
    root = drawn(draw_lines("T", X, Y, [given]))
    (path,) = (p.get("d") for p in root.iter(f"{SVG}path") if p.get("stroke") == "#0072b2"
               and "C" in p.get("d") and len(p.get("d").split()) > 3)  # fmt: skip
    numbers = path.replace("M", " ").replace("C", " ").split()
    places = [tuple(map(float, pair.split(","))) for pair in numbers]
    (x0, y0), (x1, y1), (x2, y2) = places[0], places[3], places[6]
    assert y0 == y1 and x1 == x2 and x0 < x1 and y1 > y2


def test_everything_is_named_once():
    planes = [Plane((series((0.1, 0.5)),), "left"), Plane((series((0.1, 0.5)),), "right")]
    said = texts(drawn(draw_panels("Title", X, Y, planes)))
    assert [said.count(text) for text in ("Title", "left", "right", "mine")] == [1, 1, 1, 1]
    assert said.count("faithfulness") == said.count("edges") == said.count("10 %") == 2


def test_names_from_data_are_text_only():
    nasty = Series('<b> & "\\N"', ((0.1, 0.5),), "#0072b2")
    assert '<b> & "\\N"' in texts(drawn(draw_lines("T", X, Y, [nasty])))


def test_bars_say_the_mean_and_what_chance_gives():
    rows = [Row("one", "a", (0.2, 0.4), 0.1), Row("two", "b", (0.0,))]
    said = texts(drawn(draw_bars("T", "axis", rows)))
    assert {"one", "two", "0.30 (chance 0.10)", "0.00"} <= set(said)


def test_a_matrix_has_a_dash_where_nothing_is_known():
    said = texts(drawn(draw_cells(["one", "two"], {(0, 1): Cell(0.25, 0.5)}, ["caption"])))
    assert said.count("-") == 3 and {"0.25", "0.50", "caption"} <= set(said)


@pytest.mark.parametrize(
    "diagram",
    [
        draw_lines("T", X, Y, [series((0.1, 0.5))]),
        draw_bars("T", "axis", [Row("one", "a", (0.2,))]),
        draw_cells(["one"], {}, []),
    ],
    ids=["lines", "bars", "matrix"],
)
def test_the_same_values_give_the_same_bytes_and_a_png(diagram):
    assert diagram.svg() == diagram.svg()
    assert diagram.png().startswith(b"\x89PNG")
