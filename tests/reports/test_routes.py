"""No line touches a box that is not its end, whatever the circuit, as read from the SVG."""

import re
from xml.etree import ElementTree

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph, Units, UnitsOf
from circuitfind.reports.diagram import Diagram, draw_circuit, draw_difference, draw_frequencies
from circuitfind.shape import ModelShape

SVG = "{http://www.w3.org/2000/svg}"


def neurons(n: int, *layers: int) -> list[Units]:
    return [Units(layer, "neuron", tuple(range(3, 3 + 7 * n, 7))) for layer in layers]


def latents(n: int, *layers: int) -> list[Units]:
    numbers = tuple(range(5, 5 + 11 * n, 11))
    return [Units(at, "latent", numbers, apart=True, skip=True, error="fixed") for at in layers]


def of_attention(n: int, *layers: int) -> list[Units]:
    numbers = tuple(range(5, 5 + 11 * n, 11))
    return [Units(at, "latent", numbers, error="live", of="attention") for at in layers]


def of_stream(n: int, *sites: tuple[int, UnitsOf]) -> list[Units]:
    return [Units(at, "latent", tuple(range(n)), error="live", of=of) for at, of in sites]


GRAPHS = {
    "attention-only": heads_and_mlps(ModelShape(2, 4, 4, 8, 4, 11, has_mlp=False)),
    "plain": heads_and_mlps(ModelShape(4, 4, 4, 8, 4, 11)),
    "merged": heads_and_mlps(ModelShape(4, 4, 4, 8, 4, 11), merge_qkv=True),
    "parallel": heads_and_mlps(ModelShape(3, 4, 4, 8, 4, 11, parallel_mlp=True)),
    "grouped": heads_and_mlps(ModelShape(3, 6, 2, 8, 4, 11)),
    "shared-norm": heads_and_mlps(ModelShape(3, 4, 2, 8, 4, 11, heads_share_norm=True)),
    "gpt2": heads_and_mlps(ModelShape(12, 12, 12, 8, 4, 11)),
    "places": heads_and_mlps(ModelShape(3, 4, 2, 8, 4, 11)).at_places(["first", "b", "end"]),
    "deep": heads_and_mlps(ModelShape(30, 4, 2, 8, 4, 11)),
    "neurons": heads_and_mlps(ModelShape(3, 4, 4, 8, 4, 11), units=neurons(40, 0, 1)),
    "latents": heads_and_mlps(ModelShape(3, 4, 4, 8, 4, 11), units=latents(40, 1, 2)),
    "parallel-neurons": heads_and_mlps(
        ModelShape(3, 4, 4, 8, 4, 11, parallel_mlp=True), units=neurons(12, 0, 1, 2)
    ),
    "deep-neurons": heads_and_mlps(
        ModelShape(30, 4, 2, 8, 4, 11), units=neurons(8, *range(0, 30, 2))
    ),
    "attention-latents": heads_and_mlps(
        ModelShape(3, 4, 2, 8, 4, 11), units=[*of_attention(20, 0, 1), *neurons(9, 2)]
    ),
    "attention-latents-at-places": heads_and_mlps(
        ModelShape(3, 4, 4, 8, 4, 11), units=of_attention(12, 0, 2)
    ).at_places(["first", "b", "end"]),
    "stream-latents": heads_and_mlps(
        ModelShape(4, 4, 2, 8, 4, 11),
        units=[
            *of_stream(9, (1, "resid_pre"), (1, "resid_mid"), (2, "resid_post")),
            *neurons(5, 3),
        ],
    ),
    "latents-at-places": heads_and_mlps(
        ModelShape(3, 4, 2, 8, 4, 11), units=[*latents(12, 0, 1), *neurons(9, 2)]
    ).at_places(["first", "b", "end"]),
}


@pytest.mark.parametrize("n_edges", [3, 40, 120, 500])
@pytest.mark.parametrize("name", GRAPHS)
def test_lines_keep_clear_of_boxes_that_are_not_their_ends(name, n_edges):
    circuit = circuit_of(GRAPHS[name], n_edges)
    found = touched(draw_circuit(circuit))
    assert len(found) >= circuit.n_edges
    assert [line for line in found if line[2]] == []


@pytest.mark.parametrize("n_edges", [20, 200])
def test_roles_make_some_boxes_higher_and_lines_keep_clear_of_them(n_edges):
    circuit = circuit_of(GRAPHS["grouped"], n_edges)
    roles = {name: "role of some length" for name in circuit.components[::2]}
    found = touched(draw_circuit(circuit, roles=roles))
    assert [line for line in found if line[2]] == []


@pytest.mark.parametrize("n_edges", [20, 200])
def test_lines_of_differences_and_of_frequencies_keep_clear_of_boxes(n_edges):
    graph = GRAPHS["plain"]
    left, right = circuit_of(graph, n_edges), circuit_of(graph, n_edges, seed=1)
    shares = (left.kept.double() + right.kept.double()) / 2
    for diagram in (draw_difference(left, right), draw_frequencies(graph, shares, share=0.9)):
        found = touched(diagram)
        assert len(found) == int((left.kept | right.kept).sum())
        assert [line for line in found if line[2]] == []


