"""What the reader sets in the report stays set, and what stands beside the graph is true of it."""

import json
import re

import numpy as np
import pytest

from circuitfind.reports.page.html import page_html
from tests.browser.test_page import choose, lines_of, ranked_edges, slide

IN_VIEW = """e => {
    const {top, bottom} = e.getBoundingClientRect();
    return top >= 0 && bottom < innerHeight;
}"""


def test_cut_edges_are_grouped_where_there_are_many_and_the_circuit_is_drawn_as_before(
    open_page, report, run
):
    page = open_page(report)
    grouped, scope = page.locator("input.grouped"), page.locator("input.scope")
    assert not grouped.is_checked()
    scope.check()
    assert run.circuit.graph.n_edges > 400
    assert grouped.is_checked()
    scope.uncheck()
    assert not grouped.is_checked()
    assert lines_of(page) == set(ranked_edges(run))
    grouped.check()
    scope.check()
    scope.uncheck()
    assert grouped.is_checked()


def test_the_smallest_effect_stands_in_its_field_and_gives_the_same_edges(open_page, report, run):
    page, ranked = open_page(report), ranked_edges(run)
    field = page.locator("input.threshold")
    for n in (len(ranked), 17, 3, 1):
        slide(page, n)
        smallest = abs(run.circuit.effect(run.circuit.graph.edge(ranked[n - 1])))
        assert float(field.input_value()) <= smallest
        assert float(field.input_value()) == pytest.approx(smallest, rel=0.01)
        field.press("Enter")
        assert lines_of(page) == set(ranked[:n])
    slide(page, 0)
    assert field.get_attribute("placeholder") == "none"
    for text in ("0.3", "0,3", "1e9"):
        field.fill(text)
        field.press("Enter")
        assert field.input_value() == text
    field.fill("many")
    field.press("Enter")
    assert field.input_value() == "1e9"


def test_the_field_of_the_effect_is_filled_where_cut_edges_have_none(open_page, report, run):
    page = open_page(report)
    rows = [
        json.loads(line) for line in (run.path / "decisions.jsonl").read_text().splitlines()[1:]
    ]
    assert any(row["effect"] is None for row in rows)
    page.locator("input.scope").check()
    smallest = min(abs(row["effect"]) for row in rows if row["effect"] is not None)
    assert float(page.locator("input.threshold").input_value()) == pytest.approx(smallest, rel=0.01)


def test_a_layer_that_is_drawn_apart_stays_chosen_and_lit(open_page, report, run):
    page = open_page(report)
    page.locator("input.grouped").check()
    choose(page, "layer 0")
    page.get_by_role("button", name="Draw apart").click()
    heads = {name for name in run.circuit.components if name.startswith("a0.")}
    chosen = page.locator(".box.chosen").evaluate_all("all => all.map(e => e.dataset.name)")
    assert set(chosen) == heads
    lit = page.eval_on_selector_all(
        ".lines .near", "all => all.map(e => [e.__data__.from.id, e.__data__.to.id])"
    )
    drawn = page.eval_on_selector_all(
        ".lines path", "all => all.map(e => [e.__data__.from.id, e.__data__.to.id])"
    )
    assert lit == [ends for ends in drawn if heads & set(ends)] != []


def test_what_is_chosen_and_no_longer_drawn_greys_nothing(open_page, report, run):
    page = open_page(report)
    slide(page, 1)
    [name] = lines_of(page)
    page.locator(".targets path").dispatch_event("click")
    assert page.locator(".lines .near").count() == 1
    slide(page, run.circuit.n_edges)
    assert page.locator(".lines .near").count() == 1
    slide(page, 0)
    assert page.locator(".lit").count() == 0
    slide(page, run.circuit.n_edges)
    page.locator("input.grouped").check()
    page.locator(".lines path").first.wait_for(state="attached")
    assert page.locator(".lit").count() == page.locator(".lines .near").count() == 0


def test_widths_grow_with_the_logarithm_of_effects_as_the_legend_says(open_page, report, run):
    page = open_page(report)
    graph = run.circuit.graph
    effects = {name: abs(run.circuit.effect(graph.edge(name))) for name in ranked_edges(run)}
    widths = dict(
        page.eval_on_selector_all(
            ".lines path", "all => all.map(e => [e.__data__.id, +e.getAttribute('stroke-width')])"
        )
    )
    low, high = min(effects.values()), max(effects.values())
    assert high / 1000 < low < high / 10
    for name, width in widths.items():
        strength = np.log(effects[name] / low) / np.log(high / low)
        assert width == pytest.approx(0.6 + 3.4 * strength, abs=0.01)
    said = page.locator(".legend .width").all()
    texts = [entry.text_content() for entry in said]
    assert (texts[0], texts[-1]) == (f"effect {low:.3g} nats", f"effect {high:.3g} nats")
    sizes = [float(text.split()[1]) for text in texts]
    assert len(sizes) == 3 and sizes == sorted(sizes)
    for entry, size in zip(said, sizes, strict=True):
        name = min(effects, key=lambda edge: abs(effects[edge] - size))
        drawn = float(entry.locator("line").get_attribute("stroke-width"))
        assert drawn == pytest.approx(widths[name], abs=0.02)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_of_the_legend_has_one_meaning(open_page, report, theme):
    page = open_page(report, theme=theme)
    page.locator("#tab-search").click()
    lines = page.locator(".legend li:not(.width) line")
    strokes = lines.evaluate_all("all => all.map(e => getComputedStyle(e).stroke)")
    assert len(strokes) >= 6
    assert len(set(strokes)) == len(strokes)


def test_on_a_phone_the_details_of_a_head_come_into_view(open_page, report):
    page = open_page(report, "phone")
    heading = page.locator(".panel h3").first
    assert not heading.evaluate(IN_VIEW)
    page.locator('.box[data-name="a2.h2"]').tap()
    assert heading.text_content().startswith("a2.h2")
    assert heading.evaluate(IN_VIEW)
    page.get_by_role("button", name="graph").tap()
    assert page.locator('.box[data-name="a2.h2"]').evaluate(IN_VIEW)


def test_what_is_rounding_in_a_metric_is_shown_as_0(open_page, report, tmp_path):
    text = report.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    data["runs"][0]["scorecard"]["measurements"][0]["full"] = -4.6e-8
    file = tmp_path / "rounded.html"
    file.write_text(page_html("rounded", data), encoding="utf-8")
    page = open_page(file)
    page.locator("#tab-scorecard").click()
    assert page.locator(".measurement .quiet").first.text_content().startswith("full 0, circuit ")
