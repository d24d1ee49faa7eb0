"""Diagrams show every edge as what it is, always in the same bytes, with or without `dot`."""

import math
import os
import re
import subprocess
import sys
from functools import partial
from itertools import pairwise
from xml.etree import ElementTree

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitfindError, GraphError, LimitError, ReportError
from circuitfind.granularity import heads_and_mlps, with_units
from circuitfind.graph import Graph, Units
from circuitfind.reports import rendering
from circuitfind.reports.bars import Row, draw_bars
from circuitfind.reports.chart import Axis, Plane, Series, draw_panels
from circuitfind.reports.diagram import Diagram, draw_circuit, draw_difference
from circuitfind.reports.layout import place
from circuitfind.reports.matrix import Cell, draw_cells
from circuitfind.reports.picture import MANY_LINES, Box, Line, Picture, Stroke
from circuitfind.reports.rendering import Pixels
from circuitfind.reports.sizes import box_width
from circuitfind.reports.strokes import LEFT_COLOUR, PORT_COLOURS, RIGHT_COLOUR, SHARED_COLOUR
from circuitfind.shape import ModelShape

PLAIN = heads_and_mlps(ModelShape(3, 2, 2, 8, 4, 11))
GROUPED = heads_and_mlps(ModelShape(2, 4, 2, 8, 4, 11))
SHARED_NORM = heads_and_mlps(ModelShape(2, 2, 2, 8, 4, 11, heads_share_norm=True))
LARGE = heads_and_mlps(ModelShape(4, 4, 4, 8, 4, 11))
NASTY = """<b>&"quoted" \\N \\ 'é' ]]> \x00\x1b \ud800 名 {a|b}"""

SCRIPT = """
from hashlib import sha256

import torch
from circuitfind.circuit import Circuit
from circuitfind.comparison.matching import compare_matched
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape
from circuitfind.reports.bars import Row, draw_bars
from circuitfind.reports.chart import Axis, Series, draw_lines
from circuitfind.reports.diagram import draw_circuit, draw_difference, draw_frequencies
from circuitfind.reports.matched import Drawn, draw_matched
from circuitfind.reports.matrix import Cell, draw_cells
pictures = []
for shape in (ModelShape(2, 4, 2, 8, 4, 11, heads_share_norm=True), ModelShape(20, 2, 2, 8, 4, 11)):
    graph = heads_and_mlps(shape)
    effects = torch.arange(graph.edge_mask.numel(), dtype=torch.float64).sin()
    effects = effects.reshape(graph.edge_mask.shape)
    low = 0.1 if shape.n_layers == 2 else 0.99
    circuit = Circuit(graph, graph.edge_mask & (effects > low), effects)
    other = Circuit(graph, graph.edge_mask & (effects < 0.1 - low), effects)
    pairs = [(i, len(graph.writers) - i, 1.0) for i in range(1, len(graph.writers), 3)]
    matched = compare_matched(circuit, other, pairs, draws=2)
    pictures += [
        draw_circuit(circuit, roles={"m0": "x", "a1.h1": "y"}),
        draw_circuit(circuit, max_edges=20, merge_qkv=True),
        draw_difference(circuit, other),
        draw_frequencies(graph, circuit.kept / 2 + other.kept / 2, share=0.8),
        draw_matched(matched, Drawn("a", circuit, {"m1": "z"}), Drawn("b", other)),
    ]
placed = heads_and_mlps(ModelShape(2, 4, 2, 8, 4, 11)).at_places(["a", "b", "c"])
pictures.append(draw_circuit(Circuit(placed, placed.edge_mask)))
axis = Axis("x", 0.0, 1.0, (0.0, 1.0))
series = [Series(name, ((0.2, 0.3), (0.4, 0.5)), "#0072b2") for name in "ab"]
pictures += [
    draw_lines("T", axis, axis, series),
    draw_bars("T", "axis", [Row(name, name, (0.2, 0.3), 0.1) for name in "abc"]),
    draw_cells(["a", "b"], {(0, 1): Cell(0.25, 0.5)}, ["caption"]),
]
for number, picture in enumerate(pictures):
    # A PNG is made of the same source: some of them are enough.
    png = [picture.png()] if number < 2 else []
    for content in (picture.dot.encode(), picture.svg().encode(), *png):
        print(len(content), sha256(content).hexdigest())
"""


