import copy

import pytest

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.tasks.refusal import REFUSAL, VERBS

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
        assert [chat.decode(tokens) for tokens in pair.answers[0]] == ["I can't"]
        assert [chat.decode(tokens) for tokens in pair.wrong_answers[0]] == ["I can help"]


def test_answers_of_a_chat_model_are_read_where_the_assistant_s_turn_begins(chat):
    """The two share *I can* in GPT-2's tokens, so one run shows both."""
    pairs = REFUSAL.write_pairs(chat, 4, 0)
    prompts = REFUSAL.write_prompts(chat, 4, 0)
    for pair, clean, steps in zip(pairs, prompts.clean, prompts.steps, strict=True):
        start = len(pair.clean)
        assert chat.decode(clean[start : start + 2].tolist()) == "I can"
        assert steps.tolist() == [start - 1, start, start + 1]


def test_a_template_without_a_refusal_that_can_be_written_is_refused():
    tokenizer = word_tokenizer(["a", "help", "I", "can", *(word for c in VERBS for word in c)])
    tokenizer.chat_template = CHAT
    with pytest.raises(TaskError, match="the answer .I can't. cannot be written with this token"):
        REFUSAL.write_prompts(Vocabulary(tokenizer), 2, 0)


def test_the_verb_is_found_inside_a_chat_template(chat):
    verbs = {couple[0] for couple in VERBS}
    for pair in REFUSAL.write(chat, 20, 0):
        start = chat.decode(pair.clean[: pair.positions["verb"] + 1])
        assert any(start.endswith(verb) for verb in verbs)


def test_a_tokenizer_without_words_of_refusal_is_refused():
    vocabulary = Vocabulary(word_tokenizer(["a", "Sure", "steal", "wash", "paint"]))
    with pytest.raises(TaskError, match="needs one of Sorry, I, No as a single token"):
        REFUSAL.write_prompts(vocabulary, 2, 0)
