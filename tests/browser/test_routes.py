"""Lines of the report's graph go around every box that they do not touch."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from circuitfind.methods.base import Decision, circuit_of
from circuitfind.reports.page.drawing import drawn_edges, drawn_graph, even_layout, layout_of
from circuitfind.reports.page.html import page_html
from circuitfind.shape import ModelShape
from tests.browser.test_page import choose, slide

SHAPES = {
    "gpt": ModelShape(4, 4, 4, 64, 16, 100),
    "grouped heads": ModelShape(4, 6, 2, 64, 16, 100),
    "no MLPs": ModelShape(3, 8, 8, 64, 16, 100, has_mlp=False),
    "parallel": ModelShape(6, 8, 8, 64, 16, 100, parallel_mlp=True),
    "deep": ModelShape(12, 4, 4, 64, 16, 100),
}
LINES = """all => all.map(({__data__: {id, path, from, to}}) => ({
    path,
    name: id,
    from: from.id,
    to: to.id,
    ends: [from, to, from.frame, to.frame].map(box => box?.id),
}))"""
BOXES = """all => all.map(({__data__: {id, x, y, width, height, frame, label, kind}}) => (
    {id, x, y, width, height, frame: frame?.id, label, kind}
))"""
TEXTS = """all => all.map(e => [
    e.querySelector(".role").textContent,
    Math.max(...[...e.querySelectorAll("text")].map(text => text.getBBox().width)),
    e.querySelector("rect").getBBox().width,
])"""
STEPS = np.linspace(0, 1, 41)[:, None]
BERNSTEIN = np.concatenate(
    [(1 - STEPS) ** 3, 3 * STEPS * (1 - STEPS) ** 2, 3 * STEPS**2 * (1 - STEPS), STEPS**3], axis=1
)


def points_of(path: str) -> np.ndarray:
    """Return points along a path of cubic Bezier curves."""
    assert re.fullmatch(r"M[-\d.,]+C[-\d., ]+", path)
    given = np.array([float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)])
    corners = given.reshape(-1, 2)
    starts = range(0, len(corners) - 1, 3)
    return np.concatenate([BERNSTEIN @ corners[at : at + 4] for at in starts])


def behind(page) -> list[tuple[str, str]]:
    """Return each line with each box behind which it passes, though it does not end there."""
    found = []
    for pane in page.locator(".pane:visible").all():
        boxes = pane.locator(".box").evaluate_all(BOXES)
        lines = pane.locator(".lines path").evaluate_all(LINES)
        centres = np.array([[box["x"], box["y"]] for box in boxes])
        halves = np.array([[box["width"], box["height"]] for box in boxes]) / 2
        for line in lines:
            points = points_of(line["path"])[:, None]
            crossed = (np.abs(points - centres) < halves).all(axis=2).any(axis=0)
            others = {boxes[index]["id"] for index in np.flatnonzero(crossed)}
            found += [(line["name"], box) for box in others - set(line["ends"])]
    return found


def report_of(
    template: Path,
    file: Path,
    shape: ModelShape,
    share: float,
    roles: Mapping[str, str],
    units: Sequence[Units] = (),
) -> Path:
    """Write a report of random effects, in which a share of the model's edges is kept."""
    text = template.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    graph = heads_and_mlps(shape, units=units)
    random = torch.Generator().manual_seed(0)
    effects = torch.rand(graph.n_edges, generator=random).tolist()
    decisions = [
        Decision(edge.name, effect > 1 - share, "tested", 0.0, effect, effect)
        for edge, effect in zip(graph.edges(), effects, strict=True)
    ]
    circuit = circuit_of(graph, decisions)
    data["runs"][0] |= {
        "graph": drawn_graph(graph, roles),
        "edges": drawn_edges(circuit, decisions),
        "layouts": {
            "circuit": layout_of(graph, circuit.edges, roles),
            "all": even_layout(graph, roles),
        },
    }
    file.write_text(page_html("random", data), encoding="utf-8")
    return file


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_no_line_of_a_found_circuit_passes_behind_a_box(open_page, report, run, size):
    page = open_page(report, size)
    assert page.locator(".lines path").count() == run.circuit.n_edges
    assert behind(page) == []
    slide(page, 12)
    assert behind(page) == []
    page.locator("input.grouped").check()
    slide(page, run.circuit.n_edges)
    assert behind(page) == []


