"""The report in a browser does what it says: wide and narrow, with mouse and keyboard."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import circuitfind
from circuitfind.directories.config import RunConfig
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.base import Decision, circuit_of
from circuitfind.models.loading import load_model
from circuitfind.reports.page.drawing import drawn_edges, drawn_graph, even_layout, layout_of
from circuitfind.reports.page.html import page_html
from circuitfind.shape import ModelShape
from circuitfind.tasks import find_task
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.report import write_report
from tests.browser.conftest import MODEL, N_PROMPTS

ZOO = Path(circuitfind.__file__).parent / "models" / "zoo"
SLIDER = ".limit"
DECISION = 'input[aria-label="Decision of the search"]'
TABS = ("details", "scorecard", "search", "edges", "about")
both_sizes = pytest.mark.parametrize("size", ["desktop", "phone"])


def slide(page, to: int) -> None:
    page.locator(SLIDER).fill(str(to))


def lines_of(page) -> set[str]:
    """Return the edges that are drawn, by what each line's data says it is."""
    return set(page.eval_on_selector_all(".lines path", "all => all.map(e => e.__data__.id)"))


def ranked_edges(run) -> list[str]:
    """Return the circuit's edges from the file, largest effect first."""
    rows = json.loads((run.path / "circuit.json").read_text())["edges"]
    return [row["edge"] for row in sorted(rows, key=lambda row: -abs(row["effect"]))]


def choose(page, component: str) -> None:
    page.locator(f'.box[data-name="{component}"]').click()


