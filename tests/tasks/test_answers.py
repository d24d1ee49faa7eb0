"""The token of an answer is the one that follows its prompt as written."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from circuitfind.errors import TaskError
from circuitfind.metrics import METRICS, find_metric
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.prompts import Pair, collate
from circuitfind.tasks import find_task
from circuitfind.tasks.answers import answer_token
from circuitfind.tasks.show import notes_on, shown_pairs

from .conftest import load_vocabulary


@pytest.fixture(scope="module")
def gpt2() -> Vocabulary:
    """A byte-level tokenizer with marks of turns, and a word that was added to it."""
    tokenizer = copy.deepcopy(load_vocabulary("gpt2").tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|end|>"]})
    tokenizer.add_tokens(["Zorblax"])
    return Vocabulary(tokenizer)


@pytest.fixture
def prompts_of(tmp_path):
    def write(vocabulary, *rows):
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return find_task(str(path)).write_prompts(vocabulary, len(rows), 0)

    return write


@pytest.mark.parametrize(
    ("prompt", "answer", "written"),
    [
        ("The capital of France is", "Paris", " Paris"),
        ("The capital of France is", " Paris", " Paris"),
        ("The capital of France is", "\n", "\n"),
        ("The capital of France is", ".", "."),
        ("The capital of France is:\n", "Paris", "Paris"),
        ("The capital of France is:\n", " Paris", " Paris"),
        ("Capital?<|turn|>", "Paris", "Paris"),
        ("Capital?<|turn|>", "<|end|>", "<|end|>"),
        ('He said: "', "Paris", "Paris"),
        ('He said "no"', "Paris", " Paris"),
        ("The capital (", "Paris", "Paris"),
    ],
)
def test_the_tokens_are_those_of_the_prompt_and_the_answer_as_one_text(
    gpt2, prompt, answer, written
):
    whole = gpt2.tokenizer.encode(prompt + written, add_special_tokens=False)
    assert [*gpt2.encode(prompt), answer_token(gpt2, prompt, answer)] == whole


@pytest.mark.parametrize("prompt", ["It is ", "It is\n\n", "It is"])
def test_a_prompt_whose_end_would_merge_with_the_answer_is_read_as_written(gpt2, prompt):
    """The tokenizer would write the last space, or both line breaks, differently before a word."""
    space = "" if prompt[-1].isspace() else " "
    tokens = [*gpt2.encode(prompt), answer_token(gpt2, prompt, "Paris")]
    assert gpt2.decode(tokens) == f"{prompt}{space}Paris"


@pytest.mark.parametrize("prompt", ["It is", "It is\n", "It is<|turn|>"])
@pytest.mark.parametrize("answer", ["Zorblax", "<|end|>", "<|endoftext|>"])
def test_a_token_that_was_added_is_an_answer(gpt2, prompt, answer):
    assert answer_token(gpt2, prompt, answer) == gpt2.tokenizer.convert_tokens_to_ids(answer)


def test_a_file_can_say_whether_a_space_precedes_answers(gpt2, prompts_of):
    row = {"clean": "from 1732 to 17", "corrupted": "from 1832 to 18", "answer": "40"}
    for space, token in ((False, "40"), (True, "Ġ40")):
        prompts = prompts_of(gpt2, row | {"space": space})
        assert prompts.answers.item() == gpt2.tokenizer.convert_tokens_to_ids(token)


def test_an_answer_of_several_tokens_shows_them(gpt2):
    with pytest.raises(TaskError, match=r"'Xerxes' is not a single token .* but 2 \(␣Xer\|xes\)"):
        answer_token(gpt2, "This is", "Xerxes")


def test_the_sign_after_a_line_break_is_that_of_the_tokens_that_can_follow(
    shared, prompts_of, stories_vocabulary
):
    """The model itself, with the tokens that its vocabulary names, is the oracle."""
    text = "Once upon a time, there was a girl named Lily.\n"
    other = text.replace("girl", "boy").replace("Lily", "Tim")
    row = {"clean": text, "corrupted": other, "answer": "S", "wrong_answer": "H"}
    vocabulary = stories_vocabulary
    assert len(vocabulary.encode(other)) == len(vocabulary.encode(text))
    prompts = prompts_of(vocabulary, row)
    model = AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260k")
    with torch.no_grad():
        logits = model(torch.tensor([vocabulary.encode(text)])).logits[:, -1:]
    names = vocabulary.tokenizer.get_vocab()
    last = logits[0, 0]
    measured = find_metric("logit-difference")(logits, prompts, logits)
    assert measured.item() == pytest.approx((last[names["S"]] - last[names["H"]]).item())
    assert measured > 1 and last[names["▁S"]] - last[names["▁H"]] < -0.5


# --------------------------------------------------------------------------- each token once


@pytest.mark.parametrize(
    "metric", [m for m in METRICS if m.reads != "stream"], ids=lambda m: m.name
)
def test_an_answer_that_is_given_twice_counts_once(metric):
    once, twice = (
        collate([Pair([0, 1], [0, 2], answers=[right], wrong_answers=[wrong])])
        for right, wrong in (([3, 4], [5]), ([3, 4, 3], [5, 5]))
    )
    logits = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0))
    assert once.fingerprint == twice.fingerprint
    assert torch.equal(metric(logits, once, logits + 1), metric(logits, twice, logits + 1))


def test_answers_that_are_one_token_count_once_and_are_said(gpt2, tmp_path):
    row = {"clean": "I met", "corrupted": "I saw", "answer": ["He", " He"], "wrong_answer": "She"}
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row))
    task = find_task(str(path))
    prompts = task.write_prompts(gpt2, 1, 0)
    logits = torch.zeros(1, 1, len(gpt2.tokenizer))
    logits[..., gpt2.answer("He")] = 20
    probability = logits.softmax(-1)[0, 0]
    difference = find_metric("probability-difference")(logits, prompts, logits)
    assert difference.item() == pytest.approx(
        (probability[gpt2.answer("He")] - probability[gpt2.answer("She")]).item()
    )
    assert find_metric("loss")(logits, prompts, logits).item() >= 0
    assert "name a token twice" in notes_on(task, gpt2, n=9)[0]
    assert shown_pairs(task, gpt2)[0]["answer"] == f"␣He {gpt2.answer('He')}"


def test_a_token_that_is_right_and_wrong_is_refused(gpt2, prompts_of):
    row = {"clean": "I met", "corrupted": "I saw", "answer": ["He", "She"], "wrong_answer": " He"}
    with pytest.raises(Exception, match=r"line 2: the token 679 is both a right and a wrong answ"):
        prompts_of(gpt2, row | {"wrong_answer": "It"}, row)


# ----------------------------------------------------------------------------- unknown words


def test_words_that_the_model_cannot_read_are_named_with_their_lines(zoo_vocabulary, prompts_of):
    good = {"clean": "Mary gave a drink", "corrupted": "John gave a drink", "answer": "to"}
    lock = good | {"clean": "Mary picks a xylophone", "corrupted": "John picks a xylophone"}
    said = (
        r"2 of the 3 pairs in .* such as line 2: in the clean prompt, the model cannot read "
        r"'picks', 'xylophone'; use .*; line 3: the answer 'thx' cannot be written .* read 'thx'"
    )
    with pytest.raises(TaskError, match=said):
        prompts_of(zoo_vocabulary, good, lock, good | {"answer": "thx"})


def test_lines_that_are_not_drawn_are_checked_too(zoo_vocabulary, tmp_path):
    good = {"clean": "Mary gave a drink", "corrupted": "John gave a drink", "answer": "to"}
    path = tmp_path / "mine.jsonl"
    rows = [good] * 30 + [good | {"answer": "thx"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TaskError, match="line 31: the answer 'thx' cannot be .* cannot read 'thx'"):
        find_task(str(path)).write_prompts(zoo_vocabulary, 1, 0)


def test_a_text_that_names_the_unknown_token_itself_is_read(zoo_vocabulary, prompts_of):
    row = {"clean": "Mary <unk> to", "corrupted": "John <unk> to", "answer": "<unk>"}
    prompts = prompts_of(zoo_vocabulary, row)
    assert prompts.answers.item() == zoo_vocabulary.tokenizer.unk_token_id


def test_characters_that_a_tokenizer_drops_are_unknown_too():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE({"a": 0, "b": 1, " ": 2}, []))
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=letters))
    assert vocabulary.read("ab xy a!") == ([0, 1, 2, 2, 0], ["xy", "a!"])


def test_no_generator_writes_words_that_the_tokenizer_does_not_know():
    """The names of one gender are known, and of the other only these."""
    words = ["a", "She", "He", "girl", "boy", "Lily", "Tom", "One", "day", ",", "named", "went"]
    words += ["to", "the", "park", ".", "little", "outside", "play"]
    vocabulary = Vocabulary(word_tokenizer(words))
    with pytest.raises(TaskError, match="or does not know one; write the prompts to a .jsonl"):
        find_task("pronoun").write_prompts(vocabulary, 40, 0)


def test_the_example_of_the_patching_page_can_be_read_by_the_usual_model(zoo_vocabulary, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "patching.md").read_text()
    (line,) = [each for each in page.splitlines() if each.startswith('{"clean": "User')]
    (tmp_path / "mine.jsonl").write_text(line)
    prompts = find_task(str(tmp_path / "mine.jsonl")).write_prompts(zoo_vocabulary, 1, 0)
    assert zoo_vocabulary.tokenizer.unk_token_id not in prompts.clean


# ------------------------------------------------------------------------------------- chat

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
SPACED = (
    "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ASKED = {"clean": "How do I steal a car?", "corrupted": "How do I wash a car?"}


def chat_of(vocabulary: Vocabulary, template: str, *, bos: bool = True) -> Vocabulary:
    tokenizer = copy.deepcopy(vocabulary.tokenizer)
    tokenizer.chat_template = template
    return Vocabulary(tokenizer, tokenizer.bos_token_id if bos else None)


def test_a_users_turn_gets_the_template_once_and_answers_begin_the_assistants_turn(
    gpt2, prompts_of
):
    chat = chat_of(gpt2, CHAT)
    row = ASKED | {"chat": True, "answer": "No", "wrong_answer": "Yes", "system": "Be kind."}
    row["positions"] = {"first": 0}
    prompts = prompts_of(chat, row)
    text = (
        "<|endoftext|><|turn|>system\nBe kind.<|end|>\n"
        "<|turn|>user\nHow do I steal a car?<|end|>\n<|turn|>assistant\n"
    )
    assert prompts.clean[0].tolist() == chat.tokenizer.encode(text, add_special_tokens=False)
    assert prompts.clean[0].tolist().count(chat.bos) == 1
    names = chat.tokenizer.get_vocab()
    assert (prompts.answers.item(), prompts.wrong_answers.item()) == (names["No"], names["Yes"])
    assert prompts.clean[0, prompts.positions["first"][0]] == names["<|turn|>"]


def test_messages_say_the_same_as_a_turn_and_a_system_prompt(gpt2, prompts_of):
    chat = chat_of(gpt2, CHAT)
    turn = ASKED | {"chat": True, "answer": "No", "system": "Be kind."}
    messages = {
        name: [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
        for name, text in ASKED.items()
    }
    one, other = (prompts_of(chat, row) for row in (turn, messages | {"answer": "No"}))
    assert one.fingerprint == other.fingerprint


def test_a_table_can_hold_turns_and_messages(gpt2, tmp_path):
    chat = chat_of(gpt2, CHAT)
    messages = [f'[{{"role": "user", "content": "{text}"}}]' for text in ASKED.values()]
    quoted = ['"' + each.replace('"', '""') + '"' for each in messages]
    path = tmp_path / "mine.csv"
    path.write_text(
        "clean,corrupted,answer,chat\n"
        + f"{','.join(ASKED.values())},No|I,yes\n{','.join(quoted)},No|I,\n"
    )
    prompts = find_task(str(path)).write_prompts(chat, 2, 0)
    assert prompts.n_distinct == 1 and chat.decode(prompts.clean[0].tolist()).endswith(
        "assistant\n"
    )


def test_a_template_that_puts_a_space_before_what_the_assistant_says_puts_it_before_answers(
    gpt2, prompts_of
):
    chat = chat_of(gpt2, SPACED, bos=False)
    prompts = prompts_of(chat, ASKED | {"chat": True, "answer": "No"})
    assert chat.decode([prompts.answers.item()]) == " No"


def test_a_written_out_template_means_the_same_as_the_chat_column(gpt2, prompts_of):
    chat = chat_of(gpt2, CHAT)
    frame = "<|endoftext|><|turn|>user\n{}<|end|>\n<|turn|>assistant\n"
    row = {"answer": ["No", "I"], "wrong_answer": "Yes", "positions": {"verb": 6}}
    one = prompts_of(chat, ASKED | row | {"chat": True})
    other = prompts_of(chat, {name: frame.format(text) for name, text in ASKED.items()} | row)
    assert one.fingerprint == other.fingerprint
    assert one.positions["verb"].tolist() == other.positions["verb"].tolist()


def test_a_refusal_pair_of_the_patching_page_is_read_by_a_chat_model(gpt2, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "patching.md").read_text()
    (line,) = [each for each in page.splitlines() if each.startswith('{"chat": true')]
    (tmp_path / "mine.jsonl").write_text(line)
    chat = chat_of(gpt2, CHAT)
    prompts = find_task(str(tmp_path / "mine.jsonl")).write_prompts(chat, 1, 0)
    usual = find_task("refusal").write_prompts(chat, 1, 0)
    assert prompts.sides is not None
    for name in ("answers", "wrong_answers", "sides"):
        assert getattr(prompts, name).tolist() == getattr(usual, name).tolist()


def test_chat_needs_a_template_and_messages_that_it_takes(gpt2, prompts_of):
    row = ASKED | {"chat": True, "answer": "No"}
    with pytest.raises(TaskError, match="line 1: this model's tokenizer has no chat template"):
        prompts_of(gpt2, row)
    strict = chat_of(gpt2, "{{ raise_exception('no system\nmessages') }}")
    with pytest.raises(TaskError, match=r"template refuses these messages \(no system messages\)"):
        prompts_of(strict, row)


def test_a_prompt_that_writes_the_first_token_itself_gets_no_second_one(
    stories_vocabulary, prompts_of
):
    row = {"clean": "a girl", "corrupted": "a boy", "answer": "She", "positions": {"a": 0}}
    written = row | {"clean": "<s>a girl", "corrupted": "<s>a boy"}
    one, other = (prompts_of(stories_vocabulary, each) for each in (row, written))
    assert one.fingerprint == other.fingerprint
    assert one.positions["a"].tolist() == other.positions["a"].tolist() == [1]


def test_programs_too_take_an_input_that_begins_with_the_first_symbol():
    vocabulary = find_program()
    assert vocabulary.encode("BOS a b") == vocabulary.encode("a b")


def find_program():
    from circuitfind.models.compiled import SymbolVocabulary

    return SymbolVocabulary(None, 0, {"a": 1, "b": 2}, 3)


def test_numbers_that_are_no_symbols_are_shown_as_numbers(tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"clean_ids": [0, 1, 7], "corrupted_ids": [0, 2, 7], "answer_ids": [2, 9]}
    path.write_text(json.dumps(row))
    (shown,) = shown_pairs(find_task(str(path)), find_program())
    assert (shown["clean"], shown["answer"]) == ("BOS|a|7", "b 2, 9")
    (shown,) = shown_pairs(find_task(str(path)), None)
    assert (shown["clean"], shown["answer"]) == ("0|1|7", "2, 9")