def test_no_line_passes_behind_a_box_that_is_not_in_the_circuit(open_page, report, run):
    page = open_page(report)
    page.locator("input.scope").check()
    page.locator("input.grouped").uncheck()
    for n in (run.circuit.graph.n_edges, 20):
        slide(page, n)
        assert page.locator(".box.idle").count() == 0 or n == 20
        assert behind(page) == []
    page.locator("input.grouped").check()
    assert behind(page) == []


def test_roles_fit_in_their_boxes(open_page, report, tmp_path):
    roles = {"a1.h0": "duplicate token head", "a1.h2": "previous token", "a2.h1": "S-inhibition"}
    page = open_page(report_of(report, tmp_path / "roles.html", SHAPES["gpt"], 0.5, roles))
    for grouped in (False, True):
        page.locator("input.grouped").set_checked(grouped)
        if grouped:
            choose(page, "layer 1")
            page.get_by_role("button", name="Draw apart").click()
        boxes = page.locator(".box").evaluate_all(TEXTS)
        assert {role for role, _, _ in boxes} >= {"duplicate token head", "previous token"}
        assert all(text <= box for _, text, box in boxes)


@pytest.mark.parametrize("share", [0.06, 0.9])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "deep"])
def test_no_line_passes_behind_a_box_whatever_the_model(open_page, report, tmp_path, name, share):
    roles = {"a1.h0": "induction", "a1.h2": "previous token", "a2.h1": "a name that is long"}
    file = report_of(report, tmp_path / "random.html", SHAPES[name], share, roles)
    page = open_page(file)
    page.locator("input.grouped").uncheck()
    n_lines = page.locator(".lines path").count()
    assert behind(page) == []
    page.locator("input.grouped").check()
    assert 1 < page.locator(".lines path").count() < n_lines
    assert behind(page) == []
    for layer in (1, 2):
        choose(page, f"layer {layer}")
        page.get_by_role("button", name="Draw apart").click()
        assert behind(page) == []


UNITS = {
    "neurons": [Units(at, "neuron", tuple(range(3, 300, 11))) for at in (0, 2)],
    "latents": [
        Units(at, "latent", tuple(range(5, 90, 7)), apart=True, skip=True, error="fixed")
        for at in (1, 2)
    ],
}


@pytest.mark.parametrize("share", [0.03, 0.3])
@pytest.mark.parametrize("name", UNITS)
def test_units_stand_in_the_box_of_their_mlp(open_page, report, tmp_path, name, share):
    shape, roles = SHAPES["gpt"], {"m2.rest": "a role", "a1.h2": "previous token"}
    file = report_of(report, tmp_path / "units.html", shape, share, roles, UNITS[name])
    page = open_page(file)
    page.locator("input.grouped").uncheck()
    boxes = {box["id"]: box for box in page.locator(".box").evaluate_all(BOXES)}
    inside = {name: box for name, box in boxes.items() if box["frame"]}
    assert len(inside) > 5
    for name, box in inside.items():
        frame = boxes[box["frame"]]
        assert name == f"{frame['id']}.{box['label']}"
        for at, length in (("x", "width"), ("y", "height")):
            assert abs(box[at] - frame[at]) < (frame[length] - box[length]) / 2 - 5
    assert page.locator(".frames rect").count() == len({box["frame"] for box in inside.values()})
    assert behind(page) == []
    page.locator("input.grouped").check()
    assert not [box for box in page.locator(".box").evaluate_all(BOXES) if box["frame"]]
    assert page.locator(".frames rect").count() == 0
    assert behind(page) == []


def test_a_unit_can_be_chosen_and_says_what_it_is(open_page, report, tmp_path):
    file = report_of(report, tmp_path / "u.html", SHAPES["gpt"], 0.9, {}, UNITS["neurons"])
    page = open_page(file)
    page.locator("input.grouped").uncheck()
    box = page.locator('.box[data-name="m2.n14"]')
    assert "neuron 14 of the MLP of layer 2" in box.get_attribute("aria-label")
    box.click()
    details = page.locator(".panel, aside").first.inner_text()
    assert "neuron 14 of the MLP of layer 2" in details
    assert "->m2" not in details and "Into its input" in details and "Out of it" in details
    error = page.locator(".kind-error")
    assert error.count() == 0


def test_no_line_of_600_passes_behind_a_box_of_a_deep_model(open_page, report, tmp_path):
    file = report_of(report, tmp_path / "random.html", SHAPES["deep"], 0.132, {})
    page = open_page(file)
    page.locator("input.grouped").uncheck()
    assert 550 < page.locator(".lines path").count() < 650
    assert behind(page) == []
