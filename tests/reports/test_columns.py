"""Diagrams of circuits that tell places apart: a column for each place, and arcs between them."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.reports.boxes import boxes_and_arcs
from circuitfind.reports.diagram import draw_circuit, draw_difference
from circuitfind.reports.example import seen_of
from circuitfind.reports.page.drawing import drawn_graph, even_layout, layout_of
from circuitfind.reports.seen import SEEN, Seen
from circuitfind.reports.strokes import MOVE, PORT_COLOURS
from circuitfind.shape import ModelShape
from tests.reports.test_routes import SVG, circuit_of, frame, geometry

SHAPE = ModelShape(2, 2, 2, 8, 4, 11)
PLACES = ("first", "b<&>", "end")
PLAIN = heads_and_mlps(SHAPE).at_places(PLACES)
GROUPED = heads_and_mlps(replace(SHAPE, n_heads=4)).at_places(PLACES)
SHARED_NORM = heads_and_mlps(replace(SHAPE, heads_share_norm=True)).at_places(PLACES)


def bands(svg: str) -> list[tuple[float, float, float, float]]:
    """Return the bands of an SVG from left to right."""
    groups = ElementTree.fromstring(svg).iter(f"{SVG}g")
    return [frame(group) for group in groups if group.get("class") == "cluster"]


def texts(svg: str) -> list[str]:
    return [(text.text or "").strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, SHARED_NORM])
def test_every_box_stands_in_the_column_of_its_place(graph):
    diagram = draw_circuit(circuit_of(graph, 60))
    frames, _ = geometry(diagram)
    columns = bands(diagram.svg())
    assert len(columns) == len(PLACES)
    assert all(a[2] < b[0] for a, b in zip(columns, columns[1:], strict=False))
    for name, (left, _, right, _) in frames.items():
        low, _, high, _ = columns[PLACES.index(name.partition("@")[2])]
        assert low < left < right < high, name


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, SHARED_NORM])
def test_lines_stay_in_the_column_of_their_place(graph):
    diagram = draw_circuit(circuit_of(graph, 60))
    columns = bands(diagram.svg())
    inside = 0
    for tail, head, _, points in geometry(diagram)[1]:
        place = tail.partition("@")[2]
        if place == head.partition("@")[2]:
            low, _, high, _ = columns[PLACES.index(place)]
            assert all(low - 0.2 < x < high + 0.2 for x, _ in points), (tail, head)
            inside += 1
    assert inside > 40


def test_every_edge_is_drawn_once_at_its_place():
    circuit = circuit_of(PLAIN, 60)
    found = re.findall(
        r'^\t"(\S+)" -> "(\S+)" \[.*color="(#\w{6})\w*".*tooltip="(\S+)->(\S+): ',
        draw_circuit(circuit).dot.replace("&amp;", "&"),
        re.MULTILINE,
    )
    expected = []
    for writer, reader in circuit.edges:
        kv = ".kv" if reader.port in ("k", "v") else ""
        tail = f"{writer.name}@{reader.place}"
        head = f"{reader.component}{kv}@{reader.place}"
        expected.append((tail, head, PORT_COLOURS[reader.port], writer.name, reader.name))
    assert sorted(found) == sorted(expected)


def test_places_may_have_names_that_mean_something_to_graphviz():
    places = ("a:b", 'c"\\N', "</B>", "\\")
    graph = heads_and_mlps(SHAPE).at_places(places)
    svg = draw_circuit(circuit_of(graph, 80)).svg()
    written = texts(svg)
    assert [written.count(place.replace("\\", "\u2216")) for place in places] == [2] * len(places)
    groups = [group.get("class") for group in ElementTree.fromstring(svg).iter(f"{SVG}g")]
    assert groups.count("edge") >= 80
    nodes, arcs = boxes_and_arcs(graph, graph.edges(), {})
    whole = draw_circuit(Circuit(graph, graph.edge_mask)).svg()
    groups = [group.get("class") for group in ElementTree.fromstring(whole).iter(f"{SVG}g")]
    assert groups.count("edge") == len(arcs) + graph.n_edges
    rows = len({node.row for node in nodes})
    assert groups.count("node") == len(nodes) + rows + 2 * len(places)


def arcs_of(circuit: Circuit) -> set[tuple[str, str]]:
    _, arcs = boxes_and_arcs(circuit.graph, circuit.edges, {}, Seen.of(circuit.origin))
    assert {arc.stroke for arc in arcs} <= {MOVE}
    return {(arc.tail, arc.head) for arc in arcs}


KEPT = (
    "embed->a1.h0.k@end",
    "embed->a1.h0.v@first",
    "embed->a1.h0.q@end",
    "a1.h0->logits@first",
    "a1.h1->logits@end",
)


def circuit(*edges: str, graph: Graph = PLAIN, **seen) -> Circuit:
    origin = {SEEN: seen} if seen else {}
    return replace(Circuit.of_edges(graph, edges), origin=origin)


def test_arcs_lead_from_what_is_read_to_where_it_may_be_used():
    both = {("a1.h0.kv@first", "a1.h0@first"), ("a1.h0.kv@first", "a1.h0@end")}
    both |= {("a1.h0.kv@end", "a1.h0@end")}
    back = ("a1.h0.kv@end", "a1.h0@first")
    assert arcs_of(circuit(*KEPT)) == both | {back}
    assert arcs_of(circuit(*KEPT, tokens={}, backwards=[])) == both
    assert arcs_of(circuit(*KEPT, tokens={}, backwards=[["end", "first"]])) == both | {back}


def test_arcs_of_heads_that_share_keys_lead_to_all_of_them():
    some = circuit("embed->a0.kv0.v@first", "a0.h0->m0@end", "a0.h1->m0@end", "a0.h2->m0@end", graph=GROUPED)  # fmt: skip # noqa: E501
    assert arcs_of(some) == {("a0.kv0@first", "a0.h0@end"), ("a0.kv0@first", "a0.h1@end")}


def test_names_and_tokens_of_places_are_written_under_the_columns():
    some = circuit(*KEPT, tokens={"b<&>": " to\nthe <b>", "end": "word " * 30}, backwards=[])
    written = texts(draw_circuit(some).svg())
    assert [written.count(name) for name in PLACES] == [2, 2, 2]
    assert "to\u21b5the <b>" in written
    assert written.count("word word") == 2
    assert "\u2026" in written


def test_a_role_is_written_at_every_place_of_the_head():
    written = texts(draw_circuit(circuit(*KEPT), roles={"a1.h0": "mover"}).svg())
    assert written.count("mover") == written.count("a1.h0") == 2
    assert written.count("a1.h0 kv") == 2


def test_of_many_places_only_those_with_edges_are_columns():
    graph = heads_and_mlps(SHAPE).at_places([str(number) for number in range(50)])
    some = circuit("embed->a1.h0.v@7", "a1.h0->logits@49", graph=graph)
    svg = draw_circuit(some).svg()
    assert len(bands(svg)) == 2
    assert "2 of 50 places are drawn: those with edges" in texts(svg)


def test_the_difference_of_two_circuits_has_columns_too():
    left, right = circuit_of(PLAIN, 30), circuit_of(PLAIN, 30, seed=1)
    diagram = draw_difference(left, right)
    assert len(bands(diagram.svg())) == len(PLACES)
    edges = {line for line in re.findall(r'tooltip="(\S+->\S+): ', diagram.dot)}
    assert len(edges) == int((left.kept | right.kept).sum())


def test_what_is_seen_of_a_problem_says_which_places_come_earlier_in_some_prompt():
    problem = cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=8, places="named")
    places, lengths = problem.places, problem.prompts.lengths.tolist()
    before = {
        (places.names[row[i]], places.names[row[j]])
        for row, length in zip(places.of.tolist(), lengths, strict=True)
        for i in range(length)
        for j in range(i, length)
    }
    number = places.names.index
    expected = {(s, t) for s, t in before if number(s) > number(t)}
    seen = seen_of(problem)[SEEN]
    assert {tuple(pair) for pair in seen["backwards"]} == expected
    # In half of the prompts the two names are in the other order.
    assert {frozenset(pair) for pair in expected} >= {frozenset(("IO", "S1"))}
    text = problem.model.vocabulary.decode(problem.prompts.clean[0, : lengths[0]].tolist())
    assert all(word in text for word in seen["tokens"].values())
    assert seen_of(cf.make_problem(problem.model, "ioi", n_prompts=2)) == {}


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, SHARED_NORM, PLAIN.merged, GROUPED.merged])
def test_the_page_has_every_box_of_the_graph_with_its_component_and_place(graph):
    drawn = drawn_graph(graph, {"a0.h1": "mover"}, Seen({"end": "a b"}))
    boxes, arcs = boxes_and_arcs(graph, graph.edges(), {})
    nodes, names = drawn["nodes"], [node["name"] for node in drawn["nodes"]]
    assert sorted(names) == sorted(box.name for box in boxes)
    assert len(drawn["arcs"]) == len(arcs)
    assert {node["component"] for node in nodes if node["role"]} == {"a0.h1"}
    places = [place["name"] for place in drawn["places"]]
    assert tuple(places) == graph.places
    assert [place["tokens"] for place in drawn["places"] if place["name"] == "end"] == [
        ["a b"] for _ in places[:1]
    ]
    for reader, shown in zip(graph.readers, drawn["readers"], strict=True):
        node = nodes[shown["node"]]
        assert (shown["name"], node["name"]) == (reader.name, graph.node_of(reader))
        assert node["component"] == reader.component
        assert (None if node["place"] is None else places[node["place"]]) == reader.place
    for writer, at_places in zip(graph.writers, drawn["writers"], strict=True):
        shown = [(nodes[i]["component"], nodes[i]["place"]) for i in at_places]
        expected = range(len(places)) if places else [None]
        assert shown == [(writer.component, place) for place in expected]


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, SHARED_NORM])
def test_the_page_places_the_boxes_of_a_circuit_in_columns(graph):
    some = circuit_of(graph, 60)
    layout = layout_of(graph, some.edges, {})
    assert {name for edge in some.edges for name in graph.nodes_of(edge)} <= set(layout["boxes"])
    columns = {PLACES[place]: ends for place, *ends in layout["columns"]}
    assert list(columns) == list(PLACES)
    for name, (x, _, width) in layout["boxes"].items():
        left, right = columns[name.partition("@")[2]]
        assert left < x - width / 2 < x + width / 2 < right
    assert set(even_layout(graph, {})["boxes"]) >= set(layout["boxes"])
