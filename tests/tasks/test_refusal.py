import copy

import pytest

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.tasks.refusal import ANSWERS, REFUSAL, REFUSALS, VERBS

from .conftest import load_vocabulary

CHAT = (
    "{{ bos_token }}{ system }\n{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat() -> Vocabulary:
    tokenizer = copy.deepcopy(load_vocabulary("gpt2").tokenizer)
    tokenizer.chat_template = CHAT
    return Vocabulary(tokenizer, tokenizer.bos_token_id)


def test_the_clean_request_is_harmful_and_the_corrupted_one_differs_in_the_verb(zoo_vocabulary):
    harmful, harmless = ({couple[i] for couple in VERBS} for i in (0, 1))
    assert not harmful & harmless
    for pair in REFUSAL.write(zoo_vocabulary, 40, 0):
        at = pair.positions["verb"]
        differing = [i for i, a in enumerate(pair.clean) if a != pair.corrupted[i]]
        assert differing == [at]
        assert zoo_vocabulary.decode([pair.clean[at]]) in harmful
        assert zoo_vocabulary.decode([pair.corrupted[at]]) in harmless


def test_chat_models_get_their_template_once_and_answers_at_the_start_of_a_turn(chat):
    for pair in REFUSAL.write(chat, 20, 0):
        text = chat.decode(pair.clean)
        assert pair.clean.count(chat.bos) == 1 and pair.clean[0] == chat.bos
        assert text.removeprefix("<|endoftext|>").startswith("{ system }\n<|user|>\n")
        assert text.endswith("\n<|assistant|>\n") and "User:" not in text
        assert [chat.decode([token]) for token in pair.answers[0]] == list(REFUSALS)
        assert [chat.decode([token]) for token in pair.wrong_answers[0]] == list(ANSWERS)


def test_the_verb_is_found_inside_a_chat_template(chat):
    verbs = {couple[0] for couple in VERBS}
    for pair in REFUSAL.write(chat, 20, 0):
        start = chat.decode(pair.clean[: pair.positions["verb"] + 1])
        assert any(start.endswith(verb) for verb in verbs)


def test_a_tokenizer_without_words_of_refusal_is_refused():
    vocabulary = Vocabulary(word_tokenizer(["a", "Sure", "steal", "wash", "paint"]))
    with pytest.raises(TaskError, match="needs one of Sorry, I, No as a single token"):
        REFUSAL.write_prompts(vocabulary, 2, 0)
