"""The embedded transcoders are those that their card describes."""

import re
from pathlib import Path

import pytest
import torch

from circuitfind.dictionaries import zoo
from circuitfind.dictionaries.fit import LEAST_EXPLAINED, measure_fit
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.zoo import dictionary_cards, embedded_dictionaries
from circuitfind.errors import DictionaryError
from circuitfind.models.loading import load_model
from circuitfind.tasks import ioi
from circuitfind.tasks.train_transcoders import held_out_texts, padded, written_by

MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def model():
    return load_model("ioi-small")


def test_each_mlp_has_one_and_all_are_small():
    for card in dictionary_cards().values():
        figures = [layer["variance_explained"] for layer in card["layers"].values()]
        assert min(figures) > LEAST_EXPLAINED
    data = [path for path in Path(zoo.__file__).parent.rglob("*") if path.is_file()]
    data = [path for path in data if path.suffix not in (".py", ".pyc")]
    assert {path.suffix for path in data} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in data) < MOST_BYTES


def test_they_reconstruct_other_prompts_about_as_well_as_their_card_says(model):
    card = dictionary_cards()["ioi-small"]
    prompts = ioi.IOI.write_prompts(model.vocabulary, 40, seed=7)
    found = embedded_dictionaries(model)
    assert [one.site for one in found] == [Site(n, "mlp.hook_in", "hook_mlp_out") for n in range(4)]
    for one in found:
        expected = card["layers"][f"layer_{one.site.layer}"]
        fit = measure_fit(model, one, prompts.clean, prompts.real)
        assert fit.variance_explained > expected["variance_explained"] - 0.03
        assert fit.mean_active < 1.5 * expected["mean_active"]
        assert abs(fit.loss_added) < 0.1


@pytest.mark.slow
def test_what_is_measured_on_held_out_prompts_is_what_the_card_says(model):
    card = dictionary_cards()["ioi-small"]
    held_out = held_out_texts("ioi-small", model.vocabulary)
    for one in embedded_dictionaries(model):
        fit = measure_fit(model, one, *padded(held_out))
        for name, expected in card["layers"][f"layer_{one.site.layer}"].items():
            assert getattr(fit, name) == pytest.approx(expected, abs=1e-3)


def test_models_are_known_by_their_weights_and_embedded_ones_by_name():
    rounded = load_model("ioi-small", dtype="float64")
    assert len(embedded_dictionaries(rounded)) == 4
    with pytest.raises(
        DictionaryError, match="no embedded transcoders of 'gpt-2l'; there are those"
    ):
        embedded_dictionaries(load_model("gpt-2l"))


def test_a_model_that_is_not_embedded_is_known_by_its_weights(shared):
    model = load_model(shared / "models" / "stories260k")
    card = dictionary_cards()["stories260k"]
    tokens = torch.tensor(written_by(model, 8, seed=5))
    found = embedded_dictionaries(model)
    assert [one.site.layer for one in found] == list(range(5))
    for one in found:
        expected = card["layers"][f"layer_{one.site.layer}"]
        fit = measure_fit(model, one, tokens)
        assert fit.variance_explained == pytest.approx(expected["variance_explained"], abs=0.03)
        assert fit.loss_added == pytest.approx(expected["loss_added"], abs=0.1)


def test_the_page_shows_what_the_cards_say():
    text = (Path(__file__).parents[2] / "docs" / "dictionaries.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (?:`[\w-]+` )?\| (\d) \| (.*) \|$", text, re.M)
    cards = [layer for card in dictionary_cards().values() for layer in card["layers"].values()]
    assert len(shown) == len(cards)
    for name, card in dictionary_cards().items():
        assert f"| `{name}` | 0 |" in text
        for number, layer in card["layers"].items():
            figures = (
                number.removeprefix("layer_"),
                f"{100 * layer['variance_explained']:.1f} % | {layer['mean_active']:.1f} | "
                f"{100 * layer['alive']:.0f} % | {layer['loss_added']:.3f} | "
                f"{layer['loss_added_by_zero']:.3f}",
            )
            assert figures in shown
