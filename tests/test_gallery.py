"""The gallery is complete, and its circuits are as faithful and small as the page says."""

import re
from pathlib import Path

import pytest

from circuitfind.api import discover
from circuitfind.evaluation.scorecard import scorecard
from circuitfind.models.loading import load_model
from circuitfind.models.zoo import HANDMADE
from circuitfind.question import make_problem
from circuitfind.tasks import DEFAULT_MODEL, TASKS, find_task
from circuitfind.tasks.corpus import TRAINED

PAGE = Path(__file__).parents[1] / "docs" / "gallery.md"
ENTRY = re.compile(
    r"^<!-- ([\w-]+) -->\n`circuitfind discover (.+) --threshold (\S+)`\n\n"
    r"\*\*(\d+) of (\d+) edges\*\* .*faithfulness (\S+) .*\n\n!\[.*\]\((\S+)\)",
    re.M,
)
ENTRIES = {found[2]: found for found in ENTRY.finditer(PAGE.read_text(encoding="utf-8"))}
AT_PLACES = "ioi --model ioi-small --places named"
OF_LATENTS = "ioi --model ioi-small --latents zoo"
FAITHFUL, SHARE = 0.8, 0.15
WORD_TASKS = [task.name for task in TRAINED]


@pytest.fixture(scope="module")
def model():
    return load_model(DEFAULT_MODEL)


def test_every_task_has_an_entry_with_a_picture():
    symbols = {task.name for task in TASKS if task.written_in == "symbols"} - {"program"}
    assert set(ENTRIES) == {*WORD_TASKS, *symbols, "or-gate:both", AT_PLACES, OF_LATENTS}
    for found in ENTRIES.values():
        assert "<svg" in (PAGE.parent / found[7]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*WORD_TASKS, AT_PLACES, OF_LATENTS])
def test_the_page_shows_small_faithful_circuits(name):
    edges, all_edges, faithfulness = (float(ENTRIES[name][group]) for group in (4, 5, 6))
    assert edges < SHARE * all_edges
    assert faithfulness >= FAITHFUL


@pytest.mark.parametrize("name", WORD_TASKS)
def test_a_search_on_fewer_prompts_gives_such_a_circuit_too(name, model):
    problem = make_problem(model, name, n_prompts=16, seed=5)
    found = discover(problem, threshold=float(ENTRIES[name][3]))
    card = scorecard(found.engine, found.circuit)
    assert card.n_edges < SHARE * card.n_edges_full
    measured = {row.metric: row.faithfulness for row in card.measurements}
    assert measured[problem.metric.name] >= FAITHFUL


def test_a_search_at_places_on_fewer_prompts_finds_that_names_alone_are_read_from_the_embedding():
    problem = make_problem(load_model("ioi-small"), "ioi", n_prompts=16, seed=5, places="named")
    found = discover(problem, threshold=float(ENTRIES[AT_PLACES][3]))
    card = scorecard(found.engine, found.circuit)
    assert card.n_edges < SHARE * card.n_edges_full
    measured = {row.metric: row.faithfulness for row in card.measurements}
    assert measured[problem.metric.name] >= FAITHFUL
    read = {edge.reader.place for edge in found.circuit.edges if edge.writer.name == "embed"}
    assert read == {"IO", "S1", "S2"}
    picture = (PAGE.parent / ENTRIES[AT_PLACES][7]).read_text(encoding="utf-8")
    drawn = re.findall(r"<text[^>]*>embed</text>", picture)
    assert len(drawn) == len(read)


def test_a_search_over_latents_on_fewer_prompts_finds_latents_and_a_picture_shows_them():
    problem = make_problem(load_model("ioi-small"), "ioi", n_prompts=8, seed=5, latents="zoo")
    found = discover(problem, threshold=0.1)
    names = [edge.writer.name for edge in found.circuit.edges if edge.writer.kind == "latent"]
    assert names
    picture = (PAGE.parent / ENTRIES[OF_LATENTS][7]).read_text(encoding="utf-8")
    assert re.search(r">f\d+</text>", picture) and ">error</text>" in picture


@pytest.mark.parametrize("name", HANDMADE)
def test_the_page_shows_the_true_circuits_of_models_wired_by_hand(name):
    model = load_model(find_task(name).model)
    assert int(ENTRIES[name][4]) == len(model.sizes["truth"]["resample"])
