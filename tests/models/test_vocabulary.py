import pytest

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer


@pytest.fixture
def vocabulary():
    return Vocabulary(word_tokenizer(["a", "cat", "sat", ".", ","]))


def test_punctuation_is_a_token_of_its_own(vocabulary):
    tokens = vocabulary.encode("a cat, sat.")
    assert [vocabulary.decode([token]) for token in tokens] == ["a", "cat", ",", "sat", "."]


def test_a_word_is_its_token_inside_a_text(vocabulary):
    assert vocabulary.word("cat") == vocabulary.encode("a cat")[-1]
    assert vocabulary.single_words(["sat", "dog", "cat sat", "cat"]) == ["sat", "cat"]


def test_the_first_token_comes_before_every_prompt(vocabulary):
    assert Vocabulary(vocabulary.tokenizer, bos=7).encode("a") == [7, *vocabulary.encode("a")]


def test_an_answer_of_several_tokens_is_refused(vocabulary):
    with pytest.raises(TaskError, match="the answer 'dog' is not a single token"):
        vocabulary.answer("dog")
