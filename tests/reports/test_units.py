"""Neurons and latents are small boxes in the box of their MLP, as read from the SVG."""

import re
from collections.abc import Iterable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph, Units
from circuitfind.reports.boxes import boxes_and_arcs, framed
from circuitfind.reports.diagram import draw_circuit, draw_difference, draw_frequencies
from circuitfind.reports.page.drawing import drawn_graph, even_layout, layout_of
from circuitfind.reports.picture import Box
from circuitfind.shape import ModelShape
from tests.reports.test_columns import bands
from tests.reports.test_routes import GRAPHS, SVG, around, circuit_of, geometry

WITH_UNITS = [name for name, graph in GRAPHS.items() if graph.units]
SHAPE = ModelShape(2, 2, 2, 8, 4, 11)
NEURONS = heads_and_mlps(SHAPE, units=[Units(0, "neuron", (4, 17, 123))])
LATENTS = heads_and_mlps(
    SHAPE, units=[Units(0, "latent", (4, 17, 123), apart=True, skip=True, error="fixed")]
)
SMALL = re.compile(r"m\d+\.")


def small_of(graph: Graph, names: Iterable[str]) -> set[str]:
    """Return which boxes must stand in that of their block.

    At places, keys and values stand below it, from where lines lead to other places.
    """
    apart, found = {units.block for units in graph.units}, set()
    for name in names:
        component, _, place = name.partition("@")
        block, _, part = component.partition(".")
        if part and block in apart and not (place and "kv" in part):
            found.add(name)
    return found