@pytest.mark.parametrize("name", ["plain", "gpt2", "neurons", "latents", "parallel-neurons"])
def test_every_line_joins_its_ends_upwards_and_enters_heads_at_the_port(name):
    diagram = draw_circuit(circuit_of(GRAPHS[name], 120))
    boxes, lines = geometry(diagram)
    for tail, head, port, points in lines:
        heights = [y for _, y in points]
        assert heights == sorted(heights, reverse=True)  # y counts downwards in SVG
        (left, top, right, _), (into_left, _, into_right, bottom) = boxes[tail], boxes[head]
        assert left < points[0][0] < right
        assert abs(points[0][1] - top) < 0.6
        place = (points[-1][0] - into_left) / (into_right - into_left)
        assert {"q": place < 0.4, "k": 0.3 < place < 0.7, "v": place > 0.6}.get(port, True)
        assert 4 < points[-1][1] - bottom < 6


def test_pictures_of_deep_models_are_no_strips():
    circuit = circuit_of(GRAPHS["deep"], 60)
    assert len({edge.reader.layer for edge in circuit.edges}) > 15
    width, height = size(draw_circuit(circuit))
    assert height < 3.5 * width


def circuit_of(graph: Graph, n_edges: int, seed: int = 0) -> Circuit:
    """Return a circuit in which some components do most, and mostly for the next layers."""
    generator = torch.Generator().manual_seed(seed)
    writers = torch.rand(len(graph.writers), 1, generator=generator).double() ** 3
    readers = torch.rand(1, len(graph.readers), generator=generator).double() ** 3
    noise = torch.randn(graph.edge_mask.shape, generator=generator, dtype=torch.float64)
    writes_at = torch.tensor([writer.stage for writer in graph.writers])
    reads_at = torch.tensor([reader.stage for reader in graph.readers])
    near = torch.exp(-(reads_at[None] - writes_at[:, None]) / 10)
    effects = writers * readers * noise * near
    sizes = effects.abs().where(graph.edge_mask, torch.zeros(()).double()).flatten()
    kept = torch.zeros(sizes.shape, dtype=torch.bool)
    kept[sizes.topk(min(n_edges, graph.n_edges)).indices] = True
    return Circuit(graph, kept.reshape(graph.edge_mask.shape), effects)


def touched(diagram: Diagram) -> list[tuple[str, str, list[str]]]:
    """Return the ends of every line with the boxes that it touches besides.

    What stands in the box of an MLP may touch that.
    """
    boxes, lines = geometry(diagram)
    names, frames = list(boxes), torch.tensor(list(boxes.values()))
    found = []
    for tail, head, _, points in lines:
        at = torch.tensor(points)[:, None]
        inside = (frames[:, :2] <= at).all(-1) & (at <= frames[:, 2:]).all(-1)
        met = [names[index] for index in inside.any(0).nonzero().flatten()]
        known = {tail, head, around(tail), around(head)}
        found.append((tail, head, [name for name in met if name not in known]))
    return found


def around(name: str) -> str:
    """Return the box in which the unit `m5.n17@S2` would stand: `m5@S2`."""
    component, mark, place = name.partition("@")
    return component.partition(".")[0] + mark + place


def geometry(diagram: Diagram):
    """Return the boxes of an SVG by name, and its lines as ends, port and a polyline."""
    boxes, lines = {}, []
    for group in ElementTree.fromstring(diagram.svg()).iter(f"{SVG}g"):
        name = group.findtext(f"{SVG}title") or ""
        if group.get("class") == "cluster" and name.startswith("cluster_"):
            boxes[name.removeprefix("cluster_")] = frame(group)
        if group.get("class") == "node" and not {"row", "column"} & set(name.split()):
            # The name of an MLP whose units are drawn stands in its box, and has no outline.
            boxes.setdefault(name, frame(group) if outlines(group) else ())
        if group.get("class") == "edge":
            tail, _, head = name.partition("->")
            (path,) = (p.get("d") for p in group.iter(f"{SVG}path"))
            tips = [a.get("{http://www.w3.org/1999/xlink}title") for a in group.iter(f"{SVG}a")]
            edge = (tips[0] if tips else "").partition(": ")[0]
            port = edge.rpartition(".")[2] if "." in edge.partition("->")[2] else None
            lines.append((tail, head, port, sampled(path)))
    return boxes, lines


def frame(group) -> tuple[float, float, float, float]:
    points = [pair for outline in outlines(group) for pair in numbers(outline)]
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def outlines(group) -> list[str]:
    shapes = [p.get("points") or p.get("d") for p in group.iter() if p.tag != f"{SVG}text"]
    return [shape for shape in shapes if shape]


def sampled(path: str, n: int = 24) -> list[tuple[float, float]]:
    """Return points on joined cubic Bezier curves."""
    controls = numbers(path)
    points = [controls[0]]
    for start in range(0, len(controls) - 1, 3):
        a, b, c, d = controls[start : start + 4]
        for step in range(1, n + 1):
            t, s = step / n, 1 - step / n
            weights = s**3, 3 * s * s * t, 3 * s * t * t, t**3
            points.append(
                tuple(
                    sum(w * p[i] for w, p in zip(weights, (a, b, c, d), strict=True))
                    for i in (0, 1)
                )
            )
    return points


def numbers(text: str) -> list[tuple[float, float]]:
    found = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
    return list(zip(found[::2], found[1::2], strict=True))


def size(diagram: Diagram) -> tuple[float, float]:
    box = ElementTree.fromstring(diagram.svg()).get("viewBox")
    *_, width, height = map(float, box.split())
    return width, height
