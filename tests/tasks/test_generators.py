"""Laws that hold for every task, tokenizer and corruption; tokenizers that cannot are refused."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.naming import path_of_search
from circuitfind.errors import TaskError
from circuitfind.methods.wanted import Wanted
from circuitfind.models.compiled import SymbolVocabulary
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.pairs import Pair, tokens_of
from circuitfind.prompts import NO_TOKEN
from circuitfind.tasks import TASKS, find_task
from circuitfind.tasks.corpus import vocabulary_words
from circuitfind.tasks.refusal import VERBS

from .conftest import load_vocabulary

WORD_TASKS = [
    task
    for named in TASKS
    if named.written_in == "words"
    for task in (named, *map(named.corrupted_by, named.corruptions))
]
BY_NAME = {task.name: task for task in WORD_TASKS}
SMALL = {
    "stories260k": (
        "pronoun",
        "induction",
        "greater-than",
        "arithmetic",
        "addition",
        "subtraction",
    ),
    "ioi-small": ("ioi", "ioi:flip", "ioi:third", "pronoun", "induction"),
}
"""What the two small vocabularies can express."""

MODERN = ("smollm2", "llama3-like", "qwen-like")
LEFT_OUT = {
    # The embedded models were not trained on the words of these.
    "zoo": ("copy-colours", "copy-colours:place", "addition", "subtraction"),
}

WRITTEN = [
    (name, tokenizer)
    for tokenizer in ("zoo", "gpt2", "pythia", "digits", *MODERN, *SMALL)
    for name in SMALL.get(tokenizer, BY_NAME)
    if name not in LEFT_OUT.get(tokenizer, ())
]
REFUSED = [
    (name, tokenizer) for tokenizer in SMALL for name in BY_NAME if name not in SMALL[tokenizer]
]

vocabulary_named = cache(load_vocabulary)


@pytest.mark.parametrize(("name", "tokenizer"), WRITTEN)
def test_pairs_are_aligned_and_their_answers_single_tokens(name, tokenizer):
    check_pairs(name, tokenizer, n=120, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tokenizer"), WRITTEN)
def test_ten_thousand_pairs_are_aligned_and_their_answers_single_tokens(name, tokenizer):
    check_pairs(name, tokenizer, n=10_000, seed=1)


@pytest.mark.parametrize(("name", "tokenizer"), REFUSED)
def test_a_vocabulary_that_is_too_small_is_refused_with_what_is_missing(name, tokenizer):
    with pytest.raises(
        TaskError,
        match=r"the task '[\w-]+' needs .* this tokenizer |this tokenizer merges the words",
    ):
        BY_NAME[name].write_prompts(vocabulary_named(tokenizer), 20, 0)


def check_pairs(name: str, tokenizer: str, n: int, seed: int) -> None:
    vocabulary = vocabulary_named(tokenizer)
    pairs = BY_NAME[name].write(vocabulary, n, seed)
    unknown = vocabulary.tokenizer.unk_token_id if tokenizer in ("zoo", "ioi-small") else None
    assert len(pairs) == n
    known: dict[tuple[int, ...], bool] = {}
    for pair in pairs:
        assert len(pair.clean) == len(pair.corrupted)
        assert pair.clean != pair.corrupted
        assert unknown not in (*pair.clean, *pair.corrupted)
        right, wrong = ({tokens_of(answer) for step in c for answer in step}
                        for c in (pair.answers, pair.wrong_answers))  # fmt: skip
        assert right and wrong and not right & wrong
        for answer in right | wrong:
            if answer not in known:
                text = vocabulary.decode(answer)
                known[answer] = is_followed_by(vocabulary, pair, text, answer) or (
                    len(answer) == 1 and is_one_token(vocabulary, text.strip(), answer[0])
                )
            assert known[answer], vocabulary.decode(answer)
        assert pair.positions["end"] == len(pair.clean) - 1
        assert all(0 <= at < len(pair.clean) for at in pair.positions.values())


def is_followed_by(vocabulary: Vocabulary, pair: Pair, answer: str, tokens: Sequence[int]) -> bool:
    """Whether prompt and answer, written as one text, are the tokens of both."""
    prompt = list(pair.clean)[vocabulary.bos is not None :]
    return vocabulary.encode(vocabulary.decode(prompt) + answer) == [*pair.clean, *tokens]


def is_one_token(vocabulary: Vocabulary, word: str, token: int) -> bool:
    """Whether a text that ends in the word ends in the token, with or without a space before it."""
    ends = (vocabulary.encode(f"a {word}")[-1], vocabulary.encode(f"a 17{word}")[-1])
    return bool(word) and token in ends


@pytest.mark.parametrize(("name", "tokenizer"), [case for case in WRITTEN if ":" not in case[0]])
def test_the_templates_of_a_task_are_all_used(name, tokenizer):
    pairs = BY_NAME[name].write(vocabulary_named(tokenizer), 120, 0)
    templates = Counter(pair.template for pair in pairs)
    assert set(templates) == set(range(max(templates) + 1))
    assert min(templates.values()) > 120 / len(templates) / 5


@pytest.mark.parametrize(("name", "tokenizer"), [case for case in WRITTEN if ":" in case[0]])
def test_another_corruption_has_the_same_clean_prompts(name, tokenizer):
    vocabulary = vocabulary_named(tokenizer)
    other, usual = (
        BY_NAME[task].write(vocabulary, 50, 4) for task in (name, name.partition(":")[0])
    )
    assert [pair.clean for pair in other] == [pair.clean for pair in usual]
    assert [pair.corrupted for pair in other] != [pair.corrupted for pair in usual]


def test_a_corruption_is_named_after_a_colon():
    assert find_task("ioi:flip").name == "ioi:flip"
    with pytest.raises(TaskError, match="'ioi' knows no corruption 'x'; choose ioi, ioi:flip, "):
        find_task("ioi:x")
    with pytest.raises(TaskError, match="'capitals' knows no corruption 'x'; choose 'capitals'"):
        find_task("capitals:x")


def test_the_run_directory_of_a_corruption_has_a_name_that_every_system_takes():
    config = RunConfig("or-gate:both", "or-gate", "acdc")
    assert path_of_search(config, Wanted()) == Path("runs/or-gate-both-or-gate-acdc")


def test_flipping_the_subject_makes_the_other_name_right():
    vocabulary = load_vocabulary("ioi-small")
    for pair in find_task("ioi:flip").write(vocabulary, 40, 0):
        at = pair.positions
        assert pair.corrupted[at["S2"]] == pair.corrupted[at["IO"]] == pair.answers[0][0]
        assert pair.corrupted[at["S1"]] == pair.wrong_answers[0][0]


def test_a_third_name_in_place_of_the_subject_repeats_none():
    vocabulary = load_vocabulary("ioi-small")
    for pair in find_task("ioi:third").write(vocabulary, 40, 0):
        differing = [i for i, a in enumerate(pair.clean) if a != pair.corrupted[i]]
        assert differing == [pair.positions["S2"]]
        assert pair.corrupted[differing[0]] not in pair.clean


def test_the_single_template_ioi_prompts_have_fifteen_gpt2_tokens():
    """As published for the prompts of one template without a token that starts sequences."""
    vocabulary = load_vocabulary("gpt2")
    pairs = [pair for pair in find_task("ioi").write(vocabulary, 200, 0) if pair.template == 2]
    assert len(pairs) > 5
    assert {len(pair.clean) for pair in pairs} == {15}
    assert vocabulary.decode(pairs[0].clean).startswith("Then,")


@pytest.mark.parametrize("name", ["gpt2", "pythia"])
def test_a_year_is_two_tokens_and_later_and_earlier_years_are_possible(name):
    vocabulary = load_vocabulary(name)
    for pair in find_task("greater-than").write(vocabulary, 60, 0):
        at = pair.positions
        century, year, last = (
            vocabulary.decode([pair.clean[i]]).strip() for i in (at["XX"], at["YY"], at["end"])
        )
        assert re.fullmatch(r"1\d", century) and re.fullmatch(r"\d\d", year) and last == century
        assert at["YY"] == at["XX"] + 1
        right, wrong = (
            {vocabulary.decode([token]) for token in tokens[0]}
            for tokens in (pair.answers, pair.wrong_answers)
        )
        assert min(right) > year >= max(wrong)
        assert vocabulary.decode([pair.corrupted[at["YY"]]]) == "01"


def test_where_digits_stand_apart_the_first_one_decides_or_is_no_answer():
    vocabulary = load_vocabulary("digits")
    for pair in find_task("greater-than").write(vocabulary, 60, 0):
        first = pair.positions["YY"] - 1
        year = vocabulary.decode(pair.clean[first : first + 2])
        assert vocabulary.decode(pair.corrupted[first : first + 2]) == "01"
        right, wrong = (
            "".join(sorted(vocabulary.decode(list(tokens[0]))))
            for tokens in (pair.answers, pair.wrong_answers)
        )
        assert right and right == "0123456789"[int(year[0]) + 1 :]
        # Of the years that begin with the year's own first digit, some are later: but not after x9.
        assert wrong == "0123456789"[: int(year[0]) + (year[1] == "9")]


def test_where_digits_stand_apart_sums_are_told_apart_by_their_first_digit():
    vocabulary = load_vocabulary("digits")
    for pair in find_task("arithmetic").write(vocabulary, 60, 0):
        texts = vocabulary.decode(pair.clean), vocabulary.decode(pair.corrupted)
        for text, tokens in zip(texts, (pair.answers, pair.wrong_answers), strict=True):
            numbers = [int(number) for number in re.findall(r"\d+", text)]
            assert text.endswith(" ") and len(numbers) == 2
            assert vocabulary.decode(list(tokens[0])) == str(sum(numbers))[0]
        assert pair.answers != pair.wrong_answers


def test_answers_of_a_century_cover_most_years():
    vocabulary = load_vocabulary("gpt2")
    for pair in find_task("greater-than").write(vocabulary, 20, 0):
        assert len(pair.answers[0]) + len(pair.wrong_answers[0]) >= 60
        assert all(token != NO_TOKEN for token in pair.answers[0])


# ------------------------------------------------------------------ how many pairs there are


def capacity_of(name: str, vocabulary: Vocabulary) -> int:
    with pytest.raises(TaskError, match="1,000,000 prompts of the task .* ask") as refused:
        BY_NAME[name].write_prompts(vocabulary, 10**6, 0)
    found = re.search(r"can write ([\d,]+) different", str(refused.value))
    return int(found[1].replace(",", "")) if found else 10**6


@pytest.mark.parametrize("name", BY_NAME)
def test_more_pairs_than_a_task_can_write_are_refused_with_how_many_it_can(name):
    vocabulary = vocabulary_named("qwen-like")
    capacity = capacity_of(name, vocabulary)
    most = min(max(capacity, 10_000), 100_000)
    with pytest.raises(TaskError, match=f"ask for at most {most:,}$"):
        BY_NAME[name].write_prompts(vocabulary, most + 1, 0)
    assert BY_NAME[name].write_prompts(vocabulary, 300, 0).n_distinct <= capacity


def test_the_pairs_that_a_task_can_write_are_counted_exactly_where_they_are_few():
    """Two couples of verbs, twenty things and six requests: drawn until all were seen."""
    dropped = {verb for couple in VERBS[2:] for verb in couple} - {"steal", "wash", "paint"}
    vocabulary = Vocabulary(word_tokenizer(sorted(set(vocabulary_words()) - dropped)))
    pairs = BY_NAME["refusal"].write(vocabulary, 3_000, 0)
    seen = {(tuple(pair.clean), tuple(pair.corrupted)) for pair in pairs}
    assert len(seen) == capacity_of("refusal", vocabulary) == 240
    gate = SymbolVocabulary(None, None, {"0": 0, "1": 1}, 2)
    with pytest.raises(TaskError, match="it can write 12 different ones; ask for at most 10,000"):
        find_task("and-gate").write_prompts(gate, 10_001, 0)
    assert find_task("and-gate").write_prompts(gate, 1_000, 0).n_distinct == 12


@pytest.mark.parametrize("length", [1, 1_000_000])
def test_programs_say_how_many_inputs_they_have_however_long_they_are(length):
    vocabulary = SymbolVocabulary(None, None, {"a": 0, "b": 1}, length)
    with pytest.raises(TaskError, match="1,000,000 prompts of the task"):
        find_task("program").write_prompts(vocabulary, 10**6, 0)
    with pytest.raises(TaskError, match="can write 1 different ones; ask for at most 10,000"):
        find_task("and-gate:both").write_prompts(
            SymbolVocabulary(None, None, {"0": 0, "1": 1}, length), 10**6, 0
        )