def texts(svg: str) -> list[str]:
    return [(text.text or "").strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def circuit(graph: Graph, *edges: str) -> Circuit:
    return Circuit.of_edges(graph, edges)


@pytest.mark.parametrize("n_edges", [12, 150, 400])
@pytest.mark.parametrize("name", WITH_UNITS)
def test_units_stand_in_the_box_of_their_mlp_and_boxes_do_not_overlap(name, n_edges):
    frames, _ = geometry(draw_circuit(circuit_of(GRAPHS[name], n_edges)))
    units = small_of(GRAPHS[name], frames)
    assert units
    for unit in units:
        left, top, right, bottom = frames[unit]
        low, ceiling, high, floor = frames[around(unit)]
        # On the left is the name of the MLP: two letters at least, of 6 points each, with room.
        assert low + 30 < left < right < high - 5 and ceiling + 5 < top < bottom < floor - 5
    for group in (units, set(frames) - units):
        for one in group:
            assert not [other for other in group - {one} if overlap(frames[one], frames[other])]


def overlap(one, other) -> bool:
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


@pytest.mark.parametrize("name", WITH_UNITS)
def test_only_what_a_kept_edge_touches_is_drawn(name):
    some = circuit_of(GRAPHS[name], 60)
    frames, lines = geometry(draw_circuit(some))
    touched = {node for edge in some.edges for node in some.graph.nodes_of(edge)}
    blocks = {around(node) for node in small_of(some.graph, touched)}
    assert set(frames) == touched | blocks
    assert len(lines) >= some.n_edges
    small = small_of(some.graph, frames)
    ends = [[around(end) if end in small else end for end in line[:2]] for line in lines]
    assert not [line for line in ends if line[0] == line[1]]


def test_neurons_share_the_input_of_their_mlp_and_latents_have_their_own():
    reads = {"embed->m0", "a0.h1->m0", "m0.n17->logits", "m0.rest->m1"}
    frames, lines = geometry(draw_circuit(circuit(NEURONS, *reads)))
    assert set(frames) == {"embed", "a0.h1", "m0", "m0.n17", "m0.rest", "logits", "m1"}
    floor = frames["m0"][3]
    for _, head, _, points in lines:
        if head == "m0":
            assert points[-1][1] == pytest.approx(floor + 5, abs=0.6)
    own = {"embed->m0.f17", "a0.h1->m0.f4", "m0.f17->logits", "m0.f4->m1", "m0.error->m1"}
    frames, lines = geometry(draw_circuit(circuit(LATENTS, *own)))
    assert {name for name in frames if name.startswith("m0")} == {
        "m0", "m0.f4", "m0.f17", "m0.error",
    }  # fmt: skip
    for tail, head, _, points in lines:
        left, _, right, bottom = frames[head]
        assert left < points[-1][0] < right
        assert points[-1][1] == pytest.approx(bottom + 5, abs=0.6)
        assert points[0][1] == pytest.approx(frames[tail][1], abs=0.6)


def test_lines_leave_and_enter_the_box_of_an_mlp_through_its_upper_and_lower_side():
    frames, lines = geometry(draw_circuit(circuit_of(GRAPHS["latents"], 300)))
    crossed = 0
    for tail, head, _, points in lines:
        for end in filter(SMALL.match, (tail, head)):
            left, top, right, bottom = frames[around(end)]
            inside = [x for x, y in points if top <= y <= bottom]
            assert left < min(inside) and max(inside) < right, (tail, head)
            crossed += 1
    assert crossed > 200


def test_many_units_stand_in_rows_in_the_order_of_their_numbers():
    graph = heads_and_mlps(SHAPE, units=[Units(0, "neuron", tuple(range(100, 160)))])
    whole = circuit(graph, *(f"m0.n{number}->logits" for number in range(100, 160)))
    frames, _ = geometry(draw_circuit(whole))
    units = [name for name in frames if SMALL.match(name)]
    reading = sorted(units, key=lambda name: (frames[name][1], frames[name][0]))
    assert reading == [f"m0.n{number}" for number in range(100, 160)]
    rows = {frames[name][1] for name in units}
    left, top, right, bottom = frames["m0"]
    assert len(rows) > 5
    assert right - left < 350
    placed, _ = geometry(draw_circuit(of_places(whole)))
    assert placed["m0@here"][2] - placed["m0@here"][0] < 200
    assert max(frames[name][2] for name in units) < right and bottom - top < 350


def of_places(some: Circuit) -> Circuit:
    graph = some.graph.at_places(["here", "there"])
    return circuit(graph, *(f"{edge.name}@here" for edge in some.edges))


def test_units_stand_in_the_column_of_their_place():
    diagram = draw_circuit(circuit_of(GRAPHS["latents-at-places"], 200))
    columns, (frames, _) = bands(diagram.svg()), geometry(diagram)
    columns = [band for band in columns if band not in frames.values()]
    places = GRAPHS["latents-at-places"].places
    assert len(columns) == len(places)
    small = [name for name in frames if SMALL.match(name)]
    assert {name.partition("@")[2] for name in small} == set(places)
    for name, (left, _, right, _) in frames.items():
        low, _, high, _ = columns[places.index(name.partition("@")[2])]
        assert low < left < right < high, name


def test_labels_are_short_and_tooltips_are_whole():
    some = circuit(LATENTS, "embed->m0.f17", "m0.f17->m1", "m0.rest->m1", "m0.error->m1")
    diagram = draw_circuit(some, roles={"m0.f17": "adds Mary"})
    written = texts(diagram.svg())
    assert [written.count(text) for text in ("m0", "f17", "rest", "error", "adds Mary")] == [1] * 5
    assert "m0.f17" not in written
    assert 'tooltip="m0.f17 adds Mary"' in diagram.dot
    dashed = [line for line in diagram.dot.splitlines() if "dashed" in line]
    assert len(dashed) == 1 and dashed[0].strip().startswith('"m0.error" [')
    assert {
        "f17: latent 17 of m0",
        "rest: all other latents of m0",
        "error: what the dictionary does not reconstruct",
    } <= set(written)
    assert "skip: the dictionary's skip connection" not in written


def test_heads_that_feed_latents_stand_below_them():
    graph = GRAPHS["attention-latents"]
    edges = ["embed->a0.h2.q", "embed->a0.kv1.v", "a0.f5->logits", "a0.error->m0"]
    diagram = draw_circuit(circuit(graph, *edges))
    frames, lines = geometry(diagram)
    assert set(frames) == {
        "embed", "a0", "a0.h2", "a0.kv1", "a0.f5", "a0.error", "m0", "logits",
    }  # fmt: skip
    lowest = max(frames["a0.f5"][3], frames["a0.error"][3])
    assert lowest < min(frames["a0.h2"][1], frames["a0.kv1"][1])
    assert sorted(line[:2] for line in lines) == sorted(
        (edge.split("->")[0], ".".join(edge.split("->")[1].split(".")[:2])) for edge in edges
    )
    assert {
        "h2: what head 2 of a0 reads",
        "kv1: what key/value head 1 of a0 reads",
        "f5: latent 5 of a0",
    } <= set(texts(diagram.svg()))


def test_a_role_of_an_mlp_stands_under_its_name_beside_its_units():
    some = circuit(NEURONS, "embed->m0", "m0.n4->logits", "m0.rest->logits")
    diagram = draw_circuit(some, roles={"m0": "the role of an MLP", "m0.n4": "another"})
    frames, _ = geometry(diagram)
    plain, _ = geometry(draw_circuit(some))
    assert {"the role of an MLP", "another"} <= set(texts(diagram.svg()))
    assert frames["m0.n4"][0] - frames["m0"][0] > plain["m0.n4"][0] - plain["m0"][0] + 50


def test_an_mlp_of_which_no_unit_is_drawn_is_an_ordinary_box():
    some = circuit(NEURONS, "embed->m0", "a0.h0->m0")
    assert "cluster" not in draw_circuit(some).dot
    boxes, arcs = framed(NEURONS, *boxes_and_arcs(NEURONS, some.edges, {}))
    (box,) = (box for box in boxes if box.name == "m0")
    assert (box.kind, box.label, box.units, arcs) == ("mlp", "m0", (), [])


def test_boxes_of_graphs_without_units_stay_as_they_are():
    for name, graph in GRAPHS.items():
        if not graph.units:
            boxes, arcs = boxes_and_arcs(graph, circuit_of(graph, 60).edges, {})
            assert framed(graph, boxes, arcs) == (boxes, arcs), name


def test_differences_frequencies_and_files_are_drawn_alike(tmp_path):
    left, right = circuit_of(GRAPHS["neurons"], 60), circuit_of(GRAPHS["neurons"], 60, seed=1)
    shares = (left.kept.double() + right.kept.double()) / 2
    union = {*left.components, *right.components}
    for diagram in (
        draw_difference(left, right),
        draw_frequencies(left.graph, shares, share=0.9),
    ):
        frames, _ = geometry(diagram)
        assert union <= set(frames)
        assert "cluster_m0" in diagram.dot and '"m0.n3"' in diagram.dot
    left.save(tmp_path / "circuit.json")
    again = load_circuit(tmp_path / "circuit.json")
    assert draw_circuit(again).dot == draw_circuit(replace(left, effects=again.effects)).dot
    assert "cluster" in again._repr_svg_()


@pytest.mark.parametrize("name", WITH_UNITS)
def test_the_page_has_every_unit_in_the_box_of_its_mlp(name):
    graph = GRAPHS[name]
    nodes = {node["name"]: node for node in drawn_graph(graph, {})["nodes"]}
    units = small_of(graph, nodes)
    ends = {end.component for end in (*graph.writers, *graph.readers)}
    parts = {part for part in small_of(graph, ends) if not (graph.places and "kv" in part)}
    assert {nodes[unit]["component"] for unit in units} == parts
    for unit in units:
        assert nodes[unit]["inside"] == around(unit)
        assert list(nodes).index(around(unit)) < list(nodes).index(unit)
    assert not [node for name, node in nodes.items() if "inside" in node and name not in units]
    for layout in (layout_of(graph, circuit_of(graph, 150).edges, {}), even_layout(graph, {})):
        boxes = layout["boxes"]
        for unit in units & set(boxes):
            x, y, width, height = boxes[unit]
            at, up, wide, high = boxes[around(unit)]
            assert abs(x - at) < (wide - width) / 2 and abs(y - up) < (high - height) / 2


def test_the_inner_boxes_of_a_box_are_those_of_its_rows():
    units = [Box(f"m0.n{number}", "unit", (2, 1)) for number in range(3)]
    box = Box("m0", "mlp", (2, 1), units=((units[0], units[1]), (units[2],)))
    assert box.inner == units
