"""The list of neurons in a browser: what makes each active, and its box when it is clicked."""

import json

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.report import write_report
from tests.programs import write_program


@pytest.fixture(scope="module")
def neurons(tmp_path_factory):
    """A run whose circuit has neurons of a small program."""
    folder = tmp_path_factory.mktemp("neurons")
    options = {"threshold": 0.001}
    config = RunConfig(
        "program", str(write_program(folder, n_outputs=5)), "acdc", options, n_prompts=8,
        metric="l2", neurons="all",
    )  # fmt: skip
    return run_discovery(folder / "run", config)


def test_neurons_are_listed_by_their_effects_and_a_click_selects_the_box(open_page, neurons):
    page = open_page(write_report(neurons.path))
    page.get_by_role("tab", name="Neurons").click()
    rows = json.loads((neurons.path / "circuit.json").read_text())["edges"]
    effects: dict[str, float] = {}
    for row in rows:
        if ".n" in (writer := row["edge"].split("->")[0]):
            effects[writer] = effects.get(writer, 0) + row["effect"]
    ranked = sorted(effects, key=lambda name: -abs(effects[name]))
    assert page.locator(".unit-row .name").all_inner_texts() == ranked
    assert page.locator(".unit-list li li mark").count() >= len(ranked)
    page.locator(".unit-row").nth(1).click()
    assert page.locator("#tab-details").get_attribute("aria-selected") == "true"
    panel = page.locator(".panel-body").inner_text()
    assert ranked[1] in panel and "What makes it active" in panel
    assert page.locator(f'.box[aria-pressed="true"][data-name="{ranked[1]}"]').count() == 1


def test_units_are_found_by_name_and_runs_without_have_no_list(open_page, neurons, report):
    page = open_page(write_report(neurons.path))
    page.get_by_role("tab", name="Neurons").click()
    (first, *others) = page.locator(".unit-row .name").all_inner_texts()
    page.locator("#panel input").fill(first.upper())
    assert page.locator(".unit-row .name").all_inner_texts() == [first] and others
    assert open_page(report).locator("#tab-units").count() == 0
