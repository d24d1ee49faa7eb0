"""A report of a circuit at places: a column for each place, and a choice of places."""

import re
from pathlib import Path

import numpy as np
import pytest

from circuitfind.comparison.common_graph import on_common_graph
from circuitfind.directories.config import RunConfig
from circuitfind.directories.results import RunResult
from circuitfind.reports.boxes import boxes_and_arcs
from circuitfind.reports.seen import Seen
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.report import write_report
from tests.browser.conftest import MODEL, N_PROMPTS
from tests.browser.test_page import TABS, both_sizes, choose, lines_of, ranked_edges, slide
from tests.browser.test_routes import LINES, behind, points_of

COLUMNS = """all => all.map(e => {
    const {x, width, y, height} = e.querySelector("rect").getBBox();
    const texts = [...e.querySelectorAll("text")].map(text => text.textContent);
    const wide = Math.max(...[...e.querySelectorAll("text")].map(text => text.getBBox().width));
    return {left: x, right: x + width, top: y, bottom: y + height, texts, wide};
})"""
BOXES = "all => all.map(({__data__: {id, x, y, width, height}}) => ({id, x, y, width, height}))"


@pytest.fixture(scope="module")
def placed(browser, tmp_path_factory) -> RunResult:
    """A search over places; in half of its prompts the two names are in the other order."""
    config = RunConfig(
        "ioi", MODEL, "acdc", {"threshold": 0.05}, n_prompts=N_PROMPTS, places="named"
    )
    return run_discovery(tmp_path_factory.mktemp("placed") / "run", config)


@pytest.fixture(scope="module")
def file(placed) -> Path:
    return write_report(placed.path)


def place_of(name: str) -> str:
    return name.rpartition("@")[2]


def columns_of(page) -> dict[str, dict]:
    return {column["texts"][0]: column for column in page.locator(".column").evaluate_all(COLUMNS)}


def place_button(page, name: str):
    return page.locator(".places").get_by_role("button", name=name, exact=True)


@pytest.mark.parametrize("grouped", [False, True])
def test_every_place_is_a_column_with_its_name_and_tokens(open_page, file, placed, grouped):
    page = open_page(file)
    page.locator("input.grouped").set_checked(grouped)
    columns = columns_of(page)
    graph, tokens = placed.circuit.graph, Seen.of(placed.circuit.origin).tokens
    assert tuple(columns) == graph.places
    ends = [(column["left"], column["right"]) for column in columns.values()]
    assert ends == sorted(ends)
    assert all(a[1] < b[0] for a, b in zip(ends, ends[1:], strict=False))
    for name, column in columns.items():
        assert column["texts"][1] == name
        assert column["wide"] <= column["right"] - column["left"]
        assert " ".join(column["texts"][2:]).split() == tokens[name].split()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("scope", ["circuit", "all"])
def test_boxes_and_lines_stand_in_the_column_of_their_place(
    open_page, file, placed, grouped, scope
):
    page = open_page(file)
    page.locator("input.scope").set_checked(scope == "all")
    page.locator("input.grouped").set_checked(grouped)
    slide(page, min(400, placed.circuit.graph.n_edges if scope == "all" else 10**6))
    columns = columns_of(page)
    boxes = page.locator(".box").evaluate_all(BOXES)
    for box in boxes:
        column = columns[place_of(box["id"])]
        assert column["left"] < box["x"] - box["width"] / 2, box
        assert box["x"] + box["width"] / 2 < column["right"], box
        assert column["top"] < box["y"] < column["bottom"], box
    lines = page.locator(".lines path").evaluate_all(LINES)
    assert len(lines) > 30
    for line in lines:
        place = place_of(line["from"])
        assert place == place_of(line["to"])
        across = points_of(line["path"])[:, 0]
        assert columns[place]["left"] - 1 < across.min(), line
        assert across.max() < columns[place]["right"] + 1, line
    assert behind(page) == []