@pytest.fixture
def no_dot(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.2, 0.9), ["0", "0.25", "0.5", "0.75", "1"]),
        ((-0.6, 0.3), ["-0.75", "-0.5", "-0.25", "0", "0.25", "0.5", "0.75", "1"]),
        ((-3.0, 41.0), ["-10", "0", "10", "20", "30", "40", "50"]),
        ((2e6, 0.0), ["0", "250000", "500000", "750000", "1e+06", "1.25e+06", "1.5e+06",
                      "1.75e+06", "2e+06"]),
        ((math.nan, -math.inf, 0.5), ["0", "0.25", "0.5", "0.75", "1"]),
    ],
)  # fmt: skip
def test_bars_have_room_for_all_values_that_are_finite(values, ticks):
    dot = draw_bars("T", "axis", [Row("a", "g", values, interval=(values[0], values[1]))]).dot
    texts = re.findall(r'label="?([-+.e\d]+)"?', dot)
    assert [text for text in texts if text in ticks] == ticks
    assert dot.count("shape=circle") == sum(map(math.isfinite, values))


def test_no_picture_depends_on_the_hash_seed():
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in running)
    assert len(first.splitlines()) == 2 * (2 * 5 + 1 + 3) + 2
    assert first == second


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, SHARED_NORM, LARGE])
def test_every_kept_edge_is_drawn_once_in_the_colour_of_its_port(graph):
    circuit = random_circuit(graph, seed=0)
    lines = drawn(draw_circuit(circuit))
    assert sorted(lines) == sorted(edge.name for edge in circuit.edges)
    for edge in circuit.edges:
        line = lines[edge.name]
        assert PORT_COLOURS[edge.reader.port] in line
        assert f"{ends(edge.writer.component)} -> {ends(edge.reader.component)} [" in line


def test_edges_that_harm_are_dashed_and_larger_effects_are_wider():
    circuit = circuit_of({"embed->m0": 0.5, "embed->logits": -0.25, "m0->logits": 0.125})
    lines = drawn(draw_circuit(circuit))
    assert [name for name, line in lines.items() if "dashed" in line] == ["embed->logits"]
    widths = {name: float(re.search(r"penwidth=([\d.]+)", lines[name])[1]) for name in lines}
    assert widths["embed->m0"] > widths["embed->logits"] > widths["m0->logits"]


def test_effects_of_every_size_have_widths_that_can_be_told_apart():
    sizes = [0.008, 0.024, 0.072, 0.216, 0.648, 1.944, 5.832]
    names = [edge.name for edge in PLAIN.edges()[: len(sizes)]]
    lines = drawn(draw_circuit(circuit_of(dict(zip(names, sizes, strict=True)))))
    widths = [float(re.search(r"penwidth=([\d.]+)", lines[name])[1]) for name in names]
    steps = [wider - thinner for thinner, wider in pairwise(widths)]
    assert min(steps) > 0.4
    # Equal ratios are equal steps: each size is three times the one before it.
    assert max(steps) < min(steps) + 0.03


def test_widths_do_not_exaggerate_effects_that_are_nearly_equal():
    lines = drawn(draw_circuit(circuit_of({"embed->m0": 1.0, "m0->logits": 0.9})))
    thick, thin = (float(re.search(r"penwidth=([\d.]+)", line)[1]) for line in lines.values())
    assert abs(thick - thin) < 0.25


