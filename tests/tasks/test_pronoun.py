import pytest
import torch
from transformers import AutoModelForCausalLM

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.tasks.pronoun import NOUNS, PRONOUN, write
from circuitfind.tasks.words import MEN, WOMEN

from .conftest import SHARED


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_has_the_gender_of_noun_and_name(vocabulary, seed):
    women, men = {*WOMEN, *(n[0] for n in NOUNS)}, {*MEN, *(n[1] for n in NOUNS)}
    she, he = vocabulary.answer("She"), vocabulary.answer("He")
    for pair in write(vocabulary, 40, seed):
        right, wrong = pair.answers[0][0], pair.wrong_answers[0][0]
        assert {right, wrong} == {she, he}
        for tokens, answer in ((pair.clean, right), (pair.corrupted, wrong)):
            words = set(vocabulary.decode(tokens).replace(".", " ").split())
            own, others = (women, men) if answer == she else (men, women)
            assert len(words & own) == 2
            assert not words & others


def test_she_and_he_are_equally_frequent(vocabulary):
    answers = [pair.answers[0][0] for pair in write(vocabulary, 60, seed=0)]
    assert answers.count(vocabulary.answer("She")) == 30


def test_the_named_positions_end_the_noun_and_the_name(vocabulary):
    for pair in write(vocabulary, 40, seed=1):
        noun, name = (
            vocabulary.decode(pair.clean[: pair.positions[slot] + 1]).split()[-1]
            for slot in ("noun", "name")
        )
        assert noun in {word for couple in NOUNS for word in couple}
        assert name in {*WOMEN, *MEN}
        assert pair.positions["end"] == len(pair.clean) - 1


def test_stories260k_prefers_the_right_pronoun(stories_vocabulary):
    model = AutoModelForCausalLM.from_pretrained(SHARED / "models" / "stories260k")
    prompts = PRONOUN.write_prompts(stories_vocabulary, 400, seed=5)
    with torch.no_grad():
        logits = prompts.at_steps(model(prompts.clean).logits)
    right, wrong = (logits.gather(-1, t) for t in (prompts.answers, prompts.wrong_answers))
    assert (right > wrong).float().mean() >= 0.99


def test_a_tokenizer_without_the_pronouns_is_refused():
    vocabulary = Vocabulary(word_tokenizer(["a", "girl", "boy"]))
    with pytest.raises(TaskError, match="'She' is not a single token"):
        write(vocabulary, 2, 0)
