import json
from itertools import combinations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from circuitfind.errors import ModelError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo import TRAINED, zoo_path
from circuitfind.models.zoo.training import Example, Recipe, new_model, train, word_tokenizer
from circuitfind.tasks import induction, pronoun
from circuitfind.tasks.corpus import never_meet
from circuitfind.tasks.corpus_ioi_small import held_out_ioi, training_examples, vocabulary_words
from circuitfind.tasks.words import NAMES

MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(AutoTokenizer.from_pretrained(zoo_path("ioi-small")))


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(zoo_path("ioi-small")).eval()


@pytest.fixture(scope="module")
def held_out(vocabulary):
    return held_out_ioi(vocabulary, 300, seed=77)


def test_the_indirect_object_is_preferred_on_held_out_prompts(model, held_out):
    right, wrong, first = judged(model, held_out, held_out.clean)
    assert len(held_out) == 300
    assert (right > wrong).float().mean() >= 0.99
    assert first.float().mean() >= 0.95


def test_a_corrupted_prompt_decides_nothing(model, held_out):
    right, wrong, _ = judged(model, held_out, held_out.corrupted)
    full = judged(model, held_out, held_out.clean)
    assert (right - wrong).mean().abs() < 0.05 * (full[0] - full[1]).mean()


@pytest.mark.parametrize("task", [pronoun.PRONOUN, induction.INDUCTION], ids=lambda task: task.name)
def test_the_other_tasks_are_done_too(model, vocabulary, task):
    prompts = task.write_prompts(vocabulary, 300, seed=77)
    right, wrong, first = judged(model, prompts, prompts.clean)
    assert (right > wrong).float().mean() >= 0.99
    assert first.float().mean() >= 0.95


def test_held_out_names_never_met_in_training(vocabulary, held_out):
    names = {vocabulary.answer(name): name for name in NAMES}
    met = set()
    for example in training_examples(vocabulary, n=2000):
        present = {names[token] for token in example.tokens if token in names}
        met |= {frozenset(couple) for couple in combinations(present, 2)}
    tested = {
        frozenset((names[right], names[wrong]))
        for right, wrong in zip(
            held_out.answers.flatten().tolist(),
            held_out.wrong_answers.flatten().tolist(),
            strict=True,
        )
    }
    assert len(met) > 1000
    assert len(tested) > 100
    assert not met & tested


def test_one_couple_of_names_in_eight_is_held_out():
    couples = list(combinations(NAMES, 2))
    share = sum(never_meet(*couple) for couple in couples) / len(couples)
    assert share == pytest.approx(1 / 8, abs=0.01)


def test_the_shipped_tokenizer_is_the_one_that_the_script_makes(vocabulary):
    made = word_tokenizer(vocabulary_words())
    assert made.get_vocab() == vocabulary.tokenizer.get_vocab()
    assert made.convert_ids_to_tokens(0) == "<unk>"


@pytest.mark.parametrize("name", TRAINED)
def test_a_shipped_model_is_small_and_holds_no_pickle(name):
    files = list(zoo_path(name).iterdir())
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < MAX_BYTES


@pytest.mark.parametrize("name", TRAINED)
def test_the_card_says_how_the_model_was_trained_and_does(name):
    card = json.loads((zoo_path(name) / "card.json").read_text())
    assert card["recipe"]["seed"] == 0
    assert card["measured"]["ioi_prefers_io"] >= 0.99


def test_training_twice_gives_the_same_weights():
    recipe = Recipe(n_layers=1, n_heads=1, d_model=8, n_positions=8, steps=5, warm_up=2, batch=4)
    examples = [Example([i, i + 1, i + 2], [2]) for i in range(6)]
    losses, weights = zip(*(trained(recipe, examples) for _ in range(2)), strict=True)
    assert losses[0] == losses[1]
    assert torch.equal(*weights)


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(ModelError, match="no embedded model is named 'tiny'; there are ioi-small"):
        zoo_path("tiny")


def judged(model, prompts, tokens):
    with torch.no_grad():
        logits = prompts.at_steps(model(tokens).logits)
    right, wrong = (logits.gather(-1, t) for t in (prompts.answers, prompts.wrong_answers))
    return right, wrong, logits.argmax(-1, keepdim=True) == prompts.answers


def trained(recipe, examples):
    model = new_model(8, recipe)
    losses = list(train(model, examples, recipe))
    return losses, model.transformer.wte.weight.detach()
