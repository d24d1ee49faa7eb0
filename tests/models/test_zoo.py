"""Trained models do what their cards claim, on prompts that they were not trained on."""

import json
import random
from itertools import combinations

import pytest
import torch

from circuitfind.errors import ModelError
from circuitfind.models.loading import load_model
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo import TRAINED, model_card, zoo_path
from circuitfind.models.zoo.training import Example, Recipe, new_model, train, word_tokenizer
from circuitfind.tasks import corpus, corpus_ioi_small
from circuitfind.tasks.train_zoo import CLAIMED, RECIPES, corpus_of, judged, measure, train_model
from circuitfind.tasks.words import NAMES

ARCHITECTURES = ("gpt2", "llama", "attention-only")
ALL_BYTES = 12_000_000
N = 48
"""Held-out prompts of a task; the slow test measures as many as the cards do."""


class OwnLogits(torch.nn.Module):
    """A loaded model as the function that its card was measured with."""

    def __init__(self, model):
        super().__init__()
        self.run = model.own_logits

    def forward(self, tokens):
        return self.run(tokens)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(word_tokenizer(corpus.vocabulary_words()))


@pytest.fixture(scope="module")
def held_out(vocabulary):
    """Held-out prompts of every task, for all models that share a vocabulary; of a seed of ours."""
    small = Vocabulary(word_tokenizer(corpus_ioi_small.vocabulary_words()))
    return {
        source: {task.name: source.held_out_prompts(task, words, N, 77) for task in source.TRAINED}
        for source, words in ((corpus, vocabulary), (corpus_ioi_small, small))
    }


@pytest.mark.parametrize("name", TRAINED)
def test_a_model_does_on_held_out_prompts_what_its_card_claims(name, held_out):
    model, card = OwnLogits(load_model(name)), model_card(name)
    assert card["claims"] == [task for task, share in card["accuracy"].items() if share >= CLAIMED]
    for task, prompts in held_out[corpus_of(name)].items():
        accuracy, _ = judged(model, prompts)
        assert len(prompts) > 0.7 * N
        stated = card["accuracy"][task]
        # Three standard errors of such a share, and two points for shares near 1, which have none.
        allowed = 3 * (stated * (1 - stated) / len(prompts)) ** 0.5 + 0.02
        assert accuracy == pytest.approx(stated, abs=allowed), task


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_the_figures_of_a_card_are_measured_again(name):
    model, card = load_model(name), model_card(name)
    for key, figures in measure(name, OwnLogits(model), model.vocabulary).items():
        if isinstance(figures, dict):
            assert figures == pytest.approx(card[key], abs=0.004), key
        elif key == "claims":
            # A machine that rounds otherwise may decide a share just at the bar otherwise.
            assert set(figures) ^ set(card[key]) <= {
                task for task, share in card["accuracy"].items() if abs(share - CLAIMED) <= 0.004
            }
        else:
            assert figures == card[key]


@pytest.mark.parametrize("name", TRAINED)
def test_a_card_states_how_its_model_was_made(name):
    card, model = model_card(name), load_model(name)
    recipe = Recipe(**card["recipe"])
    assert recipe == RECIPES[name]
    assert (model.shape.n_layers, model.shape.n_heads) == (recipe.n_layers, recipe.n_heads)
    assert (model.shape.d_model, model.n_positions) == (recipe.d_model, recipe.n_positions)
    assert model.shape.has_mlp == (recipe.architecture != "attention-only")
    assert card["vocabulary"] == model.n_tokens == len(model.vocabulary.tokenizer)
    assert name in card["trained_by"]


@pytest.mark.parametrize("name", TRAINED)
def test_the_shipped_tokenizer_is_the_one_that_the_script_makes(name):
    made = word_tokenizer(corpus_of(name).vocabulary_words())
    shipped = load_model(name).vocabulary.tokenizer
    assert made.get_vocab() == shipped.get_vocab()
    assert made.convert_ids_to_tokens(0) == "<unk>"


def test_the_default_model_claims_every_task_of_words():
    assert set(model_card("gpt-4l")["claims"]) == {task.name for task in corpus.TRAINED}


def test_all_models_together_are_small_and_hold_no_pickle():
    files = [file for file in zoo_path("gpt-4l").parent.rglob("*") if file.is_file()]
    data = [file for file in files if file.suffix not in (".py", ".pyc")]
    assert {file.suffix for file in data} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in data) < ALL_BYTES