def test_effects_below_a_thousandth_of_the_largest_share_the_thinnest_line():
    dot = draw_circuit(circuit_of({"embed->m0": 5.0, "embed->m1": 1e-4, "m0->m1": 0.0})).dot
    assert "size of effect up to 0.005" in dot
    assert dot.count("penwidth=0.50") == 2


def test_the_legend_names_sizes_that_occur():
    # Shares of three runs: a mean of two of them is none.
    shares = {"embed->m0": 1.0, "embed->m1": 1 / 3, "m0->m1": 2 / 3, "m0->logits": 1 / 3}
    dot = draw_circuit(circuit_of(shares), unit="share of runs").dot
    named = re.findall(r"size of effect ([\d.]+)", dot)
    assert sorted(map(float, named)) == pytest.approx([1 / 3, 2 / 3, 1.0], abs=1e-3)


def test_the_legend_explains_what_is_drawn_and_nothing_else():
    dot = draw_circuit(circuit_of({"embed->m0": 0.5, "m0->logits": 0.125}), unit="nats").dot
    assert "size of effect 0.5 nats" in dot
    assert "size of effect 0.125 nats" in dot
    assert "into an MLP or the logits" in dot
    for absent in ("into a query", "effect &lt; 0", "not measured", "part of the model"):
        assert absent not in dot


def test_the_legend_says_that_edges_lead_into_the_stream():
    graph = with_units(PLAIN, [Units(0, "latent", (3,), error="live", of="resid_post")])
    into, other = (
        Circuit.of_edges(graph, [f"embed->{name}", "post0.f3->logits"])
        for name in ("post0", "a0.h0.v")
    )
    for dot in (draw_circuit(into).dot, draw_difference(into, other).dot):
        assert "into an MLP, the stream or the logits" in dot


def test_edges_without_a_measured_effect_have_a_neutral_width_and_a_legend():
    dot = draw_circuit(circuit_of({"embed->m0": math.nan, "m0->logits": 3.0})).dot
    assert "effect not measured" in dot
    assert "embed->m0: not measured" in dot


@pytest.mark.parametrize("effect", [0.0, math.inf, -math.inf, 1e-300, -1e300])
def test_extreme_effects_are_drawn(effect):
    for others in ({"m0->logits": 1.0}, {"m0->logits": effect}, {}):
        diagram = draw_circuit(circuit_of({"embed->m0": effect, **others}))
        ElementTree.fromstring(diagram.svg())


def test_a_difference_gives_each_edge_the_colour_of_its_class():
    left, right = random_circuit(PLAIN, seed=1), random_circuit(PLAIN, seed=2)
    lines = drawn(draw_difference(left, right, names=("ours", "theirs")))
    classes = {(True, False): LEFT_COLOUR, (False, True): RIGHT_COLOUR, (True, True): SHARED_COLOUR}
    ours, theirs = ({edge.name for edge in circuit.edges} for circuit in (left, right))
    assert set(lines) == ours | theirs
    for name, line in lines.items():
        assert classes[name in ours, name in theirs] in line


def test_circuits_of_different_graphs_have_no_difference():
    with pytest.raises(GraphError, match="another model: n_layers"):
        draw_difference(random_circuit(PLAIN, seed=0), random_circuit(LARGE, seed=0))


def test_structural_arcs_join_only_components_that_the_circuit_keeps():
    kept = circuit_of({"embed->a0.kv1.k": 1.0, "a0.h2->logits": 1.0, "a0.h0->logits": 1.0}, GROUPED)
    dot = draw_circuit(kept).dot
    assert '"a0.kv1" -> "a0.h2"' in dot
    assert "a0.h3" not in dot
    assert '-> "a0.h0"' not in dot
    assert "part of the model" in dot


