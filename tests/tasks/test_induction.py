import pytest

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.tasks.induction import PERIOD, STEPS, write


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_what_followed_the_first_time(vocabulary, seed):
    for pair in write(vocabulary, 20, seed):
        assert len(pair.steps) == STEPS
        for step, (answer,) in zip(pair.steps, pair.answers, strict=True):
            earlier = pair.clean.index(pair.clean[step])
            assert earlier < step
            assert pair.clean[earlier + 1] == answer


@pytest.mark.parametrize("seed", range(5))
def test_the_corrupted_prompt_repeats_nothing_and_keeps_no_first_token(vocabulary, seed):
    start = 0 if vocabulary.bos is None else 1
    for pair in write(vocabulary, 20, seed):
        assert len(set(pair.corrupted)) == len(pair.corrupted)
        first = slice(start, start + PERIOD)
        assert not set(pair.clean[first]) & set(pair.corrupted[first])
        assert pair.clean[start + PERIOD :] == pair.corrupted[start + PERIOD :]


def test_the_wrong_answer_stands_where_the_right_one_stood(vocabulary):
    for pair in write(vocabulary, 20, seed=0):
        for (right,), (wrong,) in zip(pair.answers, pair.wrong_answers, strict=True):
            assert pair.corrupted[pair.clean.index(right)] == wrong


def test_the_named_positions_point_at_both_occurrences(vocabulary):
    for pair in write(vocabulary, 20, seed=0):
        at = pair.positions
        assert at["end"] == len(pair.clean) - 1
        assert pair.clean[at["first"]] == pair.clean[at["end"]]
        assert pair.clean[at["first+1"]] == pair.answers[-1][0]
        assert pair.clean.index(pair.clean[at["repeat"]]) == at["repeat"] - PERIOD


def test_every_token_is_a_whole_lower_case_word(vocabulary):
    for pair in write(vocabulary, 5, seed=0):
        for token in pair.clean[0 if vocabulary.bos is None else 1 :]:
            word = vocabulary.decode([token]).strip()
            assert word.isalpha() and word.islower()
            assert vocabulary.word(word) == token


def test_a_tokenizer_with_too_few_words_is_refused():
    vocabulary = Vocabulary(word_tokenizer(["one", "two", "three"]))
    with pytest.raises(TaskError, match="needs 20 words that are single tokens .* has 3"):
        write(vocabulary, 2, 0)