def test_a_corrupted_prompt_of_ioi_decides_nothing():
    loaded = load_model("ioi-small")
    model = OwnLogits(loaded)
    prompts = corpus_ioi_small.TRAINED[0].write_prompts(loaded.vocabulary, 300, 77)
    margins = []
    for tokens in (prompts.clean, prompts.corrupted):
        logits = prompts.at_steps(model(tokens))
        right, wrong = (logits.gather(-1, t) for t in (prompts.answers, prompts.wrong_answers))
        margins.append((right - wrong).mean())
    assert margins[1].abs() < 0.05 * margins[0]


def test_held_out_names_never_met_in_training(vocabulary, held_out):
    for source in (corpus, corpus_ioi_small):
        words = Vocabulary(word_tokenizer(source.vocabulary_words()))
        names = {words.answer(name): name for name in NAMES}
        examples = (
            source.training_examples(words, 800)
            if source is corpus_ioi_small
            else list(corpus.examples_of(corpus.TRAINED[0], words, 800, random.Random(0)))
        )
        met = set()
        for example in examples:
            present = {names[token] for token in example.tokens if token in names}
            met |= {frozenset(couple) for couple in combinations(present, 2)}
        prompts = held_out[source]["ioi"]
        tested = {
            frozenset((names[right], names[wrong]))
            for right, wrong in zip(
                prompts.answers.flatten().tolist(),
                prompts.wrong_answers.flatten().tolist(),
                strict=True,
            )
        }
        assert len(met) > 500
        assert len(tested) > 25
        assert not met & tested


def test_one_couple_of_names_in_eight_is_held_out():
    couples = list(combinations(NAMES, 2))
    share = sum(corpus.never_meet(*couple) for couple in couples) / len(couples)
    assert share == pytest.approx(1 / 8, abs=0.01)


@pytest.mark.parametrize("task", corpus.TRAINED, ids=lambda task: task.name)
def test_no_held_out_combination_is_trained_on(task, vocabulary, held_out):
    """Neither the prompt itself nor its template with the same words at the named positions."""

    def combination(tokens, at, template):
        return (template, *(tokens[index] for index in at))

    prompts = held_out[corpus][task.name]
    names = sorted(prompts.positions)
    tested = {
        combination(tokens, [int(prompts.positions[name][row]) for name in names], template)
        for row, (tokens, template) in enumerate(
            zip(prompts.clean.tolist(), prompts.template.tolist(), strict=True)
        )
    }
    trained = {
        combination(tokens, [pair.positions[name] for name in names], pair.template)
        for pair in task.write(vocabulary, 150, corpus.TRAINING_SEED)
        for tokens in (pair.clean, pair.corrupted)
        if not corpus.is_held_out(task, vocabulary, corpus.with_clean(pair, tokens))
    }
    assert len(trained) > 30
    assert not tested & trained
    examples = corpus.examples_of(task, vocabulary, 150, random.Random(0))
    texts = {tuple(example.tokens[:-1]) for example in examples}
    assert texts
    assert not texts & {tuple(row[row >= 0].tolist()) for row in prompts.clean}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_twice_gives_the_same_weights(architecture):
    recipe = Recipe(
        architecture=architecture, n_layers=1, n_heads=2, d_model=8, n_positions=8, steps=5,
        warm_up=2, batch=4,
    )  # fmt: skip
    examples = [Example([i, i + 1, i + 2], [2]) for i in range(6)]
    losses, weights = zip(*(trained(recipe, examples) for _ in range(2)), strict=True)
    assert losses[0] == losses[1]
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attn-2l", "gpt-2l"])
def test_retraining_a_model_gives_the_same_accuracy(name, vocabulary, tmp_path):
    """As its script does; a machine may round otherwise, so accuracies are compared."""
    examples = corpus.training_examples(vocabulary)
    card = train_model(name, examples, vocabulary.tokenizer, tmp_path)
    for task, accuracy in model_card(name)["accuracy"].items():
        assert card["accuracy"][task] == pytest.approx(accuracy, abs=0.01), task


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(ModelError, match="no embedded model is named 'tiny'; there are gpt-4l, "):
        zoo_path("tiny")


def test_a_card_is_read_as_data():
    for name in TRAINED:
        assert json.loads((zoo_path(name) / "card.json").read_text()) == model_card(name)


def trained(recipe, examples):
    model = new_model(8, recipe)
    losses = list(train(model, examples, recipe))
    return losses, [weights.detach() for weights in model.parameters()]
