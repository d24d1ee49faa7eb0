import pytest

from circuitfind.errors import ModelError, TaskError
from circuitfind.models.loading import load_model, load_vocabulary
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


@pytest.mark.parametrize("name", ["ioi-small", "attn-2l", "or-gate"])
def test_a_vocabulary_is_that_of_the_loaded_model(name):
    alone, of_model = load_vocabulary(name), load_model(name).vocabulary
    text = "0 1" if name == "or-gate" else "Mary gave"
    assert alone is not None and alone.encode(text) == of_model.encode(text)
    assert alone.bos == of_model.bos and type(alone) is type(of_model)


def test_a_vocabulary_needs_no_weights(tmp_path):
    word_tokenizer(["a", "b"]).save_pretrained(tmp_path)
    assert load_vocabulary(tmp_path).encode("b a") == [2, 1]
    with pytest.raises(ModelError, match="there is no model at './nowhere': no such file"):
        load_vocabulary("./nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="tokenizer"):
        load_vocabulary(tmp_path / "empty")