def test_heads_that_share_a_norm_are_drawn_into_it():
    dot = draw_circuit(circuit_of({"embed->a0.h0.q": 1.0, "a0.h1->m0": 1.0}, SHARED_NORM)).dot
    assert {'"a0.h0" -> "a0.norm"', '"a0.h1" -> "a0.norm"', '"a0.norm" -> m0'} <= arrows(dot)
    assert "a1.norm" not in dot


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, LARGE])
def test_without_dot_the_svg_is_valid_and_names_every_component(graph, no_dot):
    circuit = random_circuit(graph, seed=3)
    roles = {"m0": "a role", "a1.h0": "another"}
    svg = draw_circuit(circuit, caption=["a caption"], roles=roles).svg()
    shown = texts(svg)
    assert set(circuit.components) <= shown
    assert {"a role", "another", "a caption"} <= shown


@pytest.mark.parametrize("graph", [PLAIN, LARGE])
def test_whatever_draws_the_svg_names_every_component(graph):
    circuit = random_circuit(graph, seed=3)
    assert set(circuit.components) <= texts(draw_circuit(circuit)._repr_svg_())


def test_names_roles_and_captions_may_hold_any_character(no_dot):
    circuit = circuit_of({"embed->m0": 1.0, "m0->logits": 1.0})
    harmless = """<b>&"quoted" \\N \\ 'é' ]]> \ufffd\ufffd \ufffd 名 {a|b}"""
    assert harmless in texts(draw_circuit(circuit, caption=[NASTY, "", "a\nb"]).svg())
    assert harmless in texts(draw_circuit(circuit, roles={"m0": NASTY}).svg())
    assert f"only in {harmless}: 0" in texts(
        draw_difference(circuit, circuit, names=(NASTY, "")).svg()
    )


