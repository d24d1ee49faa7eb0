"""Drawings in grey, on a dark ground, of a width on paper, and of some layers."""

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
import torch

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.errors import LimitError, MethodError, ReportError
from circuitfind.granularity import heads_and_mlps
from circuitfind.reports.diagram import Diagram, draw_circuit
from circuitfind.reports.strokes import (
    LEFT_COLOUR,
    PORT_COLOURS,
    RIGHT_COLOUR,
    SHARED_COLOUR,
)
from circuitfind.reports.style import restyled
from circuitfind.shape import ModelShape
from circuitfind.verbs.draw import Look, draw_run
from tests.cli.conftest import cli, program, run  # noqa: F401  (fixtures)

GRAPH = heads_and_mlps(ModelShape(3, 2, 2, 8, 4, 11))
WHOLE = Circuit(GRAPH, GRAPH.edge_mask.clone(), torch.ones(GRAPH.edge_mask.shape))
COLOUR = re.compile(r"#[0-9a-f]{6}")


TEXT = 'color=white color="#00ff00" <b>'


@pytest.fixture(scope="module")
def dot():
    return draw_circuit(WHOLE, caption=["a title with #ff0000 in it", TEXT]).dot


def colours(svg):
    """Return all colours of shapes, lines and text; what states none is black."""
    found = []
    for item in ElementTree.fromstring(svg).iter():
        kind = item.tag.rpartition("}")[2]
        if kind in ("polygon", "path", "ellipse", "polyline", "text"):
            found += [item.get("fill", "black"), item.get("stroke", "none")]
    return {colour for colour in found if colour not in ("none", "transparent")}


def brightness(colour):
    named = {"black": "#000000", "white": "#ffffff"}
    text = named.get(colour, colour)
    return sum(int(text[at : at + 2], 16) for at in (1, 3, 5)) / 765


def test_in_grey_every_colour_is_grey_and_ports_stay_apart(dot):
    grey = restyled(dot, "greyscale")
    for colour in colours(Diagram(grey).svg()) - {"black", "white"}:
        assert colour[1:3] == colour[3:5] == colour[5:7], colour
    ports = [PORT_COLOURS[port] for port in ("q", "k", "v")]
    for colours_of in (ports, [LEFT_COLOUR, RIGHT_COLOUR, SHARED_COLOUR]):
        lines = [restyled(f'a -> b [color="{each}"]', "greyscale") for each in colours_of]
        shades = [COLOUR.findall(line)[-1] for line in lines]
        for one, other in combinations(shades, 2):
            assert abs(brightness(one) - brightness(other)) > 0.15
    assert "a title with #ff0000 in it" in grey
    assert "color=white color=&quot;#00ff00&quot; &lt;b&gt;" in grey


def test_on_a_dark_ground_all_text_and_lines_can_be_read(dot):
    svg = Diagram(restyled(dot, "dark")).svg()
    root = ElementTree.fromstring(svg)
    ground = brightness(next(root.iter("{http://www.w3.org/2000/svg}polygon")).get("fill"))
    assert ground < 0.15
    for item in root.iter("{http://www.w3.org/2000/svg}path"):
        if (colour := item.get("stroke")) not in (None, "none", "transparent"):
            assert brightness(colour) > 0.3, colour
    texts = {text.get("fill", "black") for text in root.iter("{http://www.w3.org/2000/svg}text")}
    # Names of ends stand in light boxes.
    assert {brightness(colour) > 0.5 for colour in texts} <= {True, False}
    assert sum(brightness(colour) < 0.5 for colour in texts) <= 2
    assert "a title with #ff0000 in it" in svg
    assert "color=white" in svg


def test_the_usual_style_changes_nothing_and_another_name_is_refused(dot):
    assert restyled(dot) == dot
    with pytest.raises(ReportError, match="no style named 'pink'; choose one of colour, grey"):
        restyled(dot, "pink")


@pytest.mark.parametrize("cm", [5.0, 30.0])
def test_a_width_on_paper_is_that_of_the_page(dot, cm):
    width = ElementTree.fromstring(Diagram(restyled(dot, cm=cm)).svg()).get("width")
    assert float(width.removesuffix("pt")) == pytest.approx(cm / 2.54 * 72, abs=1)
    with pytest.raises(LimitError, match="cm must be a number from 1 to 500 centimetres"):
        Look(cm=0.5)


def test_only_edges_of_the_chosen_layers_are_drawn():
    drawn, (words,) = Look(layers="0,2").part(WHOLE)
    inside = {
        edge.name
        for edge in GRAPH.edges()
        if not any("1" in end[:2] for end in re.split("->", edge.name))
    }
    assert {edge.name for edge in drawn.edges} == inside
    assert words == f"layers 0,2 of 0 to 2: {len(inside)} of {WHOLE.n_edges} edges"
    assert Look().part(WHOLE) == (WHOLE, [])
    with pytest.raises(MethodError, match="no layer 3: the model has the layers 0 to 2"):
        Look(layers="3").part(WHOLE)


def test_the_command_names_the_file_by_its_look(cli, run, tmp_path):  # noqa: F811
    plain, file = draw_run(tmp_path / "run", Look(layers="0-1", style="dark", cm=8.5))
    assert file.name == "diagram-layers-0-1-dark-8.5cm.svg"
    assert Look(layers="0,1").suffix == "-layers-0+1"
    png = cli("draw", "run", "--cm", 9, "--out", "x.png")
    assert (png.code, png.err.count("\n")) == (2, 1)
    answer = cli("draw", "run", "--layers", "0-1", "--style", "dark", "--cm", 8.5)
    assert (answer.code, answer.out.strip()) == (0, f"run/{file.name}"), answer.err
    assert (tmp_path / "run" / file.name).read_text() == plain.svg()
    other = cli("draw", "run", "--against", "run", "--style", "greyscale", "--layers", "0")
    assert other.code == 0, other.err
    assert "layers 0 of 0 to" in (tmp_path / other.out.strip()).read_text()
    assert (
        cf.load_circuit("run/circuit.json").n_edges
        > Look(layers="0").part(cf.load_circuit("run/circuit.json"))[0].n_edges
    )