@both_sizes
def test_the_slider_draws_the_edges_with_the_largest_effects(open_page, report, run, size):
    page, ranked = open_page(report, size), ranked_edges(run)
    assert lines_of(page) == set(ranked)
    for n in (len(ranked) // 2, 3, 0, len(ranked)):
        slide(page, n)
        assert lines_of(page) == set(ranked[:n])
        assert page.locator(".amount").input_value() == str(n)


def test_the_slider_can_be_dragged(open_page, report, run):
    page = open_page(report)
    at = page.locator(SLIDER).bounding_box()
    middle = at["y"] + at["height"] / 2
    page.mouse.move(at["x"] + at["width"] - 8, middle)
    page.mouse.down()
    page.mouse.move(at["x"] + at["width"] * 0.4, middle, steps=8)
    page.mouse.up()
    n = int(page.locator(SLIDER).input_value())
    assert 0.3 * run.circuit.n_edges < n < 0.5 * run.circuit.n_edges
    assert lines_of(page) == set(ranked_edges(run)[:n])


def test_a_threshold_draws_the_edges_that_reach_it(open_page, report, run):
    page = open_page(report)
    page.locator("input.threshold").fill("0.3")
    page.locator("input.threshold").press("Enter")
    rows = json.loads((run.path / "circuit.json").read_text())["edges"]
    assert lines_of(page) == {row["edge"] for row in rows if abs(row["effect"]) >= 0.3}


def test_cut_edges_can_be_shown_too(open_page, report, run):
    page = open_page(report)
    page.locator("input.scope").check()
    page.locator("input.grouped").uncheck()
    assert len(lines_of(page)) == run.circuit.graph.n_edges


@pytest.fixture(scope="module")
def prompts():
    return find_task("ioi").write_prompts(load_model(MODEL).vocabulary, N_PROMPTS, 0)


@both_sizes
@pytest.mark.parametrize("kind", ["clean", "corrupted"])
def test_a_head_shows_where_the_model_itself_looks(open_page, report, prompts, size, kind):
    page = open_page(report, size)
    choose(page, "a2.h2")
    page.locator("select.kind").select_option(kind)
    page.locator("select.prompt").select_option("1")
    text = page.locator("select.prompt option").nth(1).text_content().removeprefix("2. ")
    vocabulary = load_model(MODEL).vocabulary
    [row] = [
        row
        for row, length in enumerate(prompts.lengths)
        if vocabulary.decode(prompts.clean[row, :length].tolist()) == text
    ]
    tokens = getattr(prompts, kind)[row, : int(prompts.lengths[row])]
    model = AutoModelForCausalLM.from_pretrained(ZOO / MODEL, attn_implementation="eager")
    with torch.no_grad():
        expected = model(tokens[None], output_attentions=True).attentions[2][0, 2]
    cells = page.eval_on_selector_all(".cells rect", "all => all.map(e => ({...e.dataset}))")
    assert len(cells) == len(tokens) * (len(tokens) + 1) // 2
    for cell in cells:
        weight = float(expected[int(cell["query"]), int(cell["key"])])
        assert float(cell["weight"]) == pytest.approx(weight, abs=2e-5)
    shown = page.locator(".token > span").all_text_contents()
    assert shown == [vocabulary.decode([token]) for token in tokens.tolist()]
    query, key = 7, 2
    page.locator(f'.cells rect[data-query="{query}"][data-key="{key}"]').dispatch_event("click")
    says = page.locator(".readout").text_content()
    assert says.endswith(f"“{shown[key]}” ({key}): {float(expected[query, key]):.3f}")


def test_a_head_lists_what_enters_each_of_its_inputs(open_page, report, run):
    page = open_page(report)
    choose(page, "a2.h2")
    for port, name in (("q", "query"), ("k", "key"), ("v", "value")):
        into = [edge for edge in ranked_edges(run) if edge.endswith(f"->a2.h2.{port}")]
        heading = page.locator("h4", has_text=f"Into its {name}")
        if not into:
            assert heading.count() == 0
            continue
        listed = heading.locator("xpath=following-sibling::div[1]").locator(".name")
        assert listed.all_text_contents() == [edge.split("->")[0] for edge in into]


def test_resting_on_a_line_tells_its_effect(open_page, report, run):
    page = open_page(report)
    slide(page, 1)
    [name] = lines_of(page)
    page.locator(".targets path").dispatch_event("pointerenter", {"clientX": 300, "clientY": 300})
    tip = page.locator(".tip").text_content()
    effect = run.circuit.effect(run.circuit.graph.edge(name))
    assert name in tip
    assert f"effect +{effect:.3g}" in tip
    assert "cut from the circuit: +" in tip and "95 %: +" in tip


def test_the_graph_can_be_walked_with_the_keyboard_alone(open_page, report):
    page = open_page(report)
    page.locator('.box[tabindex="0"]').focus()
    assert page.evaluate("document.activeElement.dataset.name") == "logits"
    page.keyboard.press("ArrowDown")
    name = page.evaluate("document.activeElement.dataset.name")
    assert name != "logits"
    page.keyboard.press("Enter")
    assert page.locator(".panel h3").first.text_content().startswith(name)
    page.keyboard.press("Escape")
    assert page.locator(".panel h3").first.text_content() == "Strongest edges"


def test_the_tabs_can_be_walked_with_the_keyboard(open_page, report):
    page = open_page(report)
    page.locator("#tab-details").focus()
    for tab in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        assert page.locator(f"#tab-{tab}").get_attribute("aria-selected") == "true"


@both_sizes
def test_the_replay_shows_what_was_kept_so_far(open_page, report, run, size):
    page = open_page(report, size)
    page.locator("#tab-search").click()
    rows = [
        json.loads(line) for line in (run.path / "decisions.jsonl").read_text().splitlines()[1:]
    ]
    for step in (1, 40, len(rows)):
        page.locator(DECISION).fill(str(step))
        last = rows[step - 1]
        kept = {row["edge"] for row in rows[: step - 1] if row["kept"]}
        drawn = page.eval_on_selector_all(
            ".lines path", "all => all.map(e => [e.__data__.id, e.__data__.tone])"
        )
        assert {name for name, tone in drawn if tone in ("q", "k", "v", "plain")} == kept
        now = f"now-{'kept' if last['kept'] else 'cut'}"
        assert [name for name, tone in drawn if tone.startswith("now")] == [last["edge"]]
        assert dict(map(tuple, drawn))[last["edge"]] == now
        assert {name for name, tone in drawn if tone == "open"} == {r["edge"] for r in rows[step:]}
        assert f"{step} of {len(rows)}: {last['edge']}." in page.locator(".readout").text_content()


def test_the_replay_plays(open_page, report):
    page = open_page(report)
    page.locator("#tab-search").click()
    page.locator(".play").click()
    # The page's policy forbids what Playwright's own way to wait for a condition does.
    slider, deadline = page.locator(DECISION), time.monotonic() + 20
    while int(slider.input_value()) < 5 and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert int(slider.input_value()) >= 5
    page.locator(".play").click()
    assert page.locator(".play").text_content() == "Play"


def test_the_scorecard_shows_the_figures_of_the_file(open_page, report, run):
    page = open_page(report)
    page.locator("#tab-scorecard").click()
    names = page.locator(".measurement .name").all_text_contents()
    shares = page.locator(".measurement .figure").all_text_contents()
    expected = [(row.metric, f"{row.faithfulness:.3f}") for row in run.card.measurements]
    for metric, share in expected:
        assert share == shares[names.index(metric)][: len(share)]


def test_an_evaluated_run_shows_its_size_curve_and_what_speaks_for_an_edge(open_page, evaluated):
    file, found = evaluated
    page = open_page(file)
    page.locator("#tab-scorecard").click()
    own = found.readings[0].measured
    shown = page.locator(".measurement .figure").first.text_content()
    assert shown == f"{own.faithfulness:.3f} ({own.low:.3f} to {own.high:.3f})"
    plot = page.locator("svg[aria-label='Faithfulness against size']")
    points = [point for point in found.curve.points if point.share > 0]
    assert plot.locator("circle.kept").count() == len(points)
    heights = [float(dot.get_attribute("cy")) for dot in plot.locator("circle.kept").all()]
    ranked = sorted(range(len(points)), key=lambda i: -min(1.1, points[i].faithfulness))
    assert [heights[i] for i in ranked] == sorted(heights)
    facts = page.locator("table.facts").all_text_contents()
    assert not any("passes" in text for text in facts)
    assert any(f"CPR {found.curve.cpr:.3f}" in text for text in facts)
    best = found.discoveries.edges[0]
    page.locator("#tab-edges").click()
    page.locator(f"button[aria-label^='{best.edge},']").first.click()
    details = page.locator("#panel").text_content()
    assert "on 8 held-out prompts" in details and ", p " in details


def test_an_evaluated_run_shows_its_hypothesis_tests_and_knock_outs(open_page, evaluated):
    file, found = evaluated
    page = open_page(file)
    page.locator("#tab-scorecard").click()
    rows = page.locator("table.tests tbody").all()
    assert len(rows) == len(found.tests) == 4
    for row, test in zip(rows, found.tests, strict=True):
        outcome = {True: "rejected", False: "kept", None: "says nothing"}[test.rejected]
        cells = row.locator("th, td").all_text_contents()
        assert (cells[0], cells[3], cells[4]) == (test.name, outcome, test.ideal)
        assert test.note in cells[5]
        assert row.locator(".not-ideal").count() == int(test.as_ideal is False)
    plot = page.locator("svg[aria-label='Completeness: components knocked out']")
    dots = plot.locator("circle").all()
    knocked_out = found.completeness.knock_outs
    assert len(dots) == len(knocked_out) > 2
    for value, at, sign in (("full", "cx", 1), ("circuit", "cy", -1)):
        known = np.array([getattr(each, value) for each in knocked_out])
        places = np.array([float(dot.get_attribute(at)) for dot in dots])
        slope, start = np.polyfit(known, places, 1)
        assert sign * slope > 0
        np.testing.assert_allclose(places, start + slope * known, atol=0.1)
    worst = dots[0].locator("title").text_content()
    assert ", ".join(knocked_out[0].components) in worst


@both_sizes
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, evaluated, size, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(evaluated[0], size, theme)
    choose(page, "a2.h2")
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        violations = axe.run(page).response["violations"]
        serious = [
            (found["id"], found["impact"], [node["html"][:200] for node in found["nodes"][:3]])
            for found in violations
            if found["impact"] in ("serious", "critical", "moderate")
        ]
        assert serious == [], tab


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_system_s_colours_until_told_otherwise(open_page, report, theme):
    page = open_page(report, theme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.locator(".theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") != theme


@both_sizes
def test_nothing_sticks_out_at_the_side(open_page, report, size):
    page = open_page(report, size)
    choose(page, "a2.h2")
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        widths = "[document.documentElement.scrollWidth, innerWidth]"
        content, window = page.evaluate(widths)
        assert content <= window, tab


def test_a_circuit_without_a_search_has_a_page_without_one(open_page, run, tmp_path):
    (tmp_path / "circuit.json").write_bytes((run.path / "circuit.json").read_bytes())
    page = open_page(write_report(tmp_path))
    assert page.locator(".lines path").count() == run.circuit.n_edges
    tabs = [tab.inner_text() for tab in page.locator("[role=tab]").all()]
    assert tabs == ["Details", "Scorecard", "Edges", "About"]
    page.locator("#tab-scorecard").click()
    said = page.locator("#panel").inner_text()
    assert "Faithfulness" in said and "edges tested" not in said and "drift" not in said
    page.locator("#tab-edges").click()
    page.locator("#tab-about").click()
    assert "model fingerprint" in page.locator("#panel").inner_text()


def test_two_runs_stand_side_by_side_and_their_difference_is_drawn(
    open_page, run, report, tmp_path
):
    config = RunConfig("ioi", MODEL, "acdc", {"threshold": 0.2}, n_prompts=N_PROMPTS)
    other = run_discovery(tmp_path / "other", config)
    page = open_page(write_report(run.path, against=other.path))
    panes = page.locator(".pane:visible")
    assert panes.count() == 2
    for pane, result in zip(panes.all(), (run, other), strict=True):
        assert pane.locator(".lines path").count() == result.circuit.n_edges
    page.locator(".view", has_text="Difference").click()
    left, right = ({edge.name for edge in result.circuit.edges} for result in (run, other))
    expected = {"left": left - right, "right": right - left, "both": left & right}
    for side, names in expected.items():
        found = page.eval_on_selector_all(
            f".pane:not([hidden]) .lines .tone-{side}", "all => all.map(e => e.__data__.id)"
        )
        assert set(found) == names


@both_sizes
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_warnings_stand_above_all_figures_and_can_be_read(open_page, report, tmp_path, size, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    text = report.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert data["runs"][0]["warnings"] == []
    assert open_page(report).locator(".warnings").count() == 0
    said = ["the model does not do this task", "the circuit is empty"]
    data["runs"][0]["warnings"] = said
    file = tmp_path / "doubtful.html"
    file.write_text(page_html("doubtful", data), encoding="utf-8")
    page = open_page(file, size, theme)
    note = page.get_by_role("note")
    assert note.locator("li").all_text_contents() == said
    box, graph = note.bounding_box(), page.locator(".graphs").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] <= graph["y"]
    assert box["y"] + box["height"] < page.viewport_size["height"] / 3
    colours = note.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert contrast(*colours) >= 7
    assert axe.run(page).response["violations"] == []


def contrast(*colours: str) -> float:
    """Return the contrast ratio of two colours, as WCAG defines it."""

    def brightness(colour: str) -> float:
        shares = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    dark, light = sorted(map(brightness, colours))
    return (light + 0.05) / (dark + 0.05)


HOSTILE = "</script><img src=x onerror=alert(1)>\u2028{{7*7}}"


def test_hostile_names_are_shown_as_text(open_page, report, tmp_path):
    text = report.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    [run] = data["runs"]
    run["title"] = run["unit"] = run["name"] = HOSTILE
    for node in run["graph"]["nodes"]:
        node["role"] = HOSTILE
    for prompt in run["attention"]["prompts"]:
        prompt["clean"] = [HOSTILE for _ in prompt["clean"]]
        prompt["text"] = HOSTILE
        prompt["positions"] = {HOSTILE: 3}
    run["provenance"]["settings"][HOSTILE] = HOSTILE
    run["warnings"] = run["notes"] = [HOSTILE]
    file = tmp_path / "hostile.html"
    file.write_text(page_html(HOSTILE, data), encoding="utf-8")
    page = open_page(file)
    assert HOSTILE in page.locator("header strong").text_content()
    assert page.locator(".warnings li").all_text_contents() == [HOSTILE]
    choose(page, "a2.h2")
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2


@pytest.fixture(scope="module")
def large(report, tmp_path_factory) -> Path:
    """A report of the 3,580 edges of a Pythia-70M, about 3,000 of them in the circuit."""
    text = report.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    graph = heads_and_mlps(ModelShape(6, 8, 8, 512, 64, 50304, parallel_mlp=True))
    effects = torch.randn(graph.n_edges, generator=torch.Generator().manual_seed(0)).tolist()
    decisions = [
        Decision(edge.name, effect > -1, "tested", 0.0, effect, effect)
        for edge, effect in zip(graph.edges(), effects, strict=True)
    ]
    circuit = circuit_of(graph, decisions)
    data["runs"][0] |= {
        "graph": drawn_graph(graph, {}),
        "edges": drawn_edges(circuit, decisions),
        "layouts": {
            "circuit": layout_of(graph, circuit.edges, {}),
            "all": even_layout(graph, {}),
        },
    }
    file = tmp_path_factory.mktemp("large") / "large.html"
    file.write_text(page_html("large", data), encoding="utf-8")
    return file


def test_large_circuits_are_grouped_by_layer_and_answer_quickly(open_page, large):
    page = open_page(large)
    assert page.locator("input.grouped").is_checked()
    assert page.locator(".box").count() == 14
    assert len(lines_of(page)) <= 14 * 13 / 2
    assert median_seconds(page) < 1
    choose(page, "layer 4")
    page.get_by_role("button", name="Draw apart").click()
    assert page.locator('.box[data-name="a4.h6"]').count() == 1
    page.locator("input.grouped").uncheck()
    slide(page, 3_000)
    assert len(lines_of(page)) == 3_000
    assert median_seconds(page) < 3


def median_seconds(page) -> float:
    """Return how long the page takes to answer the slider, in the middle of five tries."""
    seconds = []
    for n in (2000, 1000, 2500, 500, 2900):
        start = time.monotonic()
        slide(page, n)
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        seconds.append(time.monotonic() - start)
    return sorted(seconds)[2]