HOSTILE = {
    "long": "x" * 5000,
    "non-BMP": "\U0001f600 \U00020000 \U000e0001",
    "right to left": "\u202e\u05d0\u05d1\u05d2 abc",
    "breaks": "a\r\nb\u2028c\u0085d\x0ce",
    "html": "</TD></TR></TABLE>><IMG SRC='/etc/passwd'/><!-- ",
    "entity": "&amp; &#0; &lt;script&gt; &nbsp;",
    "record": "{a|b}|<port> \\l \\G \\E %s %n",
    "combining": "Z\u0351\u036b\u0343" * 50,
    "spaces": "   ",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_breaks_a_picture(text, no_dot):
    circuit = random_circuit(PLAIN, seed=0)
    axis = Axis(text, 0.0, 1.0, (0.0, 1.0))
    plane = Plane((Series(text, ((0.5, 0.5),), "#0072b2", tips=(text,)),), text)
    pictures = [
        draw_circuit(circuit, caption=[text], roles={"m0": text}, unit=text),
        draw_difference(circuit, circuit, names=(text, text), caption=[text]),
        draw_panels(text, axis, axis, [plane]),
        draw_bars(text, text, [Row(text, text, (0.5,), 0.1)]),
        draw_cells([text, text], {(0, 1): Cell(0.5, 0.1, text)}, [text]),
    ]
    for picture in pictures:
        root = ElementTree.fromstring(picture.svg())
        assert picture.png().startswith(b"\x89PNG")
        assert root.findall(".//{http://www.w3.org/2000/svg}image") == []
        width, height = map(float, root.get("viewBox").split()[2:])
        assert max(width, height) < 6000


def test_an_empty_circuit_says_so(no_dot):
    empty = Circuit(PLAIN, torch.zeros_like(PLAIN.edge_mask))
    for diagram in (draw_circuit(empty, caption=["why"]), draw_difference(empty, empty)):
        assert "no edges kept" in texts(diagram.svg())


def test_a_role_for_an_unknown_component_is_refused():
    with pytest.raises(ReportError, match=r"'a9.h6'.*named like"):
        draw_circuit(random_circuit(PLAIN, seed=0), roles={"a9.h6": "name mover"})


def test_of_too_many_edges_the_strongest_are_drawn_and_the_legend_says_so():
    circuit = circuit_of({"embed->m0": 0.1, "embed->m1": -9.0, "m0->logits": 0.3, "m1->m2": 2.0})
    diagram = draw_circuit(circuit, max_edges=2)
    assert set(drawn(diagram)) == {"embed->m1", "m1->m2"}
    assert "2 of 4 edges are drawn" in diagram.dot


def test_each_suffix_writes_its_kind_of_file(tmp_path, no_dot):
    diagram = draw_circuit(random_circuit(PLAIN, seed=0))
    assert diagram.save(tmp_path / "a.dot").read_text(encoding="utf-8") == diagram.dot
    assert diagram.save(tmp_path / "a.gv").read_text(encoding="utf-8") == diagram.dot
    assert "<svg" in diagram.save(tmp_path / "a.SVG").read_text(encoding="utf-8")
    assert diagram.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_png_has_the_width_or_the_scale_that_is_asked_for():
    diagram = draw_circuit(random_circuit(PLAIN, seed=0))
    usual = png_size(diagram.png())
    assert png_size(diagram.png(Pixels(width=1777)))[0] == pytest.approx(1777, abs=1)
    for scale in (0.5, 3.0):
        wanted = [scale * side for side in usual]
        assert png_size(diagram.png(Pixels(scale))) == pytest.approx(wanted, abs=3)


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        ({"scale": 0.0}, "scale must be a number from 0.1 to 20, not 0"),
        ({"scale": math.nan}, "scale must be .*not nan"),
        ({"scale": -1.0}, "scale must be .*not -1"),
        ({"scale": math.inf}, "scale must be .*not inf"),
        ({"width": 0}, "width must be a whole number from 1 to 30,000 pixels, not 0"),
        ({"width": 30_001}, "width must be .*not 30,001"),
        ({"width": 29_999}, "would have 29999 x .*give a smaller scale or width"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(size, complaint):
    with pytest.raises(CircuitfindError, match=complaint):
        draw_circuit(random_circuit(PLAIN, seed=0)).png(Pixels(**size))


def test_only_png_has_a_size_in_pixels(tmp_path):
    with pytest.raises(ReportError, match=r"'a\.svg' has no size in pixels.*for \.png files"):
        draw_circuit(random_circuit(PLAIN, seed=0)).save(tmp_path / "a.svg", Pixels(2.0))


@pytest.mark.parametrize("max_edges", [0, -3])
def test_at_least_one_edge_is_drawn(max_edges):
    circuit = random_circuit(PLAIN, seed=0)
    for draw in (draw_circuit, partial(draw_difference, circuit)):
        with pytest.raises(LimitError, match=f"max edges must be .* from 1 .*, not {max_edges}"):
            draw(circuit, max_edges=max_edges)


def test_merged_ports_are_one_line_as_strong_as_the_strongest():
    effects = {"m0->a1.h0.q": 0.25, "m0->a1.h0.k": -2.0, "m0->a1.h0.v": 0.5, "embed->m0": 1.0}
    dot = draw_circuit(circuit_of(effects), merge_qkv=True).dot
    (line,) = re.findall(r"^\tm0 -> .*", dot, re.M)
    assert "dashed" in line and "penwidth=4.00" in line and PORT_COLOURS["qkv"] in line
    assert "m0->a1.h0.k: -2; m0->a1.h0.v: 0.5; m0->a1.h0.q: 0.25" in line
    assert "into a head" in dot and "into a query" not in dot
    assert "a line of several edges: the largest effect" in dot


def test_pdf_without_dot_says_what_to_install(tmp_path, no_dot):
    with pytest.raises(
        ReportError, match=r"cannot draw PDF.*save as \.svg, \.png or \.dot.*install Graphviz"
    ):
        draw_circuit(random_circuit(PLAIN, seed=0)).save(tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_png_without_any_graphviz_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "programs", list)
    with pytest.raises(ReportError, match=r"cannot draw PNG.*\(none\).*install Graphviz"):
        draw_circuit(random_circuit(PLAIN, seed=0)).save(tmp_path / "a.png")


@pytest.mark.parametrize("body", ["#!/bin/sh\nexit 1\n", "#!/no/such/interpreter\n"])
def test_a_broken_dot_is_passed_over(body, tmp_path, no_dot):
    broken = tmp_path / "dot"
    broken.write_text(body, encoding="utf-8")
    broken.chmod(0o755)
    assert "<svg" in draw_circuit(random_circuit(PLAIN, seed=0)).svg()


def test_files_that_cannot_be_written_are_reported(tmp_path):
    diagram = draw_circuit(random_circuit(PLAIN, seed=0))
    with pytest.raises(ReportError, match=r"'a\.jpeg'.*ends in \.dot"):
        diagram.save(tmp_path / "a.jpeg")
    with pytest.raises(ReportError, match="cannot write the diagram"):
        diagram.save(tmp_path / "missing" / "a.dot")


@pytest.mark.parametrize("seed", range(5))
def test_boxes_do_not_overlap_and_rows_rise_with_the_stage(seed):
    picture = random_picture(seed)
    layout = place(picture)
    heights = [{layout.centres[box.name][1] for box in row} for row in picture.rows]
    assert all(len(height) == 1 for height in heights)
    assert heights == sorted(heights, key=min)
    for row in picture.rows:
        spans = sorted(span(layout.centres[box.name][0], box) for box in row)
        assert all(left[1] < right[0] for left, right in zip(spans, spans[1:], strict=False))


def test_of_many_edges_weak_ones_are_faint():
    circuit = random_circuit(LARGE, seed=0)
    assert circuit.n_edges > MANY_LINES
    assert "the weaker, the fainter" in draw_circuit(circuit).dot


def random_circuit(graph: Graph, seed: int) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(graph.edge_mask.shape, generator=generator)
    effects = torch.randn(graph.edge_mask.shape, generator=generator, dtype=torch.float64)
    return Circuit(graph, graph.edge_mask & (noise < 0.5), effects)


def circuit_of(effects: dict[str, float], graph: Graph = PLAIN) -> Circuit:
    values = torch.full(graph.edge_mask.shape, math.nan, dtype=torch.float64)
    for name, effect in effects.items():
        values[graph.mask_of([name])] = effect
    return Circuit(graph, graph.mask_of(effects), values)


def random_picture(seed: int) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 6, (40,), generator=generator).tolist()
    wide = torch.randint(0, 30, (40,), generator=generator).tolist()
    boxes = [
        Box(f"a{row}.h{index}", "head", (row, 1), row, "r" * width)
        for index, (row, width) in enumerate(zip(rows, wide, strict=True))
    ]
    ends_ = torch.randint(0, 40, (100, 2), generator=generator).tolist()
    lines = [
        Line(boxes[a].name, boxes[b].name, Stroke("#000000"), name="x")
        for a, b in ends_
        if rows[a] < rows[b]
    ]
    return Picture(boxes, lines)


def span(centre: float, box: Box) -> tuple[float, float]:
    return centre - box_width(box) / 2, centre + box_width(box) / 2


def drawn(diagram: Diagram) -> dict[str, str]:
    """Return the DOT line of each drawn edge, by the edge's name."""
    named = re.compile(r'tooltip="(\S+->\S+): ')
    found = [(named.search(line), line) for line in diagram.dot.splitlines()]
    rows = [(match[1], line) for match, line in found if match]
    assert len(rows) == len(dict(rows))
    return dict(rows)


def ends(component: str) -> str:
    return f'"{component}"' if "." in component else component


def arrows(dot: str) -> set[str]:
    return set(re.findall(r"^\t(\S+ -> \S+)", dot, re.MULTILINE))


def png_size(image: bytes) -> tuple[int, int]:
    return int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")


def texts(svg: str) -> set[str]:
    """Return the texts that an SVG shows."""
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(element.itertext()).strip() for element in found}