def test_the_page_draws_the_boxes_and_arcs_of_the_static_diagram(open_page, file, placed):
    page, circuit = open_page(file), placed.circuit
    assert lines_of(page) == {edge.name for edge in circuit.edges}
    boxes, arcs = boxes_and_arcs(circuit.graph, circuit.edges, {}, Seen.of(circuit.origin))
    drawn = page.locator(".box").evaluate_all(
        "all => all.map(e => [e.__data__.id, e.__data__.label])"
    )
    assert {tuple(box) for box in drawn} == {(box.name, box.label) for box in boxes}
    ends = page.locator(".arcs path").evaluate_all(LINES)
    assert {(arc["from"], arc["to"]) for arc in ends} == {(arc.tail, arc.head) for arc in arcs}
    assert len(ends) == len(arcs) > 10


def test_arcs_to_other_columns_begin_and_end_at_their_boxes_and_cross_between_rows(open_page, file):
    page = open_page(file)
    boxes = {box["id"]: box for box in page.locator(".box").evaluate_all(BOXES)}
    crossing = 0
    for arc in page.locator(".arcs path").evaluate_all(LINES):
        if place_of(arc["from"]) == place_of(arc["to"]):
            continue
        numbers = [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", arc["path"])]
        points = np.array(numbers).reshape(-1, 2)
        tail, head = boxes[arc["from"]], boxes[arc["to"]]
        top = tail["y"] - tail["height"] / 2
        bottom = head["y"] + head["height"] / 2
        assert points[0] == pytest.approx([tail["x"], top], abs=0.1)
        assert points[-1] == pytest.approx([head["x"], bottom + 5], abs=0.1)
        assert (np.diff(points[:, 1]) <= 0).all()
        inner = points[1:-1, 1]
        assert bottom < inner.min() and inner.max() < top
        crossing += 1
    assert crossing > 5


@both_sizes
def test_chosen_places_alone_are_shown(open_page, file, placed, size):
    page, ranked = open_page(file, size), ranked_edges(placed)
    assert place_button(page, "all").get_attribute("aria-pressed") == "true"
    for chosen in (["S2"], ["S2", "end"], ["S2", "end", "IO"]):
        place_button(page, chosen[-1]).click()
        expected = [edge for edge in ranked if place_of(edge) in chosen]
        assert 0 < len(expected) < len(ranked)
        assert lines_of(page) == set(expected)
        assert page.locator(".amount").input_value() == str(len(expected))
        away = page.locator(".box.away").evaluate_all("all => all.map(e => e.__data__.id)")
        others = page.locator(".box:not(.away)").evaluate_all("all => all.map(e => e.__data__.id)")
        assert {place_of(box) for box in others} == set(chosen)
        assert away and not {place_of(box) for box in away} & set(chosen)
        arcs = page.locator(".arcs path").evaluate_all(LINES)
        assert {place_of(arc[end]) for arc in arcs for end in ("from", "to")} <= set(chosen)
        page.locator("#tab-edges").click()
        assert (
            f"{len(expected)} edges of {len(expected)} shown" in page.locator("#panel").inner_text()
        )
    place_button(page, "S2").click()
    assert lines_of(page) == {edge for edge in ranked if place_of(edge) in ("end", "IO")}
    slide(page, 2)
    shown = [edge for edge in ranked if place_of(edge) in ("end", "IO")][:2]
    assert lines_of(page) == set(shown)
    place_button(page, "all").click()
    assert lines_of(page) == set(ranked[:2])
    assert page.locator(".away").count() == 0


def test_the_list_of_edges_has_a_column_for_the_place(open_page, file, placed):
    page, ranked = open_page(file), ranked_edges(placed)
    page.locator("#tab-edges").click()
    heads = page.locator(".edge-head span").all_text_contents()
    assert heads == ["edge", "place", "", "effect"]
    names = page.locator(".edge-row .name").all_text_contents()
    places = page.locator(".edge-row .place").all_text_contents()
    listed = [f"{name}@{place}" for name, place in zip(names, places, strict=True)]
    assert listed == ranked[: len(listed)] and len(listed) == 12
    page.locator("input[type=search]").fill("@S2")
    found = [edge for edge in ranked if "@S2" in edge]
    assert f"{len(found)} edges of {len(ranked)} shown" in page.locator("#panel").inner_text()
    assert page.locator(".edge-row .place").first.text_content() == "S2"


def test_a_head_at_a_place_lists_what_its_keys_and_values_read_elsewhere(open_page, file, placed):
    page, ranked = open_page(file), ranked_edges(placed)
    choose(page, "a2.h2@end")
    heading = page.locator(".panel h3").first.text_content()
    assert heading == "a2.h2 at end head 2 of layer 2"
    assert page.locator(".cells rect").count() > 0
    into = [edge for edge in ranked if "->a2.h2.v@" in edge]
    listed = page.locator("h4", has_text="Into its value").locator(
        "xpath=following-sibling::div[1]"
    )
    assert len(into) > 2
    assert listed.locator(".place").all_text_contents() == [place_of(edge) for edge in into]
    lit = page.locator(".arcs .near").evaluate_all(LINES)
    assert lit and {arc["to"] for arc in lit} == {"a2.h2@end"}
    choose(page, "a2.h2.kv@S2")
    heading = page.locator(".panel h3").first.text_content()
    assert heading == "a2.h2 kv at S2 keys and values of head 2 of layer 2"


def test_a_replay_of_the_search_is_drawn_in_columns(open_page, file, placed):
    page = open_page(file)
    page.locator("#tab-search").click()
    page.locator('input[aria-label="Decision of the search"]').fill("40")
    place_button(page, "end").click()
    lines = page.locator(".lines path").evaluate_all(LINES)
    assert lines and {place_of(line["from"]) for line in lines} == {"end"}
    assert behind(page) == []


def test_two_runs_at_the_same_places_have_a_difference_in_columns(open_page, placed, tmp_path):
    config = RunConfig(
        "ioi", MODEL, "acdc", {"threshold": 0.2}, n_prompts=N_PROMPTS, places="named"
    )
    other = run_discovery(tmp_path / "other", config)
    page = open_page(write_report(placed.path, against=other.path))
    page.locator(".view", has_text="Difference").click()
    place_button(page, "end").click()
    pane = page.locator(".pane:not([hidden])")
    assert len(pane.locator(".column").all()) == len(placed.circuit.graph.places)
    left, right = ({edge.name for edge in run.circuit.edges} for run in (placed, other))
    drawn = pane.locator(".lines path").evaluate_all(LINES)
    expected = {edge for edge in left | right if place_of(edge) == "end"}
    assert {line["name"] for line in drawn} == expected


def test_a_run_at_places_and_one_without_have_a_difference_without(open_page, placed, tmp_path):
    config = RunConfig("ioi", MODEL, "acdc", {"threshold": 0.2}, n_prompts=N_PROMPTS)
    other = run_discovery(tmp_path / "other", config)
    file = write_report(placed.path, against=other.path)
    page = open_page(file)
    for pane, run in zip(page.locator(".pane:visible").all(), (placed, other), strict=True):
        assert len(pane.locator(".column").all()) == len(run.circuit.graph.places)
        drawn = pane.locator(".lines path").evaluate_all(LINES)
        assert {line["name"] for line in drawn} == {edge.name for edge in run.circuit.edges}
    assert "compared with the places of run merged" in page.locator(".remark").inner_text()
    page.locator(".view", has_text="Difference").click()
    pane = page.locator(".pane:not([hidden])")
    assert pane.locator(".column").count() == 0
    left, right = on_common_graph(placed.circuit, other.circuit)
    for side, kept in {
        "left": left.kept & ~right.kept,
        "right": right.kept & ~left.kept,
        "both": left.kept & right.kept,
    }.items():
        found = pane.locator(f".lines .tone-{side}").evaluate_all(
            "all => all.map(e => e.__data__.id)"
        )
        assert set(found) == {edge.name for edge in left.graph.edges(kept)}, side
    pane.locator(".lines path").first.dispatch_event("click")
    assert page.locator("#panel .mono").count()


@both_sizes
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_at_places(open_page, file, size, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(file, size, theme)
    place_button(page, "S2").click()
    place_button(page, "end").click()
    for box in (None, "a2.h2@end"):
        if box is not None:
            choose(page, box)
        for tab in TABS:
            page.locator(f"#tab-{tab}").click()
            serious = [
                (found["id"], found["impact"], [node["html"][:200] for node in found["nodes"][:3]])
                for found in axe.run(page).response["violations"]
                if found["impact"] in ("serious", "critical", "moderate")
            ]
            assert serious == [], tab
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], tab
